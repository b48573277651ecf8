"""Gangs that start with fewer replicas where their nodes are missing, and grow back; only where a recipe allows it.

The global batch and the order of the text stay the run's: fewer replicas take more rows each. Sums are in another
order, so the last bits differ from those of an undisturbed run, as between any two layouts; that is why it is asked for
(``placement.min_workers``). Times are of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeps.driving.run_state import RunState
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Job, Running, Start

ROOM_SECONDS = 30.0  # that there must have been room before a run is stopped to grow
GAIN_SECONDS = 300.0  # that it must save: a restart costs some tens


class Elastic:
    """Chooses how many workers each waiting run is started with."""

    def __init__(
        self, sizes: Callable[[RunState], Sequence[int]], job: Callable[[RunState], Job], patience: float
    ) -> None:
        """Choose.

        Args:
            sizes: the numbers of workers that a run may be started with, the largest first: that of the whole gang.
            job: a run as the scheduler sees it, with the workers that its state says.
            patience: seconds that a run waits for the whole gang.
        """
        self._sizes, self._job, self._patience = sizes, job, patience
        self._since: dict[str, float] = {}  # when a run was first seen to wait
        self._room: dict[str, float] = {}  # since when a run that is small could be whole

    def choose(self, waiting: Sequence[RunState], inventory: Inventory, held: Sequence[Running], now: float) -> None:
        """Note with how many workers each run is to be started, None for all of them."""
        self._since = {state.run_id: self._since.get(state.run_id, now) for state in waiting}
        known: dict[object, bool] = {}
        for state in waiting:
            fewer = self._sizes(state)[1:]
            if self._fits(state, None, inventory, held, known) or now - self._since[state.run_id] < self._patience:
                continue
            state.workers = next((n for n in fewer if self._fits(state, n, inventory, held, known)), None)

    def to_grow(
        self, running: Sequence[RunState], inventory: Inventory, held: Sequence[Running], now: float
    ) -> list[RunState]:
        """Runs with fewer workers that are worth a restart with all of them, now that there is room."""
        found, rooms = [], {}
        for state in running:
            if (workers := state.workers) is None or state.stopping:
                continue
            saved = max(0.0, state.ends - now) * (1 - workers / self._sizes(state)[0])
            others = [run for run in held if run.run_id != state.run_id]
            room = saved >= GAIN_SECONDS and self._fits(state, None, inventory, others, {})
            state.workers = workers
            if room:
                rooms[state.run_id] = self._room.get(state.run_id, now)
                found += [state] if now - rooms[state.run_id] >= ROOM_SECONDS else []
        self._room = rooms
        return found

    def _fits(
        self,
        state: RunState,
        workers: int | None,
        inventory: Inventory,
        held: Sequence[Running],
        known: dict[object, bool],
    ) -> bool:
        """Whether a run would start now with so many workers if it were the only one to wait."""
        state.workers = workers
        job = self._job(state)
        if job.kind not in known:
            known[job.kind] = isinstance(scheduler.decide(0.0, inventory, [job], held)[0], Start)
        return known[job.kind]
