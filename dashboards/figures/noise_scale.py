"""Part of a run's figure: its gradient noise scale beside its batch, both in tokens, where it was measured.

Batches far below the scale are averaged away by more steps alike, so a larger one takes fewer steps; beyond it a larger
one costs tokens and saves few steps (McCandlish et al. 2018, arXiv 1812.06162, section 2).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.downsample import downsample
from dashboards.figures.look import GREY, PALETTE
from dashboards.figures.style import round_values

NAMES = {"noise scale": PALETTE[0], "batch": GREY}


def measured(curve: pd.DataFrame) -> pd.DataFrame:
    """The steps at which it was measured, of a long run some: step, noise scale, batch."""
    if "noise_scale" not in curve or "tokens" not in curve:
        return pd.DataFrame(columns=["step", *NAMES])
    seen = curve.tokens.to_numpy(float)
    batch = np.diff(seen, prepend=0.0) / np.diff(curve.step.to_numpy(float), prepend=0.0)
    found = pd.DataFrame({"step": curve.step, "noise scale": curve.noise_scale.astype(float), "batch": batch})
    found = found[found["noise scale"].gt(0)]
    return found.iloc[downsample(found.step.to_numpy(float), found["noise scale"].to_numpy(float), log=False)]


def add(figure: go.Figure, found: pd.DataFrame, row: int) -> None:
    """The panel."""
    for name, colour in NAMES.items():
        figure.add_scatter(
            x=found.step,
            y=found[name],
            mode="lines+markers" if len(found) < 50 else "lines",
            line={"color": colour, "width": 1.2},
            name=name,
            hovertemplate=f"step %{{x:,}}<br>{name} %{{y:,.0f}} tokens<extra></extra>",
            row=row,
            col=1,
        )
    values = found[list(NAMES)].to_numpy(float)
    figure.update_yaxes(
        title="tokens", type="log", tickvals=round_values(values.min(), values.max()), tickformat="~s", row=row
    )


def said(found: pd.DataFrame) -> str:
    """The last of it, in a sentence."""
    scale, batch = found.iloc[-1][list(NAMES)]
    far = f"{batch / scale:.2g} of it" if batch < scale else f"{batch / scale:.2g} times as many"
    return f"Its gradient noise scale was {scale:,.0f} tokens when it was last measured, and its batch {far}."
