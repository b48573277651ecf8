"""Workers on their nodes: made, kept warm for a while, ended; nothing here waits."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.cluster.connect import Connection
from sweeps.cluster.hearing import Member
from sweeps.cluster.threads import Threads
from sweeps.scheduling.inventory import Resources

# one arena for all threads: every run has a new thread, and an arena each would keep memory; large pages: 3-8% faster
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"}
CODE = Path(__file__).resolve().parent.parent.parent
IDLE_SECONDS = 30.0  # a worker without work keeps its cores and GPUs from others for so long
ORPHAN_SECONDS = 40.0  # a worker with neither work nor driver ends itself after so long: later than one that is kept
RELEASE_SECONDS = 0.3  # the cluster's view of free resources is that old
THREADS = 8  # calls to the cluster under way at once: each mostly waits, and the driver's turns want the processor too


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaving:
    """Workers that are being ended, and what their nodes will have back."""

    run_id: str  # whose workers they were, if they had work
    places: Sequence[tuple[str, Resources]]  # node and shape of each
    ended: Future[float]  # when they were

    def seen(self, by: float) -> bool:
        """Whether a look of the cluster at that time shows what they held as free."""
        return self.ended.done() and by >= self.ended.result() + RELEASE_SECONDS


class Pool:
    """The workers of one sweep that have no work, and the hands that make and end all of them."""

    def __init__(self, connection: Connection, orphan_seconds: float) -> None:
        self._ray, self._orphan_seconds = connection.ray, orphan_seconds
        self._worker: Any = None
        self.hands = Threads(THREADS, "launch")
        self.idle: list[Member] = []
        self.leaving: list[Leaving] = []
        self.idle_seconds = IDLE_SECONDS  # for which a worker without work is kept
        self._lock = threading.Lock()  # of ``leaving``

    def warm(self, node: str, shape: Resources) -> Member | None:
        """A worker without work, of this shape on this node."""
        for member in self.idle:
            if member.node == node and member.shape == shape:
                self.idle.remove(member)
                return member
        return None

    def single(self, node: str, shape: Resources, entry: str) -> Member:
        """A new worker on a node; it is born as soon as there is room."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return self.member(node, shape, strategy, entry=entry)

    def member(self, node: str, shape: Resources, strategy: Any, *, name: str = "", **words: str) -> Member:
        """A new worker; ``words`` are of ``Worker``. Takes a call to the cluster."""
        if self._worker is None:
            from sweeps.cluster.worker import Worker

            self._worker = self._ray.remote(Worker)
        variables = {"OMP_NUM_THREADS": str(max(1, int(shape.cpus))), "PYTHONPATH": python_path(), **MALLOC}
        actor = self._worker.options(
            name=name or new_name(),
            lifetime="detached",
            max_restarts=0,
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": variables},
        ).remote(orphan_seconds=self._orphan_seconds, **words)
        return Member(actor=actor, node=node, shape=shape)

    def keep(self, member: Member, run_id: str) -> None:
        """Keep a sound worker warm for the next run of its shape, now that the end of this one is known."""
        member.actor.clear.remote(run_id)
        member.idle = time.monotonic()
        self.idle.append(member)

    def end(self, members: Iterable[Member], group: Any = None, run_id: str = "") -> None:
        """End workers, whatever they do, and remove their placement group; a thread does it meanwhile."""
        if (gone := list(members)) or group is not None:
            self.hands.submit(self._end, gone, group, self._note_leaving(gone, run_id))

    def end_here(self, members: Sequence[Member], group: Any, run_id: str) -> None:
        """The same by the calling thread, which is one of the hands."""
        self._end(members, group, self._note_leaving(members, run_id))

    def _note_leaving(self, members: Sequence[Member], run_id: str) -> Future[float]:
        gone = Leaving(run_id=run_id, places=[(m.node, m.shape) for m in members], ended=Future())
        with self._lock:
            self.leaving.append(gone)
        return gone.ended

    def _end(self, members: Sequence[Member], group: Any, ended: Future[float]) -> None:
        for member in members:
            with contextlib.suppress(Exception):  # it is gone, or the cluster is
                self._ray.kill(member.actor)
        if group is not None:
            with contextlib.suppress(Exception):
                self._ray.util.remove_placement_group(group)
        ended.set_result(time.monotonic())

    def make_room(self, nodes: Iterable[str]) -> None:
        """End idle workers on these nodes: the scheduler counts what they hold as free."""
        named = set(nodes)
        self._end_idle(lambda member: member.node in named)

    def room(self, run_id: str, nodes: Collection[str], now: float) -> bool:
        """Whether the cluster knows what was given back on these nodes, and nothing is left of a run's last start."""
        return all(
            gone.seen(now) or (gone.run_id != run_id and not any(node in nodes for node, _ in gone.places))
            for gone in self.leaving
        )

    def forget(self, looked: float) -> None:
        """Leave out what a look of the cluster at that time shows as free."""
        with self._lock:
            self.leaving = [gone for gone in self.leaving if not gone.seen(looked)]

    def tidy(self) -> None:
        """End idle workers after a while, and drop those that are dead."""
        now = time.monotonic()
        self.idle = [m for m in self.idle if m.report.state not in ("lost", "unstarted")]
        self._end_idle(lambda member: now - member.idle > self.idle_seconds)

    def close(self) -> None:
        """End the workers without work, and wait for the hands to be empty."""
        self._end_idle(lambda member: True)
        self.hands.close()

    def _end_idle(self, which: Callable[[Member], bool]) -> None:
        gone = [member for member in self.idle if which(member)]
        self.idle = [member for member in self.idle if member not in gone]
        self.end(gone)


def new_name() -> str:
    """A name for a worker, by which the next driver finds it."""
    return f"worker-{uuid.uuid4().hex[:12]}"


def python_path() -> str:
    """Workers import the code that the driver runs, wherever it came from."""
    inherited = os.environ.get("PYTHONPATH", "")
    return f"{CODE}:{inherited}" if inherited else str(CODE)
