"""AdamW with decay on matrices only (Brown et al. 2020, appendix B)."""

from __future__ import annotations

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
