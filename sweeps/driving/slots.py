"""How many more runs of a sweep could start now: what proposers fill and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.fairness import fraction, total
from sweeps.scheduling.inventory import EPSILON, Inventory
from sweeps.scheduling.scheduler import Kind, Running

MOST = 1024  # more than a proposer ever asks for


def free(
    inventory: Inventory, holding: Iterable[Running], kind: Kind, states: Mapping[str, RunState], due: float = 0.0
) -> int:
    """Runs for which there is room beside those that hold resources and those that wait for it.

    Where no run is on its way it is one at least: whether that can ever start is the scheduler's to say.

    Args:
        holding: of this sweep and of others.
        kind: of this sweep's runs.
        due: share of the cluster for which there is room too, beside this sweep's: others give it back as they end.
    """
    room = Capacity.of(inventory)
    share, found = room.share(kind), 0
    for run in holding:
        room.take(run.worker, run.allocation)
    while share and found < MOST and (place := room.place(kind, share)) is not None:
        room.take(kind.worker, place)
        found += 1
    phases = Counter(state.phase for state in states.values())
    found = max(found, fair(due, kind, inventory) - phases[Phase.RUNNING])
    found = min(MOST, found) - phases[Phase.WAITING]
    return found if any(state.phase in OPEN for state in states.values()) else max(1, found)


def fair(share: float, kind: Kind, inventory: Inventory) -> int:
    """Runs of a kind that a share of the cluster is as much as."""
    one = fraction(kind.worker.times(kind.workers), total(inventory))
    return int(share / one + EPSILON) if one else 0
