"""Figures of accuracy: against the number of examples by size, against size, and against compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.accuracy import by_size, published
from analysis.accuracy.trends import BELOW, MEAN, Trend
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures import panels
from dashboards.figures.drawing import nothing
from dashboards.figures.look import AXIS, GREY, PALETTE
from dashboards.figures.style import Page, add_scale, plain, shades
from gpt3core.words import count, powers

EVALS = ("task", "shots", "accuracy", "accuracy_se", "chance", "prior_accuracy", "logprob", "fits", "run_id", "size")
BAR = 170  # pixels of the bar of sizes
MOST_GAINS = 4  # that are said
BASELINE = {"color": GREY, "width": 1.5, "dash": "dot"}
BASELINE_NAME = "best trivial baseline"
MODELS = {"GPT-3 175B": "dash", "GPT-3 125M": "dashdot"}  # of the published scores: the largest and the smallest
UNASKED = "no run that counts was evaluated on any task"
WITHOUT_SIZES = "no run that counts has both a score and a number of parameters"
PUBLISHED = "Grey: GPT-3 where table H.1 of Brown et al. 2020 has the task and the number of examples."


def evaluations(study: Study) -> pd.DataFrame:
    """The rows behind figures of accuracy: one a run, task and number of examples."""
    if study.runs.evals.empty:
        return pd.DataFrame(columns=[*EVALS, "N", "D", "C", "loss"])
    columns = ["run_id", "size", "N", "D", "C", "loss"]
    return study.runs.evals.merge(study.everything[columns], on="run_id")


def counted(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the runs that passed the rules."""
    return rows[rows.run_id.isin(study.table.run_id)]


