"""Published results over a figure of one's own: sizes, runs and laws of GPT-3, Kaplan et al. and Chinchilla."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.laws import Array
from analysis.reference.tables import gpt3_models, loss_of_compute, reference
from analysis.runs.conventions import LABELS, Compute
from analysis.study import Study
from dashboards.figures import drawing
from dashboards.figures.frontier import frontier
from dashboards.figures.look import GREY
from dashboards.figures.packed import opened
from dashboards.figures.style import LOSS, Page, log_ticks, visible
from gpt3core.costs import PF_DAY
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.words import count, powers

SLUG = "published"  # of the page of its own
PUBLISHED = ("gpt3", "kaplan", "chinchilla")
RUNS, RUNS_OF = "hoffmann2022_runs_234.csv", "Chinchilla"
OF_SIZES = "GPT-3's sizes, by its law"
POINTS = 60  # of a law
ROOM = 0.3  # decades beside what is drawn
NOTHING = "No published result has the quantities of this figure: nothing is laid over it."
LINE, MARKER = {"color": GREY, "width": 1.5}, {"color": GREY, "size": 8}
LOOKS: dict[str, dict[str, Any]] = {
    "GPT-3": {"mode": "lines", "line": {**LINE, "dash": "dash"}},
    "Kaplan et al.": {"mode": "lines", "line": {**LINE, "dash": "dot"}},
    OF_SIZES: {"mode": "markers", "marker": {**MARKER, "symbol": "square-open"}},
    RUNS_OF: {"mode": "markers", "marker": {**MARKER, "symbol": "circle-open", "size": 5}},
}
# where along what is drawn its name stands, and the corner of the name that touches it there
NAMED = {
    "GPT-3": (0.67, "top", "right"),
    "Kaplan et al.": (0.17, "bottom", "left"),
    OF_SIZES: (1.0, "bottom", "right"),
    RUNS_OF: (0.0, "top", "right"),
}
BESIDE_LAWS = {**NAMED, RUNS_OF: (0.0, "bottom", "left")}  # which pass below the runs


def over(page: Page, study: Study, names: Sequence[str] = PUBLISHED) -> Page:
    """A figure with published results in every panel of which they have both quantities.

    Raises:
        UsageError: for a name that is not known.
    """
    known, figure = rows(names), opened(page.figure)
    if page.slug == SLUG:
        return page
    if not any(page.panels):
        return replace(page, about=_said(page, NOTHING))
    _into_corner(figure)
    for place, panel in enumerate(page.panels, start=1):
        if panel is not None:
            _lay(figure, known, panel, str(place) if place > 1 else "")
    drawn = pd.concat([page.rows.assign(source=study.runs.name), known], ignore_index=True)
    return replace(page, figure=figure, rows=drawn, about=_said(page, _words(names, study)))


def _into_corner(figure: go.Figure) -> None:
    """What stands left of its point would leave a phone's panel once that reaches far to the right."""
    beside = [note for note in figure.layout.annotations if note.xref in (None, "x") and note.xanchor == "right"]
    for line, note in enumerate(reversed(beside)):
        corner = {
            "x": 0.01,
            "y": 0.04,
            "xanchor": "left",
            "yanchor": "bottom",
            "xshift": 0,
            "yshift": drawing.LINE * line,
        }
        note.update(xref="x domain", yref="y domain", **corner)


def _said(page: Page, more: str) -> str:
    """What a page says, and more."""
    return type(page.about)(f"{page.about} {more}")


def beside_published(study: Study) -> Page:
    """Loss against compute, a page of its own."""
    return replace(over(frontier(study), study), slug=SLUG, title="Beside published results")


