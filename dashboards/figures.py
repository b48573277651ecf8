"""Figures: pure functions from a study to a page (a plotly figure and the rows behind it)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.study import Study
from dashboards.accuracy import accuracy_compute, accuracy_shots
from dashboards.style import LOSS, MARKERS, PALETTE, Page, axes, by_size, hover

CURVE_POINTS = 400
BEHIND = [
    "run_id",
    "size",
    "params_nonembedding",
    "params_total",
    "tokens",
    "flops_model",
    "flops_6nd",
    "seed",
    "loss",
    "loss_se",
    "epochs",
]


def frontier(study: Study) -> Page:
    """Loss against compute, the minima of the budgets, and the fitted laws carried to ten times the largest budget."""
    c = study.compute_column
    table = study.runs.table
    figure = go.Figure()
    for i, size in enumerate(by_size(table)):
        rows = table[table["size"] == size].sort_values(c)
        marker = {"symbol": MARKERS[i % len(MARKERS)], "color": PALETTE[i % len(PALETTE)], "size": 7, "opacity": 0.6}
        figure.add_scatter(
            x=rows[c], y=rows.loss, mode="markers", name=size, marker=marker, text=hover(rows), hoverinfo="text"
        )
    used = study.minima.used
    if used:
        best = [p.budget for p in used]
        text = [f"minimum at C={p.budget:.3g}<br>N* {p.n_star:.3g}<br>L* {p.loss_star:.4f}" for p in used]
        marker = {"symbol": "circle-open", "size": 14, "color": "#000000", "line": {"width": 2}}
        figure.add_scatter(
            x=best,
            y=[p.loss_star for p in used],
            mode="markers",
            name="IsoFLOP minimum",
            marker=marker,
            text=text,
            hoverinfo="text",
        )
        _law_lines(figure, study, min(best))
    axes(figure, "compute, " + {"flops_model": "exact training FLOPs", "flops_6nd": "6ND"}[c], LOSS, log_y=True)
    about = (
        "Each point a run. Rings are the minima of the IsoFLOP parabolas; lines are the laws through them, bars "
        "what a new run would reach."
    )
    if not used:
        about = "Each point a run. No budget has a minimum inside its sizes, so there is no law to draw."
    return Page(slug="frontier", title="Loss against compute", about=about, figure=figure, rows=table[BEHIND])


def _law_lines(figure: go.Figure, study: Study, lowest: float) -> None:
    highest = max([p.compute for p in study.predictions], default=lowest)
    grid = np.geomspace(lowest / 1.5, highest, 80)
    for law, dash, color in ((study.frontier, "solid", "#000000"), (study.floored, "dot", "#777777")):
        if law.fit.theta is None:
            continue
        label = "power law" if law is study.frontier else "with irreducible E"
        doubt = "" if law.fit.status.value == "ok" else f" ({law.fit.status.value})"
        figure.add_scatter(
            x=grid,
            y=law.fit.loss({"C": grid}),
            mode="lines",
            name=f"{label}: alpha_C {law.fit.params['alpha_C']:.4f}{doubt}",
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"{law.fit.law.equation}<br>C %{{x:.3g}}<br>loss %{{y:.3f}}<extra></extra>",
        )
        if law is study.frontier and law.draws is not None:
            band = np.exp(law.fit.law.log_loss(law.draws, {"C": grid})[0])
            low, high = np.quantile(band, [0.025, 0.975], axis=0)
            outline = np.concatenate([grid, grid[::-1]])
            figure.add_scatter(
                x=outline,
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                mode="lines",
                line={"width": 0},
                fillcolor="rgba(0,0,0,0.12)",
                name="95% of the mean law",
                hoverinfo="skip",
            )
    for p in study.predictions:
        if p.law != study.frontier.fit.law.name:
            continue
        new = p.interval_new_run
        error = (
            {"type": "data", "symmetric": False, "array": [new[1] - p.loss], "arrayminus": [p.loss - new[0]]}
            if new
            else None
        )
        text = f"prediction {p.decades:.1f} decades beyond the data<br>loss {p.loss:.3f}" + (
            f"<br>95% of a new run {new[0]:.3f} to {new[1]:.3f}" if new else "<br>no calibrated interval of a new run"
        )
        marker = {"symbol": "star", "size": 14, "color": "#D55E00"}
        figure.add_scatter(
            x=[p.compute],
            y=[p.loss],
            mode="markers",
            name="prediction",
            marker=marker,
            error_y=error,
            text=[text],
            hoverinfo="text",
        )


def isoflop(study: Study) -> Page:
    """Loss against size at each budget, with the parabola and its minimum."""
    n = study.size_column
    table = study.table.set_index("run_id", drop=False)
    figure = go.Figure()
    for i, p in enumerate(study.minima.parabolas):
        color, name = PALETTE[i % len(PALETTE)], f"C = {p.budget:.2e}"
        for ids, symbol, label in (
            (p.run_ids, MARKERS[i % len(MARKERS)], name),
            (p.far, "circle-open", f"{name}, not fitted"),
        ):
            rows = table.loc[ids].sort_values(n)
            if len(rows):
                marker = {"symbol": symbol, "color": color, "size": 9}
                figure.add_scatter(
                    x=rows[n],
                    y=rows.loss,
                    mode="markers",
                    name=label,
                    marker=marker,
                    text=hover(rows),
                    hoverinfo="text",
                    legendgroup=name,
                )
        if p.coefficients is not None:
            sizes = table.loc[p.run_ids][n].astype(float)
            grid = np.geomspace(sizes.min(), sizes.max(), 60)
            curve = np.exp(np.polyval(p.coefficients, np.log(grid)))
            line = {"color": color, "width": 1.5}
            figure.add_scatter(
                x=grid, y=curve, mode="lines", line=line, showlegend=False, hoverinfo="skip", legendgroup=name
            )
        if p.ok:
            marker = {"symbol": "star", "size": 13, "color": color, "line": {"width": 1, "color": "#000"}}
            text = f"minimum at {name}<br>N* {p.n_star:.3g}<br>L* {p.loss_star:.4f}"
            figure.add_scatter(
                x=[p.n_star],
                y=[p.loss_star],
                mode="markers",
                marker=marker,
                showlegend=False,
                text=[text],
                hoverinfo="text",
                legendgroup=name,
            )
    axes(figure, f"parameters, {study.options.size}", LOSS, log_y=True)
    exponent = study.minima.exponent
    law = (
        f" N* grows as C^{exponent:.2f} ({study.options.size}, C {study.options.compute})."
        if math.isfinite(exponent)
        else ""
    )
    about = (
        f"One colour a budget; stars are the minima of the parabolas; open circles stay out of them by the rule "
        f"near.{law}"
    )
    return Page(slug="isoflop", title="IsoFLOP curves", about=about, figure=figure, rows=study.table[BEHIND])


def curves(study: Study) -> Page:
    """Training loss against tokens, thinned for display; first, last and lowest points are kept."""
    figure = go.Figure()
    table = study.runs.table.sort_values(["params_nonembedding", "flops_model"])
    order = {size: i for i, size in enumerate(by_size(table))}
    for run in table.itertuples():
        run_id, size = str(run.run_id), str(run.size)
        thin = thinned(study.runs.curve(run_id))
        color = PALETTE[order[size] % len(PALETTE)]
        template = f"<b>{run_id}</b><br>%{{x:,}} tokens<br>training loss %{{y:.3f}}<extra></extra>"
        line = {"color": color, "width": 1.2}
        figure.add_scatter(
            x=thin.tokens,
            y=thin.loss,
            mode="lines",
            name=run_id,
            line=line,
            hovertemplate=template,
            legendgroup=size,
        )
    axes(figure, "training tokens", "training loss, nats per token", log_y=True)
    about = (
        f"One line a run, coloured by size, smoothed over neighbouring batches to at most {CURVE_POINTS} points; "
        f"the files hold every step."
    )
    return Page(slug="curves", title="Loss curves", about=about, figure=figure, rows=study.runs.table[BEHIND])


def thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean loss in buckets of equal width in ln(step): as even on a log axis as on a linear one."""
    if len(curve) <= CURVE_POINTS:
        return curve[["tokens", "loss"]]
    edges = np.unique(np.round(np.geomspace(1, len(curve) + 1, CURVE_POINTS)).astype(int))
    bucket = np.searchsorted(edges, np.arange(1, len(curve) + 1), side="right")
    return curve.groupby(bucket).agg(tokens=("tokens", "max"), loss=("loss", "mean"))


