"""Figure: the training compute of a sweep's sizes, beside GPT-3's (Brown et al. 2020, figure 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.reference.tables import gpt3_models
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures.look import GREY
from dashboards.figures.style import Page, axes, behind, name_places, plain, printed, shades
from gpt3core.costs import PF_DAY
from gpt3core.words import count, flops, number_of, powers

MOST = 24  # sizes with a bar of their own; more are taken together
ROW, AROUND = 22, 150  # pixels
TOGETHER = "whole sweep"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bar:
    """One bar: what it is of, and the compute of each of its runs, FLOPs."""

    name: str
    color: str
    runs: pd.Series


def compute_bars(study: Study) -> Page:
    """A bar a size up to its run of most compute, with a mark a run; the whole sweep, and the eight GPT-3 models."""
    table = study.everything
    sizes = _sizes(table[table.N.notna()])
    bars = [_Bar(name=TOGETHER, color="#000000", runs=pd.Series([float(table.C.sum())])), *sizes]
    models = gpt3_models()
    published = [
        _Bar(name=str(model), color=GREY, runs=pd.Series([float(c)], dtype=float))
        for model, c in zip(models.model, models.train_flops, strict=True)
    ]
    figure = go.Figure()
    names = [plain(bar.name) for bar in (*bars, *published)]
    for bar, name in zip((*bars, *published), names, strict=True):
        figure.add_bar(
            x=[bar.runs.max()],
            y=[name],
            orientation="h",
            marker={"color": bar.color},
            text=printed(flops(bar.runs.max())),
            textposition="auto" if bar in published else "outside",
            insidetextanchor="end",
            hovertext=f"<b>{name}</b><br>{_said(bar.runs)}",
            hoverinfo="text",
            showlegend=False,
        )
    _add_marks(figure, bars)
    axes(figure, "training compute, FLOPs", "")
    lowest, highest = float(table.C.min()), max(float(bar.runs.max()) for bar in (*bars, *published))
    figure.update_xaxes(range=[np.floor(np.log10(lowest)) - 0.5, np.log10(highest) + 0.6])
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])
    figure.update_layout(height=AROUND + ROW * len(names), bargap=0.25)
    name_places(figure, names)
    whole = float(table.C.sum())
    about = (
        "A bar reaches to the run of most compute of a size, in the order of N; marks are the other runs. All "
        f"{number_of(len(table), 'run')} together took {flops(whole)} FLOPs ({LABELS[study.convention.c]}), "
        f"{whole / float(published[-1].runs.max()):.1g} of GPT-3 175B. Grey: GPT-3 as printed in table D.1, 6 FLOPs a "
        "parameter and token. The axis is logarithmic: a bar's length is no measure, its end is."
    )
    title = "Training compute beside GPT-3's"
    listed, of = behind(table), {run: bar.name for bar in sizes for run in bar.runs.index}
    runs = listed.assign(what="run", bar=listed.index.map(of))
    total = pd.DataFrame([{"what": TOGETHER, "bar": TOGETHER, "C": whole}])
    beside = {"what": "GPT-3, table D.1", "bar": models.model, "size": models.model, "C": models.train_flops}
    rows = pd.concat([runs, total, pd.DataFrame(beside)], ignore_index=True)
    return Page(slug="compute", title=title, about=about, figure=figure, rows=rows, summary=listed)


def _sizes(table: pd.DataFrame) -> list[_Bar]:
    """The sizes in the order of N; of more than MOST of them, ranges of N of equal width in its logarithm."""
    sizes = sorted(set(table.N))
    if len(sizes) <= MOST:
        of, groups = table.N, sizes
    else:
        width = np.log(sizes[-1] / sizes[0]) / MOST
        of = np.floor(np.log(table.N / sizes[0]) / width).clip(upper=MOST - 1)
        groups = sorted(set(of))
    each = [table[of == group] for group in groups]
    colors = shades(rows.N.max() for rows in each)
    return [_Bar(name=_name(rows), color=color, runs=rows.C) for rows, color in zip(each, colors, strict=True)]


def _name(rows: pd.DataFrame) -> str:
    """What a bar is called: a size's label and N, or a range of N."""
    if rows.N.nunique() > 1:
        return f"{count(rows.N.min())} to {count(rows.N.max())}"
    label, n = str(rows["size"].iloc[0]), count(rows.N.iloc[0])
    return n if label in ("", "nan", "<NA>", "None", n) or label == f"{rows.N.iloc[0]:.0f}" else f"{label} ({n})"


def _said(runs: pd.Series) -> str:
    """Of a bar's runs: the most, how many, their sum."""
    most, whole = float(runs.max()), float(runs.sum())
    beside = f"<br>{len(runs)} runs, {powers(whole)} FLOPs together" if len(runs) > 1 else ""
    return f"{powers(most)} FLOPs, {most / PF_DAY:.3g} PF-days{beside}"


def _add_marks(figure: go.Figure, bars: list[_Bar]) -> None:
    """The runs of each size but its largest."""
    marks = [(c, plain(bar.name)) for bar in bars for c in sorted(set(bar.runs))[:-1]]
    figure.add_scatter(
        x=[c for c, _ in marks],
        y=[name for _, name in marks],
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 11, "color": "#ffffff", "line": {"width": 1.5, "color": "#ffffff"}},
        text=[f"{name}<br>{powers(c)} FLOPs" for c, name in marks],
        hoverinfo="text",
        showlegend=False,
    )
