"""What keeps a sweep going when parts of it fail, one look a turn of the driver's loop.

Runs that do not get on are ended and resumed, those on nodes that are to be taken away write a checkpoint, nodes that
fail are avoided, and gangs whose recipe allows it start with fewer replicas rather than wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gpt3core.errors import UsageError
from gpt3core.spec import RunSpec
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Update
from sweeps.driving.avoided import Avoided
from sweeps.driving.elastic import Elastic, Size
from sweeps.driving.hands import Cluster
from sweeps.driving.notices import Notices
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.stalls import Stalls
from sweeps.planning import estimate
from sweeps.planning.recipe import Recipe
from sweeps.scheduling.inventory import Inventory, Resources
from sweeps.scheduling.scheduler import Running


class Survival:
    """Looks after the runs of a sweep."""

    def __init__(self, recipe: Recipe, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._recipe, self._place, self._cluster, self._say = recipe, recipe.placement, cluster, say
        shape = Resources(cpus=self._place.cpus, gpus=self._place.gpus)
        least = self._place.min_workers or self._place.workers
        self.avoided = Avoided((shape, least, self._place.tensor or 1), say)
        self._stalls, self._notices = Stalls(self._place.stall_seconds), Notices(cluster, say)
        self._sizes: dict[str, tuple[Size, ...]] = {}
        self._elastic: Elastic | None = None
        if least < self._place.workers:
            self._elastic = Elastic(shape, self._of, self._place.shrink_seconds)

    def heard(self, update: Update, now: float) -> None:
        """What is said of a run, before its state takes note of it."""
        self._stalls.heard(update, now)
        if update.state in ("failed", "lost", "unstarted"):
            cause = Cause.DEATH if update.state == "unstarted" else update.cause
            self.avoided.failed(update.node, update.run_id, cause, update.error, now)

    def look(self, states: Mapping[str, RunState], now: float) -> list[Update]:
        """Ask the runs of nodes that leave to stop; end those that do not get on, and tell of them."""
        running = self._cluster.running()
        self._notices.look(running, states)
        nodes = {run.run_id: next(iter(run.allocation), "") for run in running if len(run.allocation) == 1}
        ended = []
        for run_id, sentence in self._stalls.look(now).items():
            self._stalls.forget(run_id)
            if run_id not in states or states[run_id].phase != Phase.RUNNING:
                continue
            self._cluster.end(run_id)
            node = nodes.get(run_id, "")  # of a gang it is not known which of them
            ended.append(Update(run_id=run_id, state="failed", error=sentence, cause=Cause.STALL, node=node))
        return ended

    def usable(self, inventory: Inventory, now: float) -> Inventory:
        """The nodes on which something may start."""
        return self.avoided.look(self._notices.staying(inventory), now)

    def fit(
        self,
        states: Mapping[str, RunState],
        waiting: Sequence[RunState],
        inventory: Inventory,
        held: Sequence[Running],
        now: float,
    ) -> None:
        """Choose how many workers each waiting run is started with, and stop small gangs that may grow."""
        if self._elastic is None:
            return
        self._elastic.choose(waiting, inventory, held, now)
        if waiting:
            return  # what is free is for them
        running = [state for state in states.values() if state.phase == Phase.RUNNING]
        for state in self._elastic.to_grow(running, inventory, held, now):
            state.stopping = True
            self._cluster.stop(state.run_id)
            self._say(
                f"growing {state.run_id}: there is room for {self._place.workers} workers again; its checkpoint first"
            )

    def _of(self, run: RunSpec) -> tuple[Size, ...]:
        """The numbers of workers with which a run may start, all of them first."""
        if run.run_id not in self._sizes:
            numbers = range(self._place.workers, (self._place.min_workers or self._place.workers) - 1, -1)
            found = (self._size(run, workers) for workers in numbers)
            self._sizes[run.run_id] = tuple(size for size in found if size is not None)
        return self._sizes[run.run_id]

    def _size(self, run: RunSpec, workers: int) -> Size | None:
        """A number of workers, where whole replicas of the run on them share its batch."""
        recipe = with_workers(self._recipe, workers)
        try:
            cut = estimate.placed(run, recipe)
        except UsageError:
            return None
        replicas = workers if cut is None else cut.data
        if (run.optim.ramp.start // run.model.n_ctx) % replicas:
            return None
        return Size(workers=workers, together=estimate.together(cut))


def with_workers(recipe: Recipe, workers: int) -> Recipe:
    """The recipe with another number of workers a run."""
    return replace(recipe, placement=replace(recipe.placement, workers=workers))
