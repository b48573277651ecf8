"""Figures: pure functions from a study to a page (a plotly figure and the rows behind it)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.conventions import LABELS
from analysis.laws import CHINCHILLA, allocation
from analysis.solve import Fit, FitStatus
from analysis.study import Study
from dashboards.accuracy import accuracy_compute, accuracy_shots
from dashboards.style import LOSS, MARKERS, PALETTE, Page, add_runs, axes, by_size, hover

CURVE_POINTS = 400
BEHIND = ["run_id", "size", "N", "D", "C", "U", "epochs", "seed", "loss", "loss_se"]


def _behind(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in BEHIND if name in table]]


def frontier(study: Study) -> Page:
    """Loss against compute, the minima of the budgets, and the fitted laws carried to ten times the largest budget."""
    c = "C"
    table = study.everything
    figure = go.Figure()
    add_runs(figure, table, table[c], table.loss)
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
    _law_lines(figure, study, float(table.C.min()))
    axes(figure, f"compute, {LABELS[study.compute]}", LOSS, log_y=True)
    about = (
        "Each point a run. Rings are the minima of the IsoFLOP parabolas; lines are the laws through them, bars "
        "what a new run would reach."
    )
    if not used:
        about = (
            "Each point a run. No budget has a minimum inside its sizes: the laws go through the best runs, bars are "
            "what a new run would reach."
        )
    return Page(slug="frontier", title="Loss against compute", about=about, figure=figure, rows=_behind(table))


def _law_lines(figure: go.Figure, study: Study, lowest: float) -> None:
    highest = max([p.compute for p in study.predictions], default=lowest)
    grid = np.geomspace(lowest / 1.5, highest, 80)
    for name, dash, color in (
        ("compute_frontier", "solid", "#000000"),
        ("compute_frontier_irreducible", "dot", "#777777"),
    ):
        law = study.laws.get(name)
        if law is None or law.fit.theta is None:
            continue
        label = "power law" if name == "compute_frontier" else "with irreducible E"
        doubt = "" if law.fit.status.value == "ok" else f" ({law.fit.status.value})"
        figure.add_scatter(
            x=grid,
            y=law.fit.predict({"C": grid}),
            mode="lines",
            name=f"{label}: alpha_C {law.fit.params['alpha_C']:.4f}{doubt}",
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"{law.fit.law.equation}<br>C %{{x:.3g}}<br>loss %{{y:.3f}}<extra></extra>",
        )
        if name == "compute_frontier" and law.draws is not None:
            band = np.exp(law.fit.law.on({"C": grid})(law.draws)[0])
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
    joint = study.laws.get("chinchilla")
    if joint is not None and joint.fit.status is FitStatus.OK:
        n, d = allocation(joint.fit.params, grid)
        if np.all(np.isfinite(n)):
            figure.add_scatter(
                x=grid,
                y=joint.fit.predict({"N": n, "D": d}),
                mode="lines",
                name="L(N,D) at its optimum, 6ND = C",
                line={"color": "#0072B2", "dash": "dash", "width": 1.5},
            )
    for p in study.predictions:
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
    n = "N"
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
    axes(figure, f"parameters, {LABELS[study.size]}", LOSS, log_y=True)
    exponent = study.minima.exponent
    law = (
        f" N* grows as C^{exponent:.2f} (N {LABELS[study.size]}, C {LABELS[study.compute]})."
        if math.isfinite(exponent)
        else ""
    )
    about = (
        f"One colour a budget; stars are the minima of the parabolas; open circles stay out of them by the rule "
        f"near.{law}"
    )
    return Page(slug="isoflop", title="IsoFLOP curves", about=about, figure=figure, rows=_behind(study.table))


def curves(study: Study) -> Page:
    """Training loss against tokens, thinned for display; first, last and lowest points are kept."""
    figure = go.Figure()
    table = study.everything.sort_values(["N", "C"])
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
    return Page(slug="curves", title="Loss curves", about=about, figure=figure, rows=_behind(study.everything))


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
    fit = (
        study.laws["chinchilla"].fit
        if "chinchilla" in study.laws
        else Fit(law=CHINCHILLA, status=FitStatus.NOT_APPLICABLE)
    )
    table = study.table
    rows = _behind(table)
    if fit.theta is not None:
        predicted = fit.predict({"N": table.N.to_numpy(float), "D": table.D.to_numpy(float)})
        residual = np.log(table.loss.to_numpy(float) / predicted)
        rows = rows.assign(predicted=predicted, ln_residual=residual)
        add_runs(figure, table, table.D, pd.Series(residual, index=table.index))
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


OF_STORES = ("curves", "accuracy-compute", "accuracy-shots")


def pages(study: Study) -> list[Page]:
    """All figures of a study; a table of finished runs has no curves and no evaluations."""
    return [make(study) for slug, make in PAGES.items() if study.runs.store or slug not in OF_STORES]