def with_drawn(rows: pd.DataFrame, lines: pd.DataFrame, *more: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs, and those of the lines that were drawn: of each size its largest run, and means of tasks.

    Args:
        more: of what else was drawn, with the column ``what``.
    """
    return pd.concat([rows.assign(what="run"), lines.assign(what="line"), *more], ignore_index=True)


def _published(tasks: Sequence[str]) -> pd.DataFrame:
    """What the models that are drawn scored on a task, or on several in the mean, as rows."""
    known = published.scores(*tasks)
    known = known[known.model.isin(list(MODELS))].rename(columns={"params": "N", "train_flops": "C"})
    return known.assign(what="GPT-3, table H.1", size=known.model)


def why_none(mine: pd.DataFrame) -> str:
    """Why a figure by size has no line."""
    return WITHOUT_SIZES if mine.accuracy.notna().any() else UNASKED


def summary(study: Study) -> pd.DataFrame:
    """What a page prints in place of its rows: a row a task, the mean of the highest-compute third at each K."""
    tasks: dict[str, list[Trend]] = {}
    for trend in sorted(study.trends, key=lambda t: t.task != MEAN):
        tasks.setdefault(trend.task, []).append(trend)
    shots = sorted({trend.shots for trend in study.trends})
    rows = []
    for task, series in tasks.items():
        known = {t.shots: round(t.accuracy_large, 3) for t in series}
        rows.append(
            {
                "task": task,
                **{f"K={k}": known.get(k) for k in shots},
                "standard error": round(max(t.accuracy_large_se for t in series), 3),
                "best baseline": round(max(t.baseline for t in series), 3),
                "questions": max((t.items for t in series if t.items is not None), default=None),
                "runs": max(t.runs for t in series),
                "at chance or below": _listed(series, ("at chance", BELOW)),
                "not measured": _listed(series, ("not measured",)),
            }
        )
    return pd.DataFrame(rows)


def _listed(series: Sequence[Trend], verdicts: Sequence[str]) -> str:
    """At which numbers of examples these are the verdicts, in words."""
    found = [t.shots for t in series if t.verdict in verdicts]
    return "all K" if len(found) == len(series) > 1 else ", ".join(f"K={k}" for k in sorted(found))


# ------------------------------------------------------------------------------------- against the number of examples


def accuracy_shots(study: Study) -> Page:
    """Accuracy against the number of examples by size (Brown et al. 2020, figure 1.2): means of tasks, then each."""
    rows = evaluations(study)
    mine = counted(study, rows)
    lines, title = by_size.largest(mine), "Accuracy against examples"
    if lines.empty:
        return nothing("accuracy-shots", title, why_none(mine), group="few-shot")
    tasks = list(dict.fromkeys(lines.task))
    figure = panels.grid([_titled(lines, task) for task in tasks])
    colors = dict(zip(sizes := sorted(set(lines.N)), shades(sizes), strict=True))
    known = {task: _published(by_size.members(mine, task)) for task in tasks}
    for i, task in enumerate(tasks):
        _add_sizes(figure, lines[lines.task == task], colors, panels.place(i))
        _add_published_shots(figure, known[task], panels.place(i))
    printed = [scores.assign(task=task) for task, scores in known.items() if len(scores)]
    _name(figure, beside=bool(printed))
    add_scale(figure, sizes, pixels=BAR)
    panels.finish(figure, "examples in the context (K)", "accuracy")
    _examples_axes(figure, sorted({int(k) for k in lines.shots}))
    about = (
        "One line a size, coloured by N: the run of it that was trained with most compute (seeds together). A number "
        "in brackets: the mean of so many tasks. Bars are standard errors of the questions. "
        f"{_gains(study)}{' ' + PUBLISHED if printed else ''}"
    )
    return Page(
        slug="accuracy-shots",
        title=title,
        about=about,
        figure=figure,
        rows=with_drawn(rows, lines, *printed),
        summary=summary(study),
        group="few-shot",
    )


def _titled(lines: pd.DataFrame, task: str) -> str:
    """A panel's title: of a mean with the number of its tasks."""
    tasks = int(lines[lines.task == task].tasks.iloc[0])
    return f"{task} ({tasks})" if tasks > 1 else task


def _gains(study: Study) -> str:
    """What examples bring, in a sentence."""
    gains = [g for g in study.gains if abs(float(g["accuracy_gain"])) > 3 * float(g["accuracy_gain_se"]) > 0]
    if not gains:
        return "No gain from examples is beyond three standard errors."
    gains.sort(key=lambda g: -abs(float(g["accuracy_gain"])))
    said = ", ".join(f"{g['task']} K={g['shots']} {g['accuracy_gain']:+.3f}" for g in gains[:MOST_GAINS])
    more = f", and {len(gains) - MOST_GAINS} smaller ones" if len(gains) > MOST_GAINS else ""
    return f"Gains over no examples beyond three standard errors, the mean of all runs: {said}{more}."


def _add_sizes(figure: go.Figure, lines: pd.DataFrame, colors: Mapping[float, str], at: dict[str, int]) -> None:
    """One panel: a line a size, and the best trivial baseline."""
    for n, line in lines.groupby("N"):
        figure.add_scatter(
            x=line.shots + 1,
            y=line.accuracy,
            error_y=_errors(line),
            mode="lines+markers",
            line={"color": colors[float(str(n))], "width": 1.5},
            marker={"size": 5},
            showlegend=False,
            text=[_said(r) for r in line.itertuples()],
            hoverinfo="text",
            **at,
        )
    below = lines.groupby("shots").baseline.mean()
    figure.add_scatter(
        x=below.index + 1, y=below, mode="lines", line=BASELINE, showlegend=False, hoverinfo="skip", **at
    )


def _errors(line: pd.DataFrame) -> dict[str, object]:
    """Bars of standard errors, none below zero."""
    down = np.minimum(line.accuracy_se.astype(float), line.accuracy.astype(float))
    ends = {"symmetric": False, "array": line.accuracy_se, "arrayminus": down}
    return {"type": "data", **ends, "width": 0, "thickness": 1}


def _said(r: Any) -> str:
    """A hover text of a row of by_size."""
    seeds = f", {r.runs} runs" if r.runs > 1 else ""
    return (
        f"<b>{plain(r.task)}</b>, K={r.shots}<br>N {count(r.N)}, D {count(r.D)}, C {powers(r.C)} FLOPs{seeds}<br>"
        f"{measured(r.accuracy, r.accuracy_se)}, baseline {r.baseline:.3f}"
    )


def measured(accuracy: float, error: float) -> str:
    """An accuracy with its standard error, where one is known."""
    return f"{accuracy:.3f}" + (f" ± {error:.3f}" if np.isfinite(error) else "")


def _add_published_shots(figure: go.Figure, known: pd.DataFrame, at: dict[str, int]) -> None:
    """GPT-3's lines of a panel."""
    for model, dash in MODELS.items():
        line = known[known.model == model]
        if len(line):
            figure.add_scatter(
                x=line.shots.astype(float) + 1,
                y=line.accuracy,
                mode="lines+markers",
                line={"color": GREY, "width": 1, "dash": dash},
                marker={"symbol": "diamond-open", "size": 6},
                showlegend=False,
                text=[f"{model}, K={r.shots}<br>{r.accuracy:.3f} (table H.1)" for r in line.itertuples()],
                hoverinfo="text",
                **at,
            )


def _name(figure: go.Figure, *, beside: bool) -> None:
    """The entries of the legend, once for all panels."""
    entries = {BASELINE_NAME: BASELINE}
    if beside:
        entries |= {model: {"color": GREY, "width": 1, "dash": dash} for model, dash in MODELS.items()}
    for name, line in entries.items():
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, row=1, col=1)


