"""The dynamic loss scale of fp16: gradients are computed so much larger, so that small ones are no zeros.

Micikevicius et al. 2018, arXiv 1710.03740, section 3.2, with the constants of torch's ``GradScaler``: halved where a
gradient overflows, whose update is left out, and doubled after 2,000 steps without. ``GradScaler`` itself looks for
infinities in what one process holds, and ranks of a pipeline hold other weights; here the global norm tells, which all
ranks have alike. A scale is a power of two, so that scaling and its undoing round nothing in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpt3core.parallel.parts import local

FIRST = 2.0**16
LEAST = 1.0  # a gradient that overflows at this scale does so without any
STEPS = 2000  # without an overflow, after which the scale is doubled


class LossScale:
    """The scale of a run, and how many steps it has held."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Begin, or go on from what a checkpoint keeps."""
        self.value = float((state or {}).get("value", FIRST))
        self.held = int((state or {}).get("held", 0))

    @property
    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain data."""
        return {"value": self.value, "held": self.held}

    def undo(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Scale a model's gradients back, in place; the loss without the scale."""
        torch._foreach_mul_([local(p.grad) for p in model.parameters() if p.grad is not None], 1 / self.value)
        return loss / self.value

    def fits(self) -> None:
        """Note a step without overflow."""
        self.held += 1
        if self.held == STEPS:
            self.value, self.held = 2 * self.value, 0

    def overflows(self) -> bool:
        """Lower the scale for an overflow; False where it is the least already."""
        self.held = 0
        lowered = self.value > LEAST
        self.value = max(LEAST, self.value / 2)
        return lowered
