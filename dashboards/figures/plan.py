"""The best run along compute, with its intervals, and the one that is planned."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.predict import Prediction
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures.look import AXIS, GREY, PALETTE, faint
from dashboards.figures.style import LOSS, Page, axes, log_ticks, printed, spelt
from gpt3core.words import count, flops, nats

# where along a curve its name stands, on the side that is free
LABELLED = {"loss": (0.3, "left", "bottom"), "N": (0.22, "left", "top"), "D": (0.3, "right", "bottom")}
GAP = 0.08  # between the two panels, as a share of the height


def plan(study: Study, along: pd.DataFrame, p: Prediction | None) -> Page:
    """Loss above, N* and D* below, over compute; a line at the planned run.

    Args:
        along: C, N, D, loss and their 95% intervals, nan where the runs do not tell.
        p: the planned run, where there is a best size at its compute.
    """
    figure = go.Figure()
    _curve(figure, along, "loss", "loss of a new run", 0, "y")
    _runs(figure, study)
    for i, (name, label) in enumerate((("N", "N*, parameters"), ("D", "D*, tokens"))):
        _curve(figure, along, name, label, i, "y2")
    if p is not None:
        _planned(figure, p)
    axes(figure, f"compute, {LABELS[study.convention.c]}", LOSS)
    losses = [trace for trace in figure.data if trace.yaxis != "y2"]
    figure.update_layout(
        showlegend=False,
        height=640,
        xaxis={"anchor": "y2"},
        yaxis={"type": "log", "domain": [0.5 + GAP / 2, 1.0], **log_ticks(LOSS, losses)},
        yaxis2={
            **{"type": "log", "domain": [0.0, 0.5 - GAP / 2], "title": {"text": "best size and tokens", "standoff": 8}},
            **{"exponentformat": "power", "showline": True, "linecolor": AXIS, "automargin": True},
        },
    )
    about = (
        "Above, the loss of the best run at each compute; below, its parameters and tokens. Bands are 95%: of a new "
        "run, and of N* and D*; where there is none, the runs do not tell. Points are runs, the line the planned one."
    )
    runs = study.table[["run_id", "N", "D", "C", "loss"]].assign(what="run")
    planned = [] if p is None else [{"what": "planned", "C": p.compute, "N": p.n, "D": p.d, "loss": p.loss}]
    rows = pd.concat([along.assign(what="best"), runs, pd.DataFrame(planned)], ignore_index=True)
    return Page(slug="plan", title="The run that is planned", about=about, figure=figure, rows=rows)


def _curve(figure: go.Figure, along: pd.DataFrame, name: str, label: str, color: int, axis: str) -> None:
    """A curve under its band, its name standing at its end."""
    known, write = along[along[f"{name}_low"].notna()], nats if name == "loss" else count
    if len(known):
        figure.add_scatter(
            x=[*known.C, *known.C[::-1]],
            y=[*known[f"{name}_high"], *known[f"{name}_low"][::-1]],
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=faint(PALETTE[color]),
            name=f"95% of {label}",
            hoverinfo="skip",
            yaxis=axis,
        )
    figure.add_scatter(
        x=along.C,
        y=along[name],
        mode="lines",
        name=label,
        line={"color": PALETTE[color], "width": 2},
        text=[f"{c}<br>{label} {write(value)}" for c, value in zip(spelt("C", along.C), along[name], strict=True)],
        hoverinfo="text",
        yaxis=axis,
    )
    if len(along):
        share, xanchor, yanchor = LABELLED[name]
        place = along.iloc[int(share * (len(along) - 1))]
        figure.add_annotation(
            x=np.log10(place.C),
            y=np.log10(place[name]),
            yref=axis,
            text=label,
            showarrow=False,
            xanchor=xanchor,
            yanchor=yanchor,
            yshift=6 if yanchor == "bottom" else -6,
            font={"color": PALETTE[color], "size": 13},
        )


def _runs(figure: go.Figure, study: Study) -> None:
    """The runs fitted, small and grey: what the curve rests on."""
    table = study.table
    figure.add_scatter(
        x=table.C,
        y=table.loss,
        mode="markers",
        name="runs",
        marker={"color": AXIS, "size": 5},
        text=spelt("C", table.C),
        hovertemplate="%{text}<br>loss %{y:.4f}<extra>a run</extra>",
    )


def _planned(figure: go.Figure, p: Prediction) -> None:
    """A line through both panels, and the values where it meets the curves."""
    figure.add_shape(
        type="line",
        x0=p.compute,
        x1=p.compute,
        y0=0,
        y1=1,
        yref="paper",
        line={"color": GREY, "dash": "dot", "width": 1},
    )
    values = (  # the text on the side that its curve leaves free
        (p.loss, f"{p.loss:.3f}", "bottom left", 0, "y"),
        (p.n, count(p.n), "top left", 0, "y2"),
        (p.d, count(p.d), "top left", 1, "y2"),
    )
    for value, text, side, color, axis in values:
        figure.add_scatter(
            x=[p.compute],
            y=[value],
            mode="markers+text",
            text=[f"{text} "],
            textposition=side,
            name=printed(f"planned at {flops(p.compute)}"),
            marker={"color": PALETTE[color], "size": 10, "line": {"color": "#fff", "width": 1}},
            hoverinfo="skip",
            yaxis=axis,
        )
