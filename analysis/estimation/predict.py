"""What a larger run would reach: the ensemble's loss with both intervals, at given points or compute-optimal ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from analysis.estimation import backtest, optimum, solve, uncertainty
from analysis.estimation.ensemble import Ensemble, choice_ln_loss, columns, covered, run_weights
from analysis.estimation.isoflop import Minima
from analysis.laws import Array
from gpt3core.errors import UsageError

QUANTILE = float(stats.t.ppf((1 + uncertainty.LEVEL) / 2, df=backtest.GROWTH.freedom))  # intervals are so many sigmas
HEAVY = 0.95  # of the weight: choices beyond it do not widen the spread that is shown
DRAWS_SHARE, LEAST_DRAWS = 4, 20  # of the bootstrap, for each of the ensemble's choices


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run would reach."""

    compute: float
    n: float
    d: float
    ln_loss: float  # of the weighted mean of the choices
    sigma: float  # scale of a new run's ln loss, t-distributed; of the mean law's where that is all the data support
    interval_mean: list[float]  # of the loss by the mean law
    interval_new_run: list[float] | None  # of one new run's loss; None where the data do not support it
    decades: float  # beyond the highest-compute run
    by_choice: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)  # of these choices, summing to one
    optimal: bool = False  # of the size that is best at its compute
    name: str = ""  # of the published model that it is, or is at the compute of

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(np.exp(self.ln_loss))

    @property
    def spread(self) -> list[float]:
        """The lowest and highest loss of the heaviest choices, those that hold HEAVY of the weight together."""
        heaviest = sorted(self.by_choice, key=lambda name: -self.weights.get(name, 1.0))
        held = np.cumsum([self.weights.get(name, 1.0) for name in heaviest])
        counted = [self.by_choice[name] for name in heaviest[: 1 + int(np.searchsorted(held, HEAVY * (1 - 1e-9)))]]
        return [min(counted), max(counted)]


def predict(
    ensemble: Ensemble, table: pd.DataFrame, points: pd.DataFrame, minima: Minima, *, draws: int, seed: int
) -> list[Prediction]:
    """A prediction a point, in their order.

    Args:
        table: the runs that the ensemble was fitted to.
        points: N, D, C, U.

    Raises:
        UsageError: for a point that no law here speaks of.
    """
    ln_loss, each = ensemble.ln_loss(points)
    if not np.all(np.isfinite(ln_loss)):
        row = int(np.flatnonzero(~np.isfinite(ln_loss))[0])
        raise UsageError(f"point {row + 1}: no law here speaks of it (text repeated too often?); leave it out")
    decades = ensemble.decades(points)
    half = ensemble.half_width(points, uncertainty.LEVEL)
    drawn = mean_draws(ensemble, table, points, minima, draws=max(LEAST_DRAWS, draws // DRAWS_SHARE), seed=seed)
    names = [choice.name for choice in ensemble.choices]
    weights = ensemble.weights(points)
    found = []
    for i, centre in enumerate(ln_loss):
        there = np.isfinite(each[i])
        share = there * weights[i] / weights[i][there].sum()
        low, high = uncertainty.interval(drawn[:, i])
        mean = [min(low, centre), max(high, centre)]
        new = mean  # what holds of a new run is never surer than the mean law
        if np.isfinite(half[i]):
            new = [min(mean[0], centre - half[i]), max(mean[1], centre + half[i])]
        found.append(
            Prediction(
                compute=float(points.C.iloc[i]),
                n=float(points.N.iloc[i]),
                d=float(points.D.iloc[i]),
                ln_loss=float(centre),
                sigma=float(new[1] - new[0]) / 2 / QUANTILE,
                interval_mean=np.exp(mean).tolist(),
                interval_new_run=np.exp(new).tolist() if np.isfinite(half[i]) else None,
                decades=float(decades[i]),
                by_choice={n: float(np.exp(v)) for n, v in zip(names, each[i], strict=True) if np.isfinite(v)},
                weights={n: float(w) for n, w, ok in zip(names, share, there, strict=True) if ok},
            )
        )
    return found


def mean_draws(
    ensemble: Ensemble, table: pd.DataFrame, points: pd.DataFrame, minima: Minima, *, draws: int, seed: int
) -> Array:
    """Draws of the mean law's ln L at points, (draws, n).

    Every choice is refitted to the same resamples of runs; a draw is their weighted mean.
    """
    counts = uncertainty.resamples(uncertainty.clusters(table, "run"), draws=draws, seed=seed)
    each = np.full((len(ensemble.choices), draws, len(points)), np.nan)
    for j, (choice, fit) in enumerate(zip(ensemble.choices, ensemble.fits, strict=True)):
        if not choice.frontier:
            chosen = covered(choice.law, table)
            rows = table[chosen].reset_index(drop=True)
            weights = run_weights(choice, rows)
            loss = rows.loss.to_numpy(float)
            theta = uncertainty.bootstrap(fit, columns(rows), loss, counts[:, chosen], weights)
        elif minima.draws is not None:
            used = {"C": np.array([p.budget for p in minima.used])}
            theta = solve.refit(fit, used, minima.draws[np.arange(draws) % len(minima.draws), 2:])
        else:
            continue
        each[j] = choice_ln_loss(choice, theta, points)
    return np.array([ensemble.weighted(each[:, i].T, points) for i in range(draws)])


def optimal_points(compute: Array, ensemble: Ensemble, table: pd.DataFrame, minima: Minima) -> pd.DataFrame:
    """Compute-optimal runs, a row each: N, D, C, U and ``optimal``; N and D are nan where there is no optimum.

    By the budgets' minima where these can be trusted, else where the ensemble is lowest along 6ND = C. Runs that vary
    along one line of ln N and ln D only do not tell an optimum: then the points continue that line.
    """
    if minima.trusted:
        n, d = minima.optimum(compute)
    elif (line := ensemble.on_line(compute)) is not None:
        n, d = line
    else:
        ends = optimum.within_reach(table.N.to_numpy(float))
        found = [_lowest(ensemble, float(c), ends) for c in compute]
        n = np.array([np.nan if ln_n is None else np.exp(ln_n) for ln_n in found])
        d = compute / (6 * n)
    return pd.DataFrame({"N": n, "D": d, "C": compute, "U": d, "optimal": True})


def _lowest(ensemble: Ensemble, compute: float, ends: tuple[float, float]) -> float | None:
    """ln N where the ensemble is lowest along 6ND = compute."""

    def along(ln_n: Array) -> Array:
        n = np.exp(ln_n)
        d = compute / (6 * n)
        return ensemble.ln_loss(pd.DataFrame({"N": n, "D": d, "C": compute, "U": d}))[0]

    return optimum.lowest(along, *ends)
