"""Loss against size at each budget."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.isoflop import Parabola
from analysis.output.words import flops
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures.style import LOSS, MARKERS, Page, axes, behind, hover, shades


def isoflop(study: Study) -> Page:
    """Loss against size at each budget, with the parabola and its minimum."""
    table = study.table.set_index("run_id", drop=False)
    figure = go.Figure()
    colors = shades(p.budget for p in study.minima.parabolas)
    for i, p in enumerate(study.minima.parabolas):
        _add_budget(figure, p, table, colors[i], MARKERS[i % len(MARKERS)])
    counted = LABELS[study.convention.n]
    axes(figure, f"parameters, {counted}", LOSS, log_y=True)
    exponent = study.minima.exponent
    law = (
        f" N* grows as C^{exponent:.2f} (N {counted}, C {LABELS[study.convention.c]})."
        if math.isfinite(exponent)
        else ""
    )
    about = (
        "One colour a budget, lighter with compute; stars are the minima of the parabolas; open circles stay out of "
        f"them by the rule near.{law}"
    )
    return Page(slug="isoflop", title="IsoFLOP curves", about=about, figure=figure, rows=behind(study.table))


def _add_budget(figure: go.Figure, p: Parabola, table: pd.DataFrame, color: str, marker: str) -> None:
    """One budget's runs, its parabola and its minimum."""
    name = f"C = {flops(p.budget)}"
    for ids, symbol, label in ((p.run_ids, marker, name), (p.far, "circle-open", f"{name}, not fitted")):
        rows = table.loc[ids].sort_values("N")
        if len(rows):
            figure.add_scatter(
                x=rows["N"],
                y=rows.loss,
                mode="markers",
                name=label,
                marker={"symbol": symbol, "color": color, "size": 9},
                text=hover(rows),
                hoverinfo="text",
                legendgroup=name,
            )
    if p.coefficients is not None:
        sizes = table.loc[p.run_ids]["N"].astype(float)
        grid = np.geomspace(sizes.min(), sizes.max(), 60)
        curve = np.exp(np.polyval(p.coefficients, np.log(grid)))
        line = {"color": color, "width": 1.5}
        figure.add_scatter(
            x=grid, y=curve, mode="lines", line=line, showlegend=False, hoverinfo="skip", legendgroup=name
        )
    if p.ok:
        figure.add_scatter(
            x=[p.n_star],
            y=[p.loss_star],
            mode="markers",
            marker={"symbol": "star", "size": 13, "color": color, "line": {"width": 1, "color": "#000"}},
            showlegend=False,
            text=[f"minimum at {name}<br>N* {p.n_star:.3g}<br>L* {p.loss_star:.4f}"],
            hoverinfo="text",
            legendgroup=name,
        )
