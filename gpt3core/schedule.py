"""The learning rate, in tokens (Brown et al. 2020, appendix B). No torch: forecasts of curves read it too."""

from __future__ import annotations

import math

from gpt3core.spec import OptimSpec


def learning_rate(spec: OptimSpec, step: int) -> float:
    """The learning rate of a step, by the tokens that are trained when it has ended.

    Linear warm-up to ``lr`` over ``warmup_tokens``. Then, to ``final_fraction`` of it at ``decay_tokens`` and constant
    after: a cosine, or under ``wsd`` constant up to ``stable_tokens`` and from there a line or one less the square root
    (Hägele et al. 2024, arXiv 2405.18392, section 3). Under ``linear`` a line all the way (Radford et al. 2018, section
    4.1).
    """
    seen = spec.ramp.tokens_at(step + 1)
    if seen < spec.warmup_tokens:
        return spec.lr * seen / spec.warmup_tokens
    begin = spec.stable_tokens if spec.schedule == "wsd" else spec.warmup_tokens
    if seen <= begin:
        return spec.lr
    progress = min(1.0, (seen - begin) / max(1, spec.decay_tokens - begin))
    return spec.lr * (spec.final_fraction + (1 - spec.final_fraction) * _left(spec, progress))


def _left(spec: OptimSpec, progress: float) -> float:
    """What is left of the way down, from 1 to 0, at a share of the decay."""
    if spec.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - (math.sqrt(progress) if spec.decay_shape == "1-sqrt" else progress)
