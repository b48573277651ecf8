"""How long the runs of a sweep take, corrected by what is measured of them, and what their devices cost.

A run takes its training, at the FLOP/s of its size, and what comes beside it (start, evaluation). Both begin as a first
guess and are corrected by every run that ends and by those under way; how wrong the estimates were is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from gpt3core import costs
from gpt3core.parallel.layout import Layout
from gpt3core.spec import RunSpec
from gpt3core.store import outcomes
from sweeps.driving.run_state import RunState
from sweeps.driving.spending import Shapes
from sweeps.driving.throughput import Seen, Throughput
from sweeps.planning import estimate, hardware, placing
from sweeps.planning.limits import Cost
from sweeps.planning.recipe import Recipe
from sweeps.scheduling.scheduler import Job, Kind

LISTEN_SECONDS = 5.0  # between two looks at the runs under way
GUESSED = 2.0  # runs that the first guess of what comes beside the training is worth
SEEN_ITSELF = 20.0  # seconds of training after which a run's own speed counts half
NOTEWORTHY = 0.02  # change of ln(speed) for which the queue is estimated anew
LATE = 0.02  # share of its length that a run still takes that should have ended


@dataclass(frozen=True, kw_only=True)
class Account:
    """How wrong the estimates of the runs that ended were."""

    runs: int
    first: float  # median of actual over first guess
    first_error: float  # median of |ln| of that
    error: float  # the same of the estimate at the run's start


@dataclass(frozen=True, kw_only=True)
class _Guess:
    """A run before anything was measured."""

    size: float  # ln N
    workers: int
    seconds: float  # of training
    flops_per_token: float
    flops_per_second: float  # of a worker


class Estimates:
    """Seconds of each run, and its place in the queue."""

    def __init__(self, recipe: Recipe) -> None:
        self.plan, self.place = recipe.plan, recipe.placement
        self._cheap_first = recipe.prune.by_value is not None  # a law is known before the costly runs are far
        self.throughput = Throughput()
        self._guesses: dict[str, _Guess] = {}
        self._used: dict[tuple[float, int], float] = {}  # what the queue's estimates took for each size's speed
        self._beside: list[float] = []  # ln of the seconds that runs took beside their training
        self._rest = estimate.EVALUATION_SECONDS  # the same that is expected
        self._jobs: dict[tuple[object, ...], Job] = {}
        self._recipe = recipe
        self._own: dict[str, Recipe] = {}  # by size
        self._kinds: dict[tuple[str, int | None], Kind] = {}
        self._rates: dict[tuple[str, int | None, Shapes], Cost] = {}
        self._layouts: dict[tuple[str, int | None], Layout | None] = {}
        self._ends: dict[str, float] = {}  # training seconds of runs that ended
        self._begun: dict[str, tuple[float, float]] = {}  # at a run's start: what it should take, by both accounts
        self._errors: list[tuple[float, float]] = []  # ln(actual / expected), by both accounts
        self._listened = -math.inf

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
        fewer = min(self.place.workers, self.place.min_workers or self.place.workers)
        return placing.kind(self.place, workers=fewer, together=self.place.tensor or 1)

    def priority(self, state: RunState) -> int:
        """Of a run."""
        return placing.priority(self._recipe, state.spec.label)

    def devices(self, state: RunState) -> float:
        """GPUs that a run takes, or would; cores where it has none."""
        return self.kind(state.spec, state.workers).devices

    def price(self, run: RunSpec | None, accelerator: str = "") -> float:
        """USD per hour of a GPU; of a core there is nothing to say.

        Args:
            run: that has it; None for a preparation, which goes where the recipe's runs do.
            accelerator: of its node, where that is known; by default what the run is estimated for.
        """
        if not self.place.gpus:
            return 0.0
        of = self._recipe if run is None else self.own(run)
        return hardware.usd_per_hour(of.plan, accelerator or of.placement.accelerator)

    def rate(self, state: RunState, shapes: Shapes = frozenset()) -> Cost:
        """What a second of a run takes, on the dearest of the living nodes that hold what of it stays together.

        Args:
            shapes: of these nodes; where none does, it costs what it is estimated for.
        """
        key = state.spec.label, state.workers, shapes
        if key not in self._rates:
            devices, asked = self.devices(state), self.kind(state.spec, state.workers)
            least = asked.worker.times(asked.together)
            there = {gpu for total, gpu in shapes if total.fits(least) and asked.accelerator in ("", gpu)}
            price = max(self.price(state.spec, gpu) for gpu in there or {""})
            self._rates[key] = Cost(devices, devices * price / 3600)
        return self._rates[key]

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

    def peak_flops(self, run: RunSpec, accelerators: Mapping[str, int]) -> float | None:
        """Of one of a run's GPUs, on average; None where one is in no table. Of a core there is nothing to say.

        Args:
            accelerators: of how many workers; where one is not known, what the run asks for or is estimated for.
        """
        own = self.own(run)
        asked = own.placement.accelerator or own.plan.gpu
        found = [(hardware.GPUS.get(name or asked), n) for name, n in (accelerators or {"": 1}).items()]
        peaks = [gpu.peak_flops * n for gpu, n in found if gpu is not None]
        return sum(peaks) / sum(n for _, n in found) if self.place.gpus and len(peaks) == len(found) else None

    # ------------------------------------------------------------------------------------------------- what is learned

    def learn(self, run: RunSpec, result: dict[str, Any]) -> None:
        """Take a finished run's speed into account."""
        reached = result.get("flops_per_second")
        if not isinstance(reached, int | float) or not reached > 0:
            return
        guess = self._guessed(run)
        workers = max(1.0, outcomes.mean_devices(result) or 1.0)
        ratio = math.log(reached / workers / guess.flops_per_second)
        self._take({run.run_id: Seen(size=guess.size, workers=round(workers), ratio=ratio)})
        if result.get("attempts") == 1 and isinstance(seconds := result.get("train_seconds"), int | float):
            self._ends[run.run_id] = seconds

    def listen(self, states: Iterable[RunState], now: float) -> None:
        """Take the speed of the runs under way into account."""
        if now < self._listened + LISTEN_SECONDS:
            return
        self._listened, found = now, {}
        for state in states:
            live = state.progress
            if live is None or live.phase != "training" or not live.tokens_per_second > 0:
                continue
            seconds = state.spec.tokens_at(live.step) / live.tokens_per_second
            guess = self._guessed(state.spec)
            workers = self.kind(state.spec, state.workers).workers
            flops = live.tokens_per_second * guess.flops_per_token / workers
            ratio = math.log(flops / guess.flops_per_second)
            found[state.run_id] = Seen(size=guess.size, workers=workers, ratio=ratio, seconds=seconds)
        if found:
            self._take(found)

    def ended(self, run_id: str, seconds: float) -> None:
        """A run that is done held its devices for so long."""
        if run_id not in self._begun:
            return  # an earlier driver started it
        if run_id in self._ends:
            self._beside.append(math.log(max(0.1, seconds - self._ends.pop(run_id))))
            guess = GUESSED * math.log(estimate.EVALUATION_SECONDS)
            self._rest = math.exp((guess + sum(self._beside)) / (GUESSED + len(self._beside)))
            self._jobs.clear()
        first, corrected = self._begun.pop(run_id)
        actual = max(seconds, 1e-3)
        self._errors.append((math.log(actual / first), math.log(actual / corrected)))

    def account(self) -> Account | None:
        """How wrong the estimates were; None before a run has ended here."""
        if not self._errors:
            return None
        first, corrected = zip(*self._errors, strict=True)
        return Account(
            runs=len(first),
            first=math.exp(median(first)),
            first_error=median(map(abs, first)),
            error=median(map(abs, corrected)),
        )

    def _take(self, seen: Mapping[str, Seen]) -> None:
        self.throughput.take(seen)
        if any(abs(self.throughput.at(*what)[0] - ratio) > NOTEWORTHY for what, ratio in self._used.items()):
            self._jobs.clear()
            self._used.clear()

    # ------------------------------------------------------------------------------------------------ what is expected

    def guess(self, run: RunSpec) -> float:
        """Seconds of a run by the first guess, before anything was measured."""
        return self._guessed(run).seconds + estimate.EVALUATION_SECONDS

    def seconds(self, run: RunSpec) -> float:
        """How long a run takes on its workers, evaluation included."""
        guess = self._guessed(run)
        return guess.seconds / math.exp(self.throughput.at(guess.size, guess.workers)[0]) + self._rest

    def flops_per_second(self, state: RunState) -> float:
        """Of a run under way, over all of its workers, by its tokens per second."""
        live = state.progress
        return 0.0 if live is None else live.tokens_per_second * self._guessed(state.spec).flops_per_token

    def _guessed(self, run: RunSpec) -> _Guess:
        if run.run_id not in self._guesses:
            place, plan = self.own(run).placement, self.own(run).plan
            flops = costs.train_flops(run.model, run.tokens)
            whole = estimate.seconds(run, workers=place.workers, gpus=place.gpus, plan=plan)
            seconds = whole - estimate.EVALUATION_SECONDS
            self._guesses[run.run_id] = _Guess(
                size=math.log(costs.params(run.model).nonembedding),
                workers=place.workers,
                seconds=seconds,
                flops_per_token=flops / run.tokens,
                flops_per_second=flops / seconds / place.workers,
            )
        return self._guesses[run.run_id]

    def left(self, state: RunState) -> float:
        """How long a run still takes, running or not."""
        whole = self.seconds(state.spec)
        if state.trained or (state.progress is not None and state.progress.phase != "training"):
            return self._rest
        whole_gang, gang = self.kind(state.spec), self.kind(state.spec, state.workers)
        training = (1 - _done(state)) * (whole - self._rest) * whole_gang.workers / gang.workers
        live = state.progress
        if live is not None and live.tokens_per_second > 0:  # the run itself knows best, the longer it was seen
            own = (state.spec.tokens - state.spec.tokens_at(live.step)) / live.tokens_per_second
            seen = state.spec.tokens_at(live.step) / live.tokens_per_second
            share = seen / (seen + SEEN_ITSELF)
            training = max(training, 1e-3) ** (1 - share) * max(own, 1e-3) ** share
        return max(training + self._rest, LATE * whole)

    def alone(self, state: RunState) -> float:
        """The same, were there no other run whose checkpoint it could start from."""
        if state.trained:
            return self._rest
        done = min(1.0, max(state.farthest, state.resumes) / state.spec.steps)
        return (1 - done) * (self.seconds(state.spec) - self._rest) + self._rest

    def begun(self, state: RunState) -> float:
        """The same for a run that starts now, which is held against how long it takes."""
        left = self.left(state)
        first = self.guess(state.spec) * left / max(self.seconds(state.spec), 1e-9)
        self._begun[state.run_id] = first, left
        return left

    def job(self, state: RunState) -> Job:
        """A waiting run as the scheduler sees it."""
        key = (state.run_id, state.trained, _done(state), state.workers, state.queued)
        if key not in self._jobs:
            what = (guess := self._guessed(state.spec)).size, guess.workers
            self._used[what] = self.throughput.at(*what)[0]
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


def _done(state: RunState) -> float:
    """The share of a run that it need not do again: its own steps, or another's checkpoint."""
    if state.progress is not None:
        return state.progress.step / max(1, state.progress.steps)
    prefix = state.prefix or state.awaits
    steps = max(state.farthest, state.resumes, 0 if prefix is None else prefix.step)
    return min(1.0, steps / state.spec.steps)
