"""Coverage of the compute multiplier's intervals on pairs of ladders whose multiplier is known.

``python -m tests.benchmarks.compare_truth [DRAWS [WORD OF A SCENARIO'S NAME]]``: B is A with its compute multiplied (by
a constant, or growing with compute), its tokens or its parameters made more of, or another irreducible loss; paired
and not; with a misfit that both share: a size that is badly tuned, and a frontier that steepens. Judged in the middle
of the data, at their top, and a decade beyond.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.estimation.compare import SAME, Comparison, compare
from tests.benchmarks.target import target

E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28  # Hoffmann et al. 2022
LN10 = np.log(10)
Misfit = Callable[[np.ndarray, np.ndarray], np.ndarray]
NONE: Misfit = lambda n, d: np.zeros_like(n)  # noqa: E731


def badly_tuned(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Half a percent, as a size has it: the same for the same N."""
    return 0.005 * np.sin(7.0 * np.log(n) + 1.0)


def steepening(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """A frontier that bends by 1% over the ladder, towards lower losses at its top; it moves with the shift."""
    x = np.log10(6 * n * d) - 19.5
    return -0.004 * x**2


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A pair of ladders."""

    name: str
    multiplier: float = 1.0  # in the middle of the compute
    growth: float = 1.0  # factor a decade
    floor: float = 0.0  # by which B's irreducible loss lies lower
    tilt: float = 0.0  # half of ln(parameters made more of / tokens made more of)
    noise: float = 0.002
    paired: bool = True
    budgets: int = 6
    sizes: int = 6
    shared: Misfit = NONE  # of a cell
    law: Misfit = NONE  # of the surface: moves with the shift

    def ln_m(self, compute: np.ndarray) -> np.ndarray:
        """The truth."""
        ln_m = np.log(self.multiplier) + np.log(self.growth) * (np.log10(compute) - 19.5)
        if not self.floor:
            return ln_m
        n = np.geomspace(1e7, 1e13, 6001)
        best = np.array([np.exp(ln_loss(n, c / (6 * n), NONE)).min() for c in compute * np.exp(ln_m)])
        return ln_m - np.log(1 - self.floor / (best - E)) * (ALPHA + BETA) / (ALPHA * BETA)


def ln_loss(n: np.ndarray, d: np.ndarray, law: Misfit) -> np.ndarray:
    """Of A."""
    return np.log(E + A * n**-ALPHA + B * d**-BETA) + law(n, d)


def cells(budgets: np.ndarray, sizes: int, jitter: np.ndarray) -> pd.DataFrame:
    """IsoFLOP profiles of sizes around each budget's optimum, within a factor of eight."""
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    around = np.geomspace(1 / np.sqrt(8), np.sqrt(8), sizes)
    rows = [(scale * (c / 6) ** (BETA / (ALPHA + BETA)) * f, c) for c in budgets for f in around]
    n, c = np.array(rows).T
    n = n * np.exp(jitter)
    return pd.DataFrame({"N": n, "D": c / (6 * n), "C": c})


def ladders(scenario: Scenario, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One draw of both."""
    rng = np.random.default_rng(seed)
    budgets, count = np.geomspace(1e18, 1e21, scenario.budgets), scenario.budgets * scenario.sizes
    first = cells(budgets, scenario.sizes, np.zeros(count))
    second = first
    if not scenario.paired:
        second = cells(budgets * 1.3, scenario.sizes, 0.3 * rng.standard_normal(count))
    found = []
    shift = replace(scenario, floor=0.0).ln_m(second.C.to_numpy())
    for table, mu, tilt, floor in (
        (first, np.zeros(count), 0.0, 0.0),
        (second, shift, scenario.tilt, scenario.floor),
    ):
        n, d = table.N.to_numpy(), table.D.to_numpy()
        mean = ln_loss(n * np.exp(mu / 2 + tilt), d * np.exp(mu / 2 - tilt), scenario.law) + scenario.shared(n, d)
        mean = np.log(np.exp(mean) - floor)
        loss = np.exp(mean + scenario.noise * rng.standard_normal(count))
        names = [f"r{i}" for i in range(count)]
        found.append(table.assign(loss=loss, run_id=names, size=[f"{v:.4g}" for v in n], U=d))
    return found[0], found[1]


def judged(scenario: Scenario, found: Comparison) -> list[bool]:
    """Whether the intervals hold in the middle, at the top, and a decade beyond."""
    at = [found.at[len(found.at) // 2], found.at[-1], found.beyond[0]]
    truth = np.exp(scenario.ln_m(np.array([m.compute for m in at])))
    return [bool(m.interval[0] <= t <= m.interval[1]) for m, t in zip(at, truth, strict=True)]


SCENARIOS = (
    [
        Scenario(name=f"{how}_{m:g}_{growth:g}_noise{noise:g}", multiplier=m, growth=growth, noise=noise, paired=paired)
        for how, paired in (("paired", True), ("unpaired", False))
        for noise in (0.001, 0.01)
        for m, growth in ((1.0, 1.0), (1.2, 1.0), (0.8, 1.0), (1.2, 1.1))
    ]
    + [
        Scenario(name="paired_tokens_only", multiplier=1.2, tilt=-np.log(1.2) / 2),
        Scenario(name="unpaired_tokens_only", multiplier=1.2, tilt=-np.log(1.2) / 2, paired=False),
        Scenario(name="paired_small", multiplier=1.2, noise=0.003, budgets=4, sizes=4),
        Scenario(name="paired_badly_tuned_sizes", multiplier=1.2, noise=0.001, shared=badly_tuned),
        Scenario(name="paired_null_badly_tuned_sizes", noise=0.001, shared=badly_tuned),
        Scenario(name="paired_steepening", multiplier=1.2, noise=0.001, law=steepening),
        Scenario(name="unpaired_steepening", multiplier=1.2, noise=0.003, law=steepening, paired=False),
    ]
    + [
        Scenario(name=f"{how}_floor{floor:g}", multiplier=m, floor=floor, paired=how == "paired")
        for how in ("paired", "unpaired")
        for m, floor in ((1.0, 0.03), (1.0, 0.1), (0.8, 0.05), (1.0, -0.05))
    ]
)


def next_decade(seed: int) -> float:
    """Relative miss of B's frontier a decade beyond a clean ladder: well tuned, reruns that differ by 0.03%."""
    scenario = Scenario(name="clean", multiplier=1.2, noise=0.0003)
    found = compare(*ladders(scenario, seed), backtested=False).beyond[0]
    n = np.geomspace(1e8, 1e12, 20001)
    compute = found.compute * scenario.multiplier
    truth = np.exp(ln_loss(n, compute / (6 * n), NONE)).min()
    return abs(found.loss_b / truth - 1)


def kind(scenario: Scenario) -> str:
    """What a target sums over."""
    if scenario.shared is not NONE or scenario.law is not NONE:
        return "misfit"
    if scenario.floor:
        return "floor"
    return "paired" if scenario.paired else "unpaired"


def main(draws: int, word: str) -> None:
    """Every scenario whose name has a word in it, then the targets."""
    held: dict[str, list[list[bool]]] = {"paired": [], "unpaired": [], "misfit": [], "floor": []}
    null: list[bool] = []
    print("coverage of nominal 95% intervals: middle, top, a decade beyond | not told apart")
    for k, scenario in enumerate(SCENARIOS):
        if word not in scenario.name:
            continue
        pairs = [compare(*ladders(scenario, 1000 * k + i), backtested=False) for i in range(draws)]
        inside, same = [judged(scenario, found) for found in pairs], [found.verdict == SAME for found in pairs]
        held[kind(scenario)] += inside
        null += same if scenario.multiplier == scenario.growth == 1.0 and not scenario.floor else []
        share = " ".join(f"{s:.3f}" for s in np.mean(inside, 0))
        print(f"{scenario.name:40} {share} | {np.mean(same):.3f}", flush=True)
    for name, rows in held.items():
        within = float(np.mean([row[:2] for row in rows])) if rows else None
        beyond = float(np.mean([row[2] for row in rows])) if rows else None
        for where, share in (("within", within), ("decade_beyond", beyond)):
            target(f"{name}_{where}_coverage", share, ">=", 0.9)
            target(f"{name}_{where}_coverage", share, "<=", 0.99)
    target("null_pairs_not_told_apart", float(np.mean(null)) if null else None, ">=", 0.95)
    misses = [next_decade(10**6 + i) for i in range(min(draws, 40))]
    target("clean_next_decade_median_percent", 100 * float(np.median(misses)), "<=", 0.04)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, sys.argv[2] if len(sys.argv) > 2 else "")
