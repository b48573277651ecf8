"""Several sweeps laid over one another: their losses against compute, and the law of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.estimation.fitted_laws import FittedLaw, Observed, observe
from analysis.runs.conventions import LABELS
from analysis.study import Study
from dashboards.figures import published as overlay
from dashboards.figures.drawing import Panel, arrange, label, law_line, panelled, percent_off, residuals, strip
from dashboards.figures.style import LOSS, MARKERS, PALETTE, Page, behind, hover, plain

SLUG, TITLE = "overlaid", "Sweeps over one another"
LAW = "compute_frontier"


def overlaid(studies: Sequence[Study], published: Sequence[str] = ()) -> Page:
    """Every sweep in a colour and a mark of its own, with its law of compute; below, what each law leaves.

    Args:
        studies: one or more, at most as many as there are colours.
        published: results laid over them, of published.PUBLISHED.
    """
    assert 0 < len(studies) <= len(PALETTE), "a sweep has a colour of its own"
    figure, names, rows, said = panelled(2), _names(studies), [], []
    for i, (study, name) in enumerate(zip(studies, names, strict=True)):
        look = {"color": PALETTE[i], "symbol": MARKERS[i], "size": 7}
        _add_runs(figure, study, name, look)
        law = study.laws.get(LAW)
        if law is None or law.fit.theta is None:
            said.append(f"{name} has no law of compute")
        else:
            _add_law(figure, study, law, name, look, i / max(1, len(studies)))
            said.append(f"{name}: L ~ C^-{law.fit.params['alpha_C']:.4f}, {law.fit.status.value}")
        rows.append(behind(study.everything).assign(sweep=study.runs.name))
    overlay.add(figure, published, row=1)
    counted = list(dict.fromkeys(LABELS[study.convention.c] for study in studies))
    compute = f"compute, {' or '.join(counted)}"
    arrange(figure, [Panel(x=compute, y=LOSS, height=400, log_y=True), strip(compute)])
    about = (
        "Every point a run; lines are the laws of compute with the 95% interval of the mean law, fitted to the minima "
        f"of the budgets or to the best runs, which the strip shows. {'; '.join(said)}."
    )
    if len(counted) > 1:
        about += f" Their compute is counted differently ({', '.join(counted)}): give C= to count it alike."
    if published:
        about += f" {overlay.words(published, studies[0])}"
    return Page(slug=SLUG, title=TITLE, about=about, figure=figure, rows=pd.concat(rows, ignore_index=True))


def _names(studies: Sequence[Study]) -> list[str]:
    """As text; with a number where two sweeps are called alike."""
    every = [study.runs.name for study in studies]
    return [plain(n if every.count(n) == 1 else f"{n} ({i})") for i, n in enumerate(every, start=1)]


def _add_runs(figure: go.Figure, study: Study, name: str, look: dict[str, object]) -> None:
    table = study.everything[study.everything.loss.notna()]
    figure.add_scatter(
        x=table["C"],
        y=table.loss,
        mode="markers",
        name=name,
        legendgroup=name,
        marker={**look, "opacity": 0.6},
        text=[f"{name}<br>{text}" for text in hover(table)],
        hoverinfo="text",
        row=1,
        col=1,
    )


def _add_law(figure: go.Figure, study: Study, law: FittedLaw, name: str, look: dict[str, object], place: float) -> None:
    """A sweep's law with its name on it, and what it leaves of the points that it was fitted to."""
    color = str(look["color"])
    highest = max([float(study.everything["C"].max()), *(p.compute for p in study.predictions)])
    grid = np.geomspace(float(study.everything["C"].min()), highest, 60)
    law_line(figure, law, "C", grid, color=color, name=f"law of {name}", row=1)
    figure.data[-1].update(showlegend=False, legendgroup=name)
    at = grid[10 + int(40 * place)]
    label(figure, at, float(law.fit.predict({"C": np.array([at])})[0]), name, row=1, corner="top right", color=color)
    seen = observe(law.fit.law, study.table, study.minima, study.options.rho)
    if isinstance(seen, Observed):
        off = percent_off(seen.loss, law.fit.predict(seen.data))
        texts = [f"{name}<br>C {c:.3g}<br>{o:+.2f}%" for c, o in zip(seen.data["C"], off, strict=True)]
        residuals(figure, seen.data["C"], off, look, texts, 2)
