"""Training loss against tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.study import Study
from dashboards.figures.style import Page, axes, behind, of_size, plain, shades

CURVE_POINTS = 400
HOVER = "<b>%{fullData.name}</b><br>%{x:,} tokens<br>training loss %{y:.3f}<extra></extra>"


def curves(study: Study, losses: Mapping[str, pd.DataFrame]) -> Page:
    """Training loss against tokens, thinned for display.

    Args:
        losses: of each run, columns tokens and loss; a run without any is left out.
    """
    figure = go.Figure()
    table = study.everything.sort_values(["N", "C"])
    table = table[table.run_id.astype(str).isin(losses)]
    for run, color in zip(table.itertuples(), shades(table.N), strict=True):
        run_id, size = str(run.run_id), str(run.size)
        thin = thinned(losses[run_id])
        line = {"color": color, "width": 1.2}
        figure.add_scatter(
            x=thin.tokens,
            y=thin.loss,
            mode="lines",
            name=plain(run_id),
            line=line,
            hovertemplate=HOVER,
            legendgroup=plain(size),
            showlegend=False,
        )
    if len(table):  # no point, but the bar of the scale
        marker = {**of_size(table.N), "color": np.log10(table.N)}
        figure.add_scatter(
            x=[None] * len(table), y=[None] * len(table), mode="markers", marker=marker, showlegend=False
        )
    axes(figure, "training tokens", "training loss, nats per token", log_y=True)
    about = (
        f"One line a run, coloured by size, smoothed over neighbouring batches to at most {CURVE_POINTS} points; "
        f"the files hold every step."
    )
    return Page(slug="curves", title="Loss curves", about=about, figure=figure, rows=behind(study.everything))


def thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean loss in buckets of equal width in ln(step): as even on a log axis as on a linear one."""
    if len(curve) <= CURVE_POINTS:
        return curve[["tokens", "loss"]]
    edges = np.unique(np.round(np.geomspace(1, len(curve) + 1, CURVE_POINTS)).astype(int))
    bucket = np.searchsorted(edges, np.arange(1, len(curve) + 1), side="right")
    return curve.groupby(bucket).agg(tokens=("tokens", "max"), loss=("loss", "mean"))
