"""How often the test of score trends calls a trend where there is none, and finds one that there is.

``python -m tests.benchmarks.null_trends [DRAWS]``: families of runs whose accuracy does not depend on compute, with the
items' own noise alone, with runs that scatter more than that, at chance, and answering the same items. Printed: the
share of p values below 5% and 1%, and the same for a trend of a decade's rise of four standard errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from analysis.laws.accuracy import fit_bounded
from tests.benchmarks.target import target

ITEMS, FLOOR = 1000, 0.25
LEVELS = (0.05, 0.01)
RUNS = (5, 8, 15, 30)
Family = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def plain(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """Every run answers items of its own."""
    return rng.binomial(ITEMS, p)


def scattered(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """Runs differ by three times the variance of their items."""
    extra = np.sqrt(2 * p * (1 - p) / ITEMS) * rng.standard_normal(len(p))
    return rng.binomial(ITEMS, np.clip(p + extra, 0, 1))


def shared(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """The same items, half of whose difficulty all runs share."""
    hard = rng.standard_normal(ITEMS)
    own = rng.standard_normal((len(p), ITEMS))
    at = np.quantile(rng.standard_normal(20_000), p)
    return ((hard + own) / np.sqrt(2) < at[:, None]).sum(1)


FAMILIES: dict[str, tuple[Family, float]] = {
    "items alone": (plain, 0.5),
    "three times their variance": (scattered, 0.5),
    "the same items": (shared, 0.5),
    "at chance": (plain, FLOOR),
}


def p_values(family: Family, level: float, runs: int, rise: float, draws: int) -> np.ndarray:
    """Of the test, one a draw; one where it is none."""
    rng, x = np.random.default_rng(runs), np.linspace(20, 23, runs)
    found = np.ones(draws)
    for i in range(draws):
        hits = family(rng, np.clip(level + rise * (x - x.mean()), 0, 1)).astype(float)
        fitted = fit_bounded(x, hits, np.full(runs, float(ITEMS)), floor=FLOOR, significant=0.2)
        found[i] = 1.0 if fitted is None else fitted.p_value
    return found


def main(draws: int) -> None:
    """Print the table, then the targets."""
    worst = 0.0
    power: dict[int, float] = {}
    for name, (family, level) in FAMILIES.items():
        for runs in RUNS:
            null = p_values(family, level, runs, 0.0, draws)
            rise = 4 * np.sqrt(level * (1 - level) / ITEMS / runs) / np.std(np.linspace(20, 23, runs))
            found = p_values(family, level, runs, rise, max(draws // 5, 1))
            sizes = [float(np.mean(null < alpha)) for alpha in LEVELS]
            told = float(np.mean(found < LEVELS[1]))
            print(
                f"{name:28s} {runs:3d} runs: p < 5% in {sizes[0]:.1%}, p < 1% in {sizes[1]:.2%}; a trend of four "
                f"standard errors is found at 1% in {told:.0%}",
                flush=True,
            )
            error = 3 * np.sqrt(LEVELS[1] * (1 - LEVELS[1]) / draws)  # of the simulation
            worst = max(worst, (sizes[1] - error) / LEVELS[1])
            if name == "items alone":
                power[runs] = told
    target("null_trends_worst_size_over_nominal", worst, "<=", 1.0)
    target("null_trends_power_at_8_runs_percent", 100 * power[8], ">=", 50)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
