"""Figures of accuracy: against compute, and against the number of examples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.accuracy.trends import Trend
from analysis.study import Study
from dashboards.figures.style import MARKERS, PALETTE, Page, axes, plain

EVALS = ("task", "shots", "accuracy", "accuracy_se", "chance", "prior_accuracy", "logprob", "fits", "run_id", "size")


def _evals(study: Study) -> pd.DataFrame:
    if study.runs.evals.empty:
        return pd.DataFrame(columns=list(EVALS))
    columns = ["run_id", "size", "N", "D", "C", "loss"]
    return study.runs.evals.merge(study.everything[columns], on="run_id")


def accuracy_compute(study: Study) -> Page:
    """Zero-shot accuracy against compute, with binomial errors; a curve only where there is a trend."""
    figure = go.Figure()
    rows = _evals(study)
    shown = rows[(rows.shots == 0) & rows.fits.astype(bool)] if len(rows) else rows
    found = {t.task: t for t in study.trends if t.shots == 0}
    for i, (task, group) in enumerate(shown.groupby("task", sort=False)):
        trend = found.get(str(task))
        if trend is not None:  # else every run of the task was taken out by a rule
            _add_task(figure, trend, group.sort_values("C"), PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
    axes(figure, "compute, FLOPs", "accuracy without examples")
    about = (
        "Bars are binomial standard errors, dotted lines the best trivial baseline; a curve is drawn only where "
        "the trend is clear of the noise."
    )
    tasks = dict.fromkeys(map(str, shown.task))
    at_chance = [task for task in tasks if task in found and found[task].verdict == "at chance"]
    if at_chance:
        about += f" At chance, hidden until clicked in the legend: {', '.join(at_chance)}."
    return Page(
        slug="accuracy-compute",
        title="Accuracy against compute",
        about=about,
        figure=figure,
        rows=rows,
        group="few-shot",
    )


def _add_task(figure: go.Figure, trend: Trend, group: pd.DataFrame, color: str, marker: str) -> None:
    """One task's runs, and its trend with the baseline where there is one."""
    task = plain(trend.task)
    figure.add_scatter(
        x=group["C"],
        y=group.accuracy,
        error_y={"type": "data", "array": group.accuracy_se, "width": 0, "thickness": 1},
        mode="markers",
        name=f"{task} ({trend.verdict})",
        marker={"color": color, "symbol": marker, "size": 7},
        text=[
            f"<b>{plain(r.run_id)}</b><br>{task}, K=0<br>{r.accuracy:.3f} +- {r.accuracy_se:.3f}<br>chance "
            f"{r.chance:.2f}"
            for r in group.itertuples()
        ],
        hoverinfo="text",
        legendgroup=task,
        visible="legendonly" if trend.verdict == "at chance" else True,
    )
    if trend.by_compute is None:
        return
    grid = np.geomspace(group["C"].min(), group["C"].max(), 50)
    figure.add_scatter(
        x=grid,
        y=trend.by_compute.at(np.log10(grid)),
        mode="lines",
        line={"color": color, "width": 2},
        showlegend=False,
        legendgroup=task,
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[grid[0], grid[-1]],
        y=[trend.baseline] * 2,
        mode="lines",
        line={"color": color, "width": 1, "dash": "dot"},
        name=f"{task}: best baseline",
        legendgroup=task,
        showlegend=False,
    )


def accuracy_shots(study: Study) -> Page:
    """Accuracy against the number of examples, mean over the highest-compute third of the runs."""
    figure = go.Figure()
    rows = _evals(study)
    for i, task in enumerate(dict.fromkeys(t.task for t in study.trends)):
        series = [t for t in study.trends if t.task == task and t.verdict != "not measured"]
        if not series:
            continue
        hover = [
            f"{plain(task)}, K={t.shots}<br>{t.accuracy_large:.3f} +- {t.accuracy_large_se:.3f}<br>{t.verdict}"
            for t in series
        ]
        figure.add_scatter(
            x=[str(t.shots) for t in series],
            y=[t.accuracy_large for t in series],
            error_y={"type": "data", "array": [t.accuracy_large_se for t in series], "width": 2, "thickness": 1},
            mode="lines+markers",
            name=f"{plain(task)} (chance {series[0].chance:.2f})",
            marker={"color": PALETTE[i % len(PALETTE)], "symbol": MARKERS[i % len(MARKERS)], "size": 8},
            line={"width": 1, "dash": "dot" if all(t.verdict == "at chance" for t in series) else "solid"},
            text=hover,
            hoverinfo="text",
        )
    axes(figure, "examples in the context (K)", "accuracy, largest third of the runs", log_x=False)
    figure.update_xaxes(type="category")
    gains = [g for g in study.gains if abs(float(g["accuracy_gain"])) > 3 * float(g["accuracy_gain_se"]) > 0]
    said = ", ".join(f"{g['task']} K={g['shots']} {g['accuracy_gain']:+.3f}" for g in gains)
    about = (
        f"Gains over no examples beyond three standard errors: {said}."
        if said
        else "No gain from examples is beyond three standard errors."
    )
    return Page(
        slug="accuracy-shots",
        title="Accuracy against examples",
        about=about + " Dotted: at chance.",
        figure=figure,
        rows=rows,
        group="few-shot",
    )
