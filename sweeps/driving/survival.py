"""What keeps a sweep going when parts of it fail, one look a turn of the driver's loop.

Runs that do not get on are ended and resumed, those on nodes that are to be taken away write a checkpoint, nodes that
fail are avoided, and gangs whose recipe allows it start with fewer replicas rather than wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from gpt3core.errors import UsageError
from gpt3core.spec import RunSpec
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Update
from sweeps.driving.avoided import Avoided
from sweeps.driving.elastic import Elastic
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.misstarts import taken
from sweeps.driving.notices import Notices
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.stalls import Stalls
from sweeps.planning.recipe import Placement
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Kind, Running

PAUSE_SECONDS = 10.0  # between two looks: longer means that this process was stopped meanwhile


class Survival:
    """Looks after the runs of a sweep."""

    def __init__(self, place: Placement, estimates: Estimates, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._place, self._estimates, self._cluster, self._say = place, estimates, cluster, say
        self.avoided = Avoided(say)
        self._stalls, self._notices = Stalls(place.stall_seconds), Notices(cluster, say)
        self._looked = math.inf
        self._sizes: dict[str, list[int]] = {}
        self._elastic: Elastic | None = None
        if place.min_workers is not None:
            self._elastic = Elastic(self.sizes, estimates.job, place.shrink_seconds)

    def heard(self, update: Update, now: float, state: RunState | None = None) -> None:
        """What is said of a run, before its state takes note of it.

        Args:
            state: of the run; None of the preparation.
        """
        self._stalls.heard(update, now)
        if update.state not in ("failed", "lost", "unstarted"):
            return
        kind = self._estimates.common if state is None else self._estimates.kind(state.spec)
        if not taken(update, kind.worker, self._cluster):
            cause = Cause.DEATH if update.state == "unstarted" else update.cause
            self.avoided.failed(update.node, update.run_id, cause, update.error, now)

    def look(self, states: Mapping[str, RunState], now: float) -> list[Update]:
        """Ask the runs of nodes that leave to stop; end those that do not get on, and tell of them."""
        if (gap := now - self._looked) > PAUSE_SECONDS:
            self._stalls.paused(gap)
        self._looked = now
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

    def usable(self, inventory: Inventory, runs: Sequence[RunState], now: float) -> Inventory:
        """The nodes on which something may start.

        Args:
            runs: that are on the way.
        """

        def kinds() -> set[Kind]:
            return {self._estimates.least(run) for run in {state.spec.label: state.spec for state in runs}.values()}

        return self.avoided.look(self._notices.staying(inventory), kinds, now)

    def fit(
        self,
        states: Mapping[str, RunState],
        waiting: Sequence[RunState],
        inventory: Inventory,
        held: Sequence[Running],
        now: float,
        *,
        shared: bool = False,
    ) -> None:
        """Choose how many workers each waiting run is started with, and stop small gangs that may grow.

        Args:
            shared: whether another sweep waits for room.
        """
        if self._elastic is None:
            return
        self._elastic.choose(waiting, inventory, held, now)
        if waiting or shared:
            return  # what is free is for them
        running = [state for state in states.values() if state.phase == Phase.RUNNING]
        for state in self._elastic.to_grow(running, inventory, held, now):
            state.stopping = True
            self._cluster.stop(state.run_id)
            self._say(
                f"growing {state.run_id}: there is room for {self.sizes(state)[0]} workers again; its checkpoint first"
            )

    def adopted(self, state: RunState, run: Running) -> int | None:
        """With how many workers an earlier driver started a run, None where it was with all of them."""
        workers = sum(run.allocation.values())
        return workers if workers in self.sizes(state)[1:] else None

    def sizes(self, state: RunState) -> Sequence[int]:
        """The numbers of workers with which a run may start, all of them first."""
        run, place = state.spec, self._estimates.own(state.spec).placement
        if run.run_id not in self._sizes:
            fewer = range(place.workers - 1, (place.min_workers or place.workers) - 1, -1)
            self._sizes[run.run_id] = [place.workers, *(n for n in fewer if self._shares(run, n))]
        return self._sizes[run.run_id]

    def _shares(self, run: RunSpec, workers: int) -> bool:
        """Whether whole replicas of a run on so many workers share its batch."""
        try:
            cut = self._estimates.layout(run, workers)
        except UsageError:
            return False
        replicas = workers if cut is None else cut.data
        return (run.optim.ramp.start // run.unit_tokens) % replicas == 0
