"""Which waiting run starts now, and why the others wait: a pure function of the cluster, the queue and what is running.

Ray starts any gang that fits, in no order, so a large gang behind a stream of small runs may never start, and an
impossible one waits for ever without an error. Here the queue is ordered (priority and age by ``jobs.turn``, then
longest first); the first run that does not fit gets a reservation at the earliest time the running ones leave room,
and others may start ahead of it only if they end before that time or stay off its nodes (EASY backfill, Lifka 1995),
short ones before long ones (``ledger.ahead``; Tsafrir, Etsion and Feitelson 2007). Backfill hurts most whoever needs
most of the cluster and is not first yet: each long run that starts behind it puts off the time at which all is free.
So the first run further back that needs more than half of the cluster is not delayed by those behind it either.
Where the rules say so, running runs that come after the first make room (``preemption``).
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter, itemgetter

from sweeps.scheduling import preemption
from sweeps.scheduling.capacity import Capacity, Held, Taken
from sweeps.scheduling.inventory import ACCELERATOR, EPSILON, Allocation, Inventory, Kind
from sweeps.scheduling.jobs import Decision, Hold, Job, Preempt, Refuse, Rules, Running, Start, turn
from sweeps.scheduling.ledger import Ledger, Place, Queue, ahead, place

__all__ = ["Decision", "Hold", "Job", "Kind", "Preempt", "Refuse", "Rules", "Running", "Start", "decide", "impossible"]

STOP_SECONDS = 30.0  # that a run asked to stop is expected to take for its checkpoint
OVERDUE = 0.2  # of the time by which a run has outlived its estimate: what it is expected to take yet
WORTH_SECONDS = 120.0  # a wait that is worth stopping others
PLAIN = Rules()
KIND = attrgetter("kind")


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
    decision, decisions = one_pass.decision, list[Decision]()
    ordered = sorted(queue, key=lambda job: place(job, rules))
    ids = list(map(id, map(KIND, ordered)))
    kinds = {i: job.kind for i, job in dict(zip(ids, ordered, strict=True)).items()}
    one_pass.free.want(_wanted(inventory, ((kinds[i], runs) for i, runs in Counter(ids).items())))
    for job in ordered:
        decisions.append(decision(job))
        if one_pass.reserved:
            break
    rest, ids = ordered[len(decisions) :], ids[len(decisions) :]
    kinds = {i: kinds[i] for i in set(ids)}
    wide = {i for i, kind in kinds.items() if one_pass.fit(kind).wide}
    room = {i for i, kind in kinds.items() if one_pass.has_room(kind)}
    asked = [job for i, job in zip(ids, rest, strict=True) if i in room] if room else []
    asked.sort(key=lambda job: ahead(job, rules))
    one_pass.reserve_too(next((job for i, job in zip(ids, rest, strict=True) if i in wide), None), asked)
    found = {id(job): decision(job) for job in asked}
    full = {i: (fit.full, fit.eta) for i, kind in kinds.items() if i not in room and (fit := one_pass.fit(kind)).full}
    decisions += [
        Hold(job.run_id, *full[i]) if i in full else found.get(id(job)) or decision(job)
        for i, job in zip(ids, rest, strict=True)
    ]
    return [*decisions, *one_pass.preempted]


def skim(now: float, ledger: Ledger, queue: Queue, largest: Inventory, rules: Rules) -> list[Decision]:
    """As ``decide``, of those that wait only the first of the queue: for thousands of passes over thousands of runs.

    What starts holds its place in the ledger from then on.
    """
    one_pass, decisions = _Pass(now, ledger, largest, rules), list[Decision]()
    ledger.free.want(_wanted(ledger.inventory, ((kind, len(queue.of(kind))) for kind in queue.kinds())))
    most: dict[Kind, float] = {}
    started: set[str] = set()

    def ask(job: Job) -> None:
        decision = one_pass.decision(job)
        fit = one_pass.fits[id(job.kind)]
        if fit.verdict is not None:
            decisions.extend(type(fit.verdict)(run_id=j.run_id, reason=fit.verdict.reason) for j in queue.of(job.kind))
        elif isinstance(decision, Start):
            started.add(job.run_id)
            decisions.append(decision)
        elif one_pass.reserved and one_pass.reserved[0].run_id == job.run_id:
            decisions.append(decision)
        if fit.full or fit.verdict is not None:
            most[job.kind] = -math.inf
        elif fit.late == 1:
            most[job.kind] = one_pass.reserved[0].latest(now)

    for job in queue.walk(most):
        ask(job)
        if one_pass.reserved:
            break
    else:
        return decisions
    kinds = list(queue.kinds())
    behind = [
        one for kind in kinds if one_pass.fit(kind).wide if (one := queue.behind(kind, one_pass.reserved[0].place))
    ]
    with_room = [kind for kind in kinds if one_pass.has_room(kind)]
    most |= {kind: -math.inf for kind in kinds if one_pass.fits[id(kind)].full}
    one_pass.reserve_too(min(behind)[1] if behind else None, (job for kind in with_room for job in queue.of(kind)))
    for job in queue.walk_ahead(most):
        if job.run_id not in started:
            ask(job)
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


def _wanted(inventory: Inventory, queued: Iterable[tuple[Kind, int]]) -> list[str]:
    """The kinds of GPU that queued runs name, the one of which they ask most for what there is of it last."""
    asked: dict[str, float] = {}
    for kind, runs in queued:
        if kind.accelerator:
            asked[kind.accelerator] = asked.get(kind.accelerator, 0.0) + runs * kind.devices
    there = Counter(node.labels.get(ACCELERATOR, "") for node in inventory) if asked else Counter[str]()
    return sorted((name for name in asked if there[name]), key=lambda name: (asked[name] / there[name], name))


@dataclass(kw_only=True, slots=True)
class _Reservation:
    """A run that did not fit: when it will, and what it leaves free then."""

    run_id: str
    place: Place  # in the queue: those behind it must not delay it
    time: float
    spare: Capacity
    both: Capacity  # free now and spare then, of the reservations before it too: where a long run may start
    delaying: str  # why those wait that would delay it

    def over(self, ends: float) -> bool:
        """Whether what ends then is over by its time."""
        return ends <= self.time + EPSILON and self.time < math.inf

    def latest(self, now: float) -> float:
        """Seconds of the longest run that is over by its time."""
        return self.time + EPSILON - now if self.time < math.inf else -math.inf


@dataclass(kw_only=True, slots=True)
class _Fit:
    """What is known of a kind in this pass."""

    share: int = 0  # workers of it on each node
    verdict: Refuse | Hold | None = None  # why such runs cannot start here, whatever runs
    full: str = ""  # why they wait, where nothing is free for them
    late: int = 9  # whom so many reservations bind, from the first on, finds no place; 9 while nobody was turned away
    room: bool = False  # some was found
    wide: bool = False  # it needs more than half of the cluster
    others: bool = False  # it has no room before somebody else frees what they hold

    @property
    def eta(self) -> float | None:
        """When those that wait behind another of their kind start."""
        return math.inf if self.others else None


class _Pass:
    """One look at the queue. Within it room only shrinks: what did not fit once does not fit again."""

    def __init__(self, now: float, ledger: Ledger, largest: Inventory, rules: Rules) -> None:
        self.now, self.ledger, self.free, self.largest, self.rules = now, ledger, ledger.free, largest, rules
        self.reserved: list[_Reservation] = []  # by time
        self.preempted: list[Preempt] = []
        self.fits: dict[int, _Fit] = {}  # by the kind's identity: kinds are one object each
        self.lasting = ledger.lasting()  # whole nodes are waited for, but not those on which somebody stays for ever
        self._later: list[Held] = []  # what still holds resources at the first reservation's time
        self._totals: dict[tuple[str, bool], float] = {}

    def decision(self, job: Job) -> Decision:
        """What becomes of the next of the queue."""
        kind = job.kind
        fit = self.fits.get(id(kind)) or self.fit(kind)
        if fit.full:
            return Hold(run_id=job.run_id, reason=fit.full, eta=fit.eta)
        if fit.verdict is not None:
            return type(fit.verdict)(run_id=job.run_id, reason=fit.verdict.reason)
        bound = self._bound(job) if self.reserved else 0
        if bound >= fit.late:
            return Hold(run_id=job.run_id, reason=self.reserved[fit.late - 1].delaying)
        allocation = self.free.place(kind, fit.share)
        if allocation is None:
            return self._hold(job, fit)
        if bound and not all(self._beside(job, allocation, one) for one in self.reserved[:bound]):
            allocation = self.reserved[bound - 1].both.place(kind, fit.share)
            if allocation is None:
                fit.late = bound
                return Hold(run_id=job.run_id, reason=self.reserved[bound - 1].delaying)
        return self._start(job, allocation)

    def has_room(self, kind: Kind) -> bool:
        """Whether a run of a kind could start, were there no reservation."""
        fit = self.fit(kind)
        if not fit.room and not fit.full and fit.verdict is None:
            fit.room = self.free.place(kind, fit.share) is not None
            fit.full = "" if fit.room else self._behind(kind)
        return fit.room

    def reserve_too(self, job: Job | None, others: Iterable[Job]) -> None:
        """Keep room for a wide run further back from those behind it, from when the first of the queue has started.

        Args:
            others: the runs for which there is room now: where none of them could delay it, nothing is to be kept.
        """
        if job is None or self.reserved[0].time == math.inf:
            return
        fit, first, where = self.fits[id(job.kind)], self.reserved[0], place(job, self.rules)
        if not any(not first.over(self.now + o.seconds) and place(o, self.rules) > where for o in others):
            return
        then, time = first.spare.copy(), first.time
        if then.place(job.kind, fit.share) is None:
            time = then.earliest(job.kind, fit.share, self._later, time)
        if time < math.inf:
            self._take(job, fit.share, then)
            at = f"{_at(time, self.now)} at the earliest"
            why = f"would delay {job.run_id}, which needs more than half of the cluster{at}"
            self._reserve(job, time, then, first.both, why)

    def fit(self, kind: Kind) -> _Fit:
        """How runs of a kind lie on this cluster, or why they cannot: for ever, or until nodes come back."""
        if (known := self.fits.get(id(kind))) is not None:
            return known
        lasting = self.lasting.share(kind)
        if (share := lasting or self.ledger.totals().share(kind)) is not None:
            fit = _Fit(share=share, wide=kind.devices > self._all(kind) / 2 + EPSILON, others=lasting is None)
        elif (reason := impossible(kind, self.largest)) is not None:
            fit = _Fit(verdict=Refuse(run_id="", reason=reason))
        else:
            alive = f"{len(self.ledger.inventory)} node{'s' * (len(self.ledger.inventory) != 1)}"
            reason = f"needs {kind}: more than the {alive} that may be used now can offer; waits for others"
            fit = _Fit(verdict=Hold(run_id="", reason=reason))
        self.fits[id(kind)] = fit
        return fit

    def _all(self, kind: Kind) -> float:
        """As many as there are for it."""
        what = kind.accelerator, bool(kind.worker.gpus)
        if what not in self._totals:
            nodes = [n for n in self.ledger.inventory if n.labels.get(ACCELERATOR) == kind.accelerator or not what[0]]
            self._totals[what] = sum(n.total.gpus if what[1] else n.total.cpus for n in nodes)
        return self._totals[what]

    def _bound(self, job: Job) -> int:
        """How many of the reservations a run must not touch: it is behind them, and would not be over by then."""
        ends = self.now + job.seconds
        if self.reserved[0].over(ends):
            return 0
        if len(self.reserved) == 1 or self.reserved[1].over(ends):
            return 1
        return 2 if place(job, self.rules) > self.reserved[1].place else 1

    def _beside(self, job: Job, allocation: Allocation, one: _Reservation) -> bool:
        """Whether the reserved run would not miss what an allocation takes."""
        spare = one.spare.free
        return all(spare[name].workers(job.worker) >= workers for name, workers in allocation.items())

    def _start(self, job: Job, allocation: Allocation) -> Start:
        start, both = self.ledger.start(job, allocation, self.now), self.free
        for one in self.reserved:
            if self.now + job.seconds > one.time + EPSILON:
                one.spare.take(job.worker, allocation)
            for name in allocation:
                one.both.free[name] = both.free[name].least(one.spare.free[name])
            one.both.changed(allocation)
            both = one.both
        return start

    def _hold(self, job: Job, fit: _Fit) -> Hold:
        """The first that does not fit gets a reservation, the others wait behind it."""
        if self.reserved:
            fit.full = self._behind(job.kind)
            return Hold(run_id=job.run_id, reason=fit.full, eta=fit.eta)
        time, spare = self._earliest(job, fit, set())
        stopped = self._stopped_for(job, fit.share) if time > self.now + WORTH_SECONDS else set()
        if stopped:
            self.preempted = [Preempt(run_id=i, by=job.run_id) for i in sorted(stopped)]
            time, spare = self._earliest(job, fit, stopped)
        at = ", for which somebody else must free what they hold" if fit.others else _at(time, self.now)
        self._reserve(job, time, spare, self.free, f"would delay {job.run_id}, which is first in the queue{at}")
        fit.full = self._behind(job.kind)
        waits = f"{len(stopped)} of lower priority make room, " if stopped else ""
        reason = f"first in the queue, {waits}needs {job.kind}{at}"
        return Hold(run_id=job.run_id, reason=reason, eta=fit.eta or (time if time < math.inf else None))

    def _reserve(self, job: Job, time: float, spare: Capacity, both: Capacity, why: str) -> None:
        where = place(job, self.rules)
        both = both.least(spare)
        self.reserved.append(
            _Reservation(run_id=job.run_id, place=where, time=time, spare=spare, both=both, delaying=why)
        )

    def _behind(self, kind: Kind) -> str:
        return f"needs {kind}, behind {self.reserved[0].run_id}"

    def _earliest(self, job: Job, fit: _Fit, stopped: Set[str]) -> tuple[float, Capacity]:
        """When the running runs leave room for a job at the earliest, and what is free beside it then.

        Where it depends on somebody else, they are taken to stay for as long again as they have been there: what is
        theirs for ever keeps nobody waiting for more than once his length, and what is brief does not cost it its turn.
        """
        then, soon, share = self.free.copy(), self.now + STOP_SECONDS, fit.share
        held: list[Held] = []
        for run, taken in self.ledger.held.values():
            ends = run.ends if run.ends >= self.now else self.now + OVERDUE * (self.now - run.ends)
            if fit.others and run.since is not None:
                ends = self.now + (self.now - run.since)
            ends = min(ends, soon) if run.stopping or run.run_id in stopped else ends
            held.append((ends, run.worker, run.allocation, taken))
        held.sort(key=itemgetter(0))
        time = then.earliest(job.kind, share, held, self.now)
        mine = self._take(job, share, then)
        self._later = [*held[bisect.bisect(held, time, key=itemgetter(0)) :], (time + job.seconds, job.worker, *mine)]
        self._later.sort(key=itemgetter(0))
        return time, then

    @staticmethod
    def _take(job: Job, share: int, then: Capacity) -> tuple[Allocation, Mapping[str, Taken]]:
        allocation = then.place(job.kind, share)
        assert allocation is not None, "there is room by then"
        return allocation, then.take(job.worker, allocation)

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
