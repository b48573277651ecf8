"""A figure with its logarithmic axes made linear."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from dashboards.figures.packed import opened
from dashboards.figures.style import Page


def linear(page: Page) -> Page:
    """The same page, every logarithmic axis linear; what stands at a point of the data stays there."""
    figure = opened(page.figure)
    logs = {name.replace("axis", "") for name in figure.layout if _is_log(figure, name)}  # x, y, x2, ...
    for short in logs:
        axis = figure.layout[f"{short[0]}axis{short[1:]}"]
        axis.update(type="linear", tickmode="auto", tickvals=None, ticktext=None, tickformat=None, nticks=None)
        if axis.range is not None:
            axis.range = [10**end for end in axis.range]
    for note in figure.layout.annotations:  # plotly places these by the exponent where an axis is logarithmic
        for letter in "xy":
            if note[f"{letter}ref"] in logs or (note[f"{letter}ref"] is None and letter in logs):
                note[letter] = 10 ** note[letter]
    return replace(page, figure=figure)


def _is_log(figure: go.Figure, name: str) -> bool:
    return name.startswith(("xaxis", "yaxis")) and figure.layout[name].type == "log"
