"""Published losses against compute, to be laid over a figure of one's own: GPT-3, Kaplan et al., Chinchilla."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.reference.tables import gpt3_models, loss_of_compute, reference
from analysis.runs.conventions import LABELS, Compute
from analysis.study import Study
from dashboards.figures.drawing import label, place
from dashboards.figures.look import GREY
from gpt3core.costs import PF_DAY
from gpt3core.errors import UsageError
from gpt3core.hints import nearest

PUBLISHED = ("gpt3", "kaplan", "chinchilla")
DASHES = {"gpt3": "dash", "kaplan": "dot"}
RUNS = "hoffmann2022_runs_234.csv"
OF_SIZES = "GPT-3's sizes, by its law"
POINTS = 60


def check(names: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        UsageError: with the names that are.
    """
    for name in names:
        if name not in PUBLISHED:
            known = ", ".join(PUBLISHED)
            raise UsageError(f"published={name}{nearest(name, PUBLISHED)}: known are {known}")


def add(figure: go.Figure, names: Sequence[str], *, row: int | None = None) -> None:
    """Lay published results over a panel of loss in nats per token against compute in FLOPs, both logarithmic."""
    check(names)
    for name in names:
        if name == "chinchilla":
            _add_runs(figure, row)
        else:
            _add_law(figure, name, row)


def words(names: Sequence[str], study: Study) -> str:
    """What was laid over, in which units, and what may be compared."""
    laws, parts = loss_of_compute(), []
    for name in names:
        if name == "chinchilla":
            parts.append("Chinchilla: 234 runs read off figure 4 of Hoffmann et al. 2022, FLOPs of all parameters")
        else:
            law = laws[name]
            parts.append(f"{law.label}: L = {law.coefficient:.3g} C^-{law.exponent:g} with C in PF-days, {law.counts}")
    own = LABELS[study.convention.c] if study.convention.c is not Compute.EXACT else "all training FLOPs"
    return (
        f"In grey, published: {'; '.join(parts)}. All in FLOPs (a PF-day is 8.64e19; here C counts {own}) and nats per "
        "token of each one's own tokenizer and text: slopes compare, levels do not."
    )


def rows(names: Sequence[str]) -> pd.DataFrame:
    """What was laid over as rows: source, N and D where they are known, C in FLOPs, loss."""
    found, laws = [], loss_of_compute()
    for name in names:
        if name == "chinchilla":
            found.append(reference(RUNS).assign(source="Chinchilla, run"))
            continue
        compute = np.geomspace(laws[name].low_pf_days, laws[name].high_pf_days, POINTS)
        loss = laws[name].loss(compute)
        found.append(pd.DataFrame({"source": f"{laws[name].label}, law", "C": compute * PF_DAY, "loss": loss}))
        found += [_sizes()] if name == "gpt3" else []
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _add_law(figure: go.Figure, name: str, row: int | None) -> None:
    """A printed law over the computes of its figure; GPT-3's sizes where it puts them: no table has their losses."""
    law = loss_of_compute()[name]
    grid = np.geomspace(law.low_pf_days, law.high_pf_days, POINTS)
    loss = law.loss(grid)
    figure.add_scatter(
        x=grid * PF_DAY,
        y=loss,
        mode="lines",
        name=law.label,
        line={"color": GREY, "width": 1.5, "dash": DASHES[name]},
        showlegend=False,
        hovertemplate=f"{law.label}<br>C %{{x:.3g}} FLOPs<br>loss %{{y:.3f}}<extra>{law.where}</extra>",
        **place(row),
    )
    at, corner = (2 * POINTS // 3, "top right") if name == "gpt3" else (POINTS // 6, "bottom left")
    label(figure, grid[at] * PF_DAY, loss[at], law.label, row=row, corner=corner, color=GREY)
    if name == "gpt3":
        sizes = _sizes()
        figure.add_scatter(
            x=sizes["C"],
            y=sizes.loss,
            mode="markers",
            name=OF_SIZES,
            marker={"symbol": "square-open", "size": 8, "color": GREY},
            showlegend=False,
            text=[f"{size}<br>where the law puts it" for size in sizes["size"]],
            hoverinfo="text",
            **place(row),
        )


def _sizes() -> pd.DataFrame:
    """GPT-3's sizes where its law puts them, for no table has their losses."""
    models = gpt3_models()
    loss = loss_of_compute()["gpt3"].loss(models.train_flops.to_numpy(float) / PF_DAY)
    return pd.DataFrame({"source": OF_SIZES, "size": models.model, "C": models.train_flops, "loss": loss})


def _add_runs(figure: go.Figure, row: int | None) -> None:
    """Chinchilla's runs."""
    runs = reference(RUNS)
    figure.add_scatter(
        x=runs["C"],
        y=runs.loss,
        mode="markers",
        name="Chinchilla, 234 runs",
        marker={"symbol": "circle-open", "size": 5, "color": GREY},
        text=[f"Chinchilla<br>N {r.N:.3g}, D {r.D:.3g}<br>loss {r.loss:.3f}" for r in runs.itertuples()],
        hoverinfo="text",
        showlegend=False,
        **place(row),
    )
    compute, loss = runs[["C", "loss"]].to_numpy(float)[int(runs["C"].argmin())]
    label(figure, compute, loss, "Chinchilla", row=row, color=GREY)
