"""AdamW with decay on matrices only, and the schedule in tokens (Brown et al. 2020, appendix B)."""

from __future__ import annotations

import math

import torch
from torch import nn

from gpt3core.spec import OptimSpec


def build(model: nn.Module, spec: OptimSpec) -> torch.optim.AdamW:
    """AdamW over the model's parameters: weight decay on matrices and embeddings, none on biases and norms."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True)


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
