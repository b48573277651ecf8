"""IsoFLOP profiles that place themselves, on a simulated law: the minima they bracket, the time and FLOPs they take.

``python -m tests.benchmarks.profile_placing [--draws 20]``. The truth is that of the laptop's sweep (parabolas in ln N
whose minimum grows as C^0.72 and whose arms differ, noise of a seed), over five budgets half a decade apart. A run
takes its FLOPs over the speed of its size. The prior is right, or wrong by a factor of four either way, with an
exponent of 0.5. Beside the proposer, at 0, 1, 2 and 4 budgets ahead, stands the grid that the prior gives: the same
number of sizes about its own centres, all at once. The real proposer decides, no run is trained.

Printed: share of budgets whose true minimum lies between sizes that ended; time until the last run ends and FLOPs,
both over those of a grid about the true centres, which nobody knows beforehand; medians over the draws.
"""

from __future__ import annotations

import heapq
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gpt3core import costs
from gpt3core.spec import DataSpec, RunSpec
from sweeps.driving.profiling import SelfPlacing
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning.profiles import Profiles
from sweeps.planning.recipe import ProfilesRecipe
from tests.benchmarks.target import target

BUDGETS = [1e11, 3.16e11, 1e12, 3.16e12, 1e13]
EXPONENT, CENTRE = 0.72, 9.2e3  # of N*, and N* at 1e11, as the laptop's sweep measured them
ARMS = (0.019, 0.026)  # curvature of ln L in ln N on the small and the large side, likewise
NOISE = 0.0011  # of a seed, in ln L
PRIORS = {"right": (CENTRE, 0.72), "4x too small": (CENTRE / 4, 0.5), "4x too large": (CENTRE * 4, 0.5)}
SLOTS = (2, 4, 16)
AHEAD = (0, 1, 2, 4)


@dataclass
class World:
    """A law with noise, and how long runs take."""

    seed: int = 0
    drift: float = 0.0  # of the exponent, a decade
    fails: Callable[[RunSpec], bool] = lambda run: False
    _known: dict[str, float] = field(default_factory=dict)

    def centre(self, budget: float) -> float:
        """ln N* of a budget."""
        x = math.log(budget / BUDGETS[0])
        return math.log(CENTRE) + EXPONENT * x + self.drift * x * x / math.log(10)

    def loss(self, run: RunSpec) -> float:
        """What a run measures: the same at every look."""
        assert run.budget_flops is not None
        away = math.log(costs.params(run.model).nonembedding) - self.centre(run.budget_flops)
        rng = np.random.default_rng([self.seed, int(run.run_id[-8:], 16)])
        floor = math.log(4.47) - 0.0577 * math.log(run.budget_flops / BUDGETS[0])
        return math.exp(floor + ARMS[away > 0] * away**2 + NOISE * rng.standard_normal())

    def seconds(self, run: RunSpec) -> float:
        """FLOPs over a speed that grows with the width, as on the laptop."""
        return costs.train_flops(run.model, run.tokens) / (6e8 * run.model.d_model**0.9)


@dataclass(kw_only=True)
class Outcome:
    """What a simulated sweep came to."""

    states: dict[str, RunState]
    seconds: float
    busy: float  # slot-seconds
    told: list[str]

    @property
    def flops(self) -> float:
        """Of all runs."""
        return sum(costs.train_flops(s.spec.model, s.spec.tokens) for s in self.states.values())

    def inside(self, budget: float, at: float) -> bool:
        """Whether a budget's ended sizes stand on both sides of a ln N."""
        ended = [s.spec for s in self.states.values() if s.phase == Phase.DONE and s.spec.budget_flops == budget]
        sizes = [math.log(costs.params(spec.model).nonembedding) for spec in ended]
        return bool(sizes) and min(sizes) < at < max(sizes)


def profiles(**settings: object) -> Profiles:
    """The profiles of a recipe of the laptop's kind."""
    words = {"budgets": BUDGETS, "points": 5, "spacing": 1.6, "width_step": 2, "min_tokens": 1e4, **settings}
    data = DataSpec(corpus="starter", corpus_sha256="0" * 64, tokenizer="gpt2:1024", validation_fraction=0.06)
    return Profiles(ProfilesRecipe(**words), data)  # type: ignore[arg-type]


