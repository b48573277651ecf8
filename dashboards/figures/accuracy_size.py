"""Figure: mean accuracy against parameters with no, one and many examples, and after fine-tuning (GPT-3, fig. 1.3)."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.accuracy import by_size
from analysis.accuracy.trends import MEAN
from analysis.runs.conventions import LABELS
from analysis.runs.finetuned import beside_prompts
from analysis.study import Study
from dashboards.figures.accuracy import (
    BASELINE,
    BASELINE_NAME,
    counted,
    evaluations,
    measured,
    summary,
    why_none,
    with_drawn,
)
from dashboards.figures.drawing import nothing
from dashboards.figures.look import PALETTE
from dashboards.figures.style import MARKERS, Page, axes, plain
from gpt3core.words import count

THIN = 0.25  # opacity of the lines of single tasks


def accuracy_size(study: Study) -> Page:
    """The mean of tasks, each of them thin behind it; of every size the run that was trained with most compute."""
    rows = evaluations(study)
    mine = counted(study, rows)
    lines, title = by_size.largest(mine), "Accuracy against size"
    tuned = _tuned(study)
    if lines.empty and tuned.empty:
        return nothing("accuracy-size", title, why_none(mine), group="few-shot")
    figure, means = go.Figure(), _means(lines)
    members = by_size.members(mine, str(means.task.iloc[0])) if len(means) else []
    if len(means):
        tasks = lines[lines.task.isin(members)]
        for i, shots in enumerate(_shown(means)):
            mean, each = (lines[lines.shots == shots] for lines in (means, tasks))
            _add_way(figure, f"{_named(shots)} (K={shots})", i, mean, each)
        below = means.groupby("N").baseline.mean()
        figure.add_scatter(x=below.index, y=below, mode="lines", line=BASELINE, name=BASELINE_NAME, hoverinfo="skip")
    beside = _beside(tuned, set(members))
    for i, (name, line) in enumerate(beside):
        _add_way(figure, name, 3 + i, line)
    axes(figure, f"N, parameters, {LABELS[study.convention.n]}", "accuracy, mean of tasks")
    about = (
        "Of every size the run that was trained with most compute (seeds together). Thick: the mean of the tasks that "
        "every run measured at each of these numbers of examples; thin: each of them. Bars are standard errors of the "
        "questions."
    )
    if len(tuned):
        about += " Fine-tuned: the same models after training on labelled examples, where a task has any."
    ways = [line.assign(what="line", task=name) for name, line in beside]
    rows, table = with_drawn(rows, lines, *ways), summary(study)
    return Page(
        slug="accuracy-size", title=title, about=about, figure=figure, rows=rows, summary=table, group="few-shot"
    )


def _means(lines: pd.DataFrame) -> pd.DataFrame:
    """The mean of tasks; of a sweep that asks a single task, that one."""
    found = lines[lines.task == MEAN]
    return found if len(found) else lines[lines.task == lines.task.iloc[0]] if len(lines) else lines


def _shown(means: pd.DataFrame) -> list[int]:
    """None, one and the most examples, as far as these were shown."""
    known = sorted({int(k) for k in means.shots})
    return [k for k in dict.fromkeys((0, 1, known[-1])) if k in known]


def _named(shots: int) -> str:
    return {0: "zero-shot", 1: "one-shot"}.get(shots, "few-shot")


def _add_way(figure: go.Figure, name: str, i: int, line: pd.DataFrame, tasks: pd.DataFrame | None = None) -> None:
    """One way of asking: thin lines of tasks, and their mean with errors."""
    color = PALETTE[i % len(PALETTE)]
    for _, task in [] if tasks is None else tasks.groupby("task", sort=False):
        thin = {"color": color, "width": 1}
        figure.add_scatter(
            x=task.N, y=task.accuracy, mode="lines", line=thin, opacity=THIN, showlegend=False, hoverinfo="skip"
        )
    figure.add_scatter(
        x=line.N,
        y=line.accuracy,
        error_y={"type": "data", "array": line.accuracy_se, "width": 0, "thickness": 1},
        mode="lines+markers",
        name=plain(name),
        line={"color": color, "width": 3},
        marker={"symbol": MARKERS[i % len(MARKERS)], "size": 8},
        text=[
            f"{plain(name)}<br>N {count(n)}<br>{measured(a, se)}"
            for n, a, se in zip(line.N, line.accuracy, line.accuracy_se, strict=True)
        ],
        hoverinfo="text",
    )


def _tuned(study: Study) -> pd.DataFrame:
    """Fine-tuned beside prompts, of each size the run with most compute."""
    found = beside_prompts(study.runs)
    if found.empty:
        return found
    found = found.merge(study.table[["run_id", "N", "C"]], on="run_id").astype({"tuned": bool})
    return found[found.C >= by_size.SAME_C * found.groupby("N").C.transform("max")]


def _beside(found: pd.DataFrame, of: set[str]) -> list[tuple[str, pd.DataFrame]]:
    """Names and lines: fine-tuned, and few-shot on the same tasks where the mean is of others.

    Args:
        of: the tasks of the mean.
    """
    if found.empty or not found.tuned.any():
        return []
    tasks = sorted(set(found[found.tuned].task))
    same = set(tasks) == of
    which = "the same tasks" if same else ", ".join(tasks) if len(tasks) < 3 else f"{len(tasks)} tasks"
    lines = [(f"fine-tuned: {which}", _mean_over(found[found.tuned], tasks))]
    if not same and not found.tuned.all():
        lines.append((f"few-shot: {which}", _mean_over(found[~found.tuned], tasks)))
    return lines


def _mean_over(rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """A row a size that has all of the tasks: their mean, each by the most examples."""
    rows = rows[rows.examples == rows.groupby("task").examples.transform("max")]
    each = rows.groupby(["N", "task"], as_index=False)[["accuracy", "accuracy_se"]].mean()
    whole = each.groupby("N", as_index=False).agg(
        accuracy=("accuracy", "mean"),
        accuracy_se=("accuracy_se", lambda errors: float((errors**2).sum() ** 0.5) / len(errors)),
        tasks=("task", "nunique"),
    )
    return whole[whole.tasks == len(tasks)]