def _examples_axes(figure: go.Figure, shots: list[int]) -> None:
    """Axes of K: none has a place on them too."""
    figure.update_xaxes(tickmode="array", tickvals=[k + 1 for k in shots], ticktext=[f"{k}" for k in shots])
    few = shots if len(shots) <= 3 else [shots[0], shots[len(shots) // 2], shots[-1]]
    for axis in list(figure.select_xaxes())[1:]:
        axis.update(tickvals=[k + 1 for k in few], ticktext=[f"{k}" for k in few])


# ------------------------------------------------------------------------------------------------------ against compute


def accuracy_compute(study: Study) -> Page:
    """Accuracy without examples against compute, with what a guesser scores; a curve only where there is a trend."""
    rows = evaluations(study)
    mine = counted(study, rows)
    found, title = _with_least_examples(study.trends), "Accuracy against compute"
    if not found:
        return nothing("accuracy-compute", title, UNASKED, group="few-shot")
    figure = panels.grid([f"{t.task}{f', K={t.shots}' if t.shots else ''}: {t.verdict}" for t in found])
    colors = dict(zip(sizes := sorted(set(mine.N.dropna())), shades(sizes), strict=True))
    beside, drawn = False, list[pd.DataFrame]()
    for i, trend in enumerate(found):
        tasks = by_size.members(mine, trend.task)
        group = mine[(mine.shots == trend.shots) & mine.fits.astype(bool) & mine.task.isin(tasks)].sort_values("C")
        known = _published(tasks)
        known = known[known.shots == trend.shots]
        drawn += [_add_runs(figure, trend, _over_tasks(group), colors, panels.place(i)), known.assign(task=trend.task)]
        _add_published(figure, trend, known, panels.place(i))
        beside |= bool(len(known))
    _name(figure, beside=beside)
    add_scale(figure, sizes, pixels=BAR)
    panels.finish(figure, f"compute, {LABELS[study.convention.c]}", "accuracy")
    if len(mine) and np.log10(mine.C.max() / mine.C.min()) > 1.5:
        figure.update_xaxes(dtick=1)
    at_chance = [t.task for t in found if t.verdict == "at chance"]
    about = (
        "Without examples, or with the fewest that were shown. Points are runs, coloured by N, bars standard errors of "
        "the questions. A curve is drawn only where the trend is clear of the noise"
        f"{'; at chance: ' + ', '.join(at_chance) if at_chance else ''}.{' ' + PUBLISHED if beside else ''}"
    )
    return Page(
        slug="accuracy-compute",
        title=title,
        about=about,
        figure=figure,
        rows=pd.concat([rows.assign(what="run"), *drawn], ignore_index=True),
        summary=summary(study),
        group="few-shot",
    )


def _with_least_examples(trends: Sequence[Trend]) -> list[Trend]:
    """The trend of every task at the fewest examples at which it was measured, the mean of tasks first."""
    found: dict[str, Trend] = {}
    for trend in sorted(trends, key=lambda t: (t.task != MEAN, t.shots)):
        if trend.verdict != "not measured":
            found.setdefault(trend.task, trend)
    order = list(dict.fromkeys(t.task for t in trends))
    return sorted(found.values(), key=lambda t: (t.task != MEAN, order.index(t.task)))


def _over_tasks(group: pd.DataFrame) -> pd.DataFrame:
    """A row a run: its accuracy on a task, or the mean over several."""
    return group.groupby(["run_id", "N", "D", "C"], sort=False, as_index=False, dropna=False).agg(
        accuracy=("accuracy", "mean"),
        accuracy_se=("accuracy_se", lambda errors: np.sqrt((errors.astype(float) ** 2).sum()) / len(errors)),
    )


def _add_runs(
    figure: go.Figure, trend: Trend, group: pd.DataFrame, colors: Mapping[float, str], at: dict[str, int]
) -> pd.DataFrame:
    """One panel: the runs, the baseline, and the trend where there is one; returns the rows of what is drawn."""
    task = plain(trend.task)
    figure.add_scatter(
        x=group.C,
        y=group.accuracy,
        error_y={**_errors(group), "color": AXIS},
        mode="markers",
        marker={"color": [colors.get(n, PALETTE[0]) for n in group.N], "size": 6},
        showlegend=False,
        legendgroup=task,
        text=[
            f"<b>{plain(i)}</b><br>{task}, K={trend.shots}<br>{measured(a, se)}, baseline {trend.baseline:.3f}"
            for i, a, se in zip(group.run_id, group.accuracy, group.accuracy_se, strict=True)
        ],
        hoverinfo="text",
        **at,
    )
    ends = np.array([group.C.min(), group.C.max()])
    common = {"mode": "lines", "showlegend": False, "legendgroup": task, "hoverinfo": "skip", **at}
    figure.add_scatter(x=ends, y=[trend.baseline] * 2, line=BASELINE, **common)
    rows = [pd.DataFrame({"what": "baseline", "C": ends, "accuracy": trend.baseline})]
    if trend.task == MEAN:
        rows.append(group.assign(what="mean of tasks"))
    if trend.by_compute is not None:
        grid = np.geomspace(ends[0], ends[1], 50)
        curve = trend.by_compute.at(np.log10(grid))
        figure.add_scatter(x=grid, y=curve, line={"color": PALETTE[1], "width": 2}, **common)
        rows.append(pd.DataFrame({"what": "trend", "C": grid, "accuracy": curve}))
    return pd.concat(rows).assign(task=trend.task, shots=trend.shots)


def _add_published(figure: go.Figure, trend: Trend, known: pd.DataFrame, at: dict[str, int]) -> None:
    """GPT-3's scores as lines over a panel, for their compute lies decades beyond."""
    ends = [x for trace in figure.data[-2:] for x in (trace.x[0], trace.x[-1])]
    for model, dash in MODELS.items():
        for row in known[known.model == model].itertuples():
            figure.add_scatter(
                x=[min(ends), max(ends)],
                y=[row.accuracy] * 2,
                mode="lines",
                line={"color": GREY, "width": 1, "dash": dash},
                showlegend=False,
                legendgroup=plain(trend.task),
                text=[f"{model}: {row.accuracy:.3f} at {powers(float(str(row.C)))} FLOPs (table H.1)"] * 2,
                hoverinfo="text",
                **at,
            )
