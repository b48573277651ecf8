"""How long the runs of a sweep take, corrected by those that have finished, and what their devices cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from gpt3core import costs
from gpt3core.parallel.layout import Layout
from gpt3core.spec import RunSpec
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning import estimate, hardware, placing
from sweeps.planning.recipe import Recipe
from sweeps.scheduling.scheduler import Job, Kind


class Estimates:
    """Seconds of each run, and its place in the queue."""

    def __init__(self, recipe: Recipe) -> None:
        self.plan, self.place = recipe.plan, recipe.placement
        self._cheap_first = recipe.prune.by_value is not None  # a law is known before the costly runs are far
        self._speedups: list[float] = []
        self._speedup = 1.0
        self._guesses: dict[str, float] = {}  # seconds of training at a speedup of one
        self._jobs: dict[tuple[object, ...], Job] = {}
        self._recipe = recipe
        self._own: dict[str, Recipe] = {}  # by size
        self._kinds: dict[tuple[str, int | None], Kind] = {}
        self._layouts: dict[tuple[str, int | None], Layout | None] = {}

    def own(self, run: RunSpec) -> Recipe:
        """The recipe with a run's own placement and GPU."""
        if run.label not in self._own:
            self._own[run.label] = placing.own(self._recipe, run.label)
        return self._own[run.label]

    def kind(self, run: RunSpec, workers: int | None = None) -> Kind:
        """What a run asks of the cluster.

        Args:
            workers: of a gang that shrank; None for those of the recipe.
        """
        key = run.run_id, workers
        if key not in self._kinds:
            together = estimate.together(self.layout(run, workers))
            self._kinds[key] = placing.kind(self.own(run).placement, workers=workers, together=together)
        return self._kinds[key]

    def least(self, run: RunSpec) -> Kind:
        """What a run asks of the cluster where fewer workers do."""
        place = self.own(run).placement
        if place.min_workers is None or place.min_workers >= place.workers:
            return self.kind(run)
        return placing.kind(place, workers=place.min_workers, together=place.tensor or 1)

    @property
    def common(self) -> Kind:
        """What a run of a size without a placement of its own asks of the cluster, where fewer workers do."""
        return placing.kind(self.place, workers=self.place.min_workers, together=self.place.tensor or 1)

    def priority(self, state: RunState) -> int:
        """Of a run."""
        return placing.priority(self._recipe, state.spec.label)

    def layout(self, run: RunSpec, workers: int | None = None) -> Layout | None:
        """How a run is cut over its workers, where more than replicas are asked for or needed.

        Args:
            workers: of a gang that shrank; None for those of the recipe.
        """
        key = run.run_id, workers
        if key not in self._layouts:
            own = self.own(run)
            if workers is not None:
                own = replace(own, placement=replace(own.placement, workers=workers))
            self._layouts[key] = estimate.placed(run, own)
        return self._layouts[key]

    def device(self, run: RunSpec) -> tuple[float | None, float]:
        """Peak FLOP/s and USD per hour of a GPU that a run has; of a core there is nothing to say."""
        if not self.place.gpus:
            return None, 0.0
        plan = self.own(run).plan
        return hardware.gpu(plan).peak_flops, hardware.usd_per_hour(plan)

    def learn(self, run: RunSpec, result: Mapping[str, Any]) -> None:
        """Take a finished run's speed into account."""
        reached = result.get("flops_per_second")
        if not isinstance(reached, int | float) or not reached > 0:
            return
        place, plan = self.own(run).placement, self.own(run).plan
        expected = estimate.worker_flops(run, gpus=place.gpus, plan=plan, workers=place.workers)
        self._speedups.append(reached / max(1, result.get("devices", 1)) / expected)
        speedup = median(self._speedups)
        if speedup != self._speedup:
            self._speedup = speedup
            self._jobs.clear()

    def seconds(self, run: RunSpec) -> float:
        """How long a run takes on its workers, evaluation included."""
        if run.run_id not in self._guesses:
            place, plan = self.own(run).placement, self.own(run).plan
            whole = estimate.seconds(run, workers=place.workers, gpus=place.gpus, plan=plan)
            self._guesses[run.run_id] = whole - estimate.EVALUATION_SECONDS
        return self._guesses[run.run_id] / self._speedup + estimate.EVALUATION_SECONDS

    def left(self, state: RunState) -> float:
        """How long a run still takes once it runs."""
        if state.trained:
            return estimate.EVALUATION_SECONDS
        share = state.progress.step / max(1, state.progress.steps) if state.progress else 0.0
        fewer = self.own(state.spec).placement.workers / state.workers if state.workers else 1.0
        return (1 - max(share, _done_by_others(state))) * self.seconds(state.spec) * fewer

    def job(self, state: RunState) -> Job:
        """A waiting run as the scheduler sees it."""
        key = (state.run_id, state.trained, _done_by_others(state), state.workers, state.queued)
        if key not in self._jobs:
            kind = self.kind(state.spec, state.workers)
            self._jobs[key] = Job(
                run_id=state.run_id,
                **kind._asdict(),
                seconds=self.left(state),
                priority=self.priority(state),
                turn=self._turn(state.spec),
                queued=state.queued,
            )
        return self._jobs[key]

    def _turn(self, run: RunSpec) -> int:
        """Runs of the cheaper budgets first, where runs are pruned: in steps of a tenth of a decade."""
        if not self._cheap_first:
            return 0
        return round(10 * math.log10(costs.train_flops(run.model, run.tokens)))

    def eta(self, states: Iterable[RunState], running: int, now: float) -> float:
        """Seconds until all is done: the work left over the workers there are, and no less than the longest run's."""
        left = longest = 0.0
        for state in states:
            if state.phase == Phase.WAITING:
                left += self.job(state).seconds
            elif state.phase == Phase.RUNNING:
                left += self.left(state)
                longest = max(longest, state.ends - now)
        return max(left / max(1, running), min(longest, left))


def _done_by_others(state: RunState) -> float:
    """The share of a run that it need not do, for it starts from another's checkpoint."""
    prefix = state.prefix or state.awaits
    return 0.0 if prefix is None else prefix.step / state.spec.steps
