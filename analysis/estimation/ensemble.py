"""An ensemble of defensible fits: law, robust function and weighting crossed, weighted by their backtest errors.

No single choice is best on every public table: Huber on all runs wins on one, the same with high-compute runs weighing
more on the next; and where few points tell the exponents, the law whose exponents are held near every published fit
misses less than those that fit them. (Kaplan's L(N,D), without an irreducible loss, is no such choice: a decade
out it misses by several percent.) Their mean, each weighted by one over the fourth power of its median miss in
rolling-origin backtests, is near the best on all; and the spread between them shows what the choice is worth
(tests/benchmarks/backtest.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import backtest, isoflop, uncertainty
from analysis.estimation.backtest import Backtests, Calibration, Predictor
from analysis.estimation.choices import Choice, choices, fit_choices, optima, optimal, predictor, ruled_out
from analysis.estimation.robust import HUBER, Rho
from analysis.estimation.solve import Fit
from analysis.laws import Array, Law
from analysis.runs.ratio import STEPS, Ratio

SHARPNESS = 4.0  # of the weights: a choice that misses twice as much gets a sixteenth
LEAST_ERROR = 1e-3  # miss below which choices are not told apart
FLAT = 0.05  # standard deviation of ln N or ln D below which runs do not vary in that direction ...
OFF_LINE = 0.5  # ... and how far from them a point may then lie in it
FREEDOM_USED = 5  # parameters of L(N, D)
LEVEL_LINE = 0.1  # a line in ln N and ln D along which ln C rises less than this is one of equal compute
SETTLED = 1e-6  # of ln N and ln D: a point on a line that still moves by more is none


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """The choices' weights for one kind of point, and the calibration of their mean."""

    tests: Backtests  # at points of this kind
    errors: Array  # (choices,) median absolute miss
    weights: Array  # (choices,), summing to one
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The choices with their fits, weighted by what the backtests say of them."""

    choices: list[Choice]
    fits: list[Fit]
    runs: pd.DataFrame  # that these are of: those that passed the rules first
    anywhere: Weighting  # for runs of any N and D
    at_optimum: Weighting | None  # for compute-optimal ones; None without budgets: then the same
    ends: tuple[float, float]  # FLOPs of the lowest- and of the highest-compute run fitted
    span: float  # decades of compute over which the runs lie
    centre: Array  # (2,) mean ln N and ln D of the runs
    missing: Array | None  # (2,) the direction of ln N and ln D in which the runs do not vary; None where they do
    of_one_compute: bool  # or nearly, by C or 6ND, or of one budget: the runs tell nothing of another compute

    @property
    def optimal(self) -> Weighting:
        """The weighting for compute-optimal runs."""
        return self.at_optimum or self.anywhere

    def ln_loss(self, points: pd.DataFrame) -> tuple[Array, Array]:
        """The weighted mean (n,), and every choice (n, choices)."""
        each = predictor(self.choices, [fit.theta for fit in self.fits])(points)
        return self.weighted(each, points), each

    def weights(self, points: pd.DataFrame) -> Array:
        """The weights of the choices at each point, (n, choices)."""
        return np.where(optimal(points)[:, None], self.optimal.weights, self.anywhere.weights)

    def weighted(self, each: Array, points: pd.DataFrame) -> Array:
        """The weighted mean over the choices, (n,), each point by the weights of its kind."""
        return np.where(
            optimal(points),
            backtest.combine(each, self.optimal.weights),
            backtest.combine(each, self.anywhere.weights),
        )

    def half_width(self, points: pd.DataFrame, level: float) -> Array:
        """Half of a new run's interval in ln L, (n,); infinite where the data do not support one."""
        decades = np.abs(self.decades(points))
        half = np.where(
            optimal(points),
            self.optimal.calibration.half_width(decades, self.span, level),
            self.anywhere.calibration.half_width(decades, self.span, level),
        )
        return np.where(self.informed(points), half, np.inf)

    def informed(self, points: pd.DataFrame) -> Array:
        """Whether the runs tell of each point at all, (n,).

        Runs of one size say nothing of another, runs of one ratio of tokens to parameters nothing of another ratio,
        runs of one compute nothing of another compute.
        """
        told = np.ones(len(points), bool)
        if self.of_one_compute:
            told &= np.abs(self.decades(points)) * np.log(10) <= OFF_LINE
        if self.missing is not None:
            off = (np.log(points[["N", "D"]].to_numpy(float)) - self.centre) @ self.missing
            told &= np.abs(off) <= OFF_LINE
        return told

    def on_line(self, compute: Array, cost: Ratio) -> tuple[Array, Array] | None:
        """N and D of each compute on the one line along which the runs vary.

        None where the runs vary in both directions; nan where they are of one compute, or C does not rise all the way.

        Args:
            cost: C/(6ND) by size.
        """
        if self.of_one_compute:
            return np.full_like(compute, np.nan), np.full_like(compute, np.nan)
        if self.missing is None:
            return None
        along = _along(self.missing)
        step = (np.log(compute / 6) - self.centre.sum()) / along.sum()
        for _ in range(STEPS):
            left = np.log(compute / 6) - cost.ln(self.centre[0] + along[0] * step) - self.centre.sum()
            before, step = step, left / along.sum()
        way = np.linspace(0, step, STEPS)  # (STEPS, n)
        ln_c = way * along.sum() + cost.ln(self.centre[0] + along[0] * way)
        rises = np.diff(ln_c, axis=0) * np.sign(along.sum() * step)
        leads = (rises >= LEVEL_LINE * np.abs(np.diff(way, axis=0))).all(0)
        step = np.where(leads & (np.abs(step - before) < SETTLED), step, np.nan)
        n, d = np.exp(self.centre[:, None] + along[:, None] * step)
        return n, d

    def decades(self, points: pd.DataFrame) -> Array:
        """How far beyond the highest-compute run, (n,); negative below the lowest-compute one, zero between."""
        c = points.C.to_numpy(float)
        return np.asarray(np.log10(c / np.clip(c, *self.ends)))


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
        table: runs: run_id, N, D, C, U, loss; marked ruled_out the ones that only lenient choices are fitted to.
        law: all, or the name of the one that predicts alone.
        rho: the robust function asked for.
        frontier: whether there are budgets, so that laws of C alone take part at compute-optimal points.
        joint: the law of N and D.
    """
    runs, out = _testable(table)
    table = pd.concat([runs, out], ignore_index=True) if len(out) else runs
    tried = choices(table, law=law, rho=rho, frontier=frontier, joint=joint)
    fitting = [(c, f) for c, f in zip(tried, fit_choices(tried, table), strict=True) if _falls(f)]
    fitting = _determined(fitting, runs) if law == "all" else fitting
    if not fitting:
        return None
    kept, fits = [c for c, _ in fitting], [f for _, f in fitting]

    def below_cut(below: pd.DataFrame) -> Predictor:
        cheap = out[out.C <= below.C.max()]
        found = optima(kept, pd.concat([below, cheap]) if len(cheap) else below)
        if cheap.empty:  # lenient choices are judged by the cuts that held what they are lenient to
            found = [None if c.lenient else theta for c, theta in zip(kept, found, strict=True)]
        return predictor(kept, found)

    done = backtest.run(runs, below_cut, with_minima if frontier else None)
    known = uncertainty.noise(runs).known
    best = done.rows.optimal.to_numpy(bool) if done.cuts else np.zeros(0, bool)
    tests = done.where(~best) if done.cuts else done
    errors, weights = _weights(tests, kept)
    return Ensemble(
        choices=kept,
        fits=fits,
        runs=table,
        anywhere=_weighting(tests, errors, weights, max(known, _spread(runs, kept, fits, weights))),
        at_optimum=_at_optimum(done.where(best), kept, runs, known) if best.any() else None,
        ends=(float(runs.C.min()), float(runs.C.max())),
        span=backtest.span(runs.C.to_numpy(float)),
        centre=np.log(runs[["N", "D"]].to_numpy(float)).mean(0),
        missing=(missing := missing_direction(runs)),
        of_one_compute=_of_one_compute(runs, missing),
    )


def _testable(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs that passed the rules, and of the others those that lie below a cut: the rest no backtest can judge."""
    runs, out = table[~ruled_out(table)].reset_index(drop=True), table[ruled_out(table)]
    cuts = backtest.cuts(runs.C.to_numpy(float))
    return runs, out[out.C < cuts[0]] if cuts else out[:0]


