"""Rolling-origin backtests over compute: fitted below a cut, asked about every run above it; and what they teach.

The miss of a law beyond its data is misspecification, not noise: reruns differ by 0.03% where laws miss by 0.3 to 5% a
decade out. So the interval of a new run is taken from the misses themselves, which grow with the decades of an
extrapolation, and the more slowly the more decades the data span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.laws import Array

STEP = 0.25  # decades between cuts
SAME = 0.02  # relative: how far below a cut a run of its budget may lie, whose N and D were rounded
MOST_CUTS = 10
LEAST_RUNS, LEAST_SHARE = 8, 0.25  # below a cut, of all
LEAST_ABOVE = 2
MOST_WEIGHT = 0.5  # of the choices, that a cut must have fitted to count
LEAST_CUTS = 1  # fewer, and there is no calibrated interval
THIN_CUTS = 3  # fewer, and a reader is warned
LEVELS = (0.8, 0.95)  # of the intervals whose coverage is told
EDGES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0])  # decades of extrapolation, of the bins that it is told of

# A miss, in ln L, has sigma^2 = noise^2 + pace^2 decades^2 / span: a slope that is a little wrong is carried on, and
# the more decades of data there are the better it is known. The pace is that of the cuts and a prior's, and cuts count
# for as many as they are worth: data that span three decades hold three stretches of one, however many cuts overlap in
# them, and one and a half of two. So an interval far beyond data that span little rests on what other ladders miss by,
# and one near data that span much on its own backtests. The constants are the best of a grid on the mean of families
# of tables, public and simulated; leaving a family out chooses the same ones in most (tests/benchmarks/backtest.py
# --leave-one-out).
# What gained nothing there: moving the prediction by the mean signed miss of the cuts, carried on a decade and
# shrunk by how well they agree (error 0.98 +- 0.02 of what it was, and twice as large on repeated data) or by the
# residual of the runs at the top (1.00 +- 0.01); weights shrunk towards equal ones (1.03 +- 0.02); tails by what the
# cuts are worth, a variance that grows with decades too, means of variances (together: score 1.03, three constants).
LEAST_SPAN, BOTTOM = 0.3, 0.05  # decades; the share of the runs that lie below what the data span
TAILS = 6.0  # degrees of freedom of the t distribution of a miss


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The constants of how misses grow; these were chosen."""

    prior_pace: float = 0.009
    prior_worth: float = 4.0  # independent cuts


GROWTH = Growth()

Predictor = Callable[[pd.DataFrame], Array]
"""Points (columns N, D, C) -> ln L of every choice, (n, choices); nan where a choice has none."""
Fitter = Callable[[pd.DataFrame], Predictor]


@dataclass(frozen=True, kw_only=True)
class Backtests:
    """What every choice predicted for the runs above each cut."""

    # a cut and a run above it a row: fitted_to, fitted_runs, run_id, N, D, C, optimal, decades, span, measured
    rows: pd.DataFrame
    ln_predicted: Array  # (rows, choices)

    @property
    def cuts(self) -> int:
        """How many cuts there were."""
        return int(self.rows.fitted_to.nunique()) if len(self.rows) else 0

    def where(self, chosen: Array) -> Backtests:
        """Some of the rows."""
        return Backtests(rows=self.rows[chosen].reset_index(drop=True), ln_predicted=self.ln_predicted[chosen])

    def misses(self, weights: Array) -> Array:
        """ln measured - ln predicted of a weighted mean of the choices, (rows,).

        nan where choices of less than half of the weight could be fitted: what is left is another mean.
        """
        there = np.isfinite(self.ln_predicted) @ weights >= MOST_WEIGHT * weights.sum()
        miss = np.log(self.rows.measured.to_numpy(float)) - combine(self.ln_predicted, weights)
        return np.asarray(np.where(there, miss, np.nan))

    def errors(self) -> Array:
        """Median absolute miss of each choice, cuts counting equally, (choices,); nan where it never predicted.

        A choice that was fitted below some cuts only is judged by how it did there beside those that were fitted below
        all: its cuts may be the easier ones.
        """
        missed = np.abs(np.log(self.rows.measured.to_numpy(float))[:, None] - self.ln_predicted)
        table = pd.DataFrame(missed).groupby(self.rows.fitted_to.to_numpy()).median().to_numpy(float)  # (cuts, choices)
        there = np.isfinite(table)
        everywhere = there.all(0)
        if not everywhere.any():
            return np.asarray(pd.DataFrame(table).mean().to_numpy(float))
        usual = table[:, everywhere].mean(1)  # (cuts,)
        with np.errstate(invalid="ignore"):
            beside = np.where(there, table, 0.0).sum(0) / (there * usual[:, None]).sum(0)
        return np.asarray(beside * usual.mean())


