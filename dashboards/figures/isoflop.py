"""Loss against size at each budget, and the sizes and tokens that are best (Hoffmann et al. 2022, figures 2 and 3)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.isoflop import Parabola
from analysis.laws import Array
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures import optimum
from dashboards.figures.drawing import (
    Panel,
    arrange,
    minima_points,
    of_minimum,
    panelled,
    predicted_points,
    residuals,
    strip,
)
from dashboards.figures.style import LOSS, MARKERS, Page, behind, hover, of_runs, printed, shades
from gpt3core.words import flops, number_of


def isoflop(study: Study) -> Page:
    """Loss against size at each budget with the parabola and its minimum, what it leaves, and N*(C) and D*(C) below."""
    table = study.table.set_index("run_id", drop=False)
    sizes, lines = f"N, parameters, {LABELS[study.convention.n]}", optimum.lines(study)
    above = [Panel(x=sizes, y=LOSS, height=330, log_y=True), strip(sizes)] if study.minima.parabolas else []
    figure = panelled(len(above) + 2)
    colors = shades(p.budget for p in study.minima.parabolas)
    for i, p in enumerate(study.minima.parabolas):
        _add_budget(figure, p, table, colors[i], MARKERS[i % len(MARKERS)])
    optimum.add(figure, study, lines, len(above) + 1)
    arrange(figure, [*above, *optimum.panels(study)])
    about, summary = _about(study, lines), behind(study.table)
    return Page(
        slug="isoflop",
        title="IsoFLOP curves",
        about=about,
        figure=figure,
        rows=_rows(study, lines),
        summary=summary,
        panels=(*((("N", "loss"), None) if above else ()), ("C", "N"), ("C", "D")),
    )


def _rows(study: Study, lines: list[optimum.Line]) -> pd.DataFrame:
    """The points drawn: runs of the budgets with their residuals, parabolas, minima, N* and D*, predictions."""
    runs, found = study.table.set_index("run_id", drop=False), []
    for p in study.minima.parabolas:
        own = behind(runs.loc[p.run_ids]).assign(what="run")
        far = behind(runs.loc[p.far]).assign(what="run, not fitted")
        if p.coefficients is not None and p.residuals is not None:
            off = dict(zip(p.run_ids, 100 * np.expm1(p.residuals), strict=True))
            own["residual_percent"] = own.run_id.map(off)
            sizes, loss = _curve(p, runs.loc[p.run_ids])
            far = pd.concat([far, pd.DataFrame({"what": "parabola", "N": sizes, "loss": loss})])
        found += [own.assign(budget=p.budget), far.assign(budget=p.budget)]
    found.append(minima_points(study))
    found += [line.points.assign(what=f"N*, D* by approach {line.approach}") for line in lines]
    best = predicted_points([p for p in study.predictions if p.optimal])
    return pd.concat([*found, best], ignore_index=True)


def _curve(p: Parabola, runs: pd.DataFrame) -> tuple[Array, Array]:
    """Sizes across those of a budget's runs, and the losses of its parabola there."""
    assert p.coefficients is not None
    grid = np.geomspace(runs["N"].min(), runs["N"].max(), 60)
    return grid, np.exp(np.polyval(p.coefficients, np.log(grid)))


def _about(study: Study, lines: list[optimum.Line]) -> str:
    if not study.minima.parabolas:
        return "No profiles: no three sizes of these runs share a compute. " + (
            "N* and D* are by the laws." if lines else "Nothing to draw: no law gives N* either."
        )
    said = (
        "One colour a budget, lighter with compute; stars are the minima of the parabolas; open circles stay out of "
        "them by the rule near; the strip is what the parabolas leave. Below, the sizes and tokens that are best: "
        "points are the minima, bars and bands 95% intervals, diamonds what is predicted."
    )
    if not any(line.approach == "2" for line in lines):
        said += (
            f" {len(study.minima.used)} budgets have a minimum inside their sizes: no line of approach 2 is trusted."
        )
    tests = study.minima.held_out
    if len(tests):
        off = float(np.expm1(np.median(np.abs(np.log(tests.measured / tests.predicted)))))
        said += f" N* of budgets held out was missed by {off:.0%} in the median of {number_of(len(tests), 'test')}."
    return said


def _add_budget(figure: go.Figure, p: Parabola, table: pd.DataFrame, color: str, marker: str) -> None:
    """One budget's runs, its parabola with what it leaves, and its minimum."""
    name = printed(f"C = {flops(p.budget)}")
    for ids, symbol, title in ((p.run_ids, marker, name), (p.far, "circle-open", f"{name}, not fitted")):
        rows = table.loc[ids].sort_values("N")
        if len(rows):
            figure.add_scatter(
                x=rows["N"],
                y=rows.loss,
                mode="markers",
                name=title,
                marker={"symbol": symbol, "color": color, "size": 9},
                **of_runs(rows),
                legendgroup=name,
                row=1,
                col=1,
            )
    if p.coefficients is not None:
        _add_parabola(figure, p, table.loc[p.run_ids], {"symbol": marker, "color": color, "size": 7})
    if p.ok:
        figure.add_scatter(
            x=[p.n_star],
            y=[p.loss_star],
            mode="markers",
            marker={"symbol": "star", "size": 13, "color": color, "line": {"width": 1, "color": "#000"}},
            showlegend=False,
            text=[of_minimum(p)],
            hoverinfo="text",
            legendgroup=name,
            row=1,
            col=1,
        )


def _add_parabola(figure: go.Figure, p: Parabola, runs: pd.DataFrame, marker: dict[str, object]) -> None:
    """The curve through a budget's runs, and in the strip what it leaves."""
    assert p.coefficients is not None and p.residuals is not None
    grid, loss = _curve(p, runs)
    figure.add_scatter(
        x=grid,
        y=loss,
        mode="lines",
        line={"color": marker["color"], "width": 1.5},
        showlegend=False,
        hoverinfo="skip",
        legendgroup=printed(f"C = {flops(p.budget)}"),
        row=1,
        col=1,
    )
    off = 100 * np.expm1(p.residuals)
    text = [f"{t}<br>{o:+.2f}%" for t, o in zip(hover(runs), off, strict=True)]
    residuals(figure, runs["N"].to_numpy(float), off, marker, text, 2)
