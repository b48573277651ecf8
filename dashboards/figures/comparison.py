"""Two ladders compared: the compute multiplier of B against compute, and both frontiers over one another."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.compare import Comparison, Multiplier
from analysis.output.comparison import notes
from analysis.runs.conventions import LABELS
from analysis.runs.ladders import Ladders
from dashboards.figures.drawing import label
from dashboards.figures.look import AXIS, PALETTE
from dashboards.figures.style import LOSS, MARKERS, Page, axes, behind, hover, loss_ticks, plain, spelt, tick_format
from gpt3core.words import flops

ABOUT = (
    "How much compute A needs for the loss that B reaches, in units of B's. Bars are 95% intervals; open marks lie "
    "beyond the data; filled marks that are told from one are larger. A triangle is the low end of an interval where A "
    "reaches B's loss at no compute; where that is infinite too, nothing is drawn."
)
FARTHEST = 100.0  # factor beyond which a bar leaves the axis
ROOM, LEAST_ROOM = 0.06, 0.003  # beside what the axis of multipliers holds: as a share of it, and in decades


def multipliers(comparisons: list[Comparison]) -> Page:
    """One line a held-out domain."""
    figure = go.Figure()
    for i, found in enumerate(comparisons):
        every = [*found.at, *found.beyond]
        figure.add_scatter(
            x=[m.compute for m in every],
            y=[_drawn(m) for m in every],
            mode="lines+markers",
            name=plain(found.domain or "loss"),
            line={"color": PALETTE[i % len(PALETTE)]},
            marker={
                "size": [11 if m.told_apart else 7 for m in every],
                "symbol": [
                    ("circle" if np.isfinite(m.value) else "triangle-up") + ("-open" if i >= len(found.at) else "")
                    for i, m in enumerate(every)
                ],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [min(m.interval[1], _drawn(m) * FARTHEST**2) - _drawn(m) for m in every],
                "arrayminus": [_drawn(m) - m.interval[0] for m in every],
            },
            text=spelt("C", [m.compute for m in every]),
            hovertemplate="%{text}<br>multiplier %{y:.3f}<extra></extra>",
        )
    figure.add_hline(y=1.0, line={"color": AXIS, "dash": "dot"})
    first, second = map(plain, comparisons[0].names)
    axes(figure, "compute, FLOPs", f"compute multiplier of {second} over {first}", log_y=True)
    rows = _rows(comparisons)
    low, high = _span([m for found in comparisons for m in (*found.at, *found.beyond)])
    ticks, room = loss_ticks(low, high), max(LEAST_ROOM, ROOM * math.log10(high / low))
    ends = [math.log10(low) - room, math.log10(high) + room]
    figure.update_yaxes(range=ends, tickmode="array", tickvals=ticks, tickformat=tick_format(ticks))
    about = " ".join([ABOUT, *_warned(comparisons)])
    return Page(slug="multiplier", title="Compute multiplier", about=about, figure=figure, rows=rows)


def _span(every: list[Multiplier]) -> tuple[float, float]:
    """What the axis has to hold: one, the multipliers, and their bars as far as these are within FARTHEST of them."""
    there = [(m.interval, drawn) for m in every if math.isfinite(drawn := _drawn(m))]
    low = [max(interval[0], drawn / FARTHEST) for interval, drawn in there]
    high = [min(interval[1], drawn * FARTHEST) for interval, drawn in there]
    return min([1.0, *low]), max([1.0, *high])


def _drawn(m: Multiplier) -> float:
    """Where a multiplier is drawn: an infinite one at the low end of its interval, or nowhere."""
    return next((value for value in (m.value, m.interval[0]) if math.isfinite(value)), math.nan)


def _warned(comparisons: list[Comparison]) -> list[str]:
    """The warnings of all of them, each once."""
    every = {f"{n.severity.capitalize()}: {n.message}.": None for found in comparisons for n in notes(found)}
    return list(every)


def _rows(comparisons: list[Comparison]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"domain": c.domain, "C": m.compute, "multiplier": m.value, "low95": m.interval[0], "high95": m.interval[1]}
            for c in comparisons
            for m in (*c.at, *c.beyond)
        ]
    )


def frontiers(pair: Ladders, found: Comparison) -> Page:
    """Loss against compute of both ladders, and what each reaches with its best sizes, by the law of both."""
    figure = go.Figure()
    every, last = sorted([*found.at, *found.beyond], key=lambda m: m.compute), found.at[-1]
    tables = {name: selected.table for name, selected in zip(found.names, (pair.a, pair.b), strict=True)}
    for i, (name, table) in enumerate(tables.items()):
        look = {"color": PALETTE[i], "symbol": MARKERS[i], "size": 7, "opacity": 0.6}
        text = hover(table)
        figure.add_scatter(
            x=table["C"], y=table.loss, mode="markers", name=plain(name), marker=look, text=text, hoverinfo="text"
        )
        losses = [m.loss_b if i else m.loss_a for m in every]
        figure.add_scatter(
            x=[m.compute for m in every],
            y=losses,
            mode="lines",
            name=f"{plain(name)}, best sizes",
            line={"color": PALETTE[i], "dash": ("solid", "dash")[i], "width": 2},
            text=spelt("C", [m.compute for m in every]),
            hovertemplate=f"<b>{plain(name)}</b>, best size<br>%{{text}}<br>loss %{{y:.4f}}<extra></extra>",
        )
        loss = last.loss_b if i else last.loss_a
        corner = "top right" if loss == min(last.loss_a, last.loss_b) else "bottom left"
        label(figure, last.compute, loss, plain(name), corner=corner, color=PALETTE[i])
    axes(figure, f"compute, {LABELS[pair.a.convention.c]}", LOSS, log_y=True)
    how = (
        "Each point a run; lines are what the best sizes reach by one law of both, carried to C = "
        f"{flops(every[-1].compute)}: their distance along the axis of compute is the multiplier."
    )
    about = " ".join([how, *_warned([found])])
    summary = pd.concat([behind(table).assign(ladder=name) for name, table in tables.items()], ignore_index=True)
    best = [
        {"ladder": name, "what": "best sizes, by the law of both", "C": m.compute, "loss": (m.loss_a, m.loss_b)[i]}
        for i, name in enumerate(tables)
        for m in every
    ]
    rows = pd.concat([summary.assign(what="run"), pd.DataFrame(best)], ignore_index=True)
    return Page(slug="frontiers", title="Both frontiers", about=about, figure=figure, rows=rows, summary=summary)