def rows(names: Sequence[str] = PUBLISHED) -> pd.DataFrame:
    """What was published: source, size, N, D and C in FLOPs where they are known, loss.

    Raises:
        UsageError: for a name that is not known.
    """
    found, laws = [], loss_of_compute()
    for name in names:
        if name not in PUBLISHED:
            known = ", ".join(PUBLISHED)
            raise UsageError(f"published={name}{nearest(name, PUBLISHED)}: known are {known}")
        if name == "chinchilla":
            found.append(reference(RUNS).assign(source=RUNS_OF))
            continue
        law = laws[name]
        compute = np.geomspace(law.low_pf_days, law.high_pf_days, POINTS)
        found.append(pd.DataFrame({"source": law.label, "C": compute * PF_DAY, "loss": law.loss(compute)}))
        found += [_sizes()] if name == "gpt3" else []
    return pd.concat(found, ignore_index=True).reindex(columns=["source", "size", "N", "D", "C", "loss"])


def _sizes() -> pd.DataFrame:
    """GPT-3's sizes, their losses where its law puts them: no table has these."""
    models = gpt3_models()
    loss = loss_of_compute()["gpt3"].loss(models.train_flops.to_numpy(float) / PF_DAY)
    known = {"size": models.model, "N": models.params, "D": models.train_tokens, "C": models.train_flops}
    return pd.DataFrame({"source": OF_SIZES, **known, "loss": loss})


def _words(names: Sequence[str], study: Study) -> str:
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


def _lay(figure: go.Figure, known: pd.DataFrame, panel: tuple[str, str], place: str) -> None:
    """What is known of both quantities of a panel, whose axes are logarithmic and have that number."""
    x, y = panel
    there = known.dropna(subset=[x, y])
    sources = list(dict.fromkeys(there.source))
    named = BESIDE_LAWS if "GPT-3" in sources else NAMED
    for source in sources:
        points = there[there.source == source].sort_values(x)
        figure.add_scatter(
            x=points[x],
            y=points[y],
            name=source,
            showlegend=False,
            text=[_hover(row) for row in points.to_dict("records")],
            hoverinfo="text",
            xaxis=f"x{place}",
            yaxis=f"y{place}",
            **LOOKS[source],
        )
        if not (source == OF_SIZES and "GPT-3" in sources):  # they lie on its law, which has the name
            _name(figure, source, points[[x, y]].to_numpy(float), named[source], place)
    _widen(figure, place, of_loss=y == "loss")


def _hover(row: dict[Any, Any]) -> str:
    size = f", {row['size']}" if isinstance(row["size"], str) else ""
    spelt = (("N", count), ("D", count), ("C", powers))
    parts = [f"{name} {spell(row[name])}" for name, spell in spelt if row[name] == row[name]]
    return f"<b>{row['source']}</b>{size}<br>{', '.join(parts)}<br>loss {row['loss']:.3f}"


def _name(figure: go.Figure, source: str, points: Array, where: tuple[float, str, str], place: str) -> None:
    """The name of what is drawn, at one of its points (n, 2)."""
    share, y_anchor, x_anchor = where
    x, y = np.log10(points[int(share * (len(points) - 1))])
    figure.add_annotation(
        x=x,
        y=y,
        xref=f"x{place}",
        yref=f"y{place}",
        text=source.partition(",")[0],
        showarrow=False,
        xanchor=x_anchor,
        yanchor=y_anchor,
        xshift=-6 if x_anchor == "right" else 6,
        font={"size": 13, "color": GREY},
    )


def _widen(figure: go.Figure, place: str, *, of_loss: bool) -> None:
    """Let the axes of a panel reach over all that is in it.

    By itself one makes room for the names beside lines: on a phone, dozens of decades.
    """
    traces = [trace for trace in visible(figure.data) if (trace.yaxis or "y") == f"y{place}" and trace.x is not None]
    x = np.log10(np.concatenate([np.asarray(trace.x, float) for trace in traces]))
    figure.layout[f"xaxis{place}"].range = [np.nanmin(x) - ROOM, np.nanmax(x) + ROOM]
    ticks = log_ticks(LOSS, traces) if of_loss else {"dtick": None, "tickmode": None}
    figure.layout[f"yaxis{place}"].update(range=None, **ticks)
