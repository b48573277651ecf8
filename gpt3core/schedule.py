"""The learning rate, in tokens (Brown et al. 2020, appendix B). No torch: forecasts of curves read it too."""

from __future__ import annotations

import math

from gpt3core.spec import OptimSpec


def learning_rate(spec: OptimSpec, tokens: int) -> float:
    """The learning rate of the step that starts after ``tokens`` tokens and trains one batch.

    Linear warm-up to ``lr`` over ``warmup_tokens``, cosine to ``final_fraction`` of it at ``decay_tokens``, constant
    after.
    """
    seen = tokens + spec.batch_tokens
    if seen < spec.warmup_tokens:
        return spec.lr * seen / spec.warmup_tokens
    progress = min(1.0, (seen - spec.warmup_tokens) / max(1, spec.decay_tokens - spec.warmup_tokens))
    return spec.lr * (spec.final_fraction + (1 - spec.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
