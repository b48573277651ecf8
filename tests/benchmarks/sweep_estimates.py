"""How wrong a sweep's expected end is while it runs, beside what one speed for all sizes would say.

  python -m tests.benchmarks.sweep_estimates        half a minute; no Ray: the runs are a clock's

The truth is what was measured of this ladder: FLOP/s by width of an idle core with AVX-512 and bf16 (README's laptop),
those of one without on a machine that others use, and one machine eight times slower than the first guess, whose
larger sizes gain less; each with a run's own deviation of 10% (of 25% where others use it). The peer is what stood
before: the first guess over the median speed of the runs that ended, and the work left over the workers.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from gpt3core import costs
from gpt3core.spec import RunSpec
from sweeps.driving.run_state import Phase
from sweeps.planning import estimate, grid, recipe
from tests.benchmarks.target import target
from tests.sweeps.timed_cluster import Timed, World, driven

# GFLOP/s of a core by non-embedding parameters, 2 layers: AMD Zen 5 with bf16 (measured 2026-11), and AMD EPYC without
# AVX-512 in fp32 beside other work (2026-11-28)
TABLES = {
    "idle bf16": ({6.6e3: 21, 2.5e4: 50, 1e5: 100, 2.24e5: 137, 8.9e5: 219, 1.58e6: 254}, 0.1),
    "shared fp32": ({1.2e4: 11.7, 2.5e4: 23.1, 1e5: 36, 1.55e5: 39.8, 2.24e5: 48.4, 4e5: 51}, 0.25),
    "slow, flat": ({6.6e3: 4, 1e5: 9, 1.58e6: 14}, 0.1),
}
REST = 6.0  # seconds of start and evaluation, twice the first guess
SEEDS = range(5)


def rate(table: dict[float, float], n: float) -> float:
    """FLOP/s by interpolation of logarithms."""
    points = sorted((math.log(k), math.log(v * 1e9)) for k, v in table.items())
    x = min(max(math.log(n), points[0][0]), points[-1][0])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return math.exp(points[-1][1])


def before(found: Any, finished: dict[str, float], now: float) -> float:
    """The end as it was expected before: one speed for all sizes, of the runs that ended."""
    guess = found.estimates.guess
    speed = median(finished.values()) if finished else 1.0

    def seconds(run: RunSpec) -> float:
        return (guess(run) - estimate.EVALUATION_SECONDS) / speed + estimate.EVALUATION_SECONDS

    left = longest = 0.0
    running = 0
    for state in found.states.values():
        if state.phase == Phase.WAITING:
            left += seconds(state.spec)
        elif state.phase == Phase.RUNNING:
            running += 1
            share = state.progress.step / max(1, state.progress.steps) if state.progress else 0.0
            left += (1 - share) * seconds(state.spec)
            longest = max(longest, began[state.run_id] + seconds(state.spec) - now)
    return max(left / max(1, running), min(longest, left))


began: dict[str, float] = {}


def sweep(truth: Callable[[RunSpec], float]) -> list[tuple[float, float, float]]:
    """(share of the sweep's time, ln of expected over actual time left: before, now) at every five seconds."""
    world = World(SimpleNamespace(setattr=setattr))
    chosen = recipe.load(["recipe=laptop"])
    cells = grid.build(chosen, "0" * 64)
    said: list[tuple[float, float, float]] = []
    finished: dict[str, float] = {}
    began.clear()

    def watch(found: Any) -> None:
        now = world.now
        for state in found.states.values():
            if state.phase == Phase.RUNNING:
                began.setdefault(state.run_id, now)
            elif state.phase == Phase.DONE and state.run_id not in finished:
                whole = found.estimates.guess(state.spec) - estimate.EVALUATION_SECONDS
                finished[state.run_id] = whole / truth(state.spec)
        eta = found.outlook.eta(found.states, now)
        if eta is not None and (not said or now >= said[-1][0] + 5):
            said.append((now, before(found, finished, now), eta))

    with tempfile.TemporaryDirectory(prefix="isoflop-estimates-") as root:
        driven(chosen, cells, Path(root), Timed(world, Path(root), truth, rest=REST), watch=watch)
    end, start = world.now, said[0][0]
    return [
        ((at - start) / (end - start), math.log(old / (end - at)), math.log(new / (end - at)))
        for at, old, new in said
        if old > 0 and new > 0 and end - at > 10
    ]


def main() -> int:
    """The script."""
    ratios = []
    print("median |ln(expected/actual time left)| of a sweep of 24 runs on 2 cores, by share of its time that is over")
    for name, (table, noise) in TABLES.items():
        rows: list[tuple[float, float, float]] = []
        for seed in SEEDS:
            draw = random.Random(seed)
            own: dict[str, float] = {}

            def truth(
                run: RunSpec, table: Any = table, noise: float = noise, draw: Any = draw, own: Any = own
            ) -> float:
                if run.run_id not in own:
                    own[run.run_id] = math.exp(draw.gauss(0, noise))
                flops = costs.train_flops(run.model, run.tokens)
                return flops / rate(table, costs.params(run.model).nonembedding) * own[run.run_id]

            rows += sweep(truth)
        line = []
        for low, high in ((0.02, 0.1), (0.1, 0.5), (0.5, 1.0)):
            part = [(abs(old), abs(new)) for share, old, new in rows if low <= share < high]
            old, new = (median(column) for column in zip(*part, strict=True))
            line.append(f"{low:.0%}-{high:.0%}: {old:.3f} -> {new:.3f}")
            ratios.append((name, low, old, new))
        print(f"  {name:12} {'; '.join(line)}")
    early = [new for _, low, _, new in ratios if low < 0.5]
    target("eta_error_before_half_median_ln", max(early), "<=", 0.2)
    target("eta_error_over_one_speed_for_all", max(new / max(old, 0.05) for *_, old, new in ratios), "<=", 1.0)
    target("eta_error_first_tenth_over_one_speed", median([n / o for _, low, o, n in ratios if low < 0.1]), "<=", 0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
