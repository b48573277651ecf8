"""Small multiples: one panel over the whole width, and the others below it, two a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.figures.style import axes, plain

FIRST, OTHERS, BETWEEN, AROUND = 320, 140, 66, 140  # pixels: of panels, between them, and above and below all


def grid(titles: Sequence[str]) -> go.Figure:
    """An empty figure of as many panels as titles, which are text; at least one."""
    rows = 1 + math.ceil((len(titles) - 1) / 2)
    specs: list[list[dict[str, int] | None]] = [[{"colspan": 2}, None]]
    specs += [[{}, {}] for _ in range(rows - 1)]
    if rows > 1 and len(titles) % 2 == 0:
        specs[-1][1] = None
    heights = [FIRST, *[OTHERS] * (rows - 1)]
    inside = sum(heights) + BETWEEN * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=2,
        specs=specs,
        row_heights=heights,
        vertical_spacing=BETWEEN / inside,
        horizontal_spacing=0.08,
        subplot_titles=[plain(title) for title in titles],
    )
    figure.update_layout(height=inside + AROUND)
    return figure


def place(i: int) -> dict[str, int]:
    """Where the panel of a title is: row and col, counted from one."""
    return {"row": 1, "col": 1} if i == 0 else {"row": 2 + (i - 1) // 2, "col": 1 + (i - 1) % 2}


def finish(figure: go.Figure, x: str, y: str) -> go.Figure:
    """Set the look; the first panel names the axes of all."""
    height = figure.layout.height
    axes(figure, x, y)
    figure.update_layout(height=height, margin={"t": 70})
    figure.update_xaxes(tickfont={"size": 10}, title={"standoff": 2, "font": {"size": 12}}, tickangle=0)
    figure.update_yaxes(tickfont={"size": 10}, title={"font": {"size": 12}}, nticks=5)
    horizontal = list(figure.select_xaxes())
    for axis in (*horizontal[1:], *list(figure.select_yaxes())[1:]):
        axis.title.text = None
    figure.update_annotations(font={"size": 11}, xanchor="left")
    for title, axis in zip(figure.layout.annotations, horizontal, strict=False):
        title.x = axis.domain[0]
    return figure
