"""Which running runs can no longer change a law: those whose every outcome leaves its answer where it is.

The answer is the ensemble's prediction at a target compute and N* there. It is looked at as it will be when the sweep
is whole: runs that ended with their losses, those that wait with what the law says of them, those that run with their
forecasts. A run may be pruned when, with any loss in its forecast's interval, both parts of the answer move by no more
than a share of their own 95% intervals against the answer without it. Runs pruned before count with it, at their
forecasts' ends: the share is what all of them together may move, and SPENT of it is used, for weights and intervals
move while the sweep goes on. A run that may yet be the best of its budget is never pruned.

Weights of the ensemble are those that the finished runs' backtests give, and stay (as in estimation.influence); what is
left is held against an ensemble weighed anew without the runs, once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.estimation import isoflop, optimal_size, predict, solve
from analysis.estimation.choices import choice_ln_loss, fit_choices, refitted
from analysis.estimation.ensemble import Ensemble, fit_ensemble
from analysis.estimation.family import LEAST_BUDGETS
from analysis.estimation.isoflop import Minima
from analysis.laws import Array

LEAST_FINISHED = 12  # runs with a loss, before a law is asked
DRAWS = 40  # of the runs, for the intervals of the answer
MOST = 8  # candidates of one look: those whose forecast lies farthest above its budget's best
NEAREST = 0.01  # a run that may end within this of its budget's best loss is never pruned
SPENT = 0.5  # of the share: all of it spent, one sweep of tests/benchmarks/pruning.py moved its law by 1.1 shares
SAME_COMPUTE = 1 + isoflop.SAME_BUDGET
ENDS = ("low", "middle", "high")


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A run to stop, and the figures that this rests on. Changes are of all runs pruned so far and this one."""

    run_id: str
    low: float  # forecast of its loss, nats per token, and the 95% interval of it
    middle: float
    high: float
    loss_change: float  # of ln L at the target, at most ...
    loss_width: float  # ... and its 95% interval, ln(high/low)
    n_star_change: float  # of ln N* there, at most ...
    n_star_width: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The runs to stop now, or why nothing can be said yet."""

    stop: list[Pruned] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The law of the whole sweep, as far as it is known."""

    ensemble: Ensemble
    table: pd.DataFrame  # all runs, unfinished ones at what is expected of them
    minima: Minima
    point: pd.DataFrame  # the target
    widths: Array  # (2,) of ln L and ln N*


def prune(
    finished: pd.DataFrame, waiting: pd.DataFrame, running: pd.DataFrame, *, compute: float, share: float
) -> Verdict:
    """Which of the runs under way to stop.

    Args:
        finished: runs that ended and pass the rules: run_id, N, D, C, U, loss, and budget_flops where there are
            budgets.
        waiting: run_id, N, D, C, U of runs of which nothing is known yet.
        running: the same of runs under way with their forecasts low, middle and high (nats per token), and ``pruned``:
            those that were stopped before.
        compute: FLOPs of the target.
        share: of the answer's intervals that pruning may move it by.
    """
    finished, waiting, running = (t.sort_values("run_id", ignore_index=True) for t in (finished, waiting, running))
    if len(finished) < LEAST_FINISHED:
        return Verdict(reason=f"{len(finished)} runs ended with a loss, {LEAST_FINISHED} are needed for a law")
    if running.empty or running.pruned.all():
        return Verdict(reason="no run is far enough for a forecast")
    found = _answer(finished, waiting, running, compute)
    if isinstance(found, str):
        return Verdict(reason=found)
    before = [str(run_id) for run_id in running.run_id[running.pruned]]
    stopped = list(before)
    forecasts = running.set_index("run_id")
    alone = {run_id: _change(found, forecasts, [run_id]) for run_id in _candidates(found.table, running)}
    stop = []
    allowed = SPENT * share * found.widths
    for run_id in sorted(alone, key=lambda run_id: (float(np.max(alone[run_id] / found.widths)), run_id)):
        if not np.all(alone[run_id] <= allowed):
            break  # so do the others
        change = _change(found, forecasts, [*stopped, run_id])
        if np.all(change <= allowed):
            stopped.append(run_id)
            stop.append(_figures(run_id, forecasts, change, found.widths))
    while stop and not np.all(_refitted(found, [*before, *(p.run_id for p in stop)]) <= allowed):
        stop.pop()
    return Verdict(stop=stop)


def _refitted(found: _Answer, stopped: Sequence[str]) -> Array:
    """How far ln L and ln N* move without these runs when the choices are weighed anew, (2,)."""
    answers = []
    for table in (found.table, found.table[~found.table.run_id.isin(list(stopped))].reset_index(drop=True)):
        minima = _minima(found, table)
        ensemble = fit_ensemble(table, frontier=minima.trusted)
        if ensemble is None:
            return np.full(2, np.inf)
        n = optimal_size.optimal_points(found.point.C.to_numpy(float), ensemble, table, minima).N.iloc[0]
        answers.append([ensemble.ln_loss(found.point)[0][0], np.log(n)])
    moved = np.abs(np.diff(answers, axis=0)[0])
    return np.asarray(np.where(np.isfinite(moved), moved, np.inf))


def _figures(run_id: str, forecasts: pd.DataFrame, change: Array, widths: Array) -> Pruned:
    low, middle, high = (float(forecasts[end].astype(float)[run_id]) for end in ENDS)
    return Pruned(
        run_id=run_id,
        low=low,
        middle=middle,
        high=high,
        loss_change=float(change[0]),
        loss_width=float(widths[0]),
        n_star_change=float(change[1]),
        n_star_width=float(widths[1]),
    )


