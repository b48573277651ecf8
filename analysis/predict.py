"""What a larger run would reach: the stack's loss with both intervals, N* and D*, accuracies; and what moves it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis import backtest, fewshot, isoflop, laws, solve, stacking, uncertainty
from analysis.fewshot import Accuracy, Trend
from analysis.isoflop import Minima
from analysis.laws import Array
from analysis.solve import Fit
from analysis.stacking import Stack

GRID = 400  # sizes tried for N* where no budget says it
DRAWS_SHARE, LEAST_DRAWS = 4, 20  # of the bootstrap, for each of the stack's choices
REACH = 1e3  # beyond the sizes that were run


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run would reach."""

    compute: float
    n: float
    d: float
    loss: float  # of the weighted mean of the choices
    interval_mean: list[float]  # of the mean law
    interval_new_run: list[float] | None  # of one new run; None where the data do not support it
    decades: float  # beyond the dearest run
    by_choice: dict[str, float] = field(default_factory=dict)
    accuracies: list[Accuracy] = field(default_factory=list)

    @property
    def spread(self) -> list[float]:
        """The lowest and highest loss of the choices."""
        return [min(self.by_choice.values()), max(self.by_choice.values())]


def predict(
    stack: Stack, table: pd.DataFrame, points: pd.DataFrame, minima: Minima, *, draws: int, seed: int
) -> list[Prediction]:
    """A prediction a point, in their order.

    Args:
        table: the runs that the stack was fitted to.
        points: N, D, C, U.
    """
    ln_loss, each = stack.ln_loss(points)
    if not np.all(np.isfinite(ln_loss)):
        row = int(np.flatnonzero(~np.isfinite(ln_loss))[0])
        raise ValueError(f"point {row + 1}: no law here speaks of it (text repeated too often?)")
    decades = stack.decades(points)
    half = stack.half_width(points, uncertainty.LEVEL)
    drawn = mean_draws(stack, table, points, minima, draws=max(LEAST_DRAWS, draws // DRAWS_SHARE), seed=seed)
    found = []
    for i in range(len(points)):
        low, high = uncertainty.interval(drawn[:, i])
        mean = [float(np.exp(min(low, ln_loss[i]))), float(np.exp(max(high, ln_loss[i])))]
        new = None
        if np.isfinite(half[i]):  # what holds of a new run is never surer than the mean law
            new = [min(mean[0], float(np.exp(ln_loss[i] - half[i]))), max(mean[1], float(np.exp(ln_loss[i] + half[i])))]
        names = [choice.name for choice in stack.choices]
        found.append(
            Prediction(
                compute=float(points.C.iloc[i]),
                n=float(points.N.iloc[i]),
                d=float(points.D.iloc[i]),
                loss=float(np.exp(ln_loss[i])),
                interval_mean=mean,
                interval_new_run=new,
                decades=float(decades[i]),
                by_choice={n: float(np.exp(v)) for n, v in zip(names, each[i], strict=True) if np.isfinite(v)},
            )
        )
    return found


def mean_draws(
    stack: Stack, table: pd.DataFrame, points: pd.DataFrame, minima: Minima, *, draws: int, seed: int
) -> Array:
    """Draws of the mean law's ln L at points, (draws, n): every choice refitted to the same resamples of runs, and
    their weighted mean.
    """
    counts = uncertainty.resamples(uncertainty.clusters(table, "run"), draws=draws, seed=seed)
    each = np.full((len(stack.choices), draws, len(points)), np.nan)
    for j, (choice, fit) in enumerate(zip(stack.choices, stack.fits, strict=True)):
        if not choice.frontier:
            chosen = stacking.covered(choice.law, table)
            rows = table[chosen].reset_index(drop=True)
            weights = stacking.weights(choice, rows)
            loss = rows.loss.to_numpy(float)
            theta = uncertainty.bootstrap(fit, stacking.columns(rows), loss, counts[:, chosen], weights)
        elif minima.draws is not None:
            used = {"C": np.array([p.budget for p in minima.used])}
            theta = solve.refit(fit, used, minima.draws[np.arange(draws) % len(minima.draws), 2:])
        else:
            continue
        each[j] = stacking.ln_loss(choice, theta, points)
    return np.array([stack.mixed(each[:, i].T, points) for i in range(draws)])


def optimal_points(compute: Array, stack: Stack, table: pd.DataFrame, minima: Minima) -> pd.DataFrame:
    """N*, D*, C of compute-optimal runs (``optimal``): by the budgets' minima where these can be trusted, else where
    the stack is lowest along 6ND = C.
    """
    if minima.trusted:
        c = np.log([p.budget for p in minima.used])
        d = np.log([isoflop.tokens_at(p, table) for p in minima.used])
        tokens = np.exp(np.polyval(np.polyfit(c, d, 1), np.log(compute)))
        return pd.DataFrame(
            {"N": [minima.n_star(x) for x in compute], "D": tokens, "C": compute, "U": tokens, "optimal": True}
        )
    rows = []
    sizes = np.geomspace(table.N.min() / REACH, table.N.max() * REACH, GRID)
    for x in compute:
        tokens = x / (6 * sizes)
        along = pd.DataFrame({"N": sizes, "D": tokens, "C": x, "U": tokens})
        best = int(np.argmin(stack.ln_loss(along)[0]))
        rows.append(along.iloc[best])
    return pd.DataFrame(rows).reset_index(drop=True).assign(optimal=True)


def with_accuracies(prediction: Prediction, trends: list[Trend], seed: int) -> list[Accuracy]:
    """Accuracies of a predicted run, its loss's doubt carried through."""
    new = prediction.interval_new_run or prediction.interval_mean
    half = float(np.log(new[1] / new[0])) / 2
    sigma = half / float(stats.t.ppf((1 + uncertainty.LEVEL) / 2, df=backtest.FREEDOM))
    return fewshot.predict(trends, float(np.log(prediction.loss)), sigma, seed)


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What changes at a target when something is left out of L(N, D) = E + A/N^alpha + B/D^beta."""

    left_out: str  # a run's name, "size N" or "budget C"
    kind: str  # run | size | budget
    runs: int
    loss: float  # predicted at the target without it
    loss_change: float  # relative
    n_star: float
    n_star_change: float


def influences(fit: Fit, table: pd.DataFrame, compute: float) -> list[Influence]:
    """Refit without each run, each size and each budget, all at once; the largest change of the loss first.

    Args:
        fit: of the law chinchilla to ``table``.
        compute: FLOPs of the target.
    """
    if fit.theta is None or fit.law is not laws.CHINCHILLA:
        return []
    table = table[stacking.covered(fit.law, table)].reset_index(drop=True)
    groups: list[tuple[str, str, NDArray[np.bool_]]] = [
        (str(name), "run", (table.run_id == name).to_numpy(bool)) for name in table.run_id
    ]
    for kind, by in (("size", "size"), ("budget", "budget")):
        labels = uncertainty.clusters(table, by)
        for label in np.unique(labels):
            hit = labels == label
            first = table[hit].iloc[0]
            name = f"size {first.N:.3g}" if kind == "size" else f"budget {np.exp(np.log(table.C[hit]).mean()):.2g}"
            if 1 < hit.sum() <= len(table) - fit.law.size - 1:
                groups.append((name, kind, hit))
    weights = np.stack([~hit for _, _, hit in groups]).astype(np.float64)
    theta = solve.refit(fit, stacking.columns(table), np.log(table.loss.to_numpy(float)), weights=weights)
    base_n, base_loss = _optimum(fit.params, compute)
    found = []
    for (name, kind, hit), row in zip(groups, theta, strict=True):
        n, loss = _optimum(fit.law.describe(row), compute)
        found.append(
            Influence(
                left_out=name,
                kind=kind,
                runs=int(hit.sum()),
                loss=loss,
                loss_change=loss / base_loss - 1,
                n_star=n,
                n_star_change=n / base_n - 1,
            )
        )
    return sorted(found, key=lambda f: -abs(np.nan_to_num(f.loss_change)))


def _optimum(params: dict[str, float], compute: float) -> tuple[float, float]:
    """N* and the loss there, under 6ND = C; nan where the law has no optimum."""
    with np.errstate(all="ignore"):
        n, d = laws.allocation(params, np.array(compute))
        loss = params["E"] + params["A"] / n ** params["alpha"] + params["B"] / d ** params["beta"]
    return float(n), float(loss)
