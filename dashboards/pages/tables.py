"""Tables of words and components, and links to runs: what several pages of the app show alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from dash import dcc, html


def link(run_id: str) -> Any:
    """A run by its name, which opens it."""
    return dcc.Link(run_id, href=f"/runs?{urlencode({'run': run_id})}")


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
