"""An ensemble of defensible fits: law, robust function and weighting crossed, weighted by their backtest errors.

No single choice is best on every public table: Huber on all runs wins on one, the same with high-compute runs weighing
more on the next. (Kaplan's L(N,D), without an irreducible loss, is no such choice: a decade out it misses by several
percent.) Their mean, each weighted by one over its squared mean miss in rolling-origin backtests, is near the best on
all; and the spread between them shows what the choice is worth (tests/benchmarks/backtest.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import laws
from analysis.estimation import backtest, isoflop, solve, uncertainty
from analysis.estimation.backtest import Backtests, Calibration, Predictor
from analysis.estimation.robust import HUBER, LEAST_SQUARES, Rho
from analysis.estimation.solve import Fit
from analysis.laws import Array, Data, Law
from analysis.runs import rules

WIDE_HUBER = Rho(delta=1e-2)  # between absolute deviations and least squares
RECENCY = 0.1  # weight of a run grows with this power of its compute, where high-compute runs weigh more
SHARPNESS = 2.0  # of the weights: a choice that misses twice as much gets a quarter
LEAST_ERROR = 1e-3  # mean miss below which choices are not told apart
FRONTIERS = ("compute_frontier", "compute_frontier_irreducible", "broken")  # laws of the budgets' minima
FLAT = 0.05  # standard deviation of ln N or ln D below which runs do not vary in that direction ...
OFF_LINE = 0.5  # ... and how far from them a point may then lie in it
FREEDOM_USED = 5  # parameters of L(N, D)
LEVEL_LINE = 0.1  # a line in ln N and ln D that rises less than this in ln ND is one of equal compute
REPEATED_RUNS = 5  # runs of more than one epoch from which on the law of repeated data takes part


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to fit."""

    law: Law
    rho: Rho
    recent: bool = False  # high-compute runs weigh more
    frontier: bool = False  # of compute alone: through the minima of the budgets

    @property
    def name(self) -> str:
        """For people and for fit.json."""
        rho = f"{self.rho.name} {self.rho.delta:g}" if self.rho.name != "least_squares" else "least squares"
        return f"{self.law.name}, {rho}" + (", high-compute runs weigh more" if self.recent else "")


def choices(table: pd.DataFrame, *, law: str, rho: Rho, frontier: bool, joint: Law = laws.CHINCHILLA) -> list[Choice]:
    """The choices that take part; one alone where a law was asked for.

    Args:
        rho: the robust function asked for; beside it a Huber ten times as wide takes part.
        frontier: whether there are budgets: laws of C alone take part too, for compute-optimal points.
        joint: of N and D: with fixed exponents it stands alone, for the others would not keep them.
    """
    if law != "all":
        one = Choice(law=joint if law == laws.CHINCHILLA.name else laws.LAWS[law], rho=rho, frontier=law in FRONTIERS)
        return [one] if (frontier or not one.frontier) and set(one.law.needs) <= {"N", "D", "U", "C"} else []
    forms: list[Law] = [joint] if joint is not laws.CHINCHILLA else [laws.CHINCHILLA, laws.OVER_TRAINING]
    if joint is laws.CHINCHILLA and (table.D > 1.05 * table.U).sum() >= REPEATED_RUNS:
        forms.append(laws.DATA_CONSTRAINED)
    functions = (rho, WIDE_HUBER) if rho != WIDE_HUBER else (rho,)
    found = [Choice(law=f, rho=function, recent=r) for f in forms for function in functions for r in (False, True)]
    if frontier:
        found += [Choice(law=laws.LAWS[name], rho=LEAST_SQUARES, frontier=True) for name in FRONTIERS[:2]]
    return found


def columns(table: pd.DataFrame) -> Data:
    """What the laws read of a table of runs or points."""
    return {name: table[name].to_numpy(float) for name in ("N", "D", "C", "U", "C_min", "S_min") if name in table}


def fit_choice(choice: Choice, table: pd.DataFrame) -> Fit:
    """Fit one choice to a table of runs (run_id, N, D, C, U, loss)."""
    return fit_choices([choice], table)[0]


