"""Many defensible fits instead of one: law, loss function and weighting crossed, weighted by their backtests.

No single choice is best on every public table: Huber on all runs wins on one, the same with dear runs weighing more
on the next. (Kaplan's L(N,D), without an irreducible loss, is no such choice: a decade out it misses by several
percent.) The mean of them, each weighted by one over its squared mean miss in rolling-origin backtests, is near the
best on all; and the spread between them shows what the choice is worth (tests/benchmarks/backtest.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import backtest, isoflop, laws, rules, solve, uncertainty
from analysis.backtest import Backtests, Calibration, Predictor
from analysis.laws import Array, Data, Law
from analysis.solve import HUBER, LEAST_SQUARES, Fit, Loss

WIDE_HUBER = Loss(delta=1e-2)  # between absolute deviations and least squares
RECENCY = 0.1  # weight of a run grows with this power of its compute, where dear runs weigh more
SHARPNESS = 2.0  # of the weights: a choice that misses twice as much gets a quarter
LEAST_ERROR = 1e-3  # mean miss below which choices are not told apart
FRONTIERS = ("compute_frontier", "compute_frontier_irreducible", "broken")  # laws of the budgets' minima
FLAT = 0.05  # standard deviation of ln N or ln D below which runs do not vary in that direction ...
OFF_LINE = 0.5  # ... and how far from them a point may then lie in it
FREEDOM_USED = 5  # parameters of L(N, D)
REPEATED_RUNS = 5  # runs of more than one epoch from which on the law of repeated data takes part


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to fit."""

    law: Law
    loss: Loss
    recent: bool = False  # dear runs weigh more
    frontier: bool = False  # of compute alone: through the minima of the budgets

    @property
    def name(self) -> str:
        """For people and for fit.json."""
        loss = f"{self.loss.name} {self.loss.delta:g}" if self.loss.name != "least_squares" else "least squares"
        return f"{self.law.name}, {loss}" + (", dear runs weigh more" if self.recent else "")


def choices(table: pd.DataFrame, *, law: str, loss: Loss, frontier: bool) -> list[Choice]:
    """The choices that take part; one alone where a law was asked for.

    Args:
        loss: the loss function asked for; beside it a Huber ten times as wide takes part.
        frontier: whether there are budgets: laws of C alone take part too, for compute-optimal points.
    """
    if law != "all":
        one = Choice(law=laws.LAWS[law], loss=loss, frontier=law in FRONTIERS)
        return [one] if (frontier or not one.frontier) and set(one.law.needs) <= {"N", "D", "U", "C"} else []
    forms: list[Law] = [laws.CHINCHILLA, laws.OVER_TRAINING]
    if (table.D > 1.05 * table.U).sum() >= REPEATED_RUNS:
        forms.append(laws.DATA_CONSTRAINED)
    functions = (loss, WIDE_HUBER) if loss != WIDE_HUBER else (loss,)
    found = [Choice(law=f, loss=function, recent=r) for f in forms for function in functions for r in (False, True)]
    if frontier:
        found += [Choice(law=laws.LAWS[name], loss=LEAST_SQUARES, frontier=True) for name in FRONTIERS[:2]]
    return found


def columns(table: pd.DataFrame) -> Data:
    """What the laws read of a table of runs or points."""
    return {name: table[name].to_numpy(float) for name in ("N", "D", "C", "U", "C_min", "S_min") if name in table}


def fit(choice: Choice, table: pd.DataFrame) -> Fit:
    """Fit one choice to a table of runs (run_id, N, D, C, U, loss)."""
    if choice.frontier:
        used = [p for p in map(isoflop.parabola, isoflop.by_budget(table)) if p.ok]
        data = {"C": np.array([p.budget for p in used])}
        return solve.fit(choice.law, data, np.array([p.loss_star for p in used]), function=choice.loss)
    table = table[covered(choice.law, table)]
    return solve.fit(
        choice.law, columns(table), table.loss.to_numpy(float), function=choice.loss, weights=weights(choice, table)
    )


