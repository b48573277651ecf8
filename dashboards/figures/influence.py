"""What moves the prediction: the same without each run, each size and each budget."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.influence import Influence
from analysis.study import Study
from dashboards.figures.drawing import Panel, arrange, nothing, panelled
from dashboards.figures.look import GREY, PALETTE, faint
from dashboards.figures.style import Page, name_places, plain, printed
from gpt3core.words import change, flops, number_of

SLUG, TITLE = "influence", "Influence on the prediction"
MOST = 24  # that are drawn
KINDS = {"run": ("circle", PALETTE[0]), "size": ("square", PALETTE[1]), "budget": ("diamond", PALETTE[2])}
PIXELS = 17  # of a row


def influence(study: Study) -> Page:
    """By how much the predicted loss, and the size that is best, change without a run, a size or a budget."""
    found = study.influences
    if not found:
        return nothing(SLUG, TITLE, "no prediction could be made without some of the runs")
    shown, figure = found[:MOST], panelled(2)
    for row, what in ((1, "loss_change"), (2, "n_star_change")):
        for kind, (symbol, color) in KINDS.items():
            marker = {"symbol": symbol, "color": color}
            _add(figure, {k: i for k, i in enumerate(shown) if i.kind == kind}, kind, what, marker, row)
    height = PIXELS * len(shown) + 20
    arrange(
        figure,
        [
            Panel(x="change of the loss, %", y="", height=height, log_x=False),
            Panel(x="change of N*, %", y="", height=height, log_x=False),
        ],
    )
    names = list(map(_label, shown))
    ticks = {"tickmode": "array", "tickvals": list(range(len(shown))), "ticktext": names, "tickfont": {"size": 11}}
    figure.update_yaxes(range=[len(shown) - 0.5, -0.5], zeroline=False, **ticks)
    figure.update_xaxes(zeroline=True, zerolinecolor=GREY)
    name_places(figure, names, font=11)
    about = _about(study, found)
    if (half := _interval(study)) is not None:
        figure.add_vrect(*half, fillcolor=faint(GREY), line_width=0, layer="below", row=1, col=1)
        about += f" Shaded: the 95% interval of the mean law, {half[0]:+.1f}% to {half[1]:+.1f}%."
    listed = pd.DataFrame([{**vars(i), "runs": i.runs} for i in found]).drop(columns="run_ids")
    rows = listed.rename_axis("place").reset_index()
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=rows, summary=listed)


def _about(study: Study, found: list[Influence]) -> str:
    first = next((p for p in study.predictions if p.optimal), None)
    target = f"at C = {flops(first.compute)}" if first is not None else "at ten times the highest compute"
    most = found[0]
    more = f"; the {len(found) - MOST} that move it less are among the rows" if len(found) > MOST else ""
    return (
        f"The prediction {target}, refitted without each run, size and budget, the weights of the fits kept: the "
        f"{number_of(min(MOST, len(found)), 'most influential one')}{more}. Without {most.left_out} "
        f"({number_of(most.runs, 'run')}) the loss would be {most.loss:.4f} ({change(most.loss_change, 2)})."
    )


def _interval(study: Study) -> tuple[float, float] | None:
    """The mean law's interval at the target that the influences are of, in percent of the prediction."""
    first = next((p for p in study.predictions if p.optimal), None)
    if first is None or first.interval_mean is None:
        return None
    low, high = (100 * (end / first.loss - 1) for end in first.interval_mean)
    return low, high


def _label(left_out: Influence) -> str:
    """What was left out; runs are named from outside."""
    return plain(left_out.left_out) if left_out.kind == "run" else printed(left_out.left_out)


def _add(
    figure: go.Figure, chosen: dict[int, Influence], kind: str, what: str, marker: dict[str, str], row: int
) -> None:
    """The marks of a kind by their place, each with a line from zero."""
    percent = 100 * np.array([getattr(i, what) for i in chosen.values()], float)
    stems = {"x": [v for p in percent for v in (0.0, p, None)], "y": [v for k in chosen for v in (k, k, None)]}
    line = {"color": marker["color"], "width": 1.5}
    figure.add_scatter(**stems, mode="lines", line=line, hoverinfo="skip", showlegend=False, row=row, col=1)
    figure.add_scatter(
        x=percent,
        y=list(chosen),
        mode="markers",
        marker={**marker, "size": 8},
        name=f"without a {kind}",
        showlegend=row == 1 and bool(chosen),
        text=[
            f"<b>without {_label(i)}</b> ({number_of(i.runs, 'run')})<br>loss {i.loss:.4f} "
            f"({change(i.loss_change, 2)})<br>N* {change(i.n_star_change)}"
            for i in chosen.values()
        ],
        hoverinfo="text",
        row=row,
        col=1,
    )
