"""Gradients of replicas are averaged while the step's last backward pass still goes on, the last parameters' first.

A bucket of parameters is summed once all of its gradients are there, and those after it are under way (Li et al. 2020,
arXiv 2006.15704, section 3.2). The buckets are those of ``mesh.sum_``, and so are the bits. Two are under way at most,
so that no copy of all gradients is made.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gpt3core import pulse
from gpt3core.parallel.mesh import Mesh, buckets, give_back

UNDER_WAY = 2  # buckets


class Averaging:
    """What of a model's gradients is averaged, in the step that is being made."""

    def __init__(self, model: nn.Module, mesh: Mesh) -> None:
        """Watch the gradients of a model, of which every rank of a mesh has a whole one."""
        self.done = False  # with the last step's
        self._group, self._size = mesh.group("replicate"), mesh.degree("replicate")
        self._buckets = list(buckets(model.parameters()))
        self._bucket = {p: number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._missing: list[int] = []  # gradients, of each bucket; none is counted outside of a step's last pass
        self._next = 0  # buckets that are not under way yet
        self._under_way: deque[tuple[list[Tensor], Tensor, Any]] = deque()
        for p in self._bucket:
            p.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    def begin(self, *, last: bool) -> None:
        """A backward pass follows, and whether it is the step's last, whose gradients are to be averaged."""
        self.done, self._next = False, len(self._buckets)
        self._missing = [len(bucket) for bucket in self._buckets] if last else []

    def end(self) -> None:
        """Wait for all of it, after a backward pass.

        Raises:
            RuntimeError: when another rank is gone.
        """
        self.done, self._missing = bool(self._missing), []
        assert not (self.done and self._next), "a parameter without a gradient"
        while self._under_way:
            self._take()

    def _arrived(self, parameter: Tensor) -> None:
        if not self._missing:
            return
        self._missing[self._bucket[parameter]] -= 1
        while self._next and not self._missing[self._next - 1]:
            self._next -= 1
            gradients = [p.grad for p in self._buckets[self._next] if p.grad is not None]
            if len(self._under_way) == UNDER_WAY:
                self._take()
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self._under_way.append((gradients, flat, dist.all_reduce(flat, group=self._group, async_op=True)))

    def _take(self) -> None:
        gradients, flat, sum_ = self._under_way.popleft()
        with pulse.at_gate():  # of a rank that waits here it is sure that it waits
            sum_.wait()
        give_back(flat, gradients, self._size)