def simulate(
    world: World,
    placed: Profiles,
    slots: int,
    begun: Mapping[str, RunState] | None = None,
    until: float = math.inf,
) -> Outcome:
    """The real proposer on a cluster of so many slots; the longest waiting run starts first, as the scheduler has it.

    Args:
        begun: the runs that the sweep has already.
        until: runs that end before the driver dies.
    """
    states = dict(begun or {run.run_id: RunState(spec=run) for run in placed.opening()})
    losses = {i: world.loss(s.spec) for i, s in states.items() if s.phase == Phase.DONE}
    proposer = SelfPlacing(placed, losses.get)
    now, busy, told, running = 0.0, 0.0, list[str](), list[tuple[float, str]]()
    while True:
        waiting = sum(s.phase == Phase.WAITING for s in states.values())
        free = slots - len(running) - waiting
        found = proposer.propose(states, lambda room=free: room)
        told += found.told
        for run in found.new:
            states[run.run_id] = RunState(spec=run)
        for run_id in (*found.take, *(run.run_id for run in found.new)):
            states[run_id].phase = Phase.WAITING
        queue = sorted((s for s in states.values() if s.phase == Phase.WAITING), key=lambda s: -world.seconds(s.spec))
        for state in queue[: slots - len(running)]:
            state.phase = Phase.RUNNING
            heapq.heappush(running, (now + world.seconds(state.spec), state.run_id))
            busy += world.seconds(state.spec)
        if not running or sum(s.phase == Phase.DONE for s in states.values()) >= until:
            return Outcome(states=states, seconds=now, busy=busy, told=told)
        now, run_id = heapq.heappop(running)
        state = states[run_id]
        state.phase = Phase.FAILED if world.fails(state.spec) else Phase.DONE
        if state.phase == Phase.DONE:
            losses[run_id] = world.loss(state.spec)


def at_once(world: World, runs: list[RunSpec], slots: int) -> Outcome:
    """A fixed grid: all of its runs, the longest first."""
    states = {run.run_id: RunState(spec=run, phase=Phase.DONE) for run in runs}
    free = [0.0] * slots
    for run in sorted(states.values(), key=lambda s: -world.seconds(s.spec)):
        heapq.heapreplace(free, free[0] + world.seconds(run.spec))
    busy = sum(world.seconds(run) for run in runs)
    return Outcome(states=states, seconds=max(free), busy=busy, told=[])


def ideal(world: World, placed: Profiles) -> list[RunSpec]:
    """The grid about the true centres."""
    return [run for b in BUDGETS for size in placed.about(b, world.centre(b)) for run in size.runs]


def main() -> None:
    """Simulate and print."""
    settings = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    draws = int(settings.get("--draws", 20))
    worst = 1.0
    for name, (centre, exponent) in PRIORS.items():
        prior = {"center_params": centre, "center_exponent": exponent}
        print(f"prior {name}: bracketed minima, time and FLOPs over a grid about the true centres")
        for slots in SLOTS:
            for ahead in (*AHEAD, None):
                placed = profiles(ahead=ahead or 0, **prior)
                shares, times, flops = [], [], []
                for seed in range(draws):
                    world = World(seed=seed, drift=0.02)
                    best = at_once(world, ideal(world, placed), slots)
                    fixed = ahead is None
                    got = at_once(world, placed.outlook(), slots) if fixed else simulate(world, placed, slots)
                    shares.append(sum(got.inside(b, world.centre(b)) for b in BUDGETS) / len(BUDGETS))
                    times.append(got.seconds / best.seconds)
                    flops.append(got.flops / best.flops)
                worst = min(worst, min(shares)) if ahead is not None else worst
                what = "fixed grid" if ahead is None else f"{ahead} ahead"
                print(
                    f"  {slots:2d} slots, {what:10s}  bracketed {np.mean(shares):.0%} (least {min(shares):.0%})  "
                    f"time {statistics.median(times):.2f}  FLOPs {statistics.median(flops):.2f}"
                )
    target("profiles_minima_bracketed_least_share", worst, ">=", 1.0)


if __name__ == "__main__":
    main()
