"""What figures of laws share: panels above one another, a law's line with its band and its name on it, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.estimation import uncertainty
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.isoflop import Parabola
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.laws import Array, Data
from analysis.output.texts import shared
from analysis.study import Study
from dashboards.figures.look import GREY, faint
from dashboards.figures.style import MARGIN, Page, axes, log_ticks, log_x_ticks, printed, spelt, x_title
from gpt3core.words import Symbols, count, powers

GAP, CLOSE = 66, 12  # pixels between panels, and above one that lies under another
TOP, BOTTOM = MARGIN["t"], 110  # pixels of margin; below, the axis' title and the legend
STRIP = 90  # pixels of a panel of residuals
RESIDUAL = "residual, %"
LINE = 20  # pixels of a line of text


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the panels that stand above one another; each has axes of its own."""

    x: str
    y: str
    height: int = 260  # pixels
    log_x: bool = True
    log_y: bool = False
    under: bool = False  # lies close under the one before, along the same x


def strip(x: str) -> Panel:
    """The panel of what the law above it leaves unexplained."""
    return Panel(x=x, y=RESIDUAL, height=STRIP, under=True)


def panelled(count: int) -> go.Figure:
    """An empty figure of so many panels; ``arrange`` gives them their places."""
    return make_subplots(rows=count, cols=1)


def arrange(figure: go.Figure, panels: Sequence[Panel]) -> None:
    """Set the places, axes and look of panels whose traces are drawn, each by its own height in pixels.

    A panel that lies under another and has no trace takes no room.
    """
    bare = [panel.under and not _along(figure, row) for row, panel in enumerate(panels, start=1)]
    panels = [replace(panel, height=0) if empty else panel for panel, empty in zip(panels, bare, strict=True)]
    gaps = [0, *(CLOSE if panel.under else GAP for panel in panels[1:])]
    inside = sum(gaps) + sum(panel.height for panel in panels)
    axes(figure, "", "", log_x=False)
    figure.update_layout(height=TOP + inside + BOTTOM)
    top = inside
    for row, (panel, gap) in enumerate(zip(panels, gaps, strict=True), start=1):
        top -= gap
        covered = row < len(panels) and panels[row].under and not bare[row]
        figure.update_xaxes(
            title=None if covered else x_title(panel.x, log=panel.log_x),
            type="log" if panel.log_x else "linear",
            showticklabels=not covered,
            visible=not bare[row - 1],
            row=row,
            col=1,
            **({"matches": _axis("x", row - 1)} if panel.under else {}),
            **(log_x_ticks(_over(figure, panels, row)) if panel.log_x else {}),
        )
        domain = [max(0.0, (top - panel.height) / inside), min(1.0, top / inside)]
        figure.update_yaxes(
            title=panel.y,
            type="log" if panel.log_y else "-",
            domain=domain,
            visible=not bare[row - 1],
            row=row,
            col=1,
            **(log_ticks(panel.y, _along(figure, row)) if panel.log_y else {}),
        )
        if panel.y == RESIDUAL and not bare[row - 1]:
            figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=row, col=1)
        top -= panel.height


def _axis(letter: str, row: int) -> str:
    """Plotly's name of a panel's axis."""
    return f"{letter}{row if row > 1 else ''}"


def _along(figure: go.Figure, row: int) -> list[Any]:
    """The traces of a panel."""
    return [trace for trace in figure.data if (trace.yaxis or "y") == _axis("y", row)]


def _over(figure: go.Figure, panels: Sequence[Panel], row: int) -> list[Any]:
    """The traces of all panels that lie over one another along the x of a panel: their grids are one."""
    first = max(i for i in range(1, row + 1) if not panels[i - 1].under)
    last = next((i for i in range(row + 1, len(panels) + 1) if not panels[i - 1].under), len(panels) + 1)
    return [trace for i in range(first, last) for trace in _along(figure, i)]


def nothing(slug: str, title: str, reason: str, group: str = "laws") -> Page:
    """The page of a figure for which a study has nothing: it says why."""
    figure = go.Figure()
    axes(figure, "", "")
    figure.update_layout(height=160)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text="nothing to draw", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    about = Symbols(f"Nothing to draw: {reason}.")
    return Page(slug=slug, title=title, about=about, figure=figure, rows=pd.DataFrame(), group=group)


def band(
    figure: go.Figure, x: Array, low: Array, high: Array, color: str, *, name: str = "", row: int | None = None
) -> None:
    """The area between two lines; a part without an end is left out."""
    there = np.isfinite(low) & np.isfinite(high)
    if not there.any():
        return
    x, low, high = x[there], low[there], high[there]
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=faint(color),
        name=name,
        showlegend=bool(name),
        hoverinfo="skip",
        **place(row),
    )


def place(row: int | None) -> dict[str, int]:
    """Where a trace or an annotation goes: a panel, in a figure that has some."""
    return {} if row is None else {"row": row, "col": 1}


