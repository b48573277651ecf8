"""When the waiting runs should start and the sweep should end: runs of one shape over the places there are; pure.

The scheduler says when the first run that does not fit may start. For all the others their order and estimates do: each
takes the place that is free first. That leaves fragmentation and gangs that wait for whole nodes out, so it is early
rather than late.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.scheduling.inventory import EPSILON, Inventory, Resources
from sweeps.scheduling.scheduler import Kind, Running


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Times of whichever clock was asked by."""

    starts: Mapping[str, float] = field(default_factory=dict)  # of runs that wait
    ends: Mapping[str, float] = field(default_factory=dict)  # of the same
    end: float | None = None  # of the last run; None where nothing tells it


def places(kind: Kind, inventory: Inventory, others: Sequence[Running] = ()) -> int:
    """How many runs of a kind the cluster could hold at once, by its workers' number."""
    return frees(kind, inventory, others).count(-math.inf)


def frees(kind: Kind, inventory: Inventory, others: Sequence[Running]) -> list[float]:
    """When each place of the cluster for runs of a kind is free, in order, as what others hold ends; -inf: at once."""
    left = {node.name: node.total for node in inventory}
    for run in others:
        for name in run.allocation.keys() & left.keys():
            left[name] = left[name].minus(run.worker.times(run.allocation[name]))
    room = {name: _fits(rest, kind.worker) for name, rest in left.items()}
    workers = sum(room.values())
    found = [-math.inf] * (workers // kind.workers)
    for run in sorted(others, key=lambda run: run.ends):
        for name in run.allocation.keys() & left.keys():
            left[name] = left[name].plus(run.worker.times(run.allocation[name]))
            workers -= room[name]
            room[name] = _fits(left[name], kind.worker)
            workers += room[name]
        found += [run.ends] * (workers // kind.workers - len(found))
    return found


def _fits(left: Resources, worker: Resources) -> int:
    fits = [(left.gpus + EPSILON) / worker.gpus] if worker.gpus else []
    fits += [(left.cpus + EPSILON) / worker.cpus] if worker.cpus else []
    return max(0, int(min(fits, default=0.0)))


def expect(
    now: float,
    queue: Sequence[tuple[str, float]],
    ends: Sequence[float],
    room: int,
    known: Mapping[str, float | None] | None = None,
    later: Sequence[float] = (),
) -> Expected:
    """Go through the queue.

    Args:
        queue: run and seconds of each waiting run, in the order in which they should start.
        ends: when each running one should end.
        room: runs that the cluster holds at once, the running ones among them.
        known: starts that the scheduler expects, which count; infinite where nothing tells them, nor the end then.
        later: when places are free that others hold.
    """
    free = [max(now, end) for end in [*ends, *later]] + [now] * (room - len(ends))
    if not free:
        return Expected(end=None if queue else now)
    heapq.heapify(free)
    starts: dict[str, float] = {}
    ended: dict[str, float] = {}
    last = max([now, *ends])
    for run_id, seconds in queue:
        if (said := (known or {}).get(run_id)) == math.inf:
            last = math.inf
            continue
        begin = heapq.heappop(free)
        starts[run_id] = begin if said is None else said
        ended[run_id] = starts[run_id] + seconds
        heapq.heappush(free, begin + seconds)
        last = max(last, begin + seconds)
    return Expected(starts=starts, ends=ended, end=last if last < math.inf else None)
