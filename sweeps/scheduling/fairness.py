"""How sweeps share a cluster: of what each says that it holds and waits for, all of them find the same order; pure.

A sweep's fair share is by max-min fairness, of the resource of which it takes most (Ghodsi et al. 2011): nobody is
given more than he wants, and the rest is for those who want more. What a sweep waits for within its share comes before
what others want beyond theirs, so whatever ends is refilled by whoever has too little; nobody is stopped, and what
nobody with too little can use is for anybody. A gang may be larger than a share, and is held whole: so within shares
the sweep goes first that has had least of what was due to it, over about the length of a run. It comes before all
others then, gets the reservation of the first of the queue, and starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import EPSILON, Inventory, Kind, Resources
from sweeps.scheduling.jobs import DAY, Job, Rules, Running
from sweeps.scheduling.ledger import place

NEVER_FIRST = -(10**6)  # the priority of what another sweep waits for: nothing of this one is stopped for it
STEP = 0.05  # of the cluster, by which what two sweeps have had must differ to change their order
LEAST_SECONDS = 60.0  # over which it is looked at, where runs are shorter


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a sweep holds of the cluster, and waits for."""

    key: str  # of no other sweep
    name: str  # as people call it
    weight: float = 1.0  # how many times as much is due to it
    excess: float = 0.0  # share of the cluster that it had beyond what was due to it, on an average of late
    lasts: float = 0.0  # seconds of its longest run
    waited: float = 0.0  # seconds for which the first that waits does
    held: tuple[Running, ...] = ()
    wants: tuple[tuple[Job, int], ...] = ()  # in its order: a run, and how many that are alike; of many the first

    def holds(self) -> Resources:
        """All that it has."""
        return _sum(r.worker.times(sum(r.allocation.values())) for r in self.held)


@dataclass(frozen=True, kw_only=True)
class Together:
    """The queue of all sweeps, as one of them sees it."""

    queue: list[Job]
    theirs: dict[str, str]  # of what others wait for: run -> key of the sweep
    share: float  # that is due to this sweep
    holds: float  # and that it holds


def together(mine: Claim, others: Sequence[Claim], jobs: Sequence[Job], nodes: Inventory, rules: Rules) -> Together:
    """Put what other sweeps wait for among the runs of this one.

    Args:
        mine: its ``wants`` are not looked at: they are ...
        jobs: ... all its waiting runs.
        nodes: that may be used.
    """
    whole, can = total(nodes), _possible(nodes)
    ordered = (job for job in sorted(jobs, key=lambda job: place(job, rules)) if can(job))
    claims = [mine, *others]
    wants = [((job, 1) for job in ordered), *((want for want in one.wants if can(want[0])) for one in others)]
    holds = [fraction(one.holds(), whole) for one in claims]
    fills = [_filling(one.holds(), want, whole) for one, want in zip(claims, wants, strict=True)]
    fair = shares(list(map(_end, fills, holds)), claims)
    turns = sorted(range(len(claims)), key=lambda i: _turn(claims[i], holds[i]))
    us = turns.index(0)
    queue, theirs = {id(job): job for job in jobs}, list[Job]()
    for at, i in enumerate(turns):
        one, later = claims[i], at - us  # 0 for this sweep's own, of which there may be thousands
        before = holds[i]
        for n, (job, after) in enumerate(fills[i]):
            within, before = before < fair[i] - EPSILON, after
            rank = later - len(claims) * within
            if i > 0:
                whose = f"{job.run_id} of sweep {one.name}"
                theirs.append(replace(job, run_id=whose, rank=rank, turn=n, queued=0.0, priority=NEVER_FIRST))
            elif not within:
                break
            else:
                queue[id(job)] = replace(job, rank=rank)
    return Together(
        queue=[*queue.values(), *theirs],
        theirs={f"{job.run_id} of sweep {one.name}": one.key for one in others for job, _ in one.wants},
        share=fair[0],
        holds=holds[0],
    )


def due(mine: Claim, others: Sequence[Claim], nodes: Inventory) -> float:
    """What would be due to a sweep that wants all there is, as a share of the cluster."""
    whole, can = total(nodes), _possible(nodes)
    fills = [_filling(one.holds(), (want for want in one.wants if can(want[0])), whole) for one in others]
    wanted = map(_end, fills, (fraction(one.holds(), whole) for one in others))
    return shares([1.0, *wanted], [mine, *others])[0]


def shares(wanted: Sequence[float], claims: Sequence[Claim]) -> list[float]:
    """What is due to each sweep, as a share of the cluster: all get as much, by weight, up to what they want.

    Args:
        wanted: what each holds and wants, as such a share.
    """
    wanted = [min(1.0, want) for want in wanted]
    found, left, open_ = [0.0] * len(claims), 1.0, set(range(len(claims)))
    while open_:
        level = left / sum(claims[i].weight for i in open_)
        full = [i for i in sorted(open_) if wanted[i] <= level * claims[i].weight + EPSILON]
        for i in full or sorted(open_):
            found[i] = wanted[i] if full else level * claims[i].weight
            left = max(0.0, left - found[i])
            open_.discard(i)
    return found


def excess(before: float, beyond: float, seconds: float, claims: Sequence[Claim]) -> float:
    """A sweep's ``Claim.excess`` after so many seconds in which it held so much beyond what was due to it."""
    over = min(DAY, max([LEAST_SECONDS, *(one.lasts for one in claims)]))
    return before + (1 - math.exp(-seconds / over)) * (beyond - before)


def fraction(amount: Resources, whole: Resources) -> float:
    """Of the resource of which it is most, as a share of all there is."""
    cpus = amount.cpus / whole.cpus if whole.cpus else 0.0
    return max(cpus, amount.gpus / whole.gpus if whole.gpus else 0.0)


def total(nodes: Inventory) -> Resources:
    """All that they have."""
    return _sum(node.total for node in nodes)


def _possible(nodes: Inventory) -> Callable[[Job], bool]:
    """Whether a run has a place on these nodes, were they empty."""
    empty, known = Capacity.of(nodes), dict[Kind, bool]()

    def can(job: Job) -> bool:
        if job.kind not in known:
            known[job.kind] = empty.share(job.kind) is not None
        return known[job.kind]

    return can


def _turn(claim: Claim, holds: float) -> tuple[float, float, float, str]:
    return round(claim.excess / STEP), holds / claim.weight, -claim.waited, claim.key


def _filling(holds: Resources, wants: Iterable[tuple[Job, int]], whole: Resources) -> list[tuple[Job, float]]:
    """The runs that a sweep waits for, one by one, and what it would hold with each; until that is all there is."""
    cpus, gpus, found = holds.cpus, holds.gpus, list[tuple[Job, float]]()
    all_cpus, all_gpus = whole.cpus or math.inf, whole.gpus or math.inf
    for job, count in wants:
        more = job.worker.times(job.workers)
        for _ in range(count):
            if cpus >= all_cpus or gpus >= all_gpus:
                return found
            cpus, gpus = cpus + more.cpus, gpus + more.gpus
            found.append((job, max(cpus / all_cpus, gpus / all_gpus)))
    return found


def _end(filling: Sequence[tuple[Job, float]], holds: float) -> float:
    """What it would hold with all that it waits for."""
    return filling[-1][1] if filling else holds


def _sum(amounts: Iterable[Resources]) -> Resources:
    cpus = gpus = 0.0
    for one in amounts:
        cpus, gpus = cpus + one.cpus, gpus + one.gpus
    return Resources(cpus=cpus, gpus=gpus)
