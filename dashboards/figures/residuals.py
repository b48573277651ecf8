"""What a law leaves unexplained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.output.answer import value_of
from analysis.study import Study
from dashboards.figures.drawing import nothing
from dashboards.figures.look import AXIS
from dashboards.figures.style import Page, add_runs, axes, behind
from gpt3core.words import Symbols

SLUG, TITLE = "residuals", "Residuals of L(N,D)"


def residuals(study: Study) -> Page:
    """What L(N,D) = E + A/N^alpha + B/D^beta leaves unexplained."""
    if "chinchilla" not in study.laws:
        return nothing(SLUG, TITLE, "law= names another law than L(N,D)")
    joint, table, figure = study.laws["chinchilla"], study.table, go.Figure()
    fit = joint.fit
    if fit.theta is None:
        return nothing(SLUG, TITLE, f"{fit.law.equation} was not fitted ({fit.reason})")
    predicted = fit.predict({"N": table.N.to_numpy(float), "D": table.D.to_numpy(float)})
    found = pd.DataFrame({"predicted": predicted, "ln_residual": np.log(table.loss / predicted)}, index=table.index)
    add_runs(figure, table, table.D, found.ln_residual)
    figure.add_hline(y=0, line={"color": AXIS, "width": 1})
    axes(figure, "training tokens", "ln measured − ln fitted")
    figure.update_layout(margin={"l": 90})  # of residuals of thousandths
    shown = ", ".join(f"{name} {value_of(joint, name)}" for name in fit.params)
    doubt = f": {fit.reason}" if fit.reason else ""
    about = Symbols(f"{fit.law.equation} with {shown}; {fit.status.value}{doubt}. Patterns here are misfit, not noise.")
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=behind(table).join(found))
