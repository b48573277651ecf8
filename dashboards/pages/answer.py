"""The first page: what the target would reach and how far to trust it, one picture, and what else was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dash
from dash import dcc, html

from dashboards import plan, summary, typed
from dashboards.glossary import WORDS
from dashboards.live import Live, View
from dashboards.pages import fewshot, gallery, inplace, inputs, laws, runs, sweep, tables

if TYPE_CHECKING:
    from analysis.output.answer import Spelt

PATH, TITLE = "/", "Answer"
STATE: dict[str, str] = {}
PICTURE = "answer-picture"


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """The answer above its picture; all figures by name."""
    return html.Article(
        [
            html.Div(id="answer-lead", className="lead"),
            *gallery.figure(PICTURE),
            html.Dl(id="answer-lines"),
            html.Nav(id="answer-figures", className="figures", **{"aria-label": "figures"}),
            html.Details([html.Summary("What the words mean"), _words()], className="words"),
        ]
    )


def register(app: Any, live: Live) -> None:
    """Sentences and picture follow the study."""

    @app.callback(
        *(inplace.output(f"answer-{part}") for part in ("lead", "lines", "figures")),
        *gallery.outputs(PICTURE),
        dash.Input("tick", "n_intervals"),
        gallery.seen(PICTURE),
        gallery.shown(PICTURE),
    )
    def show(_: int | None, seen: gallery.Seen | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        view = live.view
        picture = view.pages[0] if view.pages else None
        drawn = gallery.draw(live, PICTURE, picture, view.number or view.waiting, was, seen=seen)
        lead, lines = _sentences(live, view)
        return (
            inplace.said(lead if view.study is not None else _none_yet(live, view)),
            inplace.said(lines),
            inplace.said([dcc.Link(page.title, href=_href(view, page.slug)) for page in view.pages]),
            *drawn,
        )


def _sentences(live: Live, view: View) -> tuple[list[Any], list[Any]]:
    """The first lines of the answer as a paragraph each, and the others as a list, with the command that comes next."""
    lead, others = summary.split(view.answer)
    sets = live.sets if view.study is not None and view.study.runs.store else None
    paragraphs = [html.P([html.Strong([*_label(view, line), ": "]), *tables.linked(line[1], sets)]) for line in lead]
    listed = [part for line in others for part in (html.Dt(_label(view, line)), html.Dd(tables.linked(line[1], sets)))]
    return paragraphs, listed + (_next(live) if view.study is not None and view.study.ensemble is not None else [])


def _none_yet(live: Live, view: View) -> list[Any]:
    """Why there is no answer, and where to look until there is one."""
    why = html.P(view.waiting[:1].upper() + view.waiting[1:])
    if live.of_table:
        return [why]
    places = [part for page in (sweep, runs) for part in (" ", dcc.Link(page.TITLE, href=page.PATH))]
    return [why, html.P(["How it goes:", *places])]


def _words() -> Any:
    """The glossary."""
    return html.Dl(
        [part for word, meaning in WORDS.items() for part in (html.Dt(word), html.Dd(gallery.typeset(meaning)))]
    )


def _next(live: Live) -> list[Any]:
    """What to type to know better."""
    line = inputs.copied("answer-next", typed.command("analysis.design", plan.same_runs(live.given)))
    return [html.Dt("next"), html.Dd([line, "says what to run next, its price, and the command"])]


def _label(view: View, line: Spelt) -> Sequence[Any]:
    """The label of a line, which leads to the figure behind it."""
    words = gallery.typeset(line[0])
    slug = summary.figure_of(line[0], [page.slug for page in view.pages])
    return words if slug is None else [dcc.Link(words, href=_href(view, slug))]


def _href(view: View, slug: str) -> str:
    """The address of a figure."""
    group = next(page.group for page in view.pages if page.slug == slug)
    path, key = {"laws": (laws.PATH, "figure"), fewshot.GROUP: (fewshot.PATH, fewshot.KEY)}[group]
    return f"{path}?{key}={slug}"