def fit_choices(choices: Sequence[Choice], table: pd.DataFrame) -> list[Fit]:
    """Fit choices to a table of runs, those of one law at once."""
    fits: dict[int, Fit] = {}
    minima = isoflop.parabolas(table) if any(choice.frontier for choice in choices) else []
    for name in dict.fromkeys(choice.law.name for choice in choices):
        here = [i for i, choice in enumerate(choices) if choice.law.name == name]
        law = choices[here[0]].law
        if choices[here[0]].frontier:
            data: Data = {"C": np.array([p.budget for p in minima if p.ok])}
            loss = np.array([p.loss_star for p in minima if p.ok])
            asked: list[tuple[Rho, Array | None]] = [(choices[i].rho, None) for i in here]
        else:
            rows = table[covered(law, table)]
            data, loss = columns(rows), rows.loss.to_numpy(float)
            asked = [(choices[i].rho, run_weights(choices[i], rows)) for i in here]
        fits |= zip(here, solve.fit_each(law, data, loss, asked), strict=True)
    return [fits[i] for i in range(len(choices))]


def covered(law: Law, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows a law speaks of, (n,): one without repetition does not speak of many epochs."""
    most = rules.WORTHLESS_EPOCHS if "U" in law.needs else rules.MAX_EPOCHS
    if "U" not in table:
        return np.ones(len(table), bool)
    return np.asarray(~(most * 1.001 * table.U < table.D)) | rules.exempted(table, "repeated-data")


def run_weights(choice: Choice, table: pd.DataFrame) -> Array | None:
    """Of the runs, (n,); None where they are equal.

    Measured standard errors of the loss count, where there are any: a run's variance is its own plus the median one,
    which stands for what the law cannot explain.
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
                found[:, j] = choice_ln_loss(choice, f.theta[None], points)[0]
        return found

    return predict


def choice_ln_loss(choice: Choice, theta: Array, points: pd.DataFrame) -> Array:
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
class Weighting:
    """The choices' weights for one kind of point, and the calibration of their mean."""

    tests: Backtests  # at points of this kind
    errors: Array  # (choices,) mean absolute miss
    weights: Array  # (choices,), summing to one
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The choices with their fits, weighted by what the backtests say of them."""

    choices: list[Choice]
    fits: list[Fit]
    anywhere: Weighting  # for runs of any N and D
    at_optimum: Weighting | None  # for compute-optimal ones; None without budgets: then the same
    largest: float  # FLOPs of the highest-compute run fitted
    span: float  # decades of compute over which the runs lie
    centre: Array  # (2,) mean ln N and ln D of the runs
    missing: Array | None  # (2,) the direction of ln N and ln D in which the runs do not vary; None where they do

    @property
    def optimal(self) -> Weighting:
        """The weighting for compute-optimal runs."""
        return self.at_optimum or self.anywhere

    def ln_loss(self, points: pd.DataFrame) -> tuple[Array, Array]:
        """The weighted mean (n,), and every choice (n, choices)."""
        each = predictor(self.choices, self.fits)(points)
        return self.weighted(each, points), each

    def weights(self, points: pd.DataFrame) -> Array:
        """The weights of the choices at each point, (n, choices)."""
        return np.where(_optimal(points)[:, None], self.optimal.weights, self.anywhere.weights)

    def weighted(self, each: Array, points: pd.DataFrame) -> Array:
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
            self.optimal.calibration.half_width(decades, self.span, level),
            self.anywhere.calibration.half_width(decades, self.span, level),
        )
        return np.where(self.informed(points), half, np.inf)

    def informed(self, points: pd.DataFrame) -> Array:
        """Whether the runs tell of each point at all, (n,).

        Runs of one size say nothing of another, runs of one ratio of tokens to parameters nothing of another ratio.
        """
        if self.missing is None:
            return np.ones(len(points), bool)
        off = (np.log(points[["N", "D"]].to_numpy(float)) - self.centre) @ self.missing
        return np.asarray(np.abs(off) <= OFF_LINE)

    def on_line(self, compute: Array) -> tuple[Array, Array] | None:
        """N and D of each compute on the one line along which the runs vary, under 6ND = C.

        None where the runs vary in both directions, or along a line of equal compute.
        """
        if self.missing is None:
            return None
        along = np.array([-self.missing[1], self.missing[0]])
        if abs(along.sum()) < LEVEL_LINE:
            return None
        step = (np.log(compute / 6) - self.centre.sum()) / along.sum()
        n, d = np.exp(self.centre[:, None] + along[:, None] * step)
        return n, d

    def decades(self, points: pd.DataFrame) -> Array:
        """How far beyond the highest-compute run, (n,); zero within."""
        return np.asarray(np.maximum(0.0, np.log10(points.C.to_numpy(float) / self.largest)))


def fit_ensemble(
    table: pd.DataFrame,
    *,
    law: str = "all",
    rho: Rho = HUBER,
    frontier: bool = False,
    joint: Law = laws.CHINCHILLA,
) -> Ensemble | None:
    """Fit all choices, backtest them, weigh them and calibrate their mean; None when none can be fitted.

    Args:
        table: runs: run_id, N, D, C, U, loss.
        law: all, or the name of the one that predicts alone.
        rho: the robust function asked for.
        frontier: whether there are budgets, so that laws of C alone take part at compute-optimal points.
        joint: the law of N and D.
    """
    tried = choices(table, law=law, rho=rho, frontier=frontier, joint=joint)
    fitted = list(zip(tried, fit_choices(tried, table), strict=True))
    fitted = [(c, f) for c, f in fitted if f.theta is not None and (law != "all" or _enough(c, f)) and _falls(f)]
    if not fitted:
        return None
    kept = [c for c, _ in fitted]
    fits = [f for _, f in fitted]
    targets = with_minima if frontier else None
    done = backtest.run(table, lambda below: predictor(kept, fit_choices(kept, below)), targets)
    known = uncertainty.noise(table).known
    best = done.rows.optimal.to_numpy(bool) if done.cuts else np.zeros(0, bool)
    runs = done.where(~best) if done.cuts else done
    errors, weights = _weights(runs, len(kept))
    anywhere = _weighting(runs, errors, weights, max(known, _spread(table, kept, fits, weights)))
    at_optimum = None
    if best.any():
        around = isoflop.noise(isoflop.parabolas(table))
        at_optimum = _weighting(done.where(best), *_weights(done.where(best), len(kept)), max(known, around))
    return Ensemble(
        choices=kept,
        fits=fits,
        anywhere=anywhere,
        at_optimum=at_optimum,
        largest=float(table.C.max()),
        span=backtest.span(table.C.to_numpy(float)),
        centre=np.log(table[["N", "D"]].to_numpy(float)).mean(0),
        missing=missing_direction(table),
    )


def _weights(tests: Backtests, choices: int) -> tuple[Array, Array]:
    """Errors and weights of the choices by their misses; one that was never tested weighs as the worst does."""
    errors = tests.errors() if tests.cuts else np.full(choices, np.nan)
    worst = float(np.nanmax(errors)) if np.isfinite(errors).any() else 1.0
    weights = np.maximum(np.nan_to_num(errors, nan=worst), LEAST_ERROR) ** -SHARPNESS
    return errors, np.asarray(weights / weights.sum())


def _weighting(tests: Backtests, errors: Array, weights: Array, noise: float) -> Weighting:
    calibration = backtest.calibrate(tests, weights, noise)
    return Weighting(tests=tests, errors=errors, weights=weights, calibration=calibration)


def _optimal(points: pd.DataFrame) -> NDArray[np.bool_]:
    return points.optimal.to_numpy(bool) if "optimal" in points else np.zeros(len(points), bool)


def _enough(choice: Choice, fit: Fit) -> bool:
    """Whether a law of the minima has twice as many of them as parameters: minima are few."""
    return not choice.frontier or fit.runs >= 2 * choice.law.dimension


def _falls(fit: Fit) -> bool:
    """Whether the loss falls with scale by this fit: what does not cannot predict a larger run."""
    return not laws.not_falling(fit.params)


def missing_direction(table: pd.DataFrame) -> Array | None:
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
    rows = [
        {
            "run_id": f"minimum at {p.budget:.3g}",
            "N": p.n_star,
            "D": p.d_star,
            "C": p.budget,
            "U": p.u_star,
            "loss": p.loss_star,
            "optimal": True,
        }
        for p in isoflop.parabolas(table)
        if p.inside  # those of repeated text too: the law of repeated data speaks of them
    ]
    found = table.assign(optimal=False)
    return pd.concat([found, pd.DataFrame(rows)], ignore_index=True) if rows else found
