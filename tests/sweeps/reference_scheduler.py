"""The scheduler as one would write it down: every node looked at for every run; what the fast one must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.scheduling.inventory import EPSILON, Allocation, Inventory, Resources
from sweeps.scheduling.scheduler import Decision, Hold, Job, Refuse, Running, Start

Free = dict[str, Resources]


def decide(now: float, inventory: Inventory, queue: Sequence[Job], running: Sequence[Running]) -> list[Decision]:
    """One decision for every queued run."""
    totals: Free = {node.name: node.total for node in inventory}
    running = list(running)
    free = _without(totals, running)
    reservation: _Reservation | None = None
    decisions: list[Decision] = []
    for job in sorted(
        queue, key=lambda j: (-j.priority, j.queued, -j.seconds if j.seconds < math.inf else 0, j.run_id)
    ):
        if (reason := impossible(job, inventory)) is not None:
            decisions.append(Refuse(run_id=job.run_id, reason=reason))
            continue
        allocation = place(job, free)
        if allocation is not None and reservation is not None and not reservation.allows(job, allocation, now):
            beside = place(job, {name: _least(free[name], reservation.spare[name]) for name in free})
            if beside is None:
                reason = f"would delay {reservation.run_id}, which is first in the queue{_at(reservation.time, now)}"
                decisions.append(Hold(run_id=job.run_id, reason=reason))
                continue
            allocation = beside
        if allocation is not None:
            started = Running(run_id=job.run_id, worker=job.worker, allocation=allocation, ends=now + job.seconds)
            running.append(started)
            free = _without(totals, running)
            if reservation is not None and started.ends > reservation.time + EPSILON:
                reservation = reservation.taken(started)
            decisions.append(Start(run_id=job.run_id, allocation=allocation))
        elif reservation is None:
            reservation = _reserve(job, now, totals, running)
            eta = reservation.time if reservation.time < math.inf else None
            wait = f"first in the queue, needs {_describe(job)}{_at(reservation.time, now)}"
            decisions.append(Hold(run_id=job.run_id, reason=wait, eta=eta))
        else:
            decisions.append(Hold(run_id=job.run_id, reason=f"needs {_describe(job)}, behind {reservation.run_id}"))
    return decisions


def impossible(job: Job, inventory: Inventory) -> str | None:
    """Why a run can never start on this cluster, or None."""
    if place(job, {node.name: node.total for node in inventory}) is not None:
        return None
    nodes = ", ".join(sorted({str(node.total) for node in inventory})) or "nothing"
    return (
        f"needs {_describe(job)}, which this cluster of {len(inventory)} node{'s' * (len(inventory) != 1)} "
        f"({nodes} a node) can never offer (a gang takes one node, or equal shares of several): add nodes, or ask for "
        "fewer by placement.workers, placement.gpus and placement.cpus"
    )


def place(job: Job, free: Free) -> Allocation | None:
    """Nodes for a gang: one node if it fits on one (the fullest that can), else whole nodes with equal shares."""
    shape = job.worker
    capacity = {name: _capacity(left, shape) for name, left in free.items()}
    single = [name for name, k in capacity.items() if k >= job.workers]
    if single:
        best = min(single, key=lambda name: (capacity[name], free[name].gpus, free[name].cpus, name))
        return {best: job.workers}
    most = max(capacity.values(), default=0)
    for share in range(most, 0, -1):  # the fewest nodes that carry equal shares
        if job.workers % share:
            continue
        able = sorted((k, name) for name, k in capacity.items() if k >= share)
        count = job.workers // share
        if len(able) >= count:
            return {name: share for _, name in able[:count]}
    return None


def _capacity(left: Resources, shape: Resources) -> int:
    limits = [
        math.floor((have + EPSILON) / need)
        for have, need in ((left.cpus, shape.cpus), (left.gpus, shape.gpus))
        if need > 0
    ]
    return max(0, min(limits, default=0))


def _without(totals: Free, running: Sequence[Running]) -> Free:
    free = dict(totals)
    for run in running:
        for name, workers in run.allocation.items():
            if name in free:
                free[name] = free[name].minus(run.worker.times(workers))
    return free


@dataclass(frozen=True, kw_only=True)
class _Reservation:
    run_id: str
    time: float
    spare: Free  # what the reserved run leaves free at that time

    def allows(self, job: Job, allocation: Allocation, now: float) -> bool:
        """Whether a run may start ahead of the reserved one."""
        if now + job.seconds <= self.time + EPSILON and self.time < math.inf:
            return True
        return all(self.spare[name].fits(job.worker.times(workers)) for name, workers in allocation.items())

    def taken(self, run: Running) -> _Reservation:
        spare = dict(self.spare)
        for name, workers in run.allocation.items():
            spare[name] = spare[name].minus(run.worker.times(workers))
        return _Reservation(run_id=self.run_id, time=self.time, spare=spare)


def _reserve(job: Job, now: float, totals: Free, running: Sequence[Running]) -> _Reservation:
    """The earliest time at which the running runs leave room for a job, and what is free beside it then."""
    for time in sorted({max(now, run.ends) for run in running}):
        free = _without(totals, [run for run in running if run.ends > time])
        allocation = place(job, free)
        if allocation is not None:
            held = [Running(run_id=job.run_id, worker=job.worker, allocation=allocation)]
            return _Reservation(run_id=job.run_id, time=time, spare=_without(free, held))
    return _Reservation(run_id=job.run_id, time=math.inf, spare={name: Resources() for name in totals})


def _least(a: Resources, b: Resources) -> Resources:
    return Resources(cpus=min(a.cpus, b.cpus), gpus=min(a.gpus, b.gpus))


def _describe(job: Job) -> str:
    return str(job.worker) if job.workers == 1 else f"{job.workers} workers of {job.worker} at once"


def _at(time: float, now: float) -> str:
    return f", expected in {max(0.0, time - now):.0f} s" if time < math.inf else ""
