"""From settings to what to run next: the target, the runs that could be made, their prices, and the commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import laws
from analysis.accuracy.trends import BELOW, MEAN, Trend, trends
from analysis.estimation import isoflop
from analysis.estimation.design import FARTHER, Design, propose
from analysis.estimation.ensemble import fit_ensemble
from analysis.estimation.information import compute_optimal, posterior_mode
from analysis.estimation.optimal_size import optimal_points
from analysis.runs import candidates, selection, store
from analysis.runs.candidates import Costed
from analysis.runs.ladder import Ladder
from analysis.runs.ratio import per_6nd
from analysis.runs.rules import with_ruled_out
from analysis.runs.scores import Asked
from analysis.runs.selection import Selection
from analysis.settings import DesignSettings
from analysis.study import Options
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.store.places import portable

ACCURACY = "accuracy"


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """What to run next, with all that is said of it."""

    design: Design
    unit: str  # of costs: USD, hours or FLOPs
    table: pd.DataFrame  # the runs proposed, in their order: size, N, D, C, hours, usd, cost, interval
    commands: list[str] = field(default_factory=list)  # that run the choice; none without a sweep's recipe
    remarks: list[str] = field(default_factory=list)
    as_fitted: bool = True  # the interval lies about what analysis.fit predicts; else about the design's own law


def next_runs(settings: DesignSettings) -> NextRuns:
    """The design that settings ask for.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    selected = selection.select(settings, asked=Asked.of(settings))
    if selected.table.empty:
        raise UsageError(f"{selected.runs.source} holds no run that the rules let pass: two are needed")
    target, trend = _target(settings.target, selected)
    highest = float(selected.table.C.max())
    compute = settings.target_compute or FARTHER * highest
    possible, ladder, remarks = _candidates(settings, selected, min(compute, FARTHER * highest))
    running = None
    if settings.running:
        running, doubts = candidates.read(Path(settings.running), settings.columns, selected)
        remarks += [doubt.message for doubt in doubts]
    known = candidates.costed(selected, possible, running, settings.usd_per_hour)
    if settings.usd_per_hour is not None and known.unit != "USD":
        raise UsageError(f"usd_per_hour={settings.usd_per_hour:g} has no effect: these runs do not say their hours")
    found = propose(
        known.finished,
        known.candidates,
        compute=compute * _six_nd(selected.table),
        running=known.running,
        batch=settings.batch,
        target=target,
        stop=settings.stop,
        trend=trend,
        limit=settings.worth if settings.worth is not None else _spent(known),
    )
    chosen = [p.index for p in found.proposals]
    table = known.candidates.iloc[chosen].assign(interval=[p.interval for p in found.proposals])
    root = selected.runs.source
    environment = "" if root == store.default_root() else f"ISOFLOP_ROOT={shlex.quote(str(portable(root)))}"
    centre = _as_fitted(selected, compute, target, trend)
    return NextRuns(
        design=replace(found, compute=compute, centre=found.centre if centre is None else centre),
        unit=known.unit,
        table=table.reset_index(drop=True),
        commands=ladder.commands(chosen, environment) if ladder and chosen else [],
        remarks=remarks,
        as_fitted=centre is not None,
    )


def _as_fitted(selected: Selection, compute: float, target: str, trend: Trend | None) -> float | None:
    """What analysis.fit predicts of the target, as the centre of a design; None where it predicts nothing.

    A design says how surely a target is known by a law and a prior; where it lies the laws that were backtested say.
    """
    minima = isoflop.analyse(selected.table, draws=Options.bootstrap, seed=Options.seed)
    runs = with_ruled_out(selected.table, selected.everything, selected.rules)
    ensemble = fit_ensemble(runs, frontier=minima.trusted)
    if ensemble is None:
        return None
    point = optimal_points(np.array([compute]), ensemble, selected.table, minima)
    if point.N.isna().any():
        return None
    if target == "n_star":
        return float(np.log(point.N.iloc[0])) if ensemble.missing is None else None
    ln_loss = float(ensemble.ln_loss(point)[0][0])
    if trend is None:
        return ln_loss
    assert trend.by_loss is not None, "a target of accuracy has a trend over the loss"
    return float(trend.by_loss.at(np.array(-np.exp(ln_loss))))