def cuts(compute: Array) -> list[float]:
    """Computes to cut at, the highest first: every quarter decade below the top with enough runs on either side."""
    ordered = np.sort(compute)
    found: list[float] = []
    counts: set[int] = set()
    for k in range(1, 200):
        cut = (1 - SAME) * ordered[-1] / 10 ** (STEP * k)
        below = int((ordered < cut).sum())
        if below < max(LEAST_RUNS, LEAST_SHARE * len(ordered)) or len(found) == MOST_CUTS:
            break
        if below not in counts and len(ordered) - below >= LEAST_ABOVE:
            counts.add(below)
            found.append(float(cut))
    return found


def span(compute: Array) -> float:
    """Decades of compute over which runs lie, without the lowest few."""
    log = np.log10(compute)
    return float(max(LEAST_SPAN, log.max() - np.quantile(log, BOTTOM)))


def run(
    table: pd.DataFrame, fitter: Fitter, targets: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> Backtests:
    """Fit below every cut, predict what lies above.

    Args:
        table: run_id, N, D, C, loss; what ``fitter`` needs.
        targets: makes the points to predict from the runs above a cut; by default the runs themselves.
    """
    rows, predicted = [], []
    for cut in cuts(table.C.to_numpy(float)):
        below, above = table[cut > table.C].reset_index(drop=True), table[cut <= table.C]
        above = (above if targets is None else targets(above)).reset_index(drop=True)
        if above.empty:
            continue
        top = float(below.C.max())
        predicted.append(fitter(below)(above))
        rows.append(
            pd.DataFrame(
                {
                    "fitted_to": top,
                    "fitted_runs": len(below),
                    "run_id": above.run_id.astype(str),
                    "N": above.N,
                    "D": above.D,
                    "C": above.C,
                    "optimal": above.optimal if "optimal" in above else False,
                    "decades": np.log10(above.C / top),
                    "span": span(below.C.to_numpy(float)),
                    "measured": above.loss,
                }
            )
        )
    if not rows:
        return Backtests(rows=pd.DataFrame({"fitted_to": []}), ln_predicted=np.empty((0, 0)))
    return Backtests(rows=pd.concat(rows, ignore_index=True), ln_predicted=np.concatenate(predicted))


def combine(ln_predicted: Array, weights: Array) -> Array:
    """Weighted mean over the choices that predict a point, (n,)."""
    there = np.isfinite(ln_predicted)
    share = there * weights
    with np.errstate(invalid="ignore"):
        mean = (np.where(there, ln_predicted, 0.0) * share).sum(1) / share.sum(1)
    return np.asarray(mean)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The error of a new run, in ln L, by its decades beyond the data."""

    noise: float  # of a run around the law within the data
    pace: float  # standard deviation a decade beyond data that span one, by the cuts
    cuts: int
    farthest: float  # decades that the backtests reached
    growth: Growth = GROWTH

    @property
    def supported(self) -> bool:
        """Whether there are backtests enough for an interval."""
        return self.cuts >= LEAST_CUTS

    @property
    def reason(self) -> str:
        """Why there is no interval, or how far it is one of experience."""
        if not self.supported:
            return (
                f"no cut leaves {LEAST_RUNS} runs below it and {LEAST_ABOVE} above: nothing can be backtested, and "
                f"there is no calibrated interval for a new run"
            )
        return (
            f"the interval of a new run rests on {self.cuts} backtests (overlapping) that reach {self.farthest:.1f} "
            f"decades: beyond that it is an extrapolation of the error itself"
        )

    def sigma(self, decades: Array, span: Array | float) -> Array:
        """Scale of the miss at so many decades beyond data that span so many (0 within them), (n,)."""
        beyond = np.maximum(decades, 0.0)
        prior = self.growth.prior_worth * beyond  # beside the span: the cuts are worth span / beyond
        pace = (prior * self.growth.prior_pace + span * self.pace) / (prior + span)
        return np.asarray(np.sqrt(self.noise**2 + pace**2 * beyond**2 / span))

    def half_width(self, decades: Array, span: Array | float, level: float) -> Array:
        """Half of the interval's width in ln L; infinite where the data do not support one."""
        if not self.supported:
            return np.full(np.shape(decades), np.inf)
        return np.asarray(special.stdtrit(TAILS, (1 + level) / 2) * self.sigma(decades, span))


def calibrate(tests: Backtests, weights: Array, noise: float, growth: Growth = GROWTH) -> Calibration:
    """The pace at which the misses of a weighted mean of the choices grow, cuts counting equally."""
    return _calibrated(_by_cut(tests, weights, noise)[1:], noise, growth)


def _by_cut(tests: Backtests, weights: Array, noise: float) -> Array:
    """Of every cut with a prediction: fitted_to, the pace at which its misses grow, the farthest decades, (3, cuts)."""
    if not tests.cuts:
        return np.empty((3, 0))
    miss = tests.misses(weights)
    there = np.isfinite(miss)
    cut, decades, span = (tests.rows[name].to_numpy(float)[there] for name in ("fitted_to", "decades", "span"))
    rows = []
    for fitted_to in np.unique(cut):
        here = cut == fitted_to
        excess = max(0.0, _variance(miss[there][here]) - noise**2)
        rows.append([fitted_to, np.sqrt(excess / (decades[here] ** 2 / span[here]).mean()), decades[here].max()])
    return np.array(rows).reshape(-1, 3).T


def _calibrated(pace_and_farthest: Array, noise: float, growth: Growth) -> Calibration:
    """By the paces and the farthest decades of some cuts, (2, cuts)."""
    paces, farthest = pace_and_farthest
    return Calibration(
        noise=noise,
        pace=float(paces.mean()) if len(paces) else 0.0,
        cuts=len(paces),
        farthest=float(farthest.max(initial=0.0)),
        growth=growth,
    )


def _variance(miss: Array) -> float:
    """Between the mean square of misses and what their median says of it: a few badly tuned runs do not rule it."""
    robust = (1.4826 * float(np.median(np.abs(miss)))) ** 2
    return 0.5 * (robust + float((miss**2).mean()))


def judged(tests: Backtests, weights: Array, noise: float, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Every prediction beside what was measured, with intervals that are calibrated without the cut judged.

    The weights of the choices and the noise are those of all cuts.

    Returns:
        The rows of ``tests`` that were predicted, with predicted (loss), miss (ln measured - ln predicted) and, a level
        each, half80 and half95: half of the interval's width in ln L, infinite where no other cut supports one.
    """
    if not tests.cuts:
        return pd.DataFrame()
    miss, rows = tests.misses(weights), tests.rows
    decades, spans = rows.decades.to_numpy(float), rows.span.to_numpy(float)
    half = np.full((len(rows), len(levels)), np.nan)
    by_cut, fitted_to = _by_cut(tests, weights, noise), rows.fitted_to.to_numpy(float)
    for cut in np.unique(fitted_to):
        here, others = fitted_to == cut, by_cut[1:, by_cut[0] != cut]
        calibration = _calibrated(others, noise, GROWTH)
        for j, level in enumerate(levels):
            half[here, j] = calibration.half_width(decades[here], spans[here], level)
    named = {f"half{round(100 * level)}": half[:, j] for j, level in enumerate(levels)}
    predicted = rows.measured.to_numpy(float) * np.exp(-miss)
    return rows.assign(predicted=predicted, miss=miss, **named).dropna(subset="miss").reset_index(drop=True)


def held(rows: pd.DataFrame, levels: Sequence[float] = LEVELS) -> Array:
    """Whether each level's interval holds what was measured, (rows, levels): 1 or 0; nan where there is no interval.

    Args:
        rows: of ``judged``.
    """
    halves = rows[[f"half{round(100 * level)}" for level in levels]].to_numpy(float)
    return np.where(np.isfinite(halves), rows.miss.abs().to_numpy(float)[:, None] <= halves, np.nan)


def bins(rows: pd.DataFrame) -> Array:
    """The upper edge, in decades, of the bin that each prediction is in, (rows,).

    Args:
        rows: of ``judged``.
    """
    return edge(rows.decades.to_numpy(float))


def edge(decades: Array | float) -> Array:
    """The upper edge of the bin that decades are in; of the last one where they are farther."""
    return np.asarray(EDGES[np.minimum(np.searchsorted(EDGES, decades), len(EDGES) - 1)])


def spelt(edge: float) -> str:
    """A bin in words."""
    return f"up to {edge:g}"


def coverage(tests: Backtests, weights: Array, noise: float, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Median error, bias and coverage by decades of extrapolation, of the predictions ``judged``.

    Returns:
        decades (upper edge of the bin), tests, median_abs_error and mean_miss (of ln L), coverage80, coverage95; the
        last two are shares of the predictions that have an interval, nan where none has.
    """
    if tests.cuts < 2:
        return pd.DataFrame()
    rows = judged(tests, weights, noise, levels)
    off = rows.miss.abs()
    named = [f"coverage{round(100 * level)}" for level in levels]
    table = pd.DataFrame(
        {
            "decades": bins(rows),
            "miss": rows.miss,
            **dict(zip(named, held(rows, levels).T, strict=True)),
        }
    )
    grouped = table.groupby("decades")
    found = grouped.mean().rename(columns={"miss": "mean_miss"})
    found.insert(0, "tests", grouped.size())
    found.insert(1, "median_abs_error", table.assign(e=off).groupby("decades").e.median())
    return found.reset_index()
