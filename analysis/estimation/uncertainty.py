"""What the runs leave open: bootstrap by run or by cluster, intervals, and the noise of seeds and evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.estimation import solve
from analysis.estimation.solve import Fit
from analysis.laws import Array, Data

LEVEL = 0.95
CLUSTERS = ("run", "size", "budget")
DRAWN = 2**16  # numbers drawn at once
BUDGET_DECADES = 0.5  # runs without stated budgets are clustered by half decades of compute


def interval(draws: Array, level: float = LEVEL) -> list[float]:
    """The central interval of bootstrap draws; nan where no draw has a value."""
    if not np.isfinite(draws).any():
        return [float("nan"), float("nan")]
    low, high = np.nanquantile(np.where(np.isfinite(draws), draws, np.nan), [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def weighted_interval(draws: Array, weights: Array, level: float = LEVEL) -> list[float]:
    """The same of draws that weigh differently, both (n,); draws without a value do not count."""
    there = np.isfinite(draws)
    if not weights[there].sum() > 0:
        return [float("nan"), float("nan")]
    order = np.argsort(draws[there], kind="stable")
    values, share = draws[there][order], weights[there][order]
    reached = (np.cumsum(share) - share / 2) / share.sum()
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], reached, values)
    return [float(low), float(high)]


def clusters(table: pd.DataFrame, by: str) -> Array:
    """A label for each run (n,): itself, its size, or its budget; half decades of compute where no budget is stated.

    Seeds of one point stay together under every choice: they share the point's misfit. A point is N, D and, where it
    is known, the unique tokens: text seen twice is another point.
    """
    if by == "size":
        key = table.N
    elif by == "budget":
        bins = -np.round(np.log10(table.C) / BUDGET_DECADES)  # negative: no budget
        key = table.budget_flops.fillna(bins) if "budget_flops" in table else bins
    else:
        key = table.groupby([name for name in ("N", "D", "U") if name in table]).ngroup()
    return np.asarray(pd.factorize(key)[0])


def resamples(labels: Array, *, draws: int, seed: int) -> Array:
    """How often each run (n,) is drawn, (draws, n): whole clusters, with replacement."""
    count = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, count))
    for i in range(0, draws, batch := max(1, DRAWN // count)):
        rows = drawn[i : i + batch]
        chosen = rng.integers(count, size=rows.shape) + count * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(chosen.ravel(), minlength=rows.size).reshape(rows.shape)
    return drawn if count == len(labels) and np.array_equal(labels, np.arange(count)) else drawn[:, labels]


def bootstrap(fit: Fit, data: Data, loss: Array, counts: Array, weights: Array | None = None) -> Array:
    """Parameters (draws, k) refitted to the resamples, all draws at once.

    Args:
        counts: of ``resamples``, (draws, n).
        weights: of the runs in the original fit, (n,).
    """
    return solve.refit(fit, data, np.log(loss), weights=counts if weights is None else counts * weights)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations in ln L that no law can explain; nan where the data do not tell."""

    seed: float  # between seeds of one point
    evaluation: float  # of one measurement
    replicated: int  # degrees of freedom behind ``seed``

    @property
    def known(self) -> float:
        """Both together, what is not known counted as nothing."""
        return float(np.sqrt(np.nansum([self.seed**2, self.evaluation**2])))


def measured(table: pd.DataFrame) -> Array:
    """What each run's loss is worth by its standard error, (n,): one for a usual run, two at most; ones without any.

    A run's variance is its own plus the median one, which stands for what a law cannot explain, and for its own where
    that is not given (column loss_se).
    """
    if "loss_se" not in table or not (table.loss_se > 0).any():
        return np.ones(len(table))
    variance = (table.loss_se / table.loss).to_numpy(float) ** 2
    usual = np.median(variance[variance > 0])
    return np.asarray(2 * usual / (np.where(np.isfinite(variance), variance, usual) + usual))


def noise(table: pd.DataFrame) -> Noise:
    """From replicated points (equal N, D and U) and from the column loss_se."""
    ln = np.log(table.loss.to_numpy(float))
    group = clusters(table, "run")
    freedom = len(ln) - len(np.unique(group))
    seed = float("nan")
    if freedom:
        centre = np.bincount(group, ln) / np.bincount(group)
        seed = float(np.sqrt(((ln - centre[group]) ** 2).sum() / freedom))
    evaluation = float("nan")
    if "loss_se" in table and table.loss_se.notna().any():
        evaluation = float(np.nanmedian(table.loss_se / table.loss))  # one that is badly measured is not all of them
    return Noise(seed=seed, evaluation=evaluation, replicated=int(freedom))