def covered(law: Law, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows a law speaks of, (n,): one without repetition does not speak of many epochs."""
    most = rules.WORTHLESS_EPOCHS if "U" in law.needs else rules.MAX_EPOCHS
    return np.ones(len(table), bool) if "U" not in table else np.asarray(~(most * 1.001 * table.U < table.D))


def weights(choice: Choice, table: pd.DataFrame) -> Array | None:
    """Of the runs, (n,); None where they are equal. Measured standard errors of the loss count, where there are any:
    a run's variance is its own plus the median one, which stands for what the law cannot explain.
    """
    found = np.ones(len(table))
    if choice.recent:
        found = (table.C / table.C.max()).to_numpy(float) ** RECENCY
    if "loss_se" in table and table.loss_se.notna().all() and (table.loss_se > 0).any():
        variance = (table.loss_se / table.loss).to_numpy(float) ** 2
        found = found * 2 * np.median(variance) / (variance + np.median(variance))
    return None if np.all(found == found[0]) else found / found.mean()


def predictor(choices: list[Choice], fits: list[Fit]) -> Predictor:
    """ln L of every choice at points, (n, choices); nan where a fit failed or a law does not speak of a point."""

    def predict(points: pd.DataFrame) -> Array:
        found = np.full((len(points), len(fits)), np.nan)
        for j, (choice, f) in enumerate(zip(choices, fits, strict=True)):
            if f.theta is not None:
                found[:, j] = ln_loss(choice, f.theta[None], points)[0]
        return found

    return predict


def ln_loss(choice: Choice, theta: Array, points: pd.DataFrame) -> Array:
    """ln L of one choice under many parameters, (P, n); nan at points that it does not speak of.

    Args:
        points: N, D, C, U, and ``optimal``: whether a point is compute-optimal; without the column none is.
    """
    with np.errstate(all="ignore"):
        values = choice.law.on(columns(points))(theta)[0]
    speaks = covered(choice.law, points)
    if choice.frontier:
        speaks = speaks & _optimal(points)
    return np.where(np.isfinite(values) & speaks, values, np.nan)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The choices' weights for one kind of point, and the calibration of their mean."""

    tests: Backtests  # at points of this kind
    errors: Array  # (choices,) mean absolute miss
    weights: Array  # (choices,), summing to one
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The choices with their fits, mixed by what the backtests say of them."""

    choices: list[Choice]
    fits: list[Fit]
    anywhere: Mixture  # for runs of any N and D
    optimal: Mixture  # for compute-optimal ones: the same where there are no budgets
    largest: float  # FLOPs of the dearest run fitted
    centre: Array  # (2,) mean ln N and ln D of the runs
    missing: Array | None  # (2,) the direction of ln N and ln D in which the runs do not vary; None where they do

    def ln_loss(self, points: pd.DataFrame) -> tuple[Array, Array]:
        """The weighted mean (n,), and every choice (n, choices)."""
        each = predictor(self.choices, self.fits)(points)
        return self.mixed(each, points), each

    def mixed(self, each: Array, points: pd.DataFrame) -> Array:
        """The weighted mean over the choices, (n,), each point by the weights of its kind."""
        return np.where(
            _optimal(points),
            backtest.combine(each, self.optimal.weights),
            backtest.combine(each, self.anywhere.weights),
        )

    def half_width(self, points: pd.DataFrame, level: float) -> Array:
        """Half of a new run's interval in ln L, (n,); infinite where the data do not support one."""
        decades = self.decades(points)
        half = np.where(
            _optimal(points),
            self.optimal.calibration.half_width(decades, level),
            self.anywhere.calibration.half_width(decades, level),
        )
        return np.where(self.told(points), half, np.inf)

    def told(self, points: pd.DataFrame) -> Array:
        """Whether the runs tell of each point at all, (n,): runs of one size say nothing of another, runs on one ray of
        tokens per parameter nothing beside it.
        """
        if self.missing is None:
            return np.ones(len(points), bool)
        off = (np.log(points[["N", "D"]].to_numpy(float)) - self.centre) @ self.missing
        return np.asarray(np.abs(off) <= OFF_LINE)

    def decades(self, points: pd.DataFrame) -> Array:
        """How far beyond the dearest run, (n,); zero within."""
        return np.asarray(np.maximum(0.0, np.log10(points.C.to_numpy(float) / self.largest)))


def stack(table: pd.DataFrame, *, law: str = "all", loss: Loss = HUBER, frontier: bool = False) -> Stack | None:
    """Fit all choices, backtest them, weigh them and calibrate their mean; None when none can be fitted.

    Args:
        table: runs: run_id, N, D, C, U, loss.
        law: all, or the name of the one that predicts alone.
        loss: the loss function asked for.
        frontier: whether there are budgets, so that laws of C alone take part at compute-optimal points.
    """
    tried = choices(table, law=law, loss=loss, frontier=frontier)
    fitted = [(c, fit(c, table)) for c in tried]
    fitted = [(c, f) for c, f in fitted if f.theta is not None and (law != "all" or _enough(c, f))]
    if not fitted:
        return None
    kept = [c for c, _ in fitted]
    fits = [f for _, f in fitted]
    targets = with_minima if frontier else None
    done = backtest.run(table, lambda below: predictor(kept, [fit(c, below) for c in kept]), targets)
    known = uncertainty.noise(table).known
    best = done.rows.optimal.to_numpy(bool) if done.cuts else np.zeros(0, bool)
    runs = done.where(~best) if done.cuts else done
    errors, weights = _weights(runs, len(kept))
    anywhere = _mixture(runs, errors, weights, max(known, _spread(table, kept, fits, weights)))
    optimal = anywhere
    if best.any():
        around = isoflop.noise([isoflop.parabola(group) for group in isoflop.by_budget(table)])
        optimal = _mixture(done.where(best), *_weights(done.where(best), len(kept)), max(known, around))
    return Stack(
        choices=kept,
        fits=fits,
        anywhere=anywhere,
        optimal=optimal,
        largest=float(table.C.max()),
        centre=np.log(table[["N", "D"]].to_numpy(float)).mean(0),
        missing=_missing_direction(table),
    )


def _weights(tests: Backtests, choices: int) -> tuple[Array, Array]:
    """Errors and weights of the choices by their misses; one that was never tested weighs as the worst does."""
    errors = tests.errors() if tests.cuts else np.full(choices, np.nan)
    worst = float(np.nanmax(errors)) if np.isfinite(errors).any() else 1.0
    weights = np.maximum(np.nan_to_num(errors, nan=worst), LEAST_ERROR) ** -SHARPNESS
    return errors, np.asarray(weights / weights.sum())


def _mixture(tests: Backtests, errors: Array, weights: Array, noise: float) -> Mixture:
    calibration = backtest.calibrate(tests, weights, noise)
    return Mixture(tests=tests, errors=errors, weights=weights, calibration=calibration)


def _optimal(points: pd.DataFrame) -> NDArray[np.bool_]:
    return points.optimal.to_numpy(bool) if "optimal" in points else np.zeros(len(points), bool)


def _enough(choice: Choice, fit: Fit) -> bool:
    """Whether a law of the minima has twice as many of them as parameters: minima are few."""
    return not choice.frontier or fit.runs >= 2 * choice.law.size


def _missing_direction(table: pd.DataFrame) -> Array | None:
    """The unit vector of (ln N, ln D) along which the runs do not vary; None where there is none."""
    x = np.log(table[["N", "D"]].to_numpy(float))
    _, spread, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return np.asarray(axes[-1]) if spread[-1] / np.sqrt(len(x)) < FLAT else None


def _spread(table: pd.DataFrame, choices: list[Choice], fits: list[Fit], share: Array) -> float:
    """Robust standard deviation of the runs around the mean of the choices, in ln L."""
    if all(choice.frontier for choice in choices):
        return 0.0
    residual = np.log(table.loss.to_numpy(float)) - backtest.combine(predictor(choices, fits)(table), share)
    freedom = max(1, len(table) - FREEDOM_USED)
    return 1.4826 * float(np.nanmedian(np.abs(residual))) * float(np.sqrt(len(table) / freedom))


def with_minima(table: pd.DataFrame) -> pd.DataFrame:
    """The runs, and below them the compute-optimal points of their budgets as if they were runs."""
    rows = []
    for group in isoflop.by_budget(table):
        p = isoflop.parabola(group)
        if p.ok:
            d = isoflop.tokens_at(p, table)
            rows.append(
                {
                    "run_id": f"minimum at {p.budget:.3g}",
                    "N": p.n_star,
                    "D": d,
                    "C": p.budget,
                    "U": d,
                    "loss": p.loss_star,
                    "optimal": True,
                }
            )
    found = table.assign(optimal=False)
    return pd.concat([found, pd.DataFrame(rows)], ignore_index=True) if rows else found
