"""Data parallelism: every rank takes its rows of the same global batch, gradients are averaged.

The batch, the schedule and the order of the data are the run's, so the number of ranks changes the cost of a point
and not the point (sums in another order differ in the last bits).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process's place among the ranks of a run."""

    rank: int = 0
    size: int = 1

    def rows(self, batch: np.ndarray) -> np.ndarray:
        """This rank's rows of a global batch."""
        if len(batch) % self.size:
            raise ValueError(f"a batch of {len(batch)} sequences does not divide over {self.size} data-parallel ranks")
        return batch[self.rank :: self.size]

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)])
        dist.all_reduce(votes)
        return bool(votes.item())

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(rank: int, size: int, address: str, device: str) -> Iterator[Group]:
    """Join the run's process group for the block (gloo on CPUs, NCCL beside it on GPUs)."""
    if size > 1:
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"tcp://{address}", rank=rank, world_size=size)
    try:
        yield Group(rank=rank, size=size)
    finally:
        if size > 1:
            dist.destroy_process_group()