def _answer(finished: pd.DataFrame, waiting: pd.DataFrame, running: pd.DataFrame, compute: float) -> _Answer | str:
    """The law with every run at what is expected of it, or why there is none."""
    trusted = isoflop.analyse(finished, draws=0, seed=0).trusted
    ensemble = fit_ensemble(finished, frontier=trusted)
    if ensemble is None or not ensemble.optimal.calibration.supported:
        return "the runs that ended are too few to test a law of N and D on"
    expected, _ = ensemble.ln_loss(waiting.assign(optimal=False)) if len(waiting) else (np.zeros(0), None)
    told = waiting.assign(loss=np.exp(expected))[np.isfinite(expected)]
    table = pd.concat([finished, told, running.assign(loss=running.middle)], ignore_index=True)
    table = table.drop(columns=[*ENDS, "pruned"]).sort_values("run_id", ignore_index=True)
    fits = fit_choices(ensemble.choices, table)
    if any(fit.theta is None for fit in fits):
        return "the law does not hold with what is expected of the unfinished runs"
    whole = replace(ensemble, fits=fits, runs=table)
    minima = isoflop.analyse(table, draws=DRAWS, seed=0)
    thetas = optimal_size.choice_draws(whole, minima, draws=DRAWS, seed=0)
    point = optimal_size.optimal_points(np.array([compute]), whole, table, minima, thetas)
    if not np.isfinite(point.N.iloc[0]):
        return f"no size is best at C={compute:.3g} by these runs"
    (at,) = predict.predict(whole, point, thetas)
    if at.interval_mean is None or at.interval_n is None:
        return f"the runs do not tell of C={compute:.3g} within an interval"
    widths = np.log([at.interval_mean[1] / at.interval_mean[0], at.interval_n[1] / at.interval_n[0]])
    return _Answer(ensemble=whole, table=table, minima=minima, point=point, widths=widths)


def _candidates(table: pd.DataFrame, running: pd.DataFrame) -> list[str]:
    """The runs looked at: the farthest above the best run of no more compute, which their budget's is one of."""
    above = {}
    asked = running[~running.pruned]
    for run_id, compute, low in zip(asked.run_id, asked.C.astype(float), asked.low.astype(float), strict=True):
        others = table.loss[(compute * SAME_COMPUTE >= table.C) & (table.run_id != run_id)].astype(float)
        least = np.log(low / others.min()) if len(others) else 0.0
        if least > NEAREST:
            above[str(run_id)] = float(least)
    return sorted(above, key=lambda run_id: (-above[run_id], run_id))[:MOST]


def _change(found: _Answer, forecasts: pd.DataFrame, stopped: Sequence[str]) -> Array:
    """How far ln L and ln N* move at most when these runs have any loss of their forecasts and when they have none."""
    table = found.table
    hit = table.run_id.isin(list(stopped)).to_numpy(bool)
    last = (table.run_id == stopped[-1]).to_numpy(bool)
    ends = {end: np.log(forecasts[end].reindex(table.run_id).to_numpy(float)) for end in ENDS}
    ln_loss = np.log(table.loss.to_numpy(float))
    cases = [np.where(hit, ends[end], ln_loss) for end in ENDS]
    if hit.sum() > 1:  # the last one at one end, those before it at the other
        cases += [np.where(last, ends[end], case) for end, case in (("low", cases[2]), ("high", cases[0]))]
    answers = _answers(found, np.array([ln_loss, *cases]), np.array([~hit, *[np.ones(len(hit), bool)] * len(cases)]))
    moved = np.abs(answers[1:] - answers[0])
    return np.asarray(np.where(np.isfinite(moved), moved, np.inf).max(0))


def _answers(found: _Answer, ln_loss: Array, kept: NDArray[np.bool_]) -> Array:
    """ln L and ln N* at the target, (cases, 2), with other losses (cases, runs) or without some of the runs."""
    whole, table = found.ensemble, found.table
    minima = [_minima(found, table.assign(loss=np.exp(row))[on]) for row, on in zip(ln_loss, kept, strict=True)]
    by_place = refitted(whole.choices, whole.fits, table, kept.astype(float), ln_loss)
    thetas = [
        np.stack([_of_minima(fit, each) for each in minima]) if choice.frontier else by_place[i]
        for i, (choice, fit) in enumerate(zip(whole.choices, whole.fits, strict=True))
    ]
    pairs = zip(whole.choices, thetas, strict=True)
    each = np.stack([choice_ln_loss(choice, theta, found.point)[:, 0] for choice, theta in pairs])
    answers = []
    for case, of in enumerate(minima):
        ln_l = whole.weighted(each[None, :, case], found.point)[0]
        fits = [replace(fit, theta=theta[case]) for fit, theta in zip(whole.fits, thetas, strict=True)]
        compute = found.point.C.to_numpy(float)
        n = optimal_size.optimal_points(compute, replace(whole, fits=fits), table[kept[case]], of).N.iloc[0]
        answers.append([ln_l, float(np.log(n))])
    return np.array(answers)


def _minima(found: _Answer, table: pd.DataFrame) -> Minima:
    """The minima of the budgets and the family through them, without draws and tests."""
    every = isoflop.parabolas(table)
    used = [p for p in every if p.ok]
    if len(used) < LEAST_BUDGETS:
        return Minima(parabolas=every)
    inflation = 1.0 if found.minima.family is None else found.minima.family.inflation
    return Minima(parabolas=every, family=replace(isoflop.through(used), inflation=inflation))


def _of_minima(fit: solve.Fit, minima: Minima) -> Array:
    """A law of compute through the minima; nan where they are too few."""
    used = minima.used
    if len(used) <= fit.law.dimension:
        return np.full(fit.law.dimension, np.nan)
    losses = np.log([[p.loss_star for p in used]])
    return np.asarray(solve.refit(fit, {"C": np.array([p.budget for p in used])}, losses)[0])
