"""What the scheduler would do with a queue on a cluster: its own decisions, on a clock that jumps from event to event.

A discrete-event simulation. Runs take as long as they are estimated to, on nodes of other kinds of GPU so many times
longer as is said, or as ``Failures`` draws it; nodes are lost and come back, runs crash and go on from their last
checkpoint, some make room for others. Whatever is drawn depends on the seed and on the run or node alone, never on the
order of events: two policies meet the same day.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sweeps.scheduling.inventory import ACCELERATOR, Allocation, Inventory, Node, Resources
from sweeps.scheduling.jobs import (
    RETURN_SECONDS,
    Decision,
    Hold,
    Job,
    Preempt,
    Refuse,
    Rules,
    Running,
    Start,
    missing,
)
from sweeps.scheduling.ledger import Ledger, Queue
from sweeps.scheduling.scheduler import PLAIN, skim

Policy = Callable[[float, Ledger, Queue, Inventory, Rules], list[Decision]]
Watch = Callable[[float, Inventory, list[Job], list[Running], list[Decision]], None]


@dataclass(frozen=True, kw_only=True)
class Spell:
    """When a run held its resources, and what these were; a run that was interrupted has several."""

    run_id: str
    started: float
    ended: float
    resources: Resources
    outcome: str = "done"  # done | stopped | crashed | lost: a node of it
    allocation: Allocation = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """How a queue went: every run's spells, in the order of starts, and why those that never started did not."""

    spells: list[Spell]
    refused: dict[str, str]

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max((spell.ended for spell in self.spells), default=0.0)

    def gpu_seconds(self) -> float:
        """Held by runs, over all of them."""
        return sum((spell.ended - spell.started) * spell.resources.gpus for spell in self.spells)


@dataclass(frozen=True, kw_only=True)
class Failures:
    """What goes otherwise than planned. Times in seconds; by default nothing does."""

    seed: int = 0
    node_hours: float = math.inf  # between two losses of one node, on average (exponential)
    back_seconds: float = 3600.0  # until it is back
    run_fails: float = 0.0  # the chance of each attempt to crash, anywhere in it
    spread: float = 0.0  # a run takes its estimate times exp(spread x a standard normal)
    checkpoint: float = 600.0  # between two checkpoints: what was done since the last is lost with a crash or a node
    stop: float = 10.0  # to write one and end, when a run makes room

    def drawn(self, *about: object) -> random.Random:
        """Chance about one thing: the same for every policy."""
        return random.Random(":".join(map(str, (self.seed, *about))))


NONE = Failures()


def simulate(
    inventory: Inventory,
    jobs: Sequence[Job],
    after: Mapping[str, tuple[str, float]] | None = None,
    *,
    rules: Rules = PLAIN,
    failures: Failures = NONE,
    slower: Mapping[str, Mapping[str, float]] | None = None,
    policy: Policy = skim,
    watch: Watch | None = None,
) -> Simulated:
    """Run a queue to its end.

    Args:
        jobs: with estimates of their length, which must be finite; a job waits from its ``queued`` on.
        after: jobs that wait until another has done so many seconds of its work: what they need is not there before.
        slower: by run, how many times as long as estimated it takes on which kinds of GPU; a gang as on its slowest.
        policy: what decides; the scheduler, or another to compare it with.
        watch: called at every pass, before what was decided happens.

    Raises:
        ValueError: where a length is not known.
    """
    if unknown := [job.run_id for job in jobs if not 0 <= job.seconds < math.inf]:
        raise ValueError(f"{unknown[0]}: a run of unknown length cannot be simulated; estimate it first")
    day = _Day(inventory, jobs, after or {}, rules, failures, slower or {})
    while day.events and (len(day.queue) or day.attempts or day.coming):
        now = day.events[0][0]
        changed = False
        while day.events and day.events[0][0] <= now:
            changed |= heapq.heappop(day.events)[2](now)
        if changed:
            day.decide(now, policy, watch)
    for job in day.queue:  # held, and nothing runs that could make room
        day.refused[job.run_id] = day.reasons.get(job.run_id, "finds no room")
    for other, waiting in day.later.items():
        day.refused |= {job.run_id: f"waits for {other}, which never starts" for _, job in waiting}
    day.spells.sort(key=lambda one: one[0])
    return Simulated(spells=[spell for _, spell in day.spells], refused=day.refused)


