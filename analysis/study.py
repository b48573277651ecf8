"""The whole analysis as one value: rules, laws, intervals, backtests, predictions, influence, few-shot trends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import (
    backtest,
    conventions,
    envelope,
    fewshot,
    fitting,
    isoflop,
    laws,
    predict,
    rules,
    solve,
    stacking,
)
from analysis.conventions import Compute, Parameters
from analysis.design import FARTHER
from analysis.envelope import Envelope
from analysis.fewshot import Trend
from analysis.fitting import LawFit, Request
from analysis.isoflop import Implied, Minima
from analysis.predict import Influence, Prediction
from analysis.rules import Rule
from analysis.runs import Runs, unfinished
from analysis.solve import Loss
from analysis.stacking import Mixture, Stack
from analysis.uncertainty import Noise, noise
from gpt3core.errors import UsageError

LEAST_RUNS = 6  # of a foreign table: a law of five parameters and one run to judge it by


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices behind every number."""

    size: Parameters | None = None  # None: non-embedding where it is known
    compute: Compute | None = None  # None: as recorded
    law: str = "all"
    loss: Loss = solve.HUBER
    bootstrap: int = 1000
    seed: int = 0
    min_tokens: float | None = None
    exclude: tuple[str, ...] = ()
    target_compute: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything the report, the figures and fit.json are made of."""

    runs: Runs
    options: Options
    size: Parameters
    compute: Compute
    everything: pd.DataFrame  # all runs as points: run_id, size, N, D, C, U, loss, ...
    table: pd.DataFrame  # those that passed the rules
    rules: list[Rule]
    minima: Minima
    implied: list[Implied | None]  # by L(N, D), one a parabola
    envelope: Envelope
    laws: dict[str, LawFit]
    conventions: list[dict[str, Any]]
    noise: Noise
    stack: Stack | None
    predictions: list[Prediction]  # at target_compute
    predicted_points: list[Prediction]  # of the file predict=, in its order
    influences: list[Influence]
    forecasts: pd.DataFrame  # final losses of unfinished runs
    trends: list[Trend]
    gains: list[dict[str, Any]]
    notes: list[Any] = field(default_factory=list)


def study(runs: Runs, options: Options, points: pd.DataFrame | None = None) -> Study:
    """Analyse runs. A sweep with too little data gets statuses and notes, a foreign table is refused.

    Args:
        points: N, D, C, U to predict as well; N and D may be nan where C is given.

    Raises:
        UsageError: when the convention asked for is not in the runs, or a table has too few of them.
    """
    from analysis import notes

    size, compute = conventions.chosen(runs.table, options.size, options.compute)
    everything = conventions.points(runs.table, size, compute)
    floor = options.min_tokens if options.min_tokens is not None else runs.min_tokens
    table, applied = rules.apply(everything, min_tokens=floor, exclude=options.exclude)
    if not runs.store and len(table) < LEAST_RUNS:
        out = "; ".join(f"{len(r.excluded)} {r.name}" for r in applied if r.excluded)
        raise UsageError(
            f"{runs.source} holds {len(everything)} runs, {len(table)} of them usable{f' ({out})' if out else ''}: "
            f"at least {LEAST_RUNS} are needed"
        )
    minima = isoflop.analyse(table, draws=options.bootstrap, seed=options.seed)
    request = Request(law=options.law, loss=options.loss, bootstrap=options.bootstrap, seed=options.seed)
    fitted = fitting.fit_all(table, minima, request)
    joint = fitted.get("chinchilla")
    beyond = (FARTHER * float(table.C.max()),) if len(table) else ()
    targets = options.target_compute or (beyond if points is None else ())
    frontier = minima.trusted
    stack = stacking.stack(table, law=options.law, loss=options.loss, frontier=frontier) if len(table) else None
    trends = fewshot.trends(runs.evals, table)
    predictions = _at_compute(targets, stack, table, minima, trends, options)
    found = Study(
        runs=runs,
        options=options,
        size=size,
        compute=compute,
        everything=everything,
        table=table,
        rules=applied,
        minima=minima,
        implied=[isoflop.implied(p, table, joint.fit) if joint else None for p in minima.parabolas],
        envelope=envelope.envelope(table) if len(table) else Envelope(points=table, reason="no runs"),
        laws=fitted,
        conventions=_conventions(runs, table, size, compute),
        noise=noise(table),
        stack=stack,
        predictions=predictions,
        predicted_points=_at_points(points, stack, table, minima, options),
        influences=predict.influences(joint.fit, table, (targets or beyond)[0]) if joint and len(table) else [],
        forecasts=unfinished(runs),
        trends=trends,
        gains=fewshot.shot_gains(runs.evals[runs.evals.run_id.isin(table.run_id)] if len(runs.evals) else runs.evals),
    )
    found.notes.extend(notes.notes(found))
    return found


def _at_compute(
    targets: tuple[float, ...],
    stack: Stack | None,
    table: pd.DataFrame,
    minima: Minima,
    trends: list[Trend],
    options: Options,
) -> list[Prediction]:
    if stack is None or not targets:
        return []
    points = predict.optimal_points(np.array(targets), stack, table, minima)
    found = predict.predict(stack, table, points, minima, draws=options.bootstrap, seed=options.seed)
    return [replace(p, accuracies=predict.with_accuracies(p, trends, options.seed)) for p in found]


def _at_points(
    points: pd.DataFrame | None, stack: Stack | None, table: pd.DataFrame, minima: Minima, options: Options
) -> list[Prediction]:
    """Points by the laws of N and D; those that give C alone are compute-optimal runs."""
    if points is None or points.empty:
        return []
    if stack is None:
        raise UsageError("no law could be fitted, so there is nothing to predict the points with")
    whole = points.assign(optimal=points.N.isna())
    if whole.optimal.any():
        found = predict.optimal_points(points.C[whole.optimal].to_numpy(float), stack, table, minima)
        whole.loc[whole.optimal, ["N", "D"]] = found[["N", "D"]].to_numpy()
    if all(choice.frontier for choice in stack.choices) and not whole.optimal.all():
        raise UsageError(f"law={options.law} is a law of compute alone: give points by C, without N and D")
    whole["U"] = whole.U.fillna(whole.D)
    return predict.predict(stack, table, whole, minima, draws=options.bootstrap, seed=options.seed)


def _conventions(runs: Runs, table: pd.DataFrame, size: Parameters, compute: Compute) -> list[dict[str, Any]]:
    """The exponents under every convention of N and C that the runs know: none is the exponent without saying which.

    a is approach 2's where there are budgets, approach 3's beside it; the runs are those that passed the rules.
    """
    found: list[dict[str, Any]] = []
    for n, c in conventions.available(runs.table):
        points = conventions.points(runs.table, n, c)
        points = points[points.run_id.isin(table.run_id)].reset_index(drop=True)
        if points.empty:
            continue
        minima = isoflop.analyse(points, draws=0, seed=0)
        if minima.trusted:
            data = {"C": np.array([p.budget for p in minima.used])}
            loss = np.array([p.loss_star for p in minima.used])
        else:
            best = envelope.best_by(points, "C")
            data, loss = {"C": best.C.to_numpy(float)}, best.loss.to_numpy(float)
        frontier = solve.fit(laws.LOSS_OF_C, data, loss, function=solve.LEAST_SQUARES)
        joint = solve.fit(laws.CHINCHILLA, stacking.columns(points), points.loss.to_numpy(float)).params
        found.append(
            {
                "N": str(n),
                "C": str(c),
                "chosen": n is size and c is compute,
                "a": minima.exponent if len(minima.used) > 1 else None,
                "a_parametric": joint["beta"] / (joint["alpha"] + joint["beta"]) if joint else None,
                "alpha_C": frontier.params.get("alpha_C"),
            }
        )
    return found


def mixture(found: Study) -> Mixture | None:
    """How the choices are mixed for what this study predicts first: compute-optimal runs, or points of a file."""
    if found.stack is None:
        return None
    return found.stack.optimal if found.predictions else found.stack.anywhere


def coverage(found: Study) -> pd.DataFrame:
    """Backtests of that mixture by decades of extrapolation; see backtest.coverage."""
    chosen = mixture(found)
    if chosen is None:
        return pd.DataFrame()
    return backtest.coverage(chosen.tests, chosen.weights, chosen.calibration.noise)
