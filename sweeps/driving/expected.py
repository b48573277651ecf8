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

from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Kind, Running


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Times of whichever clock was asked by."""

    starts: Mapping[str, float] = field(default_factory=dict)  # of runs that wait
    ends: Mapping[str, float] = field(default_factory=dict)  # of the same
    end: float | None = None  # of the last run; None where nothing tells it


def places(kind: Kind, inventory: Inventory, others: Sequence[Running] = ()) -> int:
    """How many runs of a kind the cluster could hold at once, by its workers' number."""
    shape = kind.worker
    taken: dict[str, list[float]] = {}
    for other in others:
        for name in other.allocation:
            held = taken.setdefault(name, [0.0, 0.0])
            held[0] += other.worker.cpus
            held[1] += other.worker.gpus
    room = 0
    for node in inventory:
        cpus, gpus = taken.get(node.name, (0.0, 0.0))
        fits = []
        if shape.gpus:
            fits.append((node.total.gpus - gpus + 1e-6) / shape.gpus)
        if shape.cpus:
            fits.append((node.total.cpus - cpus + 1e-6) / shape.cpus)
        room += max(0, int(min(fits, default=0.0)))
    return room // kind.workers


def expect(
    now: float,
    queue: Sequence[tuple[str, float]],
    ends: Sequence[float],
    room: int,
    known: Mapping[str, float | None] | None = None,
) -> Expected:
    """Go through the queue.

    Args:
        queue: run and seconds of each waiting run, in the order in which they should start.
        ends: when each running one should end.
        room: runs that the cluster holds at once, the running ones among them.
        known: starts that the scheduler expects, which count; infinite where nothing tells them, nor the end then.
    """
    free = [max(now, end) for end in ends] + [now] * (room - len(ends))
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
