"""How many more runs of a sweep could start now: what proposers fill and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Kind, Running

MOST = 1024  # more than a proposer ever asks for


def free(inventory: Inventory, holding: Iterable[Running], kind: Kind, states: Mapping[str, RunState]) -> int:
    """Runs for which there is room beside those that hold resources and those that wait for it.

    Where no run is on its way it is one at least: whether that can ever start is the scheduler's to say.

    Args:
        holding: of this sweep and of others.
        kind: of this sweep's runs: a worker's shape, how many make a run, how many of them share a node.
    """
    worker, workers, together = kind
    room = Capacity.of(inventory)
    for run in holding:
        room.take(run.worker, run.allocation)
    if workers == 1:
        found = sum(node.workers(worker) for node in room.free.values())
    else:
        found = 0
        while found < MOST and (place := room.place(worker, workers, together)) is not None:
            room.take(worker, place)
            found += 1
    waiting = sum(state.phase == Phase.WAITING for state in states.values())
    found = min(MOST, found) - waiting
    return found if any(state.phase in OPEN for state in states.values()) else max(1, found)
