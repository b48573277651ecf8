"""Who holds what on a cluster, and the queue in its order: what a pass of the scheduler reads and changes."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from sweeps.scheduling.capacity import Capacity, Taken
from sweeps.scheduling.inventory import Allocation, Inventory, Kind
from sweeps.scheduling.jobs import Job, Rules, Running, Start

Place = tuple[int, float, int, float, str]  # in the queue
HASTE = 1.0  # seconds later that a run may have come, for each by which it is shorter, to go ahead of another


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


class _Line:
    """The waiting runs in one order, kind by kind."""

    __slots__ = ("jobs", "key", "places")

    def __init__(self, key: Callable[[Job], Place]) -> None:
        self.key = key
        self.places: dict[Kind, list[Place]] = {}
        self.jobs: dict[Kind, list[Job]] = {}

    def add(self, job: Job) -> None:
        """A run waits from now on."""
        places, where = self.places.setdefault(job.kind, []), self.key(job)
        i = bisect.bisect(places, where)
        places.insert(i, where)
        self.jobs.setdefault(job.kind, []).insert(i, job)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        i = bisect.bisect_left(self.places[job.kind], self.key(job))
        del self.places[job.kind][i], self.jobs[job.kind][i]

    def walk(self, most_seconds: Mapping[Kind, float]) -> Iterator[Job]:
        """The jobs in their order, but of each kind none that is longer than what is said by then; -inf ends a kind."""
        heads = [(places[0], i, kind, 0) for i, (kind, places) in enumerate(self.places.items()) if places]
        heapq.heapify(heads)
        while heads:
            _, i, kind, at = heads[0]
            jobs, most = self.jobs[kind], most_seconds.get(kind, math.inf)
            while at < len(jobs) and jobs[at].seconds > most > -math.inf:
                at += 1
            if most == -math.inf or at == len(jobs):
                heapq.heappop(heads)
                continue
            if at > heads[0][3]:  # passed over some: others may come before it now
                heapq.heapreplace(heads, (self.places[kind][at], i, kind, at))
                continue
            yield jobs[at]
            if at + 1 < len(jobs):
                heapq.heapreplace(heads, (self.places[kind][at + 1], i, kind, at + 1))
            else:
                heapq.heappop(heads)


class Queue:
    """The waiting runs in their orders: where one of a kind finds no room, the others need not be asked."""

    def __init__(self, rules: Rules, jobs: Sequence[Job] = ()) -> None:
        self._by_age = _Line(lambda job: place(job, rules))
        self._ahead = _Line(lambda job: ahead(job, rules))
        for job in jobs:
            self.add(job)

    def __len__(self) -> int:
        return sum(map(len, self._by_age.jobs.values()))

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._by_age.jobs.values() for job in jobs)

    def add(self, job: Job) -> None:
        """A run waits from now on."""
        self._by_age.add(job)
        self._ahead.add(job)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        self._by_age.remove(job)
        self._ahead.remove(job)

    def of(self, kind: Kind) -> Sequence[Job]:
        """Those of a kind, in the order of the queue."""
        return self._by_age.jobs.get(kind, ())

    def kinds(self) -> Iterator[Kind]:
        """Of which some wait."""
        return (kind for kind, jobs in self._by_age.jobs.items() if jobs)

    def behind(self, kind: Kind, where: Place) -> tuple[Place, Job] | None:
        """The first of a kind behind a place of the queue."""
        places = self._by_age.places[kind]
        i = bisect.bisect(places, where)
        return (places[i], self._by_age.jobs[kind][i]) if i < len(places) else None

    def walk(self, most_seconds: Mapping[Kind, float]) -> Iterator[Job]:
        """The jobs in the order of the queue, but of each kind none longer than what is said by then; -inf ends it."""
        return self._by_age.walk(most_seconds)

    def walk_ahead(self, most_seconds: Mapping[Kind, float]) -> Iterator[Job]:
        """The same in the order in which they may go ahead of a reservation."""
        return self._ahead.walk(most_seconds)


def place(job: Job, rules: Rules) -> Place:
    """A run's place in the queue, the lowest first: within a rank by ``jobs.turn``."""
    seconds = job.seconds
    length = -seconds if seconds < math.inf else 0.0
    return job.rank, job.queued - rules.patience * job.priority, job.turn, length, job.run_id


def ahead(job: Job, rules: Rules) -> Place:
    """A run's place among those that may go ahead of a reservation: of one priority and age the shortest first.

    A run lets shorter ones go ahead that came later, by what they are shorter and by the patience at the most.
    """
    late = min(HASTE * job.seconds, rules.patience)
    return job.rank, job.queued - rules.patience * job.priority + late, job.turn, job.seconds, job.run_id
