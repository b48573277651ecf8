"""What a law leaves unexplained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.solve import Fit, FitStatus
from analysis.laws import CHINCHILLA
from analysis.study import Study
from dashboards.figures.look import AXIS
from dashboards.figures.style import Page, add_runs, axes, behind
from gpt3core.words import Symbols


def residuals(study: Study) -> Page:
    """What L(N,D) = E + A/N^alpha + B/D^beta leaves unexplained."""
    figure = go.Figure()
    fit = (
        study.laws["chinchilla"].fit
        if "chinchilla" in study.laws
        else Fit(law=CHINCHILLA, status=FitStatus.NOT_APPLICABLE)
    )
    table = study.table
    rows = behind(table)
    if fit.theta is not None:
        predicted = fit.predict({"N": table.N.to_numpy(float), "D": table.D.to_numpy(float)})
        found = pd.DataFrame({"predicted": predicted, "ln_residual": np.log(table.loss / predicted)}, index=table.index)
        rows = rows.join(found)
        add_runs(figure, table, table.D, found.ln_residual)
        figure.add_hline(y=0, line={"color": AXIS, "width": 1})
        shown = ", ".join(f"{name} {value:.3g}" for name, value in fit.params.items())
        about = Symbols(
            f"{fit.law.equation} with {shown}: {fit.status.value}{' - ' + fit.reason if fit.reason else ''}. "
            f"Patterns here are misfit, not noise."
        )
    else:
        about = Symbols(f"{fit.law.equation} was not fitted: {fit.reason}.")
    axes(figure, "training tokens", "ln measured − ln fitted")
    return Page(slug="residuals", title="Residuals of L(N,D)", about=about, figure=figure, rows=rows)