@dataclass(kw_only=True, slots=True)
class _Attempt:
    """A run under way."""

    job: Job  # as it was queued
    started: float
    order: int  # of the starts
    left: float  # seconds that it takes from here, in truth
    slow: float  # times as long as it was asked for: of its nodes
    resources: Resources
    allocation: Allocation


@dataclass(kw_only=True, slots=True)
class _Work:
    """What is known of a run over its attempts."""

    job: Job  # as it was asked for
    length: float  # in truth
    done: float = 0.0  # of that, up to the last checkpoint
    attempts: int = 0
    later: list[tuple[float, Job]] = field(default_factory=list)  # who waits until so much of the length is done


class _Day:
    """The cluster between two events. An event is a function of the time; it returns whether anything changed."""

    def __init__(
        self,
        inventory: Inventory,
        jobs: Sequence[Job],
        after: Mapping[str, tuple[str, float]],
        rules: Rules,
        failures: Failures,
        slower: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.inventory, self.rules, self.failures, self.slower = inventory, rules, failures, slower
        self.ledger, self.queue = Ledger(inventory), Queue(rules)
        self.gpus = {node.name: node.labels.get(ACCELERATOR, "") for node in inventory}
        self.down: dict[str, float] = {}  # since when a node is lost
        self.order = itertools.count()
        self.events: list[tuple[float, int, Callable[[float], bool]]] = []
        self.works: dict[str, _Work] = {}
        self.waiting: dict[str, Job] = {}
        self.attempts: dict[str, _Attempt] = {}
        self.spells: list[tuple[int, Spell]] = []
        self.refused: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.later: dict[str, list[tuple[float, Job]]] = {}
        self.coming = 0  # jobs that are still to be queued
        names = {job.run_id for job in jobs}
        for job in jobs:
            spread = (
                math.exp(failures.spread * failures.drawn("length", job.run_id).gauss()) if failures.spread else 1.0
            )
            self.works[job.run_id] = _Work(job=job, length=job.seconds * spread)
            other, seconds = after.get(job.run_id, ("", 0.0))
            if other in names:
                self.later.setdefault(other, []).append((seconds, job))
            else:
                self.come(job, job.queued)
        if failures.node_hours < math.inf:
            for node in inventory:
                self.lose_later(node, failures.drawn("node", node.name), 0.0)

    def at(self, time: float, what: Callable[[float], bool]) -> None:
        """Something happens then."""
        heapq.heappush(self.events, (time, next(self.order), what))

    # ------------------------------------------------------------------------------------------------------- the queue

    def come(self, job: Job, time: float) -> None:
        """A job is queued then."""

        def comes(now: float) -> bool:
            self.coming -= 1
            self.wait(job)
            return True

        self.coming += 1
        self.at(time, comes)

    def wait(self, job: Job) -> None:
        """A job is queued now."""
        self.waiting[job.run_id] = job
        self.queue.add(job)

    def decide(self, now: float, policy: Policy, watch: Watch | None) -> None:
        """Ask the policy, and do what it says."""
        before = (list(self.queue), [run for run, _ in self.ledger.held.values()]) if watch else ([], [])
        decisions = policy(now, self.ledger, self.queue, self.inventory, self.rules)
        if watch is not None:
            watch(now, self.ledger.inventory, *before, decisions)
        for decision in decisions:
            if isinstance(decision, Hold):
                self.reasons[decision.run_id] = decision.reason
            elif isinstance(decision, Preempt):
                self.stop(decision.run_id, now)
            else:
                job = self.waiting.pop(decision.run_id)
                self.queue.remove(job)
                if isinstance(decision, Refuse):
                    self.refused[job.run_id] = decision.reason
                else:
                    self.start(job, decision, now)

    # -------------------------------------------------------------------------------------------------------- the runs

    def start(self, job: Job, start: Start, now: float) -> None:
        """An attempt begins; what will end it is drawn."""
        work, held = self.works[job.run_id], job.worker.times(job.workers)
        times = self.slower.get(job.run_id, {})
        slow = max(times.get(self.gpus[name], 1.0) for name in start.allocation)
        work.attempts += 1
        attempt = _Attempt(
            job=job,
            started=now,
            order=next(self.order),
            left=slow * (work.length - work.done),
            slow=slow,
            resources=held,
            allocation=start.allocation,
        )
        self.attempts[job.run_id] = attempt
        ends = now + slow * job.seconds
        self.ledger.change(replace(self.ledger.held[job.run_id][0], resumable=True, ends=ends))
        chance = self.failures.drawn("attempt", job.run_id, work.attempts)
        if self.failures.run_fails and chance.random() < self.failures.run_fails:
            self.at(now + chance.random() * attempt.left, lambda t: self.end(attempt, t, "crashed"))
        self.at(now + attempt.left, lambda t: self.end(attempt, t, "done"))
        for seconds, other in self.later.pop(job.run_id, []):
            work.later.append((seconds * work.length / work.job.seconds if work.job.seconds else 0.0, other))
        for needed, _ in work.later:
            self.at(now + slow * max(0.0, needed - work.done), lambda t: self.free_later(attempt, t))

    def free_later(self, attempt: _Attempt, now: float) -> bool:
        """Who waited for a checkpoint of this attempt is queued."""
        if self.attempts.get(attempt.job.run_id) is not attempt:
            return False
        work = self.works[attempt.job.run_id]
        done = work.done + (now - attempt.started) / attempt.slow + 1e-9 * (1 + now)
        ready = [other for needed, other in work.later if needed <= done]
        work.later = [(needed, other) for needed, other in work.later if needed > done]
        for other in ready:
            self.wait(replace(other, queued=now))
        return bool(ready)

    def end(self, attempt: _Attempt, now: float, outcome: str) -> bool:
        """An attempt ends, unless it has already."""
        run_id = attempt.job.run_id
        if self.attempts.get(run_id) is not attempt:
            return False
        del self.attempts[run_id]
        self.ledger.release(run_id)
        spell = Spell(
            run_id=run_id,
            started=attempt.started,
            ended=now,
            resources=attempt.resources,
            allocation=attempt.allocation,
            outcome=outcome,
        )
        self.spells.append((attempt.order, spell))
        work, ran = self.works[run_id], now - attempt.started
        if outcome == "done":
            for _, other in work.later:
                self.wait(replace(other, queued=now))
            work.later = []
            return True
        every = self.failures.checkpoint
        kept = ran // every * every if every < math.inf else 0.0
        if outcome == "stopped":
            kept = max(0.0, ran - self.failures.stop)
        work.done = min(work.length, work.done + kept / attempt.slow)
        share = 1 - work.done / work.length if work.length else 0.0
        self.wait(replace(work.job, queued=attempt.job.queued, seconds=share * work.job.seconds))  # with its old age
        return True

    def stop(self, run_id: str, now: float) -> None:
        """A run is asked to write a checkpoint and end."""
        attempt = self.attempts[run_id]
        self.ledger.change(replace(self.ledger.held[run_id][0], stopping=True))
        self.at(now + self.failures.stop, lambda t: self.end(attempt, t, "stopped"))

    # ------------------------------------------------------------------------------------------------------- the nodes

    def lose_later(self, node: Node, chance: random.Random, now: float) -> None:
        """A node is lost at some time, and with it the runs that it had a part of."""

        def lost(then: float) -> bool:
            for attempt in [a for a in self.attempts.values() if node.name in a.allocation]:
                self.end(attempt, then, "lost")
            self.down[node.name] = then
            self.at(then + self.failures.back_seconds, back)
            self.at(then + RETURN_SECONDS, self.nodes_changed)
            return self.nodes_changed(then)

        def back(then: float) -> bool:
            del self.down[node.name]
            self.lose_later(node, chance, then)
            return self.nodes_changed(then)

        self.at(now + chance.expovariate(1 / (3600 * self.failures.node_hours)), lost)

    def nodes_changed(self, now: float) -> bool:
        """The ledger of the living nodes, and of those that should be back soon."""
        gone = [node for node in self.inventory if now >= self.down.get(node.name, math.inf) + RETURN_SECONDS]
        soon = [node for node in self.inventory if node.name in self.down and node not in gone]
        here = [node for node in self.inventory if node not in gone]
        running = [run for run, _ in self.ledger.held.values() if run.run_id in self.attempts]
        self.ledger = Ledger(here, [*running, *(missing(node, self.down[node.name]) for node in soon)])
        return True


def cluster(gpus: int, node: int, cores: float) -> Inventory:
    """A cluster of so many GPUs in nodes of ``node``; the last has what is left.

    Args:
        cores: beside each GPU.
    """
    whole, rest = divmod(gpus, node)
    full = Node(name="", total=Resources(cpus=cores * node, gpus=node))
    nodes = [replace(full, name=f"node-{i:05d}") for i in range(whole)]
    if rest:
        nodes.append(Node(name=f"node-{whole:05d}", total=Resources(cpus=cores * rest, gpus=rest)))
    return nodes
