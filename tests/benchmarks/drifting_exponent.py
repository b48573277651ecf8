"""Coverage of N*'s intervals beyond the budgets where its exponent is constant, and where it changes with compute.

``python -m tests.benchmarks.drifting_exponent [DRAWS]``. Five budgets of five sizes over two decades with 0.3% noise,
as known_truth draws them, whose exponent is constant or rises by 0.03, 0.06 and 0.1 a decade; the losses around each
best size are those of Hoffmann et al.'s law. Intervals one and two decades out, with an exponent that may drift as the
family of curves has it, and without: where it is constant the first hold more than they say, elsewhere the second far
less.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

import numpy as np
import pandas as pd

from analysis.estimation import family, isoflop
from analysis.runs import selection
from analysis.settings import StudySettings
from tests.benchmarks import known_truth
from tests.benchmarks.target import target

DRAWS, OF_EACH = 100, 4000
CHANGES = (0.0, 0.03, 0.06, 0.1)  # of the exponent, a decade
MIDDLE, NOISE = 1e20, 0.003
PRIORS = {"drifting": family.DRIFT_PRIOR, "constant": np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])}


def best_size(compute: float, change: float) -> float:
    """N* of an exponent that is Hoffmann et al.'s in the middle."""
    decades = np.log10(compute / MIDDLE)
    return float(known_truth.optimal_size(compute) * np.exp(np.log(10) * change / 2 * decades**2))


def drawn(change: float, seed: int) -> pd.DataFrame:
    """Budgets whose sizes lie a factor of up to 1.6 off the best."""
    rng = np.random.default_rng(seed)
    table = known_truth.budgets(rng)
    moved = np.array([best_size(c, change) / known_truth.optimal_size(c) for c in 6 * table.N * table.D])
    loss = known_truth.true_loss(table.N.to_numpy(), table.D.to_numpy())
    noisy = loss * np.exp(NOISE * rng.standard_normal(len(table)))
    return table.assign(N=table.N * moved, D=table.D / moved, loss=noisy)


def judged(change: float, draws: int) -> pd.DataFrame:
    """Whether each draw's intervals hold N*, and how wide they are in ln N; a row a draw, distance and kind."""
    rows = []
    for seed in range(draws):
        table = selection.select(StudySettings(), drawn(change, seed)).table
        minima = isoflop.analyse(table, draws=0, seed=0)
        if minima.family is None or not minima.trusted:
            continue
        compute = float(table.C.max()) * 10 ** np.array(known_truth.DECADES)
        truth = np.log([best_size(c, change) for c in compute])
        for kind, prior in PRIORS.items():
            with patch.object(family, "DRIFT_PRIOR", prior):
                carried = minima.family.carried(np.log(compute))
            found = carried.draws(OF_EACH, minima.family.freedom, minima.family.inflation, np.random.default_rng(seed))
            low, high = np.quantile(found, [0.025, 0.975], axis=0)
            held = (low <= truth) & (truth <= high)
            rows += [
                {"change": change, "exponent": kind, "decades": d, "covered": float(h), "width": w}
                for d, h, w in zip(known_truth.DECADES, held, high - low, strict=True)
            ]
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table and the targets."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS
    every = pd.concat([judged(change, draws) for change in CHANGES])
    grouped = every.groupby(["change", "exponent", "decades"], sort=False)
    found = grouped.agg(covered=("covered", "mean"), width=("width", "median"), draws=("covered", "size"))
    print(found.round(3).to_string())
    for decades in known_truth.DECADES:
        word = f"{decades:.0f}_decades_out_where_a_rises_by_0.03"
        target(f"coverage95_{word}", float(found.covered[(0.03, "drifting", decades)]), ">=", known_truth.NOMINAL[0])


if __name__ == "__main__":
    main()
