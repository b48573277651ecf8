"""The processes of a run: who this one is among them, and what they do together.

So far every rank is a data-parallel one: it takes its rows of the same global batch, and gradients are averaged. The
batch, the schedule and the order of the data are the run's, so the number of ranks changes the cost of a point and not
the point (sums in another order differ in the last bits).

What ranks tell one another besides tensors is JSON, and goes through the CPU. Every collective has a timeout, and one
that breaks raises PeerError: the reason is with the rank that broke it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from gpt3core import errors
from gpt3core.errors import PeerError

COLLECTIVE_SECONDS = 600.0
KINDS = {kind.__name__: kind for kind in (*vars(errors).values(), ValueError) if isinstance(kind, type)}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """This process's place among the ranks of a run; alone, the only one."""

    rank: int = 0
    size: int = 1
    devices: DeviceMesh | None = None  # its axes by name, where torch.distributed is on

    @property
    def data_rank(self) -> int:
        """The place along the data-parallel axis."""
        return 0 if self.devices is None else int(self.devices.get_local_rank("data"))

    @property
    def data_size(self) -> int:
        """The number of replicas, each with rows of its own."""
        return 1 if self.devices is None else int(self.devices["data"].size())

    def rows(self, batch: np.ndarray) -> np.ndarray:
        """This replica's rows of a global batch."""
        if len(batch) % self.data_size:
            raise ValueError(
                f"a batch of {len(batch)} sequences does not divide over {self.data_size} data-parallel ranks: "
                "choose optim.batch_tokens or the workers so that it does"
            )
        return batch[self.data_rank :: self.data_size]

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the replicas."""
        if self.devices is None:
            return
        tensors = list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        with _explained():
            dist.all_reduce(flat, group=self.devices.get_group("data"))
        flat /= self.data_size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)])
        with _explained():
            dist.all_reduce(votes)
            return bool(votes.item())

    def broadcast(self, data: T) -> T:
        """Rank 0's plain data on every rank."""
        return self.gather(data if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def gather(self, data: T) -> list[T]:
        """Every rank's plain data (what JSON holds; NaN too), in their order, on every rank."""
        if self.size == 1:
            return [data]
        mine = torch.frombuffer(bytearray(json.dumps(data).encode()), dtype=torch.uint8)
        with _explained():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(mine)]))
            longest = int(max(sizes))
            found = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(found, torch.nn.functional.pad(mine, (0, longest - len(mine))))
        return [json.loads(f[: int(n)].numpy().tobytes()) for f, n in zip(found, sizes, strict=True)]

    def each(self, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and gather the plain results; a failure on any rank is one on all of them.

        Raises:
            Exception: on the rank that failed its own; on the others the first of these, of the same kind where it is
                one of isoflop's, with the rank's number before the sentence.
        """
        if self.size == 1:
            return [work()]
        done, failure = None, None
        try:
            done = work()
        except PeerError:
            raise
        except Exception as error:
            failure = error
        mine = {"done": done, "failed": failure and [type(failure).__name__, str(failure)]}
        told: list[dict[str, Any]] = self.gather(mine)
        if failure is not None:
            raise failure
        for rank, found in enumerate(told):
            if found["failed"]:
                kind, sentence = found["failed"]
                raise KINDS.get(kind, PeerError)(f"rank {rank}: {sentence}")
        return [found["done"] for found in told]

    def first(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 only; its plain result on every rank, or its failure."""
        return self.each(work if self.rank == 0 else lambda: None)[0]  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank and keep the result there; a failure on any rank is one on all of them."""
        done: list[T] = []
        self.each(lambda: done.append(work()))
        return done[0]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say of a broken collective what it means."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(
            f"another rank of this run failed, died or stopped answering, so this one stops too ({error!s:.200})"
        ) from error


@contextlib.contextmanager
def joined(
    rank: int, world_size: int, address: str, device: str, *, seconds: float = COLLECTIVE_SECONDS
) -> Iterator[Mesh]:
    """Join the run's processes for the block (gloo on CPUs, NCCL beside it on GPUs).

    Args:
        address: ``host:port`` of rank 0's node.
        seconds: after which a collective that some rank does not come to fails.

    Raises:
        PeerError: when the others do not come, or one of them breaks a collective in the block.
    """
    if world_size == 1:
        yield Mesh()
        return
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        with _explained():
            dist.init_process_group(
                backend,
                init_method=f"tcp://{address}",
                rank=rank,
                world_size=world_size,
                timeout=datetime.timedelta(seconds=seconds),
            )
            devices = init_device_mesh(device, (world_size,), mesh_dim_names=("data",))
        yield Mesh(rank=rank, size=world_size, devices=devices)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
