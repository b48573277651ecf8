"""What the scheduler would do with a queue on a cluster: its own decisions, on a clock that jumps from end to end.

A discrete-event simulation: runs take as long as they are estimated to, and whenever one ends the real ``decide`` is
asked again. Events lie in a heap, so that others (a node that is lost, one that comes back) are more entries of it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sweeps.scheduling.inventory import Inventory, Node, Resources
from sweeps.scheduling.scheduler import Hold, Job, Refuse, Running, Start, decide


@dataclass(frozen=True, kw_only=True)
class Spell:
    """When a run held its resources, and what these were."""

    run_id: str
    started: float
    ended: float
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """How a queue went: every run's time, in the order of starts, and why those that never started did not."""

    spells: list[Spell]
    refused: dict[str, str]

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max((spell.ended for spell in self.spells), default=0.0)

    def gpu_seconds(self) -> float:
        """Held by runs, over all of them."""
        return sum((spell.ended - spell.started) * spell.resources.gpus for spell in self.spells)


def simulate(
    inventory: Inventory, jobs: Sequence[Job], after: Mapping[str, tuple[str, float]] | None = None
) -> Simulated:
    """Run a queue to its end.

    Args:
        jobs: with estimates of their length, which must be finite; a job waits from its ``queued`` on.
        after: jobs that wait from so many seconds after another's start on: what they need is not there before.

    Raises:
        ValueError: where a length is not known.
    """
    if unknown := [job.run_id for job in jobs if not 0 <= job.seconds < float("inf")]:
        raise ValueError(f"{unknown[0]}: a run of unknown length cannot be simulated; estimate it first")
    state, names = _State(inventory=inventory), {job.run_id for job in jobs}
    for job in jobs:
        other, seconds = (after or {}).get(job.run_id, ("", 0.0))
        if other in names:
            state.later.setdefault(other, []).append((seconds, job))
        else:
            state.push(job.queued, job)
    while state.events:
        now = state.events[0][0]
        while state.events and state.events[0][0] <= now:
            state.take(heapq.heappop(state.events)[2])
        state.decide(now)
    for job in state.waiting.values():  # held, and nothing runs that could make room
        state.refused[job.run_id] = state.reasons[job.run_id]
    for other, waiting in state.later.items():
        state.refused |= {job.run_id: f"waits for {other}, which never starts" for _, job in waiting}
    return Simulated(spells=state.spells, refused=state.refused)


@dataclass(kw_only=True)
class _State:
    """The cluster between two events."""

    inventory: Inventory
    events: list[tuple[float, int, Job | str]] = field(default_factory=list)  # a job that comes, a run that ends
    waiting: dict[str, Job] = field(default_factory=dict)
    later: dict[str, list[tuple[float, Job]]] = field(default_factory=dict)  # by the run that they wait for
    running: dict[str, Running] = field(default_factory=dict)
    spells: list[Spell] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    order: itertools.count[int] = field(default_factory=itertools.count)

    def push(self, time: float, what: Job | str) -> None:
        heapq.heappush(self.events, (time, next(self.order), what))

    def take(self, what: Job | str) -> None:
        """Let an event happen."""
        if isinstance(what, Job):
            self.waiting[what.run_id] = what
        else:
            del self.running[what]

    def decide(self, now: float) -> None:
        """Ask the scheduler, and do what it says."""
        for decision in decide(now, self.inventory, list(self.waiting.values()), list(self.running.values())):
            if isinstance(decision, Hold):
                self.reasons[decision.run_id] = decision.reason
                continue
            job = self.waiting.pop(decision.run_id)
            if isinstance(decision, Refuse):
                self.refused[job.run_id] = decision.reason
                continue
            assert isinstance(decision, Start)
            run = Running(run_id=job.run_id, worker=job.worker, allocation=decision.allocation, ends=now + job.seconds)
            self.running[job.run_id] = run
            held = job.worker.times(job.workers)
            self.spells.append(Spell(run_id=job.run_id, started=now, ended=run.ends, resources=held))
            self.push(run.ends, job.run_id)
            for seconds, other in self.later.pop(job.run_id, []):
                self.push(now + seconds, replace(other, queued=now + seconds))


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
