"""L(N), L(D) and L(C): the loss against one quantity where the others do not limit (Kaplan et al. 2020, figure 1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation import uncertainty
from analysis.estimation.fitted_laws import FittedLaw, Observed, observe
from analysis.estimation.solve import FitStatus
from analysis.laws import Array
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures.drawing import (
    Panel,
    arrange,
    in_corner,
    law_line,
    law_points,
    panelled,
    percent_off,
    residuals,
    strip,
)
from dashboards.figures.look import PALETTE
from dashboards.figures.style import LOSS, Page, behind, hover, loss_ticks, of_size
from gpt3core.words import Symbols, flops, number

SLUG, TITLE = "triptych", "Loss against size, data and compute"
LAWS = {"N": "kaplan_n", "D": "kaplan_d", "C": "compute_frontier"}
COLOR = PALETTE[1]
BEYOND = 3.0  # a law is drawn this far beyond the runs, as a factor
HEIGHT = 230  # pixels of a panel


def triptych(study: Study) -> Page:
    """Three panels with the same losses, each with the points that its law was fitted to and what it leaves of them."""
    figure, said, rows, lines = panelled(2 * len(LAWS)), [], [], []
    for i, (variable, name) in enumerate(LAWS.items()):
        found = study.laws.get(name)
        _add_runs(figure, study, variable, 2 * i + 1)
        if found is None:
            said.append(f"L({variable}) was not asked for")
            continue
        seen = observe(found.fit.law, study.table, study.minima, study.options.rho)
        said.append(_words(found, variable))
        if isinstance(seen, Observed) and found.fit.theta is not None:
            lines.append(_add_law(figure, found, variable, seen.data[variable], 2 * i + 1))
            rows.append(_add_points(figure, study, found, variable, seen, 2 * i + 1))
    arrange(figure, _panels(study))
    _same_losses(figure, study)
    about = Symbols(
        "Every run faint, coloured by size; ringed what a law was fitted to: runs that none with less of the quantity "
        "beats, or the minima of the budgets. Lines are the laws with the 95% interval of the mean law (shaded; dotted "
        f"where it is not determined), strips what they leave. {'; '.join(said)}."
    )
    runs = behind(study.everything[study.everything.loss.notna()]).assign(what="run")
    drawn = pd.concat([*(part.assign(what="fitted to") for part in rows), runs, *lines], ignore_index=True)
    fitted = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    measured = tuple(panel for variable in LAWS for panel in ((variable, "loss"), None))
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=drawn, summary=fitted, panels=measured)


def _panels(study: Study) -> list[Panel]:
    titles = {
        "N": f"N, parameters, {LABELS[study.convention.n]}",
        "D": "D, training tokens",
        "C": f"C, {_compute(study)}",
    }
    return [p for t in titles.values() for p in (Panel(x=t, y=LOSS, height=HEIGHT, log_y=True), strip(t))]


def _compute(study: Study) -> str:
    words = LABELS[study.convention.c]
    return words if "FLOPs" in words else f"FLOPs, {words}"


def _same_losses(figure: go.Figure, study: Study) -> None:
    """The panels above the strips share the scale of the losses."""
    loss = study.everything.loss.dropna()
    if len(loss):
        low, high, ticks = np.log10(loss.min()), np.log10(loss.max()), loss_ticks(loss.min(), loss.max())
        room = 0.08 * max(high - low, 0.02)
        for row in range(1, 2 * len(LAWS), 2):
            figure.update_yaxes(range=[low - 2 * room, high + room], tickvals=ticks, row=row, col=1)


def _add_runs(figure: go.Figure, study: Study, variable: str, row: int) -> None:
    """All runs, faint."""
    table = study.everything[study.everything.loss.notna()]
    if table.empty:
        return
    marker = {**of_size(table.N), "color": np.log10(table.N), "size": 6, "opacity": 0.45}
    marker["showscale"] &= row == 1
    marker["colorbar"] |= {"len": 0.2, "y": 1.0, "yanchor": "top"}
    figure.add_scatter(
        x=table[variable],
        y=table.loss,
        mode="markers",
        name="runs",
        marker=marker,
        text=hover(table),
        hoverinfo="text",
        showlegend=False,
        row=row,
        col=1,
    )


def _add_law(figure: go.Figure, found: FittedLaw, variable: str, fitted: Array, row: int) -> pd.DataFrame:
    """Its line with the band, and its name on it; returns the points of both."""
    grid = np.geomspace(fitted.min() / 1.2, fitted.max() * BEYOND, 60)
    law_line(figure, found, variable, grid, color=COLOR, name=f"L({variable})", row=row)
    figure.data[-1].showlegend = False
    in_corner(figure, _short(found, variable), row=row, corner="bottom left", color=COLOR)
    return law_points(found, variable, grid, f"L({variable})")


def _short(found: FittedLaw, variable: str) -> str:
    """The law as a figure prints it."""
    params = found.fit.params
    exponent = params[f"alpha_{variable}"]
    drawn = found.published.get(f"alpha_{variable}")
    inside = f"<br>({' to '.join(f'{v:.3f}' for v in uncertainty.interval(drawn))})" if drawn is not None else ""
    return f"L ~ {variable}<sup>−{exponent:.3f}</sup>{inside}"


def _words(found: FittedLaw, variable: str) -> str:
    """The law in the text below, with its scale and what is wrong with it."""
    fit = found.fit
    if fit.theta is None:
        return f"L({variable}): {fit.status.value} ({fit.reason})"
    scale = number(fit.params[f"{variable}_c"]).replace("e+", "e")
    doubt = f", {fit.status.value}: {fit.reason}" if fit.status is not FitStatus.OK else ""
    exponent = f"{fit.params[f'alpha_{variable}']:.4f}"
    return f"L({variable}) = ({scale} / {variable})^{exponent}, fitted to {found.fitted_to}{doubt}"


def _add_points(
    figure: go.Figure, study: Study, found: FittedLaw, variable: str, seen: Observed, row: int
) -> pd.DataFrame:
    """What the law was fitted to, ringed, and below it what is left; the rows behind both."""
    x, fitted = seen.data[variable], found.fit.predict(seen.data)
    off = percent_off(seen.loss, fitted)
    if seen.runs is None:
        names = [f"minimum at C={flops(p.budget)}" for p in study.minima.used]
        texts = [f"<b>{name}</b><br>loss {y:.4f}" for name, y in zip(names, seen.loss, strict=True)]
    else:
        names, texts = list(seen.runs.run_id.astype(str)), hover(seen.runs)
    ring = {"symbol": "circle-open", "size": 10, "color": COLOR, "line": {"width": 1.5}}
    shown = {"mode": "markers", "marker": ring, "text": texts, "hoverinfo": "text", "showlegend": False}
    figure.add_scatter(x=x, y=seen.loss, name=f"fitted by L({variable})", row=row, col=1, **shown)
    residuals(figure, x, off, ring, [f"{t}<br>{o:+.2f}% of the law" for t, o in zip(texts, off, strict=True)], row + 1)
    return pd.DataFrame(
        {
            "law": f"L({variable})",
            "point": names,
            variable: x,
            "loss": seen.loss,
            "fitted": fitted,
            "residual_percent": off,
        }
    )