def mean_band(law: FittedLaw, data: Data) -> tuple[Array, Array] | None:
    """Ends of the 95% interval of a mean law along points, (n,) each; None where nothing was drawn anew."""
    if law.draws is None:
        return None
    ends = [(1 - uncertainty.LEVEL) / 2, (1 + uncertainty.LEVEL) / 2]
    with np.errstate(all="ignore"):
        low, high = np.nanquantile(np.exp(law.fit.law.on(data)(law.draws)[0]), ends, axis=0)
    return low, high


def law_line(
    figure: go.Figure, law: FittedLaw, variable: str, grid: Array, *, color: str, name: str, row: int | None = None
) -> None:
    """A law of one variable and the 95% interval of its mean along a grid of it; dotted where it is not determined."""
    data = {variable: grid}
    if (ends := mean_band(law, data)) is not None:
        band(figure, grid, *ends, color, row=row)
    figure.add_scatter(
        x=grid,
        y=law.fit.predict(data),
        mode="lines",
        name=name,
        line={"color": color, "width": 2, "dash": "solid" if law.fit.status is FitStatus.OK else "dot"},
        text=spelt(variable, grid),
        hovertemplate=f"{printed(law.fit.law.equation)}<br>%{{text}}<br>loss %{{y:.3f}}<extra></extra>",
        **place(row),
    )


def law_points(law: FittedLaw, variable: str, grid: Array, name: str) -> pd.DataFrame:
    """What ``law_line`` draws, as rows: what, the variable, loss, low95, high95."""
    low, high = mean_band(law, {variable: grid}) or (np.nan, np.nan)
    loss = law.fit.predict({variable: grid})
    return pd.DataFrame({"what": name, variable: grid, "loss": loss, "low95": low, "high95": high})


def minima_points(study: Study) -> pd.DataFrame:
    """The minima of the budgets that laws go through, as rows."""
    return pd.DataFrame(
        [
            {"what": "minimum", "N": p.n_star, "D": p.d_star, "C": p.budget, "loss": p.loss_star}
            for p in study.minima.used
        ]
    )


def of_minimum(p: Parabola) -> str:
    """The hover text of a budget's minimum."""
    found = f"N* {count(p.n_star)}, D* {count(p.d_star)}<br>loss {p.loss_star:.4f}"
    return f"minimum at C {powers(p.budget)} FLOPs<br>{found}"


def predicted_points(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Predictions as rows; ends of 95% intervals (of a new run's loss, of N*, of D*) where the data support them."""
    rows = []
    for p in predictions:
        row = {"what": "prediction", "run_id": p.name or None, "N": p.n, "D": p.d, "C": p.compute, "loss": p.loss}
        ends = {
            ("low95", "high95"): p.interval_new_run,
            ("N_low", "N_high"): p.interval_n,
            ("D_low", "D_high"): p.interval_d,
        }
        for names, interval in ends.items():
            row |= dict(zip(names, interval or (), strict=False))
        rows.append(row)
    return pd.DataFrame(rows)


def label(
    figure: go.Figure,
    x: float,
    y: float,
    text: str,
    *,
    row: int | None = None,
    corner: str = "bottom left",
    color: str | None = None,
) -> None:
    """A name at a point of a line, on axes that are both logarithmic.

    Args:
        corner: of the text, that touches the point: "bottom left" stands above and right of it, beside a line that
            falls; "bottom right" and "top left" stand beside one that rises.
    """
    y_anchor, x_anchor = corner.split()
    figure.add_annotation(
        x=np.log10(x),
        y=np.log10(y),
        text=text,
        showarrow=False,
        xanchor=x_anchor,
        yanchor=y_anchor,
        xshift=-6 if x_anchor == "right" else 6,
        font={"size": 13, **({"color": color} if color else {})},
        **place(row),
    )


def in_corner(figure: go.Figure, text: str, *, row: int, corner: str, color: str, line: int = 0) -> None:
    """A law's name in a corner of its panel that its line leaves free, so that it is read on a phone too.

    Args:
        line: of text, counted from that corner.
    """
    y_anchor, x_anchor = corner.split()
    figure.add_annotation(
        x=0.01 if x_anchor == "left" else 0.99,
        y=0.04 if y_anchor == "bottom" else 0.98,
        xref=f"{_axis('x', row)} domain",
        yref=f"{_axis('y', row)} domain",
        xanchor=x_anchor,
        yanchor=y_anchor,
        yshift=LINE * line if y_anchor == "bottom" else -LINE * line,
        align=x_anchor,
        text=text,
        showarrow=False,
        font={"size": 13, "color": color},
    )


def residuals(
    figure: go.Figure, x: Array, percent: Array, marker: dict[str, Any], text: Sequence[str], row: int
) -> None:
    """Points of a strip."""
    figure.add_scatter(
        x=x,
        y=percent,
        mode="markers",
        marker=marker,
        text=shared(text),
        hoverinfo="text",
        showlegend=False,
        **place(row),
    )


def percent_off(measured: Array, fitted: Array) -> Array:
    """Residuals in percent of the law, (n,)."""
    return np.asarray(100 * (measured / fitted - 1))
