"""A sweep among the others of its cluster: what it tells them, what it hears, and the order that follows from that.

The order itself is ``scheduling.fairness``. Every driver finds it for itself and starts its own runs only; for what
others wait for it leaves room. Room that is left so and not taken for PATIENCE_SECONDS is not left any longer: that
driver is stuck, or knows of a reason that it does not tell. It is left again once that sweep has started something, or
wanted nothing for a moment, and as a trial after a pause that doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from sweeps.driving.claims import LEASE_SECONDS, Leases, to_text
from sweeps.driving.hands import Cluster
from sweeps.scheduling import fairness, scheduler
from sweeps.scheduling.fairness import Claim, Together
from sweeps.scheduling.inventory import Inventory, Resources
from sweeps.scheduling.jobs import Decision, Hold, Job, Rules, Running, Start
from sweeps.scheduling.scheduler import PLAIN

TELL_SECONDS = 1.0
RENEW_SECONDS = 5.0  # without a decision, after which what was told is told again: drivers that live keep their lease
PATIENCE_SECONDS = 15.0
MOST_PAUSES = 16  # times LEASE_SECONDS, between two trials
RESTS = "placement.preempt rests while another sweep waits for its share, for what was freed would be that sweep's"
NEWS, NEWS_SECONDS = 0.1, 60.0  # change of what is due that is said, and how often: who prepares wants one worker first
FAR = 1e12  # seconds, for a run that is not known to end
MOST = 64  # entries of what a claim wants
MOST_STEPS = 30  # of priority, each of which doubles what is due


@dataclass(frozen=True)
class Left:
    """Room for another sweep, which waits."""

    held: Resources  # what that sweep holds meanwhile
    since: float  # when none was left for it last
    pauses: int = 1  # times LEASE_SECONDS for which none is left where it does not take it

    def pausing(self, now: float) -> bool:
        """Whether none is left for it, since it did not take it."""
        return 0.0 <= now - self.since - PATIENCE_SECONDS < self.pauses * LEASE_SECONDS

    def later(self, now: float, left: bool) -> Left:
        """The same, after a turn in which room was left for it, or not."""
        if self.pausing(now):
            return self
        if now >= self.since + PATIENCE_SECONDS:
            return replace(self, since=now, pauses=min(2 * self.pauses, MOST_PAUSES))
        return self if left else replace(self, since=now)


class Among:
    """This sweep among others."""

    def __init__(self, cluster: Cluster, key: str, name: str, say: Callable[[str], None]) -> None:
        """Among them.

        Args:
            key: by which others hear of this sweep: all break ties by it.
        """
        self._cluster, self._say = cluster, say
        self._mine, self._others = Claim(key=key, name=name), list[Claim]()
        self._leases, self._heard, self._told, self._number = Leases(), -math.inf, -math.inf, 0
        self._last = self._mine  # what was told
        self._accounted = math.inf  # when ``excess`` was reckoned last
        self._left: dict[str, Left] = {}  # of each sweep that waits
        self._named: set[str] = set()  # sweeps of which it was said that they wait too, ...
        self._said, self._spoke = 0.0, -math.inf  # ... what is due to this one, and when

    def look(self, now: float, running: Sequence[Running]) -> None:
        """Hear what other sweeps of the cluster hold and want; where there are none, at most once a second.

        Args:
            running: of this sweep.
        """
        self._mine = replace(self._mine, held=tuple(running))
        if self._others or now >= self._heard + TELL_SECONDS:
            self._heard, self._others = now, self._leases.look(self._cluster.claims(), now)
            self._left = {
                claim.key: left if left and left.held == claim.holds() else Left(claim.holds(), now)
                for claim, left in ((claim, self._left.get(claim.key)) for claim in self._others if claim.wants)
            }
        if not self.waited_for:
            self._account(0.0, now)

    @property
    def waited_for(self) -> bool:
        """Whether another sweep waits for room."""
        return any(claim.wants for claim in self._others)

    def due(self, nodes: Inventory) -> float:
        """The share of the cluster that this sweep could have while another waits, whatever is free now."""
        return fairness.due(self._mine, self._others, nodes) if self.waited_for else 0.0

    @property
    def held(self) -> list[Running]:
        """What the other sweeps say that they hold."""
        return [run for claim in self._others for run in claim.held]

    def strangers(self, held: Sequence[Running]) -> list[Running]:
        """What of all that others hold, node by node, no sweep says to be its own."""
        theirs: dict[str, Resources] = {}
        for run in (run for claim in self._others for run in claim.held):
            for node, n in run.allocation.items():
                theirs[node] = theirs.get(node, Resources()).plus(run.worker.times(n))
        if not theirs:
            return list(held)
        found = []
        for one in held:
            (node,) = one.allocation
            rest = one.worker.minus(theirs.get(node, Resources()))
            rest = Resources(cpus=max(0.0, rest.cpus), gpus=max(0.0, rest.gpus))
            found += [] if Resources().fits(rest) else [replace(one, worker=rest)]
        return found

    def decide(
        self,
        now: float,
        nodes: Inventory,
        jobs: Sequence[Job],
        held: Sequence[Running],
        largest: Inventory | None = None,
        rules: Rules = PLAIN,
        wanted: Sequence[Job] | None = None,
    ) -> list[Decision]:
        """The scheduler's decisions on this sweep's runs, in the queue of all sweeps.

        Args:
            nodes: that may be used.
            held: all that holds resources.
            wanted: by which its share is found, where it waits for more than these jobs.
        """
        if not self.waited_for:
            return self._remarked(scheduler.decide(now, nodes, jobs, held, largest, rules))
        stuck = {key for key, left in self._left.items() if left.pausing(now)}
        others = [replace(claim, wants=()) if claim.key in stuck else claim for claim in self._others]
        shared = fairness.together(self._mine, others, jobs, nodes, rules)
        ours = shared if wanted is None else fairness.together(self._mine, others, wanted, nodes, rules)
        self._account(ours.holds - ours.share, now)
        if jobs or wanted:
            self._name(ours, [claim.key for claim in others if claim.wants], now)
        decisions = scheduler.decide(now, nodes, shared.queue, held, largest, rules)
        theirs = {shared.theirs.get(d.run_id) for d in decisions if isinstance(d, Start)}
        self._left = {key: left.later(now, key in theirs) for key, left in self._left.items()}
        first = next((d for d in decisions if not isinstance(d, Start)), None)
        rests = rules.preempt and first is not None and first.run_id in shared.theirs
        raised = self.raised(jobs) if rests else frozenset[str]()
        return self._remarked([d for d in decisions if d.run_id not in shared.theirs], raised)

    def raised(self, jobs: Sequence[Job]) -> Set[str]:
        """The runs for which others of this sweep would make room, were it alone."""
        above = min((run.priority for run in self._mine.held if run.resumable), default=math.inf)
        return {job.run_id for job in jobs if job.priority > above}

    def tell(self, now: float, decisions: Sequence[Decision], jobs: Sequence[Job], most: float | None = None) -> None:
        """Tell other sweeps what this one holds and still wants, at most once a second, and whenever something starts.

        Who told later that his runs had ended than what he started in their place would share that room with another.

        Args:
            decisions: on all of its waiting runs, in their order.
            jobs: these, with their own priorities.
            most: devices that it may hold at once.
        """
        starts = bool(self._others) and any(isinstance(d, Start) for d in decisions)
        if not starts and now < self._told + TELL_SECONDS:
            return
        known = {job.run_id: job for job in jobs}
        held = [*self._mine.held]
        for d in decisions:
            if isinstance(d, Start):
                job = known[d.run_id]
                held.append(
                    Running(run_id=d.run_id, worker=job.worker, allocation=d.allocation, ends=now + job.seconds)
                )
        wants = _wants(within((known[d.run_id] for d in decisions if isinstance(d, Hold)), held, most))
        if wants:
            self._mine = _urgent(self._mine, [job for job, _ in wants], now)
        self._last = replace(self._mine, held=_alike(held, now), wants=wants)
        self._tell(now)

    def renew(self, now: float) -> None:
        """Tell the same again, where decisions are far between: at thousands of runs a pass may take a second."""
        if now >= self._told + RENEW_SECONDS:
            self._tell(now)

    def stay(self, now: float, running: Sequence[Running]) -> None:
        """Look and tell as one that wants nothing more, while what it has goes on."""
        self.look(now, running)
        held = [*running, *self.strangers(self._cluster.others()), *self.held]
        self.tell(now, self.decide(now, self._cluster.inventory(), [], held), [])

    # ---------------------------------------------------------------------------------------------------------- parts

    def _tell(self, now: float) -> None:
        self._told, self._number = now, self._number + 1
        self._cluster.claim(to_text(self._last, now, self._number), alone=not self.waited_for)

    def _account(self, beyond: float, now: float) -> None:
        """So much more than what is due to it does this sweep hold, while others wait."""
        seconds, self._accounted = max(0.0, now - self._accounted), now
        excess = fairness.excess(self._mine.excess, beyond, seconds, [self._mine, *self._others])
        self._mine = replace(self._mine, excess=excess)

    def _name(self, shared: Together, waiting: Sequence[str], now: float) -> None:
        """Say which sweeps wait too, and what is due to this one: when one is new, and where that has changed since.

        Args:
            waiting: their keys.
        """
        names = {claim.key: f"sweep {claim.name}" for claim in self._others if claim.key in waiting}
        if not names:
            return
        changed = abs(shared.share - self._said) > NEWS and now >= self._spoke + NEWS_SECONDS
        if changed or names.keys() - self._named:
            self._named, self._said, self._spoke = self._named | names.keys(), shared.share, now
            who = f"{' and '.join(names.values())} wait{'s' * (len(names) == 1)}"
            self._say(
                f"sharing  {who} on this cluster too: {shared.share:.0%} of it is due to this sweep, which has "
                f"{shared.holds:.0%}; what ends beyond that is theirs next"
            )

    def _remarked(self, decisions: list[Decision], raised: Set[str] = frozenset()) -> list[Decision]:
        """Whoever waits is told with whom the cluster is shared.

        Args:
            raised: runs for which others of this sweep would have made room.
        """
        has = ((claim.name, claim.holds()) for claim in self._others)
        words = " and ".join(f"sweep {name} has {holds}" for name, holds in has if not Resources().fits(holds))
        words = f"; {words}" if words else ""
        rests = f"{words}; {RESTS}"
        made: dict[tuple[str, bool], str] = {}

        def told(hold: Hold) -> Hold:
            key = hold.reason, hold.run_id in raised
            return Hold(hold.run_id, made.setdefault(key, hold.reason + (rests if key[1] else words)), hold.eta)

        return [told(d) if isinstance(d, Hold) else d for d in decisions] if words or raised else decisions


def _urgent(claim: Claim, wants: Sequence[Job], now: float) -> Claim:
    """A claim with how urgent it is, by what it wants."""
    return replace(
        claim,
        weight=2.0 ** max(-MOST_STEPS, min(MOST_STEPS, max(job.priority for job in wants))),
        lasts=max([claim.lasts, *(job.seconds for job in wants if job.seconds < math.inf)]),
        waited=max(0.0, now - min(job.queued for job in wants)),
    )


def _devices(run: Running) -> float:
    return sum(run.allocation.values()) * (run.worker.gpus or run.worker.cpus)


def _alike(held: Sequence[Running], now: float) -> tuple[Running, ...]:
    """Runs of one shape on one node together, until the last ends, where all do within a power of two of seconds."""
    found: dict[object, Running] = {}
    for run in held:
        (node, n), *more = run.allocation.items()
        key = run.run_id if more else (node, run.worker, math.frexp(min(max(0.0, run.ends - now), FAR))[1])
        before = found.get(key)
        found[key] = run if before is None else _both(before, run, node, n)
    return tuple(found.values())


def _both(one: Running, other: Running, node: str, n: int) -> Running:
    return replace(one, allocation={node: one.allocation[node] + n}, ends=max(one.ends, other.ends))


def within(waits: Iterable[Job], held: Sequence[Running], most: float | None) -> Iterator[Job]:
    """The first that wait, as many as fit beside what is held into so many devices."""
    left = math.inf if most is None else most - sum(map(_devices, held))
    for job in waits:
        left -= job.kind.devices
        if left < 0:
            return
        yield job


def _wants(waits: Iterable[Job]) -> tuple[tuple[Job, int], ...]:
    """The first that wait, those of a kind that follow one another together."""
    found: list[tuple[Job, int]] = []
    for job in waits:
        if found and found[-1][0].kind is job.kind:
            first, n = found[-1]
            found[-1] = (first if first.seconds >= job.seconds else replace(first, seconds=job.seconds)), n + 1
        elif len(found) < MOST:
            found.append((job, 1))
        else:
            break
    return tuple(found)
