"""AdamW with decay on matrices only (Brown et al. 2020, appendix B), and factors by parameter (``model.mup``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gpt3core.model.mup import Factors
from gpt3core.model.parameters import named
from gpt3core.spec import OptimSpec

FACTOR = "lr_factor"  # of a group, on the learning rate of the schedule


def build(model: nn.Module, spec: OptimSpec) -> torch.optim.AdamW:
    """AdamW over the model's parameters: weight decay on matrices and embeddings, none on biases and norms.

    Args:
        model: its ``spec`` says by which factors a parameter differs in learning rate and decay.
    """
    described: Any = model.spec
    factors: Factors = described.factors
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}  # matrices first
    for name, p in sorted(named(model), key=lambda entry: entry[1].dim() < 2):
        decay = spec.weight_decay * factors.decay(name) if p.dim() >= 2 else 0.0
        alike.setdefault((factors.lr(name), decay), []).append(p)
    groups = [{"params": found, FACTOR: lr, "weight_decay": decay} for (lr, decay), found in alike.items()]
    eps = spec.eps * factors.eps
    adam = torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=eps, fused=True)
    set_rate(adam, spec.lr)
    return adam


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step, in each group times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[FACTOR]
