"""Who holds what on a cluster, and the queue in its order: what a pass of the scheduler reads and changes."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence

from sweeps.scheduling.capacity import Capacity, Taken
from sweeps.scheduling.inventory import Allocation, Inventory, Kind
from sweeps.scheduling.jobs import Job, Rules, Running, Start

Place = tuple[float, int, float, str]  # in the queue


class Ledger:
    """The nodes, what runs on them and what is free."""

    def __init__(self, inventory: Inventory, running: Sequence[Running] = ()) -> None:
        self.inventory, self.free = inventory, Capacity.of(inventory)
        self.held: dict[object, tuple[Running, Mapping[str, Taken]]] = {}
        self._totals: Capacity | None = None
        for run in running:
            self.hold(run)

    def hold(self, run: Running) -> None:
        """A run holds its resources."""
        key = run.run_id if run.run_id not in self.held else (run.run_id, len(self.held))
        self.held[key] = run, self.free.take(run.worker, run.allocation)

    def start(self, job: Job, allocation: Allocation, now: float) -> Start:
        """A run of the queue starts."""
        self.hold(
            Running(
                run_id=job.run_id,
                worker=job.worker,
                allocation=allocation,
                ends=now + job.seconds,
                priority=job.priority,
                queued=job.queued,
            )
        )
        return Start(run_id=job.run_id, allocation=allocation)

    def release(self, run_id: str) -> None:
        """A run ended."""
        run, taken = self.held.pop(run_id)
        self.free.give(run.worker, run.allocation, taken)

    def change(self, run: Running) -> None:
        """Something else than its place is new of a run that holds resources."""
        self.held[run.run_id] = run, self.held[run.run_id][1]

    def totals(self) -> Capacity:
        """The nodes without anything on them."""
        self._totals = self._totals or Capacity.of(self.inventory)
        return self._totals

    def lasting(self) -> Capacity:
        """What will be free once all has ended that ever will."""
        stay = [run for run, _ in self.held.values() if run.ends == math.inf and not run.stopping]
        return Ledger(self.inventory, stay).free if stay else self.totals()


class Queue:
    """The waiting runs in order, kind by kind: where one of a kind finds no room, the others need not be asked."""

    def __init__(self, rules: Rules, jobs: Sequence[Job] = ()) -> None:
        self._rules = rules
        self._places: dict[Kind, list[Place]] = {}
        self._jobs: dict[Kind, list[Job]] = {}
        for job in jobs:
            self.add(job)

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def add(self, job: Job) -> None:
        """A run waits from now on."""
        places = self._places.setdefault(job.kind, [])
        where = place(job, self._rules)
        i = bisect.bisect(places, where)
        places.insert(i, where)
        self._jobs.setdefault(job.kind, []).insert(i, job)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        i = bisect.bisect_left(self._places[job.kind], place(job, self._rules))
        del self._places[job.kind][i], self._jobs[job.kind][i]

    def of(self, kind: Kind) -> Sequence[Job]:
        """Those of a kind."""
        return self._jobs.get(kind, ())

    def walk(self, most_seconds: Mapping[Kind, float]) -> Iterator[Job]:
        """The jobs in their order, but of each kind none that is longer than what is said by then; -inf ends a kind."""
        heads = [(places[0], i, kind, 0) for i, (kind, places) in enumerate(self._places.items()) if places]
        heapq.heapify(heads)
        while heads:
            _, i, kind, at = heads[0]
            jobs, most = self._jobs[kind], most_seconds.get(kind, math.inf)
            while at < len(jobs) and jobs[at].seconds > most > -math.inf:
                at += 1
            if most == -math.inf or at == len(jobs):
                heapq.heappop(heads)
                continue
            if at > heads[0][3]:  # passed over some: others may come before it now
                heapq.heapreplace(heads, (self._places[kind][at], i, kind, at))
                continue
            yield jobs[at]
            if at + 1 < len(jobs):
                heapq.heapreplace(heads, (self._places[kind][at + 1], i, kind, at + 1))
            else:
                heapq.heappop(heads)


def place(job: Job, rules: Rules) -> Place:
    """A run's place in the queue, the lowest first; ``jobs.turn`` is its first part."""
    seconds = job.seconds
    length = -seconds if seconds < math.inf else 0.0
    return job.queued - rules.patience * job.priority, job.turn, length, job.run_id
