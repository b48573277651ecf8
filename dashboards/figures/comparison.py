"""Two ladders compared: the compute multiplier of B against compute, with its interval."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.compare import Comparison
from dashboards.figures.style import PALETTE, Page, axes, plain

ABOUT = (
    "How much compute A needs for the loss that B reaches, in units of B's. Bars are 95% intervals; open marks lie "
    "beyond the data; filled marks that are told from one are larger."
)


def multipliers(comparisons: list[Comparison]) -> Page:
    """One line a held-out domain."""
    figure = go.Figure()
    for i, found in enumerate(comparisons):
        every = [*found.at, *found.beyond]
        figure.add_scatter(
            x=[m.compute for m in every],
            y=[m.value for m in every],
            mode="lines+markers",
            name=plain(found.domain or "loss"),
            line={"color": PALETTE[i % len(PALETTE)]},
            marker={
                "size": [11 if m.told_apart else 7 for m in every],
                "symbol": ["circle"] * len(found.at) + ["circle-open"] * len(found.beyond),
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [m.interval[1] - m.value for m in every],
                "arrayminus": [m.value - m.interval[0] for m in every],
            },
            hovertemplate="C %{x:.3g}<br>multiplier %{y:.3f}<extra></extra>",
        )
    figure.add_hline(y=1.0, line={"color": "#888", "dash": "dot"})
    first, second = map(plain, comparisons[0].names)
    axes(figure, "compute, FLOPs", f"compute multiplier of {second} over {first}")
    return Page(slug="multiplier", title="Compute multiplier", about=ABOUT, figure=figure, rows=_rows(comparisons))


def _rows(comparisons: list[Comparison]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"domain": c.domain, "C": m.compute, "multiplier": m.value, "low95": m.interval[0], "high95": m.interval[1]}
            for c in comparisons
            for m in (*c.at, *c.beyond)
        ]
    )
