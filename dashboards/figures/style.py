"""What the figures share: colours, axes, texts, and the page that carries a figure and the rows behind it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from analysis.output.words import count

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8C564B",
)  # Okabe and Ito 2008, for all eyes
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
LOSS = "loss, nats per token"
# what is ordered (a size, a budget) has its place on this scale: viridis without its end, which is pale on paper
SCALE = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b")
BEHIND = ("run_id", "size", "N", "D", "C", "U", "epochs", "seed", "loss", "loss_se")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A figure with its title, a sentence on how to read it, and the rows behind it."""

    slug: str
    title: str
    about: str
    figure: go.Figure
    rows: pd.DataFrame


def plain(name: object) -> str:
    """A name from outside as text for plotly, which reads some HTML in names, hover texts and annotations."""
    return html.escape(str(name), quote=False)


def behind(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of runs that a page lists, small sizes first."""
    return table.sort_values(["N", "C"])[[name for name in BEHIND if name in table]]


def axes(figure: go.Figure, x: str, y: str, *, log_x: bool = True, log_y: bool = False) -> go.Figure:
    """Set the axes and the look; returns the figure."""
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 10, "r": 10, "t": 30, "b": 60},
        height=560,
        legend={"font": {"size": 11}, "orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(
        title=x, type="log" if log_x else "linear", exponentformat="power", showline=True, linecolor="#888"
    )
    figure.update_yaxes(
        title={"text": y, "standoff": 8},
        type="log" if log_y else "linear",
        showline=True,
        linecolor="#888",
        automargin=True,
    )
    if log_y and (values := positive(figure.data)):  # a log axis of less than a decade would have one label
        figure.update_yaxes(tickmode="array", tickvals=loss_ticks(min(values), max(values)), tickformat=".2~f")
    return figure


def positive(traces: Iterable[Any]) -> list[float]:
    """The values along y of some traces that a log axis can show."""
    return [v for trace in traces if trace.y is not None for v in trace.y if v is not None and v > 0]


def loss_ticks(low: float, high: float) -> list[float]:
    """Round values between two losses, about eight of them."""
    least = max((high - low) / 9, 0.05)
    unit = 10.0 ** np.floor(np.log10(least))
    step = float(unit * next(s for s in (1, 2, 5, 10) if s * unit > 0.999 * least))
    return [round(k * step, 2) for k in range(int(low / step), int(high / step) + 2)]


def hover(rows: pd.DataFrame) -> list[str]:
    """A hover text a run."""
    return [
        f"<b>{plain(r.run_id)}</b><br>N {r.N:,.4g}, D {r.D:,.4g} tokens, {r.epochs:.2f} epochs<br>C {r.C:.3g} FLOPs<br>"
        f"loss {r.loss:.4f}" + (f" +- {r.loss_se:.4f}" if "loss_se" in rows else "") + f"<br>seed {plain(r.seed)}"
        for r in rows.itertuples()
    ]


def add_runs(figure: go.Figure, rows: pd.DataFrame, x: pd.Series, y: pd.Series) -> None:
    """Points of runs, coloured by size."""
    marker = {**of_size(rows.N), "color": np.log10(rows.N), "size": 8, "opacity": 0.8}
    figure.add_scatter(x=x, y=y, mode="markers", name="runs", marker=marker, text=hover(rows), hoverinfo="text")


def of_size(sizes: Iterable[float]) -> dict[str, Any]:
    """The scale of colours of points that are coloured by log10 N, with its bar."""
    log = np.log10(np.asarray(list(sizes), float))
    low, high = float(log.min()), float(log.max())
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = whole if len(whole) > 1 else np.linspace(low, high, 3) if high > low else np.array([low])
    bar = {
        "title": {"text": "N"},
        "tickvals": ticks.tolist(),
        "ticktext": [count(10**t) for t in ticks],
        "thickness": 12,
        "outlinewidth": 0,
    }
    return {"colorscale": scale(), "cmin": low, "cmax": max(high, low + 1e-9), "colorbar": bar}


def scale() -> list[list[Any]]:
    """SCALE as plotly takes one."""
    return [[i / (len(SCALE) - 1), color] for i, color in enumerate(SCALE)]


def shades(values: Iterable[float]) -> list[str]:
    """A colour a value, by the place of its logarithm between the lowest and the highest."""
    log = np.log(np.asarray(list(values), float))
    if not len(log):
        return []
    place = (log - log.min()) / max(float(np.ptp(log)), 1e-9)
    return [str(color) for color in sample_colorscale(scale(), place.tolist())]