def _at_optimum(tests: Backtests, choices: list[Choice], runs: pd.DataFrame, known: float) -> Weighting:
    """The same at the minima of budgets, whose noise is that around their parabolas."""
    around = isoflop.noise(isoflop.parabolas(runs))
    return _weighting(tests, *_weights(tests, choices), max(known, around))


def _weights(tests: Backtests, choices: list[Choice]) -> tuple[Array, Array]:
    """Errors and weights of the choices by their misses; one that was never tested weighs as the worst does."""
    errors = tests.errors() if tests.cuts else np.full(len(choices), np.nan)
    worst = float(np.nanmax(errors)) if np.isfinite(errors).any() else 1.0
    weights = np.maximum(np.nan_to_num(errors, nan=worst), LEAST_ERROR) ** -SHARPNESS
    weights *= [choice.weight for choice in choices]
    return errors, np.asarray(weights / weights.sum())


def _weighting(tests: Backtests, errors: Array, weights: Array, noise: float) -> Weighting:
    calibration = backtest.calibrate(tests, weights, noise)
    return Weighting(tests=tests, errors=errors, weights=weights, calibration=calibration)


def _determined(fitted: list[tuple[Choice, Fit]], runs: pd.DataFrame) -> list[tuple[Choice, Fit]]:
    """Those with fewer parameters than there are points, of which seeds of one tell no more; or those with the fewest.

    Laws of the minima are so with twice as many minima as parameters: minima are few.
    """
    points = len(np.unique(uncertainty.clusters(runs, "run")))
    most = max(points - 1, min((c.law.dimension for c, _ in fitted if not c.frontier), default=0))
    return [(c, f) for c, f in fitted if (f.runs // 2 if c.frontier else most) >= c.law.dimension]


def _falls(fit: Fit) -> bool:
    """Whether there is a fit by which the loss falls with scale: what does not cannot predict a larger run."""
    return fit.theta is not None and not laws.not_falling(fit.params)


def missing_direction(table: pd.DataFrame) -> Array | None:
    """The unit vector of (ln N, ln D) along which the runs do not vary; None where there is none."""
    x = np.log(table[["N", "D"]].to_numpy(float))
    _, spread, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return np.asarray(axes[-1]) if spread[-1] / np.sqrt(len(x)) < FLAT else None


def _of_one_compute(table: pd.DataFrame, missing: Array | None) -> bool:
    """Whether C, 6ND or the budget is the same throughout, or along a line changes little beside N and D."""
    x = np.log(table[["N", "D"]].to_numpy(float))
    counts = [x.sum(1), *(np.log(table[name].to_numpy(float)) for name in ("C", "budget_flops") if name in table)]
    least = FLAT if missing is None else LEVEL_LINE * np.ptp(x @ _along(missing))
    return any(bool(np.ptp(ln_c) < least) for ln_c in counts)


def _along(missing: Array) -> Array:
    """The direction of ln N and ln D in which runs vary that do not in another."""
    return np.array([-missing[1], missing[0]])


def _spread(table: pd.DataFrame, choices: list[Choice], fits: list[Fit], share: Array) -> float:
    """Robust standard deviation of the runs around the mean of the choices, in ln L."""
    if all(choice.frontier for choice in choices):
        return 0.0
    each = predictor(choices, [fit.theta for fit in fits])(table)
    residual = np.log(table.loss.to_numpy(float)) - backtest.combine(each, share)
    freedom = max(1, len(table) - FREEDOM_USED)
    return 1.4826 * float(np.nanmedian(np.abs(residual))) * float(np.sqrt(len(table) / freedom))


def minimum_name(budget: float) -> str:
    """What the compute-optimal point of a budget is called among runs."""
    return f"minimum at {budget:.3g}"


def with_minima(table: pd.DataFrame) -> pd.DataFrame:
    """The runs, and below them the compute-optimal points of their budgets as if they were runs."""
    rows = [
        {
            "run_id": minimum_name(p.budget),
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
