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
from sweeps.planning import estimate, hardware
from sweeps.planning.recipe import Recipe
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job, Kind


class Estimates:
    """Seconds of each run, and its place in the queue."""

    def __init__(self, recipe: Recipe) -> None:
        self.plan, self.place = recipe.plan, recipe.placement
        self.shape = Resources(cpus=self.place.cpus, gpus=self.place.gpus)
        self._cheap_first = recipe.prune.by_value is not None  # a law is known before the costly runs are far
        self._speedups: list[float] = []
        self._speedup = 1.0
        self._guesses: dict[str, float] = {}  # seconds of training at a speedup of one
        self._jobs: dict[tuple[str, bool, float, int], Job] = {}
        self._recipe = recipe
        self._layouts: dict[tuple[str, int], Layout | None] = {}

    @property
    def kind(self) -> Kind:
        """What every run asks of the cluster at least."""
        return self.shape, self.place.min_workers or self.place.workers, self.place.tensor or 1

    def layout(self, run: RunSpec, workers: int | None = None) -> Layout | None:
        """How a run is cut over its workers, where more than replicas are asked for or needed.

        Args:
            workers: of a gang that shrank; None for those of the recipe.
        """
        key = run.run_id, workers or self.place.workers
        if key not in self._layouts:
            place = replace(self.place, workers=key[1])
            self._layouts[key] = estimate.placed(run, replace(self._recipe, placement=place))
        return self._layouts[key]

    def device(self) -> tuple[float | None, float]:
        """Peak FLOP/s and USD per hour of a GPU; of a core there is nothing to say."""
        if not self.place.gpus:
            return None, 0.0
        return hardware.gpu(self.plan).peak_flops, hardware.usd_per_hour(self.plan)

    def learn(self, run: RunSpec, result: Mapping[str, Any]) -> None:
        """Take a finished run's speed into account."""
        reached = result.get("flops_per_second")
        if not isinstance(reached, int | float) or not reached > 0:
            return
        expected = estimate.worker_flops(run, gpus=self.place.gpus, plan=self.plan, workers=self.place.workers)
        self._speedups.append(reached / max(1, result.get("devices", 1)) / expected)
        speedup = median(self._speedups)
        if speedup != self._speedup:
            self._speedup = speedup
            self._jobs.clear()

    def seconds(self, run: RunSpec) -> float:
        """How long a run takes on its workers, evaluation included."""
        if run.run_id not in self._guesses:
            whole = estimate.seconds(run, workers=self.place.workers, gpus=self.place.gpus, plan=self.plan)
            self._guesses[run.run_id] = whole - estimate.EVALUATION_SECONDS
        return self._guesses[run.run_id] / self._speedup + estimate.EVALUATION_SECONDS

    def left(self, state: RunState) -> float:
        """How long a run still takes once it runs."""
        if state.trained:
            return estimate.EVALUATION_SECONDS
        share = state.progress.step / max(1, state.progress.steps) if state.progress else 0.0
        fewer = self.place.workers / (state.workers or self.place.workers)
        return (1 - max(share, _done_by_others(state))) * self.seconds(state.spec) * fewer

    def job(self, state: RunState) -> Job:
        """A waiting run as the scheduler sees it."""
        done, workers = _done_by_others(state), state.workers or self.place.workers
        key = (state.run_id, state.trained, done, workers)
        if key not in self._jobs:
            self._jobs[key] = Job(
                run_id=state.run_id,
                worker=self.shape,
                workers=workers,
                together=estimate.together(self.layout(state.spec, workers)),
                seconds=self.left(state),
                priority=self._priority(state.spec),
            )
        return self._jobs[key]

    def _priority(self, run: RunSpec) -> int:
        """Runs of the cheaper budgets first, where runs are pruned: in steps of a tenth of a decade."""
        if not self._cheap_first:
            return 0
        return -round(10 * math.log10(costs.train_flops(run.model, run.tokens)))

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