def _six_nd(table: pd.DataFrame) -> float:
    """6ND over C of the highest-compute runs: a design's budget is one of 6ND, a user's of C as these runs count it."""
    high = table.nlargest(max(1, len(table) // 3), "C")
    return float((6 * high.N * high.D / high.C).median())


def _spent(known: Costed) -> float:
    """What the runs so far cost: without another word, a tenth off the interval may cost as much again."""
    return float(known.finished.cost.sum() + known.running.cost.sum())


def _candidates(
    settings: DesignSettings, selected: Selection, farthest: float
) -> tuple[pd.DataFrame, Ladder | None, list[str]]:
    """The runs that could be made: a file's, those of the sweep's recipe, or a grid about a table's range."""
    if settings.candidates is not None:
        points, doubts = candidates.read(Path(settings.candidates), settings.columns, selected)
        return points, None, [doubt.message for doubt in doubts]
    largest = settings.largest or farthest
    if selected.runs.store:
        points, ladder = candidates.of_recipe(selected, largest)
        return points, ladder, [ladder.left] if ladder.left else []
    table = selected.table
    if len(table) < 2:
        raise UsageError(f"{selected.runs.source} holds one run that the rules let pass: two are needed")
    best = {}
    for budget in candidates.budgets(float(table.C.max()), largest):
        theta, _ = posterior_mode(laws.CHINCHILLA, table, budget * _six_nd(table))
        best[budget] = compute_optimal(laws.CHINCHILLA, theta, table, budget * _six_nd(table))[0]
    return candidates.about(best, per_6nd(table)), None, []


def _target(asked: str, selected: Selection) -> tuple[str, Trend | None]:
    """The target's name, and the trend of an accuracy.

    Raises:
        UsageError: for an accuracy of which these runs tell nothing.
    """
    kind, _, rest = asked.partition(":")
    if kind != ACCURACY:
        return asked, None
    found = trends(selected.runs.evals, selected.table)
    if not found:
        raise UsageError(f"target={asked}: {selected.runs.source} has no scores: take target=loss, or evaluate tasks")
    tasks = list(dict.fromkeys(trend.task for trend in found))
    task, shots = _series(rest or MEAN, tasks)
    if task not in tasks:
        near = nearest(task, tasks)
        raise UsageError(f"target={asked}: these runs have no task {task!r}{near}; they have {', '.join(tasks)}")
    series = {trend.shots: trend for trend in found if trend.task == task}
    if shots is not None and shots not in series:
        there = ", ".join(map(str, series))
        raise UsageError(f"target={asked}: {task} was not asked with {shots} examples; it was with {there}")
    trend = series[min(series) if shots is None else shots]
    name = f"{ACCURACY}:{task}:{trend.shots}"
    if trend.by_loss is None or not trend.by_loss.slope > 0:
        raise UsageError(f"target={name}: no run can be chosen for it, {_why_not(trend)}: take target=loss")
    return name, trend


def _series(words: str, tasks: list[str]) -> tuple[str, int | None]:
    """Task and number of examples of TASK or TASK:K."""
    task, _, shots = words.rpartition(":")
    return (task, int(shots)) if task and shots.isdigit() and words not in tasks else (words, None)


def _why_not(trend: Trend) -> str:
    """Why an accuracy has no trend over the loss."""
    if trend.verdict == "not measured":
        return f"for it is not measured (task {trend.task}, {trend.shots} examples: {trend.reason})"
    seen = f"{trend.accuracy_large:.2f} on the highest-compute runs, chance {trend.chance:.2f}"
    if trend.verdict in ("at chance", BELOW):
        return f"for these runs are {trend.verdict} ({seen})"
    return f"for it has no trend over the loss in these runs ({trend.verdict}: {seen})"
