"""Tables of words and components, and links to runs and from numbers: what several pages of the app show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dash import dcc, html

from dashboards import summary
from dashboards.pages.gallery import typeset

if TYPE_CHECKING:
    from analysis.output.evidence import Part
    from dashboards.run_sets import RunSets


def link(run_id: str) -> Any:
    """A run by its name, which opens it."""
    return dcc.Link(run_id, href=f"/runs?{urlencode({'run': run_id})}")


def linked(parts: Iterable[Part], sets: RunSets | None) -> list[Any]:
    """A sentence whose numbers lead to the runs that they rest on.

    Args:
        sets: of the store of these runs; None of a table, whose runs have no page.
    """
    pieces = summary.linked(parts, (lambda _: "") if sets is None else sets.address)
    return [_behind(text, to) if to else html.Span(typeset(text)) for text, to in pieces]


def _behind(number: str, to: str) -> Any:
    return dcc.Link(typeset(number), href=to, className="behind", title="the runs behind this")


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = (), marks: Sequence[bool] = ()
) -> Any:
    """A table of words and components.

    Args:
        right: columns that stand to the right.
        marks: rows that are marked as a warning.
    """
    classes = ["number" if name in right else "" for name in header]
    head = html.Tr([html.Th(name, className=kind) for name, kind in zip(header, classes, strict=True)])
    body = [
        html.Tr(
            [html.Td(cell, className=kind) for cell, kind in zip(row, classes, strict=True)],
            className="warning" if i < len(marks) and marks[i] else "",
        )
        for i, row in enumerate(rows)
    ]
    return html.Div(html.Table([html.Thead(head), html.Tbody(body)]), className="wide")