def residuals(study: Study) -> Page:
    """What L(N,D) = E + A/N^alpha + B/D^beta leaves unexplained."""
    figure = go.Figure()
    fit = study.chinchilla.fit
    table = study.table
    rows = table[BEHIND]
    if fit.theta is not None:
        data = {"N": table[study.size_column].to_numpy(float), "D": table.tokens.to_numpy(float)}
        residual = np.log(table.loss.to_numpy(float) / fit.loss(data))
        rows = rows.assign(predicted=fit.loss(data), ln_residual=residual)
        for i, size in enumerate(by_size(table)):
            mask = (table["size"] == size).to_numpy()
            marker = {"symbol": MARKERS[i % len(MARKERS)], "color": PALETTE[i % len(PALETTE)], "size": 9}
            figure.add_scatter(
                x=table.tokens[mask],
                y=residual[mask],
                mode="markers",
                name=size,
                marker=marker,
                text=hover(table[mask]),
                hoverinfo="text",
            )
        figure.add_hline(y=0, line={"color": "#888", "width": 1})
        shown = ", ".join(f"{name} {value:.3g}" for name, value in fit.params.items())
        about = (
            f"{fit.law.equation} with {shown}: {fit.status.value}{' - ' + fit.reason if fit.reason else ''}. "
            f"Patterns here are misfit, not noise."
        )
    else:
        about = f"{fit.law.equation} was not fitted: {fit.reason}."
    axes(figure, "training tokens", "ln measured - ln fitted")
    return Page(slug="residuals", title="Residuals of L(N,D)", about=about, figure=figure, rows=rows)


PAGES: dict[str, Callable[[Study], Page]] = {
    "frontier": frontier,
    "isoflop": isoflop,
    "curves": curves,
    "residuals": residuals,
    "accuracy-compute": accuracy_compute,
    "accuracy-shots": accuracy_shots,
}


def pages(study: Study) -> list[Page]:
    """All figures of a study."""
    return [make(study) for make in PAGES.values()]
