"""The scheduler as one would write it down: every node looked at for every run; what the fast one must equal.

Preemption is by brute force over all sets of runs. Whole GPUs only: fractions are packed by device elsewhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sweeps.scheduling.inventory import ACCELERATOR, EPSILON, Allocation, Inventory, Resources
from sweeps.scheduling.jobs import Decision, Hold, Job, Preempt, Refuse, Rules, Running, Start
from sweeps.scheduling.ledger import HASTE
from sweeps.scheduling.scheduler import OVERDUE, PLAIN, STOP_SECONDS, WORTH_SECONDS

Free = dict[str, Resources]


def decide(
    now: float, inventory: Inventory, queue: Sequence[Job], running: Sequence[Running], rules: Rules = PLAIN
) -> list[Decision]:
    """One decision for every queued run, and who must stop for the first that waits."""
    ordered = sorted(queue, key=lambda j: _order(j, rules))
    plain = _Plain(now, inventory, list(running), rules, wanted(inventory, queue))
    decisions: dict[str, Decision] = {}
    for job in ordered:
        decisions[job.run_id] = plain.decision(job)
        if plain.reserved:
            break
    rest = ordered[len(decisions) :]
    for job in [job for job in rest if plain.wide(job)][:1]:
        plain.reserve_too(job)
    for job in sorted(rest, key=lambda j: _ahead(j, rules)):
        decisions[job.run_id] = plain.decision(job)
    return [*[decisions[job.run_id] for job in ordered], *plain.preempted]


def _order(job: Job, rules: Rules) -> tuple[float, int, float, str]:
    length = -job.seconds if job.seconds < math.inf else 0
    return job.queued - rules.patience * job.priority, job.turn, length, job.run_id


def _ahead(job: Job, rules: Rules) -> tuple[float, int, float, str]:
    queued = job.queued - rules.patience * job.priority + min(HASTE * job.seconds, rules.patience)
    return queued, job.turn, job.seconds, job.run_id


def wanted(inventory: Inventory, queue: Sequence[Job]) -> dict[str, int]:
    """The kinds of GPU that runs name; the more devices a node they ask for, the higher the number."""
    kinds = [node.labels.get(ACCELERATOR, "") for node in inventory]
    asked = {k: sum(j.kind.devices for j in queue if k and j.accelerator == k) / kinds.count(k) for k in kinds}
    return {k: 1 + i for i, k in enumerate(sorted((k for k in asked if asked[k]), key=lambda k: (asked[k], k)))}


class _Plain:
    def __init__(
        self, now: float, inventory: Inventory, running: list[Running], rules: Rules, wanted: dict[str, int]
    ) -> None:
        self.now, self.inventory, self.running, self.rules = now, inventory, running, rules
        self.late = {n.name: wanted.get(n.labels.get(ACCELERATOR, ""), 0) for n in inventory}
        self.lasting = [run for run in running if run.ends == math.inf and not run.stopping]
        self.totals: Free = {node.name: node.total for node in inventory}
        self.reserved: list[_Reservation] = []
        self.preempted: list[Preempt] = []
        self.full: set[object] = set()

    def decision(self, job: Job) -> Decision:
        lasting = self.share(job, self.without(self.lasting))
        share = lasting or self.share(job, self.totals)
        if share is None:
            return Refuse(run_id=job.run_id, reason=f"needs {job.kind}")
        free = self.without(self.running)
        allocation = self.place(job, free, share)
        bound = [one for one in self.reserved if one.binds(job, self.now, self.rules)]
        if allocation is not None and not all(one.spares(job, allocation) for one in bound):
            for one in bound:
                free = {name: _least(free[name], one.spare[name]) for name in free}
            allocation = self.place(job, free, share)
            if allocation is None:
                return Hold(run_id=job.run_id, reason=f"would delay {bound[-1].job.run_id}")
        if allocation is not None:
            started = Running(run_id=job.run_id, worker=job.worker, allocation=allocation, ends=self.now + job.seconds)
            self.running.append(started)
            self.reserved = [one.taken(started) if started.ends > one.time + EPSILON else one for one in self.reserved]
            return Start(run_id=job.run_id, allocation=allocation)
        eta = None if lasting else math.inf
        if self.reserved:
            return Hold(run_id=job.run_id, reason=f"behind {self.reserved[0].job.run_id}", eta=eta)
        first = self.reserve(job, share)
        if first.time > self.now + WORTH_SECONDS and self.rules.preempt:
            stopped = self.cheapest(job, share)
            self.preempted = [Preempt(run_id=i, by=job.run_id) for i in sorted(stopped)]
            self.running = [replace(r, stopping=True) if r.run_id in stopped else r for r in self.running]
            first = self.reserve(job, share) if stopped else first
        self.reserved = [first]
        return Hold(
            run_id=job.run_id, reason="first in the queue", eta=eta or (first.time if first.time < math.inf else None)
        )

    def wide(self, job: Job) -> bool:
        """Whether it could start on these nodes, and takes more than half of them."""
        if self.share(job, self.totals) is None:
            return False
        nodes = [self.totals[n.name] for n in self.inventory if job.accelerator in ("", n.labels.get(ACCELERATOR))]
        if job.worker.gpus:
            return 2 * job.workers * job.worker.gpus > sum(total.gpus for total in nodes) + EPSILON
        return 2 * job.workers * job.worker.cpus > sum(total.cpus for total in nodes) + EPSILON

    def reserve_too(self, job: Job) -> None:
        """Its earliest time, were nobody between it and the first that waits."""
        share = self.share(job, self.without(self.lasting)) or self.share(job, self.totals)
        first = self.reserved[0]
        assert share is not None
        if first.time < math.inf:
            allocation, ends = first.allocation, first.time + first.job.seconds
            head = Running(run_id=first.job.run_id, worker=first.job.worker, allocation=allocation, ends=ends)
            found = self.reserve(job, share, first.time, head)
            self.reserved += [found] if found.time < math.inf else []

    def cheapest(self, job: Job, share: int) -> frozenset[str]:
        """Of all sets of runs that may be stopped, the one of fewest runs, and then of the least that they hold."""
        age = {run.run_id: run.queued - self.rules.patience * run.priority for run in self.running}
        turn = job.queued - self.rules.patience * job.priority
        may = [
            run
            for run in self.running
            if run.resumable and not run.stopping and run.priority < job.priority and age[run.run_id] > turn
        ]
        stay = [run for run in self.running if not run.stopping]
        for count in range(1, len(may) + 1):
            found = [
                (sum(map(held, gone)), sorted(run.run_id for run in gone))
                for gone in itertools.combinations(may, count)
                if self.place(job, self.without([run for run in stay if run not in gone]), share) is not None
            ]
            if found:
                return frozenset(min(found)[1])
        return frozenset()

    def ends(self, run: Running) -> float:
        ends = run.ends if run.ends >= self.now else self.now + OVERDUE * (self.now - run.ends)
        return min(ends, self.now + STOP_SECONDS) if run.stopping else ends

    def racks(self, job: Job, free: Free) -> Iterator[Free]:
        """The nodes that a job may have, rack by rack."""
        right = [n for n in self.inventory if not job.accelerator or n.labels.get(ACCELERATOR) == job.accelerator]
        alone = [[n] for n in right if job.rack and job.rack not in n.labels]
        values = {n.labels[job.rack] for n in right if job.rack in n.labels} if job.rack else set()
        racks = [[n for n in right if n.labels.get(job.rack) == value] for value in values] if job.rack else [right]
        for rack in [*racks, *alone]:
            yield {n.name: free[n.name] for n in rack}

    def share(self, job: Job, free: Free) -> int | None:
        """The fewest nodes for it."""
        for share in range(job.workers, 0, -1):
            if job.workers % share or (share < job.workers and share % job.together):
                continue
            for rack in self.racks(job, free):
                if sum(capacity(left, job.worker) >= share for left in rack.values()) >= job.workers // share:
                    return share
        return None

    def place(self, job: Job, free: Free, share: int) -> Allocation | None:
        """The fullest nodes, of the fullest rack, that can; of one kind of GPU where some that come no later can."""
        count, found = job.workers // share, []
        for rack in self.racks(job, free):
            room = {name: capacity(left, job.worker) for name, left in rack.items()}
            able = sorted((self.rank(job, name), k, name) for name, k in room.items() if k >= share)
            if count == 1:
                found += [((r, k, free[name].gpus, free[name].cpus, name), {name: share}) for r, k, name in able]
            elif len(able) >= count:
                full = able[count - 1][0], len(able), 0.0, 0.0, min(rack)
                found.append((full, {name: share for *_, name in able[:count]}))
        if not found:
            return None
        (rank, *_), best = min(found, key=lambda one: one[0])
        if count > 1 and job.worker.gpus and not job.accelerator:
            kinds = {(self.late[n.name], n.labels.get(ACCELERATOR, "")) for n in self.inventory}
            for _, kind in sorted((late, kind) for late, kind in kinds if kind and late <= rank[1]):
                if alike := self.place(replace(job, accelerator=kind), free, share):
                    return alike
        return best

    def rank(self, job: Job, name: str) -> tuple[bool, int]:
        """Nodes with what a job does not need come last."""
        return not job.worker.gpus and self.totals[name].gpus > 0, 0 if job.accelerator else self.late[name]

    def without(self, running: Sequence[Running]) -> Free:
        free = dict(self.totals)
        for run in running:
            for name, workers in run.allocation.items():
                if name in free:
                    free[name] = free[name].minus(run.worker.times(workers))
        return free

    def reserve(self, job: Job, share: int, since: float = -math.inf, *others: Running) -> _Reservation:
        """The earliest time at which the running runs leave room for a job, and what is free beside it then."""
        running = [*self.running, *others]
        for time in sorted({max(self.now, since, self.ends(run)) for run in running}):
            free = self.without([run for run in running if self.ends(run) > time])
            allocation = self.place(job, free, share)
            if allocation is not None:
                held = free | {n: free[n].minus(job.worker.times(k)) for n, k in allocation.items()}
                return _Reservation(job=job, time=time, allocation=allocation, spare=held)
        raise AssertionError("an empty cluster has room for it")


@dataclass(frozen=True, kw_only=True)
class _Reservation:
    job: Job
    time: float
    allocation: Allocation
    spare: Free  # what the reserved run leaves free at that time

    def binds(self, job: Job, now: float, rules: Rules) -> bool:
        """Whether a run that starts now could delay it, and stands behind it."""
        over = now + job.seconds <= self.time + EPSILON and self.time < math.inf
        return not over and _order(job, rules) > _order(self.job, rules)

    def spares(self, job: Job, allocation: Allocation) -> bool:
        """Whether it does not miss what a run takes."""
        return all(capacity(self.spare[name], job.worker) >= workers for name, workers in allocation.items())

    def taken(self, run: Running) -> _Reservation:
        spare = dict(self.spare)
        for name, workers in run.allocation.items():
            spare[name] = spare[name].minus(run.worker.times(workers))
        return replace(self, spare=spare)


def held(run: Running) -> float:
    """What a run holds, in GPUs and a little for cores."""
    return sum(run.allocation.values()) * (run.worker.gpus + 1e-3 * run.worker.cpus)


def capacity(left: Resources, shape: Resources) -> int:
    """How many workers of a shape fit."""
    limits = [
        math.floor((have + EPSILON) / need)
        for have, need in ((left.cpus, shape.cpus), (left.gpus, shape.gpus))
        if need > 0
    ]
    return max(0, min(limits, default=0))


def _least(a: Resources, b: Resources) -> Resources:
    return Resources(cpus=min(a.cpus, b.cpus), gpus=min(a.gpus, b.gpus))
