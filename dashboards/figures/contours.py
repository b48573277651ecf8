"""Lines of equal loss of L(N,D) over compute and size, with the efficient frontier (Hoffmann et al. 2022, figure 4)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation import uncertainty
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.solve import FitStatus
from analysis.laws import Array
from analysis.output.answer import value_of
from analysis.output.texts import shared
from analysis.runs.conventions import LABELS
from analysis.runs.ratio import per_6nd, tokens
from analysis.study import Study
from dashboards.figures.drawing import Panel, arrange, band, in_corner, nothing, panelled, percent_off, residuals, strip
from dashboards.figures.look import PALETTE
from dashboards.figures.optimum import BY_LAW, by_law
from dashboards.figures.style import Page, behind, hover, scale, spelt
from gpt3core.words import Symbols, count, span

SLUG, TITLE = "contours", "Lines of equal loss"
POINTS = 80  # of the grid, each way
LEVELS = 16  # lines at most
COLOR = PALETTE[1]


def contours(study: Study) -> Page:
    """Isoloss lines by L(N,D), the runs on them, the frontier with its band; below, what the law leaves."""
    joint = study.laws.get("chinchilla")
    if joint is None:
        return nothing(SLUG, TITLE, "law= names another law than L(N,D)")
    if joint.fit.theta is None:
        return nothing(SLUG, TITLE, f"L(N,D) was not fitted ({joint.fit.reason})")
    table = study.table
    figure, (compute, sizes, best) = panelled(2), _grid(study, joint)
    n, c = np.meshgrid(sizes, compute, indexing="ij")
    d = tokens(per_6nd(table), np.log(n.ravel()), c.ravel())
    loss = joint.fit.predict({"N": n.ravel(), "D": d}).reshape(n.shape)
    _add_contours(figure, compute, sizes, loss, table)
    _add_frontier(figure, joint, best)
    fitted = joint.fit.predict({"N": table.N.to_numpy(float), "D": table.D.to_numpy(float)})
    off = percent_off(table.loss.to_numpy(float), fitted)
    _add_runs(figure, table, off)
    where = f"C, {LABELS[study.convention.c]}"
    above = Panel(x=where, y=f"N, parameters, {LABELS[study.convention.n]}", height=440, log_y=True)
    arrange(figure, [above, strip(where)])
    low, high = np.log10(sizes[[0, -1]])
    figure.update_yaxes(
        range=[low, high], tickformat="", exponentformat="power", dtick="D2" if high - low > 1 else None, row=1, col=1
    )
    runs = behind(table).join(pd.DataFrame({"fitted": fitted, "residual_percent": off}, index=table.index))
    line = best[["C", "N", "N_low", "N_high"]].dropna(subset="N").assign(what="efficient frontier")
    surface = pd.DataFrame({"what": "surface", "N": n.ravel(), "D": d, "C": c.ravel(), "loss": loss.ravel()})
    rows = pd.concat([runs.assign(what="run"), line, surface], ignore_index=True)
    of = (("C", "N"), None)
    return Page(slug=SLUG, title=TITLE, about=_about(joint), figure=figure, rows=rows, summary=runs, panels=of)


def _about(joint: FittedLaw) -> str:
    fit = joint.fit
    shown = ", ".join(f"{name} {value_of(joint, name, 4)}" for name in fit.params)
    doubt = "" if fit.status is FitStatus.OK else f" The law is {fit.status.value}: {fit.reason}."
    return Symbols(
        f"Lines of equal loss, nats per token, by {fit.law.equation} ({shown}); runs in the colour of their measured "
        "loss, so that a run off its line is a miss, as in the strip below. Thick: the size that is best at each "
        f"compute, with its 95% interval under resampled runs.{doubt}"
    )


def _grid(study: Study, joint: FittedLaw) -> tuple[Array, Array, pd.DataFrame]:
    """Computes and sizes of the lines, those of the runs and of what is predicted and a little more; the frontier."""
    table, predicted = study.table, [p for p in study.predictions if p.optimal]
    highest = max([table.C.max(), *(p.compute for p in predicted)]) * 1.2
    compute = np.geomspace(table.C.min() / 1.5, highest, POINTS)
    best = by_law(joint, table, np.geomspace(compute[0], highest, BY_LAW))
    sizes = [table.N.max(), *(p.n for p in predicted), *best.N.dropna()]
    return compute, np.geomspace(table.N.min() / 1.5, min(max(sizes), table.N.max() * 100) * 1.5, POINTS), best


def _add_contours(figure: go.Figure, compute: Array, sizes: Array, loss: Array, table: pd.DataFrame) -> None:
    """The lines, labelled, from the lowest loss on the grid to the highest that was measured."""
    low, high = float(loss.min()), float(table.loss.max())
    step = max(high - low, 0.01) / LEVELS
    unit = 10 ** np.floor(np.log10(step))
    step = unit * next(round_ for round_ in (1, 2, 5, 10) if round_ * unit >= step)
    first = step * np.ceil(low / step)
    figure.add_contour(
        x=compute,
        y=sizes,
        z=loss,
        contours={
            "coloring": "lines",
            "showlabels": True,
            "labelfont": {"size": 11},
            "labelformat": ".2f",
            "start": first,
            "end": high,
            "size": step,
        },
        line={"width": 1.2},
        zmin=low,
        zmax=high,
        colorscale=scale(),
        showscale=False,
        hovertemplate="C %{x:.2e} FLOPs<br>N %{y:.2e}<br>loss by the law %{z:.3f}<extra></extra>",
        name="loss by L(N,D)",
        row=1,
        col=1,
    )


def _add_frontier(figure: go.Figure, joint: FittedLaw, best: pd.DataFrame) -> None:
    """N*(C) with its band and its name; nothing where the law has no optimum."""
    best = best[best.N.notna()]
    if best.empty or not np.isfinite(joint.a_and_b[0]):
        return
    compute, n_star = best["C"].to_numpy(float), best.N.to_numpy(float)
    if joint.fit.status is FitStatus.OK:
        band(figure, compute, best.N_low.to_numpy(float), best.N_high.to_numpy(float), COLOR, row=1)
    figure.add_scatter(
        x=compute,
        y=n_star,
        mode="lines",
        name="efficient frontier",
        line={"color": COLOR, "width": 3},
        showlegend=False,
        text=[f"{c}<br>N* {count(best)}" for c, best in zip(spelt("C", compute), n_star, strict=True)],
        hovertemplate="%{text}<extra>efficient frontier</extra>",
        row=1,
        col=1,
    )
    sure = joint.fit.status is FitStatus.OK and len(joint.a_draws)
    said = f" ({span(uncertainty.interval(joint.a_draws), 2)})" if sure else ""
    text = f"N* ~ C<sup>{joint.a_and_b[0]:.2f}</sup>{said}"
    in_corner(figure, text, row=1, corner="top left", color=COLOR)


def _add_runs(figure: go.Figure, table: pd.DataFrame, off: Array) -> None:
    """The runs where they lie, and in the strip by how much the law misses them."""
    low, high = figure.data[0].zmin, figure.data[0].zmax
    marker = {"color": table.loss, "colorscale": scale(), "cmin": low, "cmax": high, "size": 8}
    marker |= {"line": {"width": 1, "color": "#ffffff"}}
    texts = shared(f"{t}<br>{o:+.2f}% of L(N,D)" for t, o in zip(hover(table), off, strict=True))
    figure.add_scatter(
        x=table["C"],
        y=table.N,
        mode="markers",
        name="runs",
        marker=marker,
        text=texts,
        hoverinfo="text",
        showlegend=False,
        row=1,
        col=1,
    )
    residuals(figure, table["C"].to_numpy(float), off, {**marker, "size": 7}, texts, 2)
