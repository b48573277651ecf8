"""Figures 1.2, 1.3 and 3.1 of Brown et al. 2020 from the shipped tables, with forecasts of 175B from smaller sizes."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.accuracy.score_forecast import ACCURACIES, forecast_gpt3
from analysis.reference.tables import gpt3_models, gpt3_scores, loss_of_compute, reference
from dashboards.figures.look import PALETTE
from dashboards.figures.style import MARKERS, Page, axes, printed, shades
from gpt3core.costs import PF_DAY

SETTINGS = ("zero-shot", "one-shot", "few-shot")


def symbol_insertion() -> Page:
    """Figure 1.2: larger models use the examples in their context better."""
    rows, params = reference("gpt3_figure_1_2.csv"), gpt3_models().set_index("model").params
    figure, models = go.Figure(), list(dict.fromkeys(rows.model))
    colors = shades(params[models])
    for i, (model, group) in enumerate(rows.groupby("model", sort=False)):
        group = group.sort_values("K")
        figure.add_scatter(
            x=group.K + 1,
            y=group.accuracy_pct,
            mode="lines+markers",
            name=str(model),
            line={"color": colors[i]},
            marker={"symbol": MARKERS[i % len(MARKERS)]},
        )
    axes(figure, "examples in the context (K)", "accuracy, %")
    shown = sorted(set(rows.K))
    figure.update_xaxes(tickmode="array", tickvals=[k + 1 for k in shown], ticktext=[f"{k}" for k in shown])
    about = "Removing random symbols from words: the points of the figure that table H.1 has, for every size."
    return Page(slug="figure-1-2", title="Figure 1.2: symbol insertion", about=about, figure=figure, rows=rows)


def aggregate() -> Page:
    """Figure 1.3: the mean of 42 accuracies against size, and 175B as forecast from 125M to 13B."""
    wide, _ = gpt3_scores()
    wide = wide[wide.metric.isin(ACCURACIES)]
    models = gpt3_models()
    found = forecast_gpt3()
    found = found[found.metric.isin(ACCURACIES)]
    means = wide.groupby("setting")[list(models.model)].mean().T.loc[list(models.model), list(SETTINGS)]
    figure = go.Figure()
    for i, setting in enumerate(SETTINGS):
        color = PALETTE[i]
        series = wide[wide.setting == setting][list(models.model)].to_numpy(float)
        for row in series:
            line = {"color": color, "width": 0.5}
            figure.add_scatter(
                x=models.params, y=row, mode="lines", line=line, opacity=0.15, showlegend=False, hoverinfo="skip"
            )
        line = {"color": color, "width": 3}
        figure.add_scatter(x=models.params, y=means[setting], mode="lines+markers", name=setting, line=line)
        forecast = float(found[found.setting == setting].predicted.mean())
        marker = {"symbol": "star-open", "size": 15, "color": color}
        figure.add_scatter(
            x=[models.params.iloc[-1]], y=[forecast], mode="markers", name=f"{setting}, forecast", marker=marker
        )
    axes(figure, "N, parameters", "accuracy, mean of 42 benchmarks, %")
    about = (
        "Thin lines are the benchmarks of table H.1 (accuracy or exact match), thick ones their means; stars are the "
        "means of 175B as forecast from the sizes up to 13B."
    )
    rows = means.reset_index().rename(columns={"index": "model"}).assign(params=models.params.to_numpy())
    return Page(slug="figure-1-3", title="Figure 1.3: aggregate performance", about=about, figure=figure, rows=rows)


def figure_3_1() -> Page:
    """Figure 3.1: the frontier of loss against compute, with the eight sizes where the law puts them."""
    models = gpt3_models()
    law = loss_of_compute()["gpt3"]
    rows = models.assign(pf_days=models.train_flops / PF_DAY)
    rows["loss_by_law"] = law.loss(rows.pf_days.to_numpy(float))
    grid = np.geomspace(law.low_pf_days, law.high_pf_days, 60)
    figure = go.Figure()
    figure.add_scatter(
        x=grid,
        y=law.loss(grid),
        mode="lines",
        name=printed(f"L = {law.coefficient:g} C^-{law.exponent:g}"),
        line={"color": "#000", "dash": "dash"},
    )
    marker = {"size": 10, "color": PALETTE[0]}
    figure.add_scatter(
        x=rows.pf_days, y=rows.loss_by_law, mode="markers", name="GPT-3, by the law", marker=marker, text=rows.model
    )
    axes(figure, "compute, PF-days", "validation loss, nats per token", log_y=True)
    about = (
        "The printed law; the paper gives no table of losses, so the sizes stand where the law puts their total "
        "training compute (table D.1)."
    )
    return Page(slug="figure-3-1", title="Figure 3.1: loss against compute", about=about, figure=figure, rows=rows)
