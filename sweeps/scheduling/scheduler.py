"""Which waiting run starts now, and why the others wait: a pure function of the cluster, the queue and what is running.

Ray starts any gang that fits, in no order, so a large gang behind a stream of small runs may never start, and an
impossible one waits for ever without an error. Here the queue is ordered (priority and age by ``jobs.turn``, then
longest first); the first run that does not fit gets a reservation at the earliest time the running ones leave room,
and others may start ahead of it only if they end before that time or stay off its nodes (EASY backfill, Lifka 1995).
Where the rules say so, running runs that come after it make room (``preemption``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import itemgetter

from sweeps.scheduling import preemption
from sweeps.scheduling.capacity import Capacity, Held
from sweeps.scheduling.inventory import ACCELERATOR, EPSILON, Allocation, Inventory, Kind
from sweeps.scheduling.jobs import Decision, Hold, Job, Preempt, Refuse, Rules, Running, Start, turn
from sweeps.scheduling.ledger import Ledger, Queue, place

__all__ = ["Decision", "Hold", "Job", "Kind", "Preempt", "Refuse", "Rules", "Running", "Start", "decide", "impossible"]

STOP_SECONDS = 30.0  # that a run asked to stop is expected to take for its checkpoint
WORTH_SECONDS = 120.0  # a wait that is worth stopping others
PLAIN = Rules()


def decide(
    now: float,
    inventory: Inventory,
    queue: Sequence[Job],
    running: Sequence[Running],
    largest: Inventory | None = None,
    rules: Rules = PLAIN,
) -> list[Decision]:
    """One decision for every queued run, in the order of the queue, and then who must stop for the first of them.

    Args:
        now: and the runs' ends in seconds of one clock.
        largest: the largest cluster seen: what fits it and not the nodes that are alive now is held, not refused.
    """
    one_pass = _Pass(now, Ledger(inventory, running), largest or inventory, rules)
    decision = one_pass.decision
    ordered = sorted(queue, key=lambda job: place(job, rules))
    return [*[decision(job) for job in ordered], *one_pass.preempted]


def skim(now: float, ledger: Ledger, queue: Queue, largest: Inventory, rules: Rules) -> list[Decision]:
    """As ``decide``, of those that wait only the first of the queue: for thousands of passes over thousands of runs.

    What starts holds its place in the ledger from then on.
    """
    one_pass, decisions = _Pass(now, ledger, largest, rules), list[Decision]()
    most: dict[Kind, float] = {}
    for job in queue.walk(most):
        decision = one_pass.decision(job)
        fit = one_pass.fits[id(job.kind)]
        if fit.verdict is not None:
            decisions += [type(fit.verdict)(run_id=j.run_id, reason=fit.verdict.reason) for j in queue.of(job.kind)]
        elif not isinstance(decision, Hold) or (one_pass.first and one_pass.first.run_id == job.run_id):
            decisions.append(decision)
        if fit.full or fit.verdict is not None:
            most[job.kind] = -math.inf
        elif fit.late and one_pass.first is not None:
            most[job.kind] = one_pass.first.time + EPSILON - now if one_pass.first.time < math.inf else -math.inf
    return [*decisions, *one_pass.preempted]


def impossible(kind: Kind, inventory: Inventory) -> str | None:
    """Why runs of a kind can never start on a cluster, or None."""
    if Capacity.of(inventory).share(kind) is not None:
        return None
    nodes = ", ".join(sorted({str(node.total) for node in inventory})) or "nothing"
    remedy = "add nodes, or ask for fewer by placement.workers, placement.gpus and placement.cpus"
    if kind.accelerator and not any(node.labels.get(ACCELERATOR) == kind.accelerator for node in inventory):
        there = ", ".join(sorted({node.labels.get(ACCELERATOR, "none") for node in inventory}))
        remedy = f"no node is labelled {ACCELERATOR}={kind.accelerator} (there are: {there}): add such nodes, or give "
        remedy += "another placement.accelerator"
    elif kind.rack and Capacity.of(inventory).share(kind._replace(rack="")) is not None:
        remedy = f"no {kind.rack} is that large, only several together: leave placement.rack out, or ask for fewer"
    return (
        f"needs {kind}, which this cluster of {len(inventory)} node{'s' * (len(inventory) != 1)} "
        f"({nodes} a node) can never offer (a gang takes one node, or equal shares of several): {remedy}"
    )


@dataclass(kw_only=True, slots=True)
class _Reservation:
    """The first run that did not fit: when it will, and what it leaves free then."""

    run_id: str
    time: float
    spare: Capacity
    both: Capacity  # free now and spare then: where a long run may start ahead of it


@dataclass(kw_only=True, slots=True)
class _Fit:
    """What is known of a kind in this pass."""

    share: int = 0  # workers of it on each node
    verdict: Refuse | Hold | None = None  # why such runs cannot start here, whatever runs
    full: str = ""  # why they wait, where nothing is free for them
    late: bool = False  # they would delay the reservation wherever they start


class _Pass:
    """One look at the queue. Within it room only shrinks: what did not fit once does not fit again."""

    def __init__(self, now: float, ledger: Ledger, largest: Inventory, rules: Rules) -> None:
        self.now, self.ledger, self.free, self.largest, self.rules = now, ledger, ledger.free, largest, rules
        self.first: _Reservation | None = None
        self.delaying = ""  # why those wait that would delay it
        self.preempted: list[Preempt] = []
        self.fits: dict[int, _Fit] = {}  # by the kind's identity: kinds are one object each
        self.lasting = ledger.lasting()  # whole nodes are waited for, but not those on which somebody stays for ever

    def decision(self, job: Job) -> Decision:
        """What becomes of the next of the queue."""
        kind = job.kind
        fit = self.fits.get(id(kind))
        if fit is None:
            fit = self.fits[id(kind)] = self._fit(kind)
        if fit.full:
            return Hold(run_id=job.run_id, reason=fit.full)
        if fit.verdict is not None:
            return type(fit.verdict)(run_id=job.run_id, reason=fit.verdict.reason)
        ahead = self.first is None or self._ends_before(job, self.first)
        if not ahead and fit.late:
            return Hold(run_id=job.run_id, reason=self.delaying)
        allocation = self.free.place(job.kind, fit.share)
        if allocation is None:
            return self._hold(job, fit)
        if not ahead and not self._beside(job, allocation):
            assert self.first is not None
            allocation = self.first.both.place(job.kind, fit.share)
            if allocation is None:
                fit.late = True
                return Hold(run_id=job.run_id, reason=self.delaying)
        return self._start(job, allocation)

    def _fit(self, kind: Kind) -> _Fit:
        """How runs of a kind lie on this cluster, or why they cannot: for ever, or until nodes come back."""
        if (share := self.lasting.share(kind) or self.ledger.totals().share(kind)) is not None:
            return _Fit(share=share)
        if (reason := impossible(kind, self.largest)) is not None:
            return _Fit(verdict=Refuse(run_id="", reason=reason))
        alive = f"{len(self.ledger.inventory)} node{'s' * (len(self.ledger.inventory) != 1)}"
        reason = f"needs {kind}: more than the {alive} alive now can offer; waits for nodes to come back"
        return _Fit(verdict=Hold(run_id="", reason=reason))

    def _ends_before(self, job: Job, reservation: _Reservation) -> bool:
        return self.now + job.seconds <= reservation.time + EPSILON and reservation.time < math.inf

    def _beside(self, job: Job, allocation: Allocation) -> bool:
        """Whether the reserved run would not miss what an allocation takes."""
        assert self.first is not None
        spare = self.first.spare.free
        return all(spare[name].workers(job.worker) >= workers for name, workers in allocation.items())

    def _start(self, job: Job, allocation: Allocation) -> Start:
        start = self.ledger.start(job, allocation, self.now)
        if self.first is not None:
            if self.now + job.seconds > self.first.time + EPSILON:
                self.first.spare.take(job.worker, allocation)
            for name in allocation:
                self.first.both.free[name] = self.free.free[name].least(self.first.spare.free[name])
            self.first.both.changed(allocation)
        return start

    def _hold(self, job: Job, fit: _Fit) -> Hold:
        """The first that does not fit gets a reservation, the others wait behind it."""
        first = job.run_id if self.first is None else self.first.run_id
        fit.full = f"needs {job.kind}, behind {first}"
        if self.first is not None:
            return Hold(run_id=job.run_id, reason=fit.full)
        time, spare = self._earliest(job, fit.share, set())
        stopped = self._stopped_for(job, fit.share) if time > self.now + WORTH_SECONDS else set()
        if stopped:
            self.preempted = [Preempt(run_id=i, by=job.run_id) for i in sorted(stopped)]
            time, spare = self._earliest(job, fit.share, stopped)
        self.first = _Reservation(run_id=job.run_id, time=time, spare=spare, both=self.free.least(spare))
        self.delaying = f"would delay {job.run_id}, which is first in the queue{_at(time, self.now)}"
        waits = f"{len(stopped)} of lower priority make room, " if stopped else ""
        reason = f"first in the queue, {waits}needs {job.kind}{_at(time, self.now)}"
        return Hold(run_id=job.run_id, reason=reason, eta=time if time < math.inf else None)

    def _earliest(self, job: Job, share: int, stopped: Set[str]) -> tuple[float, Capacity]:
        """When the running runs leave room for a job at the earliest, and what is free beside it then."""
        then, soon = self.free.copy(), self.now + STOP_SECONDS
        held: list[Held] = []
        for run, taken in self.ledger.held.values():
            ends = min(run.ends, soon) if run.stopping or run.run_id in stopped else run.ends
            held.append((ends, run.worker, run.allocation, taken))
        held.sort(key=itemgetter(0))
        time = then.earliest(job.kind, share, held, self.now)
        allocation = then.place(job.kind, share)
        assert allocation is not None, "there is room by then"
        then.take(job.worker, allocation)
        return time, then

    def _stopped_for(self, job: Job, share: int) -> set[str]:
        """The running runs that should make room for the first of the queue; none where that would not give it any."""
        if not self.rules.preempt:
            return set()
        then, candidates = self.free.copy(), []
        for run, taken in self.ledger.held.values():
            if run.stopping:
                then.give(run.worker, run.allocation, taken)
            elif run.resumable and run.priority < job.priority and turn(run, self.rules) > turn(job, self.rules):
                candidates.append((run, taken))
        return preemption.victims(job.kind, share, then, candidates)


def _at(time: float, now: float) -> str:
    return f", expected in {max(0.0, time - now):.0f} s" if time < math.inf else ""
