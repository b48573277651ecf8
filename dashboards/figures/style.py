"""What the figures share: colours, axes, texts, and the page that carries a figure and the rows behind it."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

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
MOST_SIZES = 20  # in a legend
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
    """The columns of runs that a page lists."""
    return table[[name for name in BEHIND if name in table]]


def axes(figure: go.Figure, x: str, y: str, *, log_x: bool = True, log_y: bool = False) -> go.Figure:
    """Set the axes and the look; returns the figure."""
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 70, "r": 30, "t": 30, "b": 60},
        height=560,
        legend={"font": {"size": 11}},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(
        title=x, type="log" if log_x else "linear", exponentformat="power", showline=True, linecolor="#888"
    )
    figure.update_yaxes(title=y, type="log" if log_y else "linear", showline=True, linecolor="#888")
    values = [v for trace in figure.data for v in (trace.y if trace.y is not None else ()) if v is not None and v > 0]
    if log_y and values:  # a log axis of less than a decade would have one label
        figure.update_yaxes(tickmode="array", tickvals=_ticks(min(values), max(values)), tickformat=".2~f")
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two losses, about eight of them."""
    step = next((s for s in (0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 9), 2.0)
    return [round(k * step, 2) for k in range(int(low / step), int(high / step) + 2)]


def hover(rows: pd.DataFrame) -> list[str]:
    """A hover text a run."""
    return [
        f"<b>{plain(r.run_id)}</b><br>N {r.N:,.4g}, D {r.D:,.4g} tokens, {r.epochs:.2f} epochs<br>C {r.C:.3g} FLOPs<br>"
        f"loss {r.loss:.4f}" + (f" +- {r.loss_se:.4f}" if "loss_se" in rows else "") + f"<br>seed {plain(r.seed)}"
        for r in rows.itertuples()
    ]


def add_runs(figure: go.Figure, rows: pd.DataFrame, x: pd.Series, y: pd.Series) -> None:
    """Points of runs: a colour and a symbol a size; many sizes share a scale of colours."""
    sizes = by_size(rows)
    if len(sizes) > MOST_SIZES:
        ticks = np.unique(np.round(np.log10(rows.N)))
        scale = {"title": "N", "tickvals": ticks, "ticktext": [f"{10**t:.0e}" for t in ticks]}
        marker = {"color": np.log10(rows.N), "colorscale": "Viridis", "colorbar": scale, "size": 7, "opacity": 0.8}
        figure.add_scatter(x=x, y=y, mode="markers", name="runs", marker=marker, text=hover(rows), hoverinfo="text")
        figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.0})
        return
    for i, size in enumerate(sizes):
        mask = (rows["size"] == size).to_numpy()
        marker = {"symbol": MARKERS[i % len(MARKERS)], "color": PALETTE[i % len(PALETTE)], "size": 7, "opacity": 0.6}
        figure.add_scatter(
            x=x[mask],
            y=y[mask],
            mode="markers",
            name=plain(size),
            marker=marker,
            text=hover(rows[mask]),
            hoverinfo="text",
        )


def by_size(table: pd.DataFrame) -> list[str]:
    """Names of the sizes, smallest first."""
    return list(table.sort_values("N")["size"].drop_duplicates())
