"""What pruning by value costs a law, and what it saves, on simulated sweeps whose whole law is known.

``python -m tests.benchmarks.pruning``

Each sweep runs six at a time, cheapest budgets first; half way through each batch it is asked which runs may stop, with
forecasts that miss as their intervals say. Printed: the FLOPs that were not spent, and how far the prediction and N*
ten times beyond the largest run lie from those of the whole sweep, in widths of the whole sweep's own 95% intervals:
that is to stay below the share that was allowed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time

import numpy as np
import pandas as pd

from analysis.estimation import isoflop, optimal_size, predict
from analysis.estimation.ensemble import fit_ensemble
from analysis.estimation.predict import Prediction
from analysis.estimation.pruning import prune
from tests.analysis.test_prunable import CELLS, ladder
from tests.benchmarks.target import target

SLOTS, SEEN, FORECAST = 6, 0.5, 0.004  # runs at once; the share of each that has run; standard error of its forecast
SWEEPS = {
    "5 budgets, sizes to 10 times off": {"span": 10.0, "ratio": 1.9},
    "5 budgets, sizes to 30 times off": {"span": 30.0, "ratio": 2.0},
    "4 budgets, noise 0.3%": {"budgets": 4, "span": 12.0, "ratio": 1.7, "noise": 0.003},
}
SHARES = (0.05, 0.2)


def law(table: pd.DataFrame, compute: float) -> Prediction:
    """The prediction at a compute, as analysis.fit makes it."""
    minima = isoflop.analyse(table, draws=100, seed=0)
    ensemble = fit_ensemble(table, frontier=minima.trusted)
    assert ensemble is not None
    thetas = optimal_size.choice_draws(ensemble, minima, draws=100, seed=0)
    points = optimal_size.optimal_points(np.array([compute]), ensemble, table, minima, thetas)
    return predict.predict(ensemble, points, thetas)[0]


def driven(table: pd.DataFrame, share: float, compute: float, rng: np.random.Generator) -> list[str]:
    """The runs that a sweep prunes."""
    table = table.sort_values(["C", "N"], ignore_index=True)
    middle = table.loss * np.exp(FORECAST * rng.standard_normal(len(table)))
    ends = {"low": middle * np.exp(-2 * FORECAST), "middle": middle, "high": middle * np.exp(2 * FORECAST)}
    forecasts, waiting = table[CELLS].assign(**ends), list(table.run_id)
    done: list[str] = []
    pruned: list[str] = []
    while waiting:
        batch, waiting = waiting[:SLOTS], waiting[SLOTS:]
        running = forecasts[forecasts.run_id.isin([*batch, *pruned])]
        verdict = prune(
            table[table.run_id.isin(done)].drop(columns="off"),
            table[table.run_id.isin(waiting)][CELLS],
            running.assign(pruned=running.run_id.isin(pruned)),
            compute=compute,
            share=share,
        )
        stopped = [p.run_id for p in verdict.stop]
        pruned += stopped
        done += [run_id for run_id in batch if run_id not in stopped]
    return pruned


def main() -> None:
    """Print the table."""
    worst, saved, questions, spent = 0.0, [], 0, 0.0
    for name, kind in SWEEPS.items():
        table = ladder(seed=1, **kind)
        compute = 10 * float(table.C.max())
        whole = law(table, compute)
        assert whole.interval_mean is not None
        assert whole.interval_n is not None
        for share in SHARES:
            began = time.process_time()
            pruned = table.run_id.isin(driven(table, share, compute, np.random.default_rng(1)))
            spent, questions = spent + time.process_time() - began, questions - (-len(table) // SLOTS)
            left = law(table[~pruned], compute)
            loss = abs(left.ln_loss - whole.ln_loss) / np.log(whole.interval_mean[1] / whole.interval_mean[0])
            size = abs(np.log(left.n / whole.n)) / np.log(whole.interval_n[1] / whole.interval_n[0])
            flops = (1 - SEEN) * table.C[pruned].sum() / table.C.sum()
            worst, saved = max(worst, max(loss, size) / share), [*saved, flops]
            print(
                f"{name:34s} share {share:.2f}: {pruned.sum():2d} of {len(table)} runs pruned, {flops:4.0%} of the "
                f"FLOPs saved; the prediction moved by {loss:.3f} and N* by {size:.3f} of their intervals"
            )
    print(f"a question takes {spent / questions:.1f} CPU-s")
    target("pruning_worst_change_of_allowed", worst, "<=", 1.0)
    target("pruning_most_saved_percent", 100 * max(saved), ">=", 2)


if __name__ == "__main__":
    main()
