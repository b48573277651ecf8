"""Loss against compute, with the fitted laws and what they predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.laws import Array, allocation
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures.drawing import band, label, law_points, mean_band, minima_points, of_minimum, predicted_points
from dashboards.figures.look import GREY, PALETTE
from dashboards.figures.style import LOSS, Page, add_runs, axes, behind, of_runs, printed, spelt
from gpt3core.words import flops, outside

WORDS = 0.25  # of ln C on either side, in which a name stands


def frontier(study: Study) -> Page:
    """Loss against compute, the minima of the budgets, and the fitted laws carried to ten times the largest budget."""
    table = study.everything
    figure = go.Figure()
    fitted = table.run_id.isin(study.table.run_id)
    if fitted.any():
        add_runs(figure, table[fitted], table.C[fitted], table.loss[fitted])
    _add_left_out(figure, study, table[~fitted])
    used = study.minima.used
    if used:
        marker = {"symbol": "circle-open", "size": 14, "color": "#000000", "line": {"width": 2}}
        figure.add_scatter(
            x=[p.budget for p in used],
            y=[p.loss_star for p in used],
            mode="markers",
            name="IsoFLOP minimum",
            marker=marker,
            text=list(map(of_minimum, used)),
            hoverinfo="text",
        )
    laws = _law_lines(figure, study, table.C)
    for p in study.predictions:
        _add_prediction(figure, p)
        if p.interval_new_run is not None:
            _name(figure, p, p.interval_new_run, laws)
    axes(figure, f"compute, {LABELS[study.convention.c]}", LOSS, log_y=True)
    about = "Rings are the minima of the IsoFLOP parabolas; lines are the laws through them."
    if not laws:
        about = "No law of compute was fitted to them."
    elif not used:
        about = "No budget has a minimum inside its sizes: the laws go through the best runs."
    about = " ".join(["Each point a run.", about, *_foretold(study.predictions)])
    runs = behind(table)
    runs = runs.assign(what=np.where(runs.run_id.isin(study.table.run_id), "run", "run, not fitted"))
    rows = pd.concat([runs, minima_points(study), *laws, predicted_points(study.predictions)], ignore_index=True)
    return Page(
        slug="frontier",
        title="Loss against compute",
        about=about,
        figure=figure,
        rows=rows,
        summary=behind(table),
        panels=(("C", "loss"),),
    )


def _foretold(predictions: Sequence[Prediction]) -> Iterator[str]:
    """What bars are, and what is predicted without an interval of a new run, for which no axis reaches."""
    unsure = [f"{p.loss:.3g} at {flops(p.compute)}" for p in predictions if p.interval_new_run is None]
    if len(unsure) < len(predictions):
        yield "Bars are what a new run would reach."
    if unsure:
        yield f"Predicted without an interval of a new run: {', '.join(unsure)}; a click in the legend draws it."


def _add_left_out(figure: go.Figure, study: Study, rows: pd.DataFrame) -> None:
    """Crosses where the runs are that stay out of the fit, each with the rule that took it out."""
    rows = rows[rows.loss.notna()]
    if rows.empty:
        return
    rules = {run: rule.name for rule in study.rules for run in rule.excluded}
    look = of_runs(rows)
    look["text"] = [
        f"{text}<br>not fitted: {rules.get(run, 'no loss')}"
        for text, run in zip(look["text"], rows.run_id, strict=True)
    ]
    marker = {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": GREY}}
    figure.add_scatter(x=rows["C"], y=rows.loss, mode="markers", name="not fitted", marker=marker, **look)


def _law_lines(figure: go.Figure, study: Study, computes: pd.Series) -> list[pd.DataFrame]:
    """The laws of compute with their band, and L(N,D) at its optimum, up to the farthest target; returns their rows."""
    lowest = float(computes.min())
    highest = max([p.compute for p in study.predictions], default=lowest)
    grid, found = np.geomspace(lowest / 1.5, highest, 80), []
    for name, kind, dash, color in (
        ("compute_frontier", "power law", "solid", "#000000"),
        ("compute_frontier_irreducible", "with irreducible E", "dot", GREY),
    ):
        law = study.laws.get(name)
        if law is None or law.fit.theta is None:
            continue
        found.append(law_points(law, "C", grid, f"law of compute, {kind}"))
        doubt = "" if law.fit.status is FitStatus.OK else f" ({law.fit.status.value})"
        figure.add_scatter(
            x=grid,
            y=law.fit.predict({"C": grid}),
            mode="lines",
            name=f"{kind}: α<sub>C</sub> {law.fit.params['alpha_C']:.4f}{doubt}",
            line={"color": color, "dash": dash, "width": 2},
            text=spelt("C", grid),
            hovertemplate=f"{printed(law.fit.law.equation)}<br>%{{text}}<br>loss %{{y:.3f}}<extra></extra>",
        )
        if name == "compute_frontier":
            if (ends := mean_band(law, {"C": grid})) is not None:
                band(figure, grid, *ends, "#000000", name="95% of the mean law")
            at = _free(grid, computes)
            said = f"L ~ C<sup>−{law.fit.params['alpha_C']:.4f}</sup>"
            label(figure, at, float(law.fit.predict({"C": np.array([at])})[0]), said)
    joint = study.laws.get("chinchilla")
    if joint is not None and joint.fit.status is FitStatus.OK:
        n, d = allocation(joint.fit.params, grid)
        loss, name = joint.fit.predict({"N": n, "D": d}), "L(N,D) at its optimum, 6ND = C"
        line = {"color": PALETTE[0], "dash": "dash", "width": 1.5}
        figure.add_scatter(x=grid, y=loss, mode="lines", name=name, line=line)
        found.append(pd.DataFrame({"what": name, "N": n, "D": d, "C": grid, "loss": loss}))
    return found


def _free(grid: Array, computes: pd.Series) -> float:
    """Where along a grid of compute words lie farthest from runs: amid them, or beyond where they leave no room."""
    far = np.abs(np.log(grid)[:, None] - np.log(computes.dropna().unique())).min(axis=1)
    amid = slice(20, 50)
    within = amid if far[amid].max() > WORDS else slice(20, 60)
    return float(grid[within][far[within].argmax()])


def _add_prediction(figure: go.Figure, p: Prediction) -> None:
    """A star, with the interval of a new run; without one it is in the legend alone, for it may lie anywhere."""
    new, error, said = p.interval_new_run, None, "no calibrated interval of a new run"
    if new is not None:
        error = {"type": "data", "symmetric": False, "array": [new[1] - p.loss], "arrayminus": [p.loss - new[0]]}
        said = f"95% of a new run {new[0]:.3f} to {new[1]:.3f}"
    figure.add_scatter(
        x=[p.compute],
        y=[p.loss],
        mode="markers",
        name=f"prediction of {p.name}" if p.name and not p.optimal else "prediction",
        marker={"symbol": "star", "size": 14, "color": PALETTE[1]},
        error_y=error,
        visible=True if new is not None else "legendonly",
        text=[f"prediction {outside(p.decades)} the data<br>loss {p.loss:.3f}<br>{said}"],
        hoverinfo="text",
    )


def _name(figure: go.Figure, p: Prediction, ends: Sequence[float], laws: Sequence[pd.DataFrame]) -> None:
    """A prediction in words, below all lines that come by."""
    inside = " ({:.2f} to {:.2f})".format(*ends)
    lowest = [p.loss, *ends]
    for law in laws:
        at = np.log(law.C), law.filter(["loss", "low95"]).min(axis=1)
        lowest.append(float(np.interp(np.log(p.compute), *at)))
    said = printed(f"{p.loss:.2f}{inside} at {flops(p.compute)}")
    label(figure, p.compute, min(lowest), said, corner="top right")
