"""Which waiting run starts now, and why the others wait: a pure function of the cluster, the queue and what is running.

Ray starts any gang that fits, in no order, so a large gang behind a stream of small runs may never start, and an
impossible one waits for ever without an error. Here the queue is ordered (priority, age, then longest first); the
first run that does not fit gets a reservation at the earliest time the running ones leave room, and others may start
ahead of it only if they end before that time or stay off its nodes (EASY backfill, Lifka 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeps.scheduling.capacity import Capacity, Taken
from sweeps.scheduling.inventory import EPSILON, Allocation, Inventory, Resources


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that waits. A gang of ``workers`` starts all at once or not at all, each ``together`` of them on a node."""

    run_id: str
    worker: Resources
    workers: int = 1
    together: int = 1
    seconds: float = math.inf  # estimate of its length; unknown is never backfilled ahead of a reservation
    priority: int = 0
    queued: float = 0.0

    @property
    def kind(self) -> Kind:
        """What its fit depends on."""
        return self.worker, self.workers, self.together


@dataclass(frozen=True, kw_only=True)
class Running:
    """A run that holds resources until about ``ends``."""

    run_id: str
    worker: Resources
    allocation: Allocation
    ends: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start this run, with this many workers on these nodes."""

    run_id: str
    allocation: Allocation


@dataclass(frozen=True, kw_only=True)
class Hold:
    """This run waits; ``eta`` is the time at which it is expected to start, if that can be told."""

    run_id: str
    reason: str
    eta: float | None = None


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """This run can never start on this cluster, nor on the largest that it was."""

    run_id: str
    reason: str


Decision = Start | Hold | Refuse
Kind = tuple[Resources, int, int]  # shape of a worker, their number, and how many of them share a node


def decide(
    now: float,
    inventory: Inventory,
    queue: Sequence[Job],
    running: Sequence[Running],
    largest: Inventory | None = None,
) -> list[Decision]:
    """One decision for every queued run, in the order of the queue.

    Args:
        now: and the runs' ends in seconds of one clock.
        largest: the largest cluster seen: what fits it and not the nodes that are alive now is held, not refused.
    """
    turn = _Pass(now, inventory, running, largest or inventory)
    ordered = sorted(queue, key=lambda j: (-j.priority, j.queued, -j.seconds if j.seconds < math.inf else 0, j.run_id))
    return [turn.decision(job) for job in ordered]


def impossible(kind: Kind, inventory: Inventory) -> str | None:
    """Why runs of a kind can never start on a cluster, or None."""
    if Capacity.of(inventory).holds(*kind):
        return None
    nodes = ", ".join(sorted({str(node.total) for node in inventory})) or "nothing"
    return (
        f"needs {_describe(kind)}, which this cluster of {len(inventory)} node{'s' * (len(inventory) != 1)} "
        f"({nodes} a node) can never offer (a gang takes one node, or equal shares of several): add nodes, or ask for "
        "fewer by placement.workers, placement.gpus and placement.cpus"
    )


@dataclass(kw_only=True)
class _Reservation:
    """The first run that did not fit: when it will, and what it leaves free then."""

    run_id: str
    time: float
    spare: Capacity
    both: Capacity  # free now and spare then: where a long run may start ahead of it


@dataclass
class _Pass:
    """One look at the queue. Within it room only shrinks: what did not fit once does not fit again."""

    now: float
    inventory: Inventory
    running: Sequence[Running]
    largest: Inventory
    reservation: _Reservation | None = None
    impossible: dict[Kind, Refuse | Hold | None] = field(default_factory=dict)
    full: dict[Kind, str] = field(default_factory=dict)  # kinds for which nothing is free, and why they wait
    late: set[Kind] = field(default_factory=set)  # kinds that would delay the reservation wherever they start

    def __post_init__(self) -> None:
        self.free = Capacity.of(self.inventory)
        self.held: list[tuple[Running, dict[str, Taken]]] = []
        for run in self.running:
            self.held.append((run, self.free.take(run.worker, run.allocation)))

    def decision(self, job: Job) -> Decision:
        kind = job.kind
        if (reason := self.full.get(kind)) is not None and kind not in self.late:
            return Hold(run_id=job.run_id, reason=reason)
        if kind not in self.impossible:
            self.impossible[kind] = self._impossible(kind)
        if (verdict := self.impossible[kind]) is not None:
            return type(verdict)(run_id=job.run_id, reason=verdict.reason)
        ahead = self.reservation is None or self._ends_before(job, self.reservation)
        if not ahead and kind in self.late:
            return self._delaying(job)
        allocation = None if kind in self.full else self.free.place(*kind)
        if allocation is None:
            return self._hold(job)
        if not ahead and not self._beside(kind, allocation):
            assert self.reservation is not None
            allocation = self.reservation.both.place(*kind)
            if allocation is None:
                self.late.add(kind)
                return self._delaying(job)
        return self._start(job, allocation)

    def _impossible(self, kind: Kind) -> Refuse | Hold | None:
        """Why runs of a kind cannot start here, whatever runs: for ever, or until nodes come back."""
        if (reason := impossible(kind, self.largest)) is not None:
            return Refuse(run_id="", reason=reason)
        if impossible(kind, self.inventory) is None:
            return None
        alive = f"{len(self.inventory)} node{'s' * (len(self.inventory) != 1)}"
        reason = f"needs {_describe(kind)}: more than the {alive} alive now can offer; waits for nodes to come back"
        return Hold(run_id="", reason=reason)

    def _ends_before(self, job: Job, reservation: _Reservation) -> bool:
        return self.now + job.seconds <= reservation.time + EPSILON and reservation.time < math.inf

    def _beside(self, kind: Kind, allocation: Allocation) -> bool:
        """Whether the reserved run would not miss what an allocation takes."""
        assert self.reservation is not None
        spare = self.reservation.spare.free
        return all(spare[name].workers(kind[0]) >= workers for name, workers in allocation.items())

    def _start(self, job: Job, allocation: Allocation) -> Start:
        started = Running(run_id=job.run_id, worker=job.worker, allocation=allocation, ends=self.now + job.seconds)
        self.held.append((started, self.free.take(job.worker, allocation)))
        if self.reservation is not None:
            if started.ends > self.reservation.time + EPSILON:
                self.reservation.spare.take(job.worker, allocation)
            for name in allocation:
                self.reservation.both.free[name] = self.free.free[name].least(self.reservation.spare.free[name])
            self.reservation.both.changed(allocation)
        return Start(run_id=job.run_id, allocation=allocation)

    def _hold(self, job: Job) -> Hold:
        """The first that does not fit gets a reservation, the others wait behind it."""
        kind = job.kind
        needs = _describe(kind)
        first = job.run_id if self.reservation is None else self.reservation.run_id
        self.full[kind] = f"needs {needs}, behind {first}"
        if self.reservation is not None:
            return Hold(run_id=job.run_id, reason=self.full[kind])
        time, spare = self._earliest(job)
        self.reservation = _Reservation(run_id=job.run_id, time=time, spare=spare, both=self.free.least(spare))
        reason = f"first in the queue, needs {needs}{_at(time, self.now)}"
        return Hold(run_id=job.run_id, reason=reason, eta=time if time < math.inf else None)

    def _earliest(self, job: Job) -> tuple[float, Capacity]:
        """When the running runs leave room for a job at the earliest, and what is free beside it then."""
        then = self.free.copy()
        by_end = sorted(self.held, key=lambda held: held[0].ends)
        for i, (run, taken) in enumerate(by_end):
            then.give(run.worker, run.allocation, taken)
            more = i + 1 < len(by_end) and by_end[i + 1][0].ends <= max(self.now, run.ends)
            if not more and then.holds(*job.kind):
                break
        allocation = then.place(*job.kind)
        assert allocation is not None, "an empty cluster has room for what is not impossible on it"
        then.take(job.worker, allocation)
        return max(self.now, run.ends), then

    def _delaying(self, job: Job) -> Hold:
        assert self.reservation is not None
        first = f"{self.reservation.run_id}, which is first in the queue{_at(self.reservation.time, self.now)}"
        return Hold(run_id=job.run_id, reason=f"would delay {first}")


def _describe(kind: Kind) -> str:
    shape, workers, together = kind
    groups = f" (each {together} on one node)" if together > 1 else ""
    return str(shape) if workers == 1 else f"{workers} workers of {shape} at once{groups}"


def _at(time: float, now: float) -> str:
    return f", expected in {max(0.0, time - now):.0f} s" if time < math.inf else ""
