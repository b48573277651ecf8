"""Gangs that start with fewer replicas where their nodes are missing, and grow back; only where a recipe allows it.

The global batch and the order of the text stay the run's: fewer replicas take more rows each. Sums are in another
order, so the last bits differ from those of an undisturbed run, as between any two layouts; that is why it is asked for
(``placement.min_workers``). Times are of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt3core.spec import RunSpec
from sweeps.driving.run_state import RunState
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import Inventory, Resources
from sweeps.scheduling.scheduler import Running

ROOM_SECONDS = 30.0  # that there must have been room before a run is stopped to grow
GAIN_SECONDS = 300.0  # that it must save: a restart costs some tens


@dataclass(frozen=True, kw_only=True)
class Size:
    """A number of workers that a run may start with."""

    workers: int
    together: int = 1  # of them on one node


class Elastic:
    """Chooses how many workers each waiting run is started with."""

    def __init__(self, shape: Resources, sizes: Callable[[RunSpec], Sequence[Size]], patience: float) -> None:
        """Choose.

        Args:
            sizes: of a run, the largest first: the whole gang, and those that it may shrink to.
            patience: seconds that a run waits for the whole gang.
        """
        self._shape, self._sizes, self._patience = shape, sizes, patience
        self._since: dict[str, float] = {}  # when a run was first seen to wait
        self._room: dict[str, float] = {}  # since when a run that is small could be whole

    def choose(self, waiting: Sequence[RunState], inventory: Inventory, held: Sequence[Running], now: float) -> None:
        """Note with how many workers each run is to be started, None for all of them."""
        self._since = {state.run_id: self._since.get(state.run_id, now) for state in waiting}
        free, fitting = _free(inventory, held), dict[Size, bool]()
        for state in waiting:
            whole, *fewer = self._sizes(state.spec)
            state.workers = None
            for size in (whole, *fewer):
                if size not in fitting:
                    fitting[size] = self._fits(free, size)
            if not fitting[whole] and now - self._since[state.run_id] >= self._patience:
                state.workers = next((size.workers for size in fewer if fitting[size]), None)

    def to_grow(
        self, running: Sequence[RunState], inventory: Inventory, held: Sequence[Running], now: float
    ) -> list[RunState]:
        """Runs with fewer workers that are worth a restart with all of them, now that there is room."""
        found, rooms = [], {}
        for state in running:
            if state.workers is None or state.stopping:
                continue
            whole = self._sizes(state.spec)[0]
            others = [run for run in held if run.run_id != state.run_id]
            saved = max(0.0, state.ends - now) * (1 - state.workers / whole.workers)
            if saved < GAIN_SECONDS or not self._fits(_free(inventory, others), whole):
                continue
            rooms[state.run_id] = self._room.get(state.run_id, now)
            if now - rooms[state.run_id] >= ROOM_SECONDS:
                found.append(state)
        self._room = rooms
        return found

    def _fits(self, free: Capacity, size: Size) -> bool:
        return free.place(self._shape, size.workers, size.together) is not None


def _free(inventory: Inventory, held: Sequence[Running]) -> Capacity:
    free = Capacity.of(inventory)
    for run in held:
        free.take(run.worker, run.allocation)
    return free
