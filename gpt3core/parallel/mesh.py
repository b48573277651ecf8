"""The processes of a run: who this one is among them, and what they do together.

Ranks lie on axes, outermost first: pipeline, replicate, shard, context, tensor; so the ranks of a tensor group are
neighbours, on one node where a node has a whole number of groups. Replicate x shard are the data-parallel ranks: each
takes its rows of the same global batch, and gradients are averaged. The batch, the learning rate and the order of the
data are the run's, so a layout changes the cost of a point and not the point (sums in another order differ in the last
bits).

What ranks tell one another besides tensors is JSON, and goes through the CPU. Every collective has a timeout, and one
that breaks raises PeerError: the reason is with the rank that broke it.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _abort_process_group as abort_groups
from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout

from gpt3core import errors, pulse
from gpt3core.errors import PeerError, StoppedError
from gpt3core.parallel import interface, watch
from gpt3core.parallel.layout import Layout

AXES = ("pipeline", "replicate", "shard", "context", "tensor")
COLLECTIVE_SECONDS = 600.0
PATIENT_SECONDS = 2 * pulse.LONG_SECONDS  # the same where a watch names the rank that does not come long before
BUCKET = 1 << 24  # values reduced at a time, so that no copy of all gradients is made
KINDS = {kind.__name__: kind for kind in (*vars(errors).values(), ValueError) if isinstance(kind, type)}

ALONE = Layout()

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """This process's place among the ranks of a run; alone, the only one."""

    rank: int = 0
    world_size: int = 1
    layout: Layout = ALONE
    planned: bool = False  # whether somebody chose the layout, its micro-batch too
    devices: DeviceMesh | None = None  # the axes of more than one rank, by name
    ends: dist.ProcessGroup | None = None  # of the first and last stage, on those, in a pipeline

    def degree(self, axis: str) -> int:
        """The ranks along an axis."""
        return degrees(self.layout)[axis]

    def place(self, axis: str) -> int:
        """This rank's place along an axis."""
        return 0 if self.degree(axis) == 1 else int(self._axes.get_local_rank(axis))

    def group(self, axis: str) -> dist.ProcessGroup:
        """The ranks along an axis, of which this is one."""
        return self._axes.get_group(axis)

    def axes(self, *names: str) -> DeviceMesh:
        """The device mesh of axes that have more than one rank."""
        return self._axes[names if len(names) > 1 else names[0]]

    @property
    def _axes(self) -> DeviceMesh:
        assert self.devices is not None, "a run of one rank has no axes"
        return self.devices

    @property
    def data_rank(self) -> int:
        """The place among the data-parallel ranks."""
        return self.place("replicate") * self.degree("shard") + self.place("shard")

    @property
    def data_size(self) -> int:
        """The number of data-parallel ranks, each with rows of its own."""
        return self.layout.data

    @property
    def terms(self) -> int:
        """The number of ranks whose gradients of the same weight are averaged: those with rows or positions."""
        return self.layout.data * self.layout.context

    @property
    def first_stage(self) -> bool:
        """Whether this rank holds the first stage of the pipeline."""
        return self.place("pipeline") == 0

    @property
    def last_stage(self) -> bool:
        """Whether this rank holds the last stage of the pipeline."""
        return self.place("pipeline") == self.degree("pipeline") - 1

    def rows(self, batch: np.ndarray) -> np.ndarray:
        """This replica's rows of a global batch."""
        if len(batch) % self.data_size:
            raise ValueError(
                f"a batch of {len(batch)} sequences does not divide over {self.data_size} data-parallel ranks: "
                "choose optim.batch_tokens or the workers so that it does"
            )
        return batch[self.data_rank :: self.data_size]

    def mean_(self, tensors: Iterable[Tensor], axis: str = "replicate") -> None:
        """Replace each tensor by its mean over the ranks of an axis."""
        self.sum_(tensors, axis, divide=self.degree(axis))

    def sum_(self, tensors: Iterable[Tensor], axis: str, *, divide: int = 1) -> None:
        """Replace each tensor by its sum over the ranks of an axis, a bucket of them at a time."""
        if self.degree(axis) > 1:
            sum_(tensors, self.group(axis), divide=divide)

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor([float(flag)])
        with explained():
            dist.all_reduce(votes)
            return bool(votes.item())

    def broadcast(self, data: T) -> T:
        """Rank 0's plain data on every rank."""
        return self.gather(data if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def gather(self, data: T) -> list[T]:
        """Every rank's plain data (what JSON holds; NaN too), in their order, on every rank."""
        if self.world_size == 1:
            return [data]
        mine = torch.frombuffer(bytearray(json.dumps(data).encode()), dtype=torch.uint8)
        with explained():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
            dist.all_gather(sizes, torch.tensor([len(mine)]))
            longest = int(max(sizes))
            found = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.world_size)]
            dist.all_gather(found, torch.nn.functional.pad(mine, (0, longest - len(mine))))
        return [json.loads(f[: int(n)].numpy().tobytes()) for f, n in zip(found, sizes, strict=True)]

    def each(self, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and gather the plain results; a failure on any rank is one on all of them.

        Raises:
            Exception: on the rank that failed its own; on the others the first of these, of the same kind where it is
                one of isoflop's, with the rank's number before the sentence.
        """
        if self.world_size == 1:
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

    def spread(
        self, count: int, work: Callable[[int], T], *, costs: Sequence[float] | None = None, asks: Any = None
    ) -> list[T]:
        """Do so many pieces of work, each on one replica; the plain results of all, in their order, on every rank.

        Args:
            costs: of each piece, where neighbours have something in common: a replica then takes a run of them.
            asks: the model that pieces ask, by all ranks of a replica (``whole.Whole.in_step``); without, the first
                of them works alone.
        """
        if self.world_size == 1:
            return [work(number) for number in range(count)]
        mine = range(self.data_rank, count, self.data_size) if costs is None else self._run_of(costs)
        leads = all(self.place(axis) == 0 for axis in ("pipeline", "context", "tensor"))  # of those with the same rows

        def own() -> dict[str, T]:
            with pulse.apart(), getattr(asks, "in_step", contextlib.nullcontext)():
                done = {str(number): work(number) for number in mine if leads or asks is not None}
            return done if leads else {}

        found = {number: done for one in self.each(own) for number, done in one.items()}
        return [found[str(number)] for number in range(count)]

    def _run_of(self, costs: Sequence[float]) -> list[int]:
        """This replica's pieces, of runs that cost about the same: a piece is of the run that its middle is in."""
        total, ends = math.fsum(costs), itertools.accumulate(costs)
        middles = (end - cost / 2 for end, cost in zip(ends, costs, strict=True))
        return [n for n, middle in enumerate(middles) if int(self.data_size * middle / total) == self.data_rank]

    def first(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 only; its plain result on every rank, or its failure."""
        return self.each(work if self.rank == 0 else lambda: None)[0]  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank and keep the result there; a failure on any rank is one on all of them."""
        done: list[T] = []
        self.each(lambda: done.append(work()))
        return done[0]


def degrees(layout: Layout) -> dict[str, int]:
    """The ranks along each axis, outermost first."""
    split = layout.data // layout.shard, layout.shard
    return dict(zip(AXES, (layout.pipeline, *split, layout.context, layout.tensor), strict=True))


def sum_(tensors: Iterable[Tensor], group: dist.ProcessGroup | None, *, divide: int = 1) -> None:
    """Replace each tensor by its sum over a group's ranks."""
    with pulse.at_gate():  # one on every rank, however many buckets each has
        for bucket in buckets(tensors):
            flat = torch.cat([t.flatten() for t in bucket])
            with _told_apart():
                dist.all_reduce(flat, group=group)
            give_back(flat, bucket, divide)
            pulse.beat()


def give_back(flat: Tensor, bucket: list[Tensor], divide: int) -> None:
    """Put a sum over ranks, or their mean, where its parts came from."""
    if divide > 1:
        flat /= divide
    for tensor, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
        tensor.copy_(part.view_as(tensor))


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, a few at a time."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Around a collective: say of one that breaks what it means."""
    with pulse.at_gate(), _told_apart():
        yield


@contextlib.contextmanager
def passing() -> Iterator[None]:
    """Around a pass with collectives inside, between which a rank is at work: the same of those that break."""
    with pulse.at_gate(works=True), _told_apart(others=True):
        yield


@contextlib.contextmanager
def _told_apart(*, others: bool = False) -> Iterator[None]:
    """Say of a broken collective what it means.

    Args:
        others: whether there are RuntimeErrors of other things too; then one of a collective is known by its words.
    """
    try:
        yield
    except RuntimeError as error:
        if others and not any(errors.COLLECTIVE.search(str(e)) for e in _causes(error)):
            raise
        said = next((str(e) for e in _causes(error) if errors.COLLECTIVE.search(str(e))), str(error))
        raise PeerError(
            "another rank of this run failed, died or stopped answering, so this one stops too "
            f"({' '.join(said.split()):.200})"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def joined(
    rank: int,
    world_size: int,
    address: str,
    device: str,
    *,
    layout: Layout | None = None,
    seconds: float = COLLECTIVE_SECONDS,
    hang_seconds: float | None = None,
) -> Iterator[Mesh]:
    """Join the run's processes for the block (gloo on CPUs, NCCL beside it on GPUs).

    Args:
        address: ``host:port`` of rank 0's node, ``[host]:port`` for IPv6.
        layout: how the run is cut over its ranks; by default they are data-parallel.
        seconds: after which a collective that some rank does not come to fails.
        hang_seconds: after which a rank that does not come is named (``gpt3core.parallel.watch``), to whoever runs the
            run; a collective then waits for PATIENT_SECONDS. None for no watch.

    Raises:
        ValueError: when the layout is of another number of ranks, or another rank's differs.
        PeerError: when the others do not come, or one of them breaks a collective in the block.
    """
    planned, layout = layout is not None, layout or Layout(data=world_size)
    if world_size == 1:
        _require_size(layout, world_size)
        yield Mesh(layout=layout, planned=planned)
        return
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=seconds)
    with _groups(), interface.towards(address.rpartition(":")[0]):
        with explained():
            place: dict[str, Any] = {"init_method": f"tcp://{address}", "rank": rank, "world_size": world_size}
            dist.init_process_group(backend, timeout=timeout, **place)
        if hang_seconds is not None:
            timeout = datetime.timedelta(seconds=PATIENT_SECONDS)
            set_timeout(timeout)
        with watch.watched(rank, world_size, hang_seconds, pulse.HERE.give_up):
            require_same(Mesh(rank=rank, world_size=world_size), "layout", vars(layout))
            _require_size(layout, world_size)
            with explained():
                devices = _axes(layout, device, timeout)
                ends = _ends(layout, timeout)
            yield Mesh(rank=rank, world_size=world_size, layout=layout, planned=planned, devices=devices, ends=ends)


@contextlib.contextmanager
def _groups() -> Iterator[None]:
    """Leave the process groups that are made in the block, however it ends."""
    failed = True
    try:
        yield
        failed = False
    except StoppedError:
        failed = False
        raise
    finally:
        if dist.is_initialized():
            if failed:  # others may never come to what a GPU waits for, and destroying waits for that
                with contextlib.suppress(Exception):  # what is told is why the run failed
                    abort_groups()
            else:
                dist.destroy_process_group()


def _require_size(layout: Layout, world_size: int) -> None:
    if layout.world_size != world_size:
        raise ValueError(
            f"a layout of {layout.describe()} is of {layout.world_size} ranks, and this run has {world_size}: give "
            "degrees whose product is the number of workers"
        )


def _axes(layout: Layout, device: str, timeout: datetime.timedelta) -> DeviceMesh:
    """The device mesh of the axes that have more than one rank."""
    wide = {axis: degree for axis, degree in degrees(layout).items() if degree > 1}
    devices = init_device_mesh(device, tuple(wide.values()), mesh_dim_names=tuple(wide))
    for axis in wide:  # torch gives a new group half an hour
        set_timeout(timeout, devices.get_group(axis))
    return devices


def _ends(layout: Layout, timeout: datetime.timedelta) -> dist.ProcessGroup | None:
    """The group of the first and last stage that this rank is one of, if it is; every rank helps to make all."""
    if layout.pipeline == 1:
        return None
    stage, mine = layout.world_size // layout.pipeline, None
    for first in range(stage):
        ranks = [first, first + (layout.pipeline - 1) * stage]
        made = dist.new_group(ranks, timeout=timeout)
        mine = made if dist.get_rank() in ranks else mine
    return mine


def require_same(mesh: Mesh, what: str, mine: dict[str, Any]) -> None:
    """Refuse to go on where ranks differ in something that all must have alike.

    Raises:
        ValueError: on every rank, with the first rank that differs from rank 0 and what differs.
    """
    told = mesh.gather(mine)
    for rank, other in enumerate(told):
        if other != told[0]:
            found = ", ".join(f"{n} {told[0].get(n)} and {v}" for n, v in other.items() if v != told[0].get(n))
            raise ValueError(
                f"rank 0 and rank {rank} of this run disagree about its {what} ({found:.200}): nothing was trained; "
                "start all of them with the same isoflop and the same command"
            )
