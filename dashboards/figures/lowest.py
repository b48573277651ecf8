"""Approach 1: the lowest of the training curves at every compute, and the sizes that they are of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.estimation.training_curves import CurveEnvelope
from analysis.output.texts import shared
from analysis.runs.conventions import LABELS
from analysis.runs.curves import FROM
from analysis.study import Study
from dashboards.figures.curves import add_bar, by_size, kept, points_each, some_of
from dashboards.figures.drawing import minima_points, of_minimum
from dashboards.figures.look import PALETTE
from dashboards.figures.style import LOSS, Page, axes, behind, plain, printed
from gpt3core.words import count, powers

SLUG, TITLE = "lowest-curves", "Approach 1: the lowest training curves"
PANELS = (("C", "loss"), ("C", "N"))
BLACK = "#000000"
HEIGHT = 860  # pixels, of two panels: a phone has no room beside one


def lowest(study: Study, losses: Mapping[str, pd.DataFrame]) -> Page:
    """Training curves against compute with the lowest loss through them, and below them N* against compute.

    Args:
        losses: of each run, columns tokens and loss; a run without any is left out.
    """
    found, table = study.training_curves, study.table
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.13)
    drawn, there = _add_curves(figure, study, losses)
    reason = "these runs are a table, which has no training curves" if found is None else found.reason
    law = found if found is not None and not reason else None
    if law is not None:
        _add_loss(figure, law)
    axes(figure, f"compute, {LABELS[study.convention.c]}", LOSS, log_y=True)  # its ticks are those of the losses
    points = list(drawn)
    if law is not None:
        points += _add_sizes(figure, law)
    _add_minima(figure, study)
    figure.update_yaxes(
        title=f"N*, parameters, {LABELS[study.convention.n]}",
        tickmode="linear",
        tickformat="",
        exponentformat="power",
        dtick="D2",  # all digits of a decade would lie on one another
        row=2,
    )
    figure.update_xaxes(matches="x")
    figure.update_layout(height=HEIGHT)
    about = (
        f"Above, thin: training losses as trained, from {FROM:.0%} of a run on, coloured by size. Dots: the "
        "curve of the size that is lowest at every compute once each moment is brought to the end of a schedule of its "
        "own. Below: that size, between its neighbours; the line through these (approach 1); the minima of the budgets "
        "(approach 2, stars)."
    )
    if law is not None:
        about += f" N* ~ C^{law.a:.2f} ({law.interval_a[0]:.2f} to {law.interval_a[1]:.2f})."
    else:
        about += f" Approach 1 gives no law here: {reason}."
    if there > len(drawn):
        about += f" {len(drawn)} of {there} curves are drawn."
    rows = pd.concat([*points, minima_points(study)], ignore_index=True)
    rows = rows if len(rows) else behind(table)
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=rows, summary=behind(table), panels=PANELS)


def _add_curves(figure: go.Figure, study: Study, losses: Mapping[str, pd.DataFrame]) -> tuple[list[pd.DataFrame], int]:
    """The runs whose curves were read, from where they were; all of them where none was.

    Returns:
        The points of those that are drawn, and how many there are.
    """
    read = set() if study.training_curves is None else set(study.training_curves.runs)
    table = study.table.sort_values(["N", "C"])
    shown = [run_id in losses and (not read or run_id in read) for run_id in table.run_id.astype(str)]
    there, table = sum(shown), some_of(table[shown])
    most, found = points_each(len(table)), list[pd.DataFrame]()
    for run in table.to_dict("records"):
        run_id, tokens = str(run["run_id"]), float(run["D"])
        thin = losses[run_id]
        thin = kept(thin[thin.tokens >= FROM * tokens], most)
        compute = thin.tokens.to_numpy(float) * float(run["C"]) / tokens
        known = {"what": "training loss", "run_id": run_id, "N": run["N"], "D": thin.tokens.to_numpy(float)}
        found.append(pd.DataFrame({**known, "C": compute, "loss": thin.loss.to_numpy(float)}))
    look = {"mode": "lines", "opacity": 0.6, "showlegend": False, "xaxis": "x", "yaxis": "y"}
    hover = "<b>%{customdata}</b><br>C %{x:.2e} FLOPs<br>training loss %{y:.3f}<extra></extra>"
    figure.add_traces(
        [
            {
                **{"type": "scatter", "x": points["C"], "y": points.loss, "hovertemplate": hover, **look},
                **{"name": f"N {count(points.N.iloc[0])}", "line": {"color": color, "width": 1}},
                "customdata": shared(map(plain, points.run_id)),
            }
            for points, color in by_size(found)
        ]
    )
    add_bar(figure, table)
    return found, there


def _hover(found: CurveEnvelope) -> list[str]:
    return [f"C {powers(c)} FLOPs<br>N* {count(n)}<br>training loss {x:.4f}" for c, n, x in found.lowest]


def _add_loss(figure: go.Figure, found: CurveEnvelope) -> None:
    """The curves that count, as trained."""
    compute, _, loss = found.lowest.T
    figure.add_scatter(
        x=compute,
        y=loss,
        mode="markers",
        name="curve of the lowest size, as trained",
        marker={"color": BLACK, "size": 4},
        text=_hover(found),
        hoverinfo="text",
        row=1,
        col=1,
    )


def _add_sizes(figure: go.Figure, found: CurveEnvelope) -> list[pd.DataFrame]:
    """The sizes that the lowest losses are of, and the law through these; returns the points of both."""
    compute, n_star, loss = found.lowest.T
    figure.add_scatter(
        x=compute,
        y=n_star,
        mode="markers",
        name="size of the lowest curve",
        marker={"color": BLACK, "size": 5, "symbol": "circle-open"},
        text=_hover(found),
        hoverinfo="text",
        row=2,
        col=1,
    )
    ends = np.array([compute.min(), compute.max()])
    figure.add_scatter(
        x=ends,
        y=found.k * ends**found.a,
        mode="lines",
        name=printed(f"approach 1: N* ~ C^{found.a:.2f}"),
        line={"color": PALETTE[1], "width": 2},
        hoverinfo="skip",
        row=2,
        col=1,
    )
    lowest_ones = pd.DataFrame({"what": "lowest curve", "N": n_star, "C": compute, "loss": loss})
    return [lowest_ones, pd.DataFrame({"what": "law of approach 1", "N": found.k * ends**found.a, "C": ends})]


def _add_minima(figure: go.Figure, study: Study) -> None:
    """The minima of the budgets, beside the sizes of the lowest curves."""
    used = study.minima.used
    if not used:
        return
    figure.add_scatter(
        x=[p.budget for p in used],
        y=[p.n_star for p in used],
        mode="markers",
        name="minima of the budgets (approach 2)",
        marker={"symbol": "star", "size": 12, "color": PALETTE[0], "line": {"width": 1, "color": BLACK}},
        text=list(map(of_minimum, used)),
        hoverinfo="text",
        row=2,
        col=1,
    )
