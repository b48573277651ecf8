"""What a step says of itself, on its way to the host without making the host wait for the device.

A GPU works behind the host, and a host that asks it for a number waits until all that is queued is done; meanwhile
nothing new is queued. So a step's loss, norm and wishes are copied in the background, and read once the next step is
queued: the host is never more than one step ahead, and the GPU never without work. On a CPU nothing is behind, and they
are read at once. The values are the same on all ranks (an all-reduce made them) and read at the same steps, so that
all ranks decide alike.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpt3core import pulse

LAG = {"cpu": 0, "cuda": 1}  # steps that the host may be ahead of what it has read


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a step was, and what it said."""

    step: int  # done, this one included
    tokens: int
    lr: float
    loss: float  # nats per token
    grad_norm: float  # before clipping
    stop: bool  # some rank was asked to stop
    due: bool  # some rank finds a checkpoint due
    beside: Mapping[str, Any] = field(default_factory=dict)  # what the host knew of it

    def __getitem__(self, column: str) -> Any:
        """The value of a column of the metrics."""
        return self.beside[column] if column in self.beside else getattr(self, column)

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Readback:
    """The steps whose numbers are on their way, oldest first."""

    def __init__(self, device: str) -> None:
        """Read behind by as many steps as the device's kind asks for."""
        self.lag = LAG.get(device, 0)
        self.fresh = True  # no step has been read: what is compiled at the first one may not be there yet
        self._waiting: deque[tuple[dict[str, Any], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, said: Tensor, **known: Any) -> None:
        """Take in a step: ``said`` is loss, norm, and above zero where some rank wants to stop, and to save."""
        arrives = None
        if said.is_cuda:
            there = torch.empty(said.shape, dtype=said.dtype, pin_memory=True)
            said = there.copy_(said, non_blocking=True)
            arrives = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrives.record()
        self._waiting.append((known, said, arrives))

    def read(self, *, everything: bool = False) -> list[Told]:
        """The steps that may be read now: all, or all but the last ``lag``."""
        found = []
        while len(self._waiting) > (0 if everything else self.lag):
            known, said, arrives = self._waiting.popleft()
            if arrives is not None:
                first = pulse.busy("in its first step") if self.fresh else contextlib.nullcontext()
                # a rank that does not come is waited for here, not where that is queued; the host computes nothing
                with first, pulse.at_gate(works=True):
                    arrives.synchronize()
            self.fresh = False
            loss, norm, stop, due = said.tolist()
            found.append(Told(**known, loss=loss, grad_norm=norm, stop=stop > 0, due=due > 0))
        return found
