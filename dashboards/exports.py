"""What a figure hands out: the rows behind it, exactly, as CSV and Parquet, and the line of Python that draws it.

SVG and PNG are made by plotly.js in the reader's browser (assets/figures.js): nothing is uploaded.
"""

from __future__ import annotations

import io
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from gpt3core.store.rundir import default_root

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from flask import Flask

    from analysis.settings import CompareSettings, StudySettings
    from dashboards.figures.style import Page

MOST_KEPT = 20  # figures of one kind whose rows are held until others are drawn
LEAST_KEPT, MOST_ROWS = 2, 30_000  # and how many are where they have more rows than that together: 2 to 9 MB
GONE = "the rows of this figure are kept no longer: load its page again\n"


def csv(rows: pd.DataFrame) -> bytes:
    """Rows as CSV: numbers in the fewest digits that are read back as the same."""
    from pyarrow import csv as writer

    sink = io.BytesIO()
    writer.write_csv(_flat(_table(rows)), sink)
    return sink.getvalue()


def parquet(rows: pd.DataFrame) -> bytes:
    """Rows as Parquet."""
    from pyarrow import parquet as writer

    sink = io.BytesIO()
    writer.write_table(_table(rows), sink, compression="zstd")
    return sink.getvalue()


KINDS: dict[str, tuple[Callable[[pd.DataFrame], bytes], str]] = {
    "csv": (csv, "text/csv"),
    "parquet": (parquet, "application/vnd.apache.parquet"),
}


def _table(rows: pd.DataFrame) -> pa.Table:
    """As Arrow; a column of several types as words."""
    import pyarrow as pa

    columns = {}
    for name in rows.columns:
        column = rows[name]
        try:
            columns[str(name)] = pa.Array.from_pandas(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[str(name)] = pa.array([None if value is None else str(value) for value in column])
    return pa.table(columns)


def _flat(table: pa.Table) -> pa.Table:
    """What CSV has no cell for as words."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            words = pa.array([None if value is None else str(value) for value in table[i].to_pylist()])
            table = table.set_column(i, field.name, words)
    return table


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """What is handed out of a figure, which itself takes several times the memory."""

    slug: str
    rows: pd.DataFrame


class Shelf:
    """The figures that pages show at present, by a key of each: what is asked for is looked up, never opened.

    Rows can be asked for as long as a fit has them, or they are held here, as those that were drawn last are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, weakref.ref[pd.DataFrame]]] = {}  # slug and rows, while they are there
        self._held: OrderedDict[str, Shelved] = OrderedDict()

    def put(self, page: Page) -> str:
        """The key of a figure; the same while it is the same."""
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if known[1]() is not None}
            same = (k for k, (slug, rows) in self._known.items() if rows() is page.rows and slug == page.slug)
            key = next(same, None) or secrets.token_hex(8)
            self._known[key] = page.slug, weakref.ref(page.rows)
            self._hold(key, Shelved(slug=page.slug, rows=page.rows))
            return key

    def get(self, key: str) -> Shelved | None:
        """The rows, if they are still there: what is asked for is held longest."""
        with self._lock:
            slug, there = self._known.get(key, ("", lambda: None))
            if (rows := there()) is None:
                return None
            self._hold(key, found := Shelved(slug=slug, rows=rows))
            return found

    def _hold(self, key: str, shelved: Shelved) -> None:
        """Hold rows, and let go of older ones of the same kind; the lock is held."""
        self._held[key] = shelved
        self._held.move_to_end(key)
        alike = {k: len(held.rows) for k, held in self._held.items() if held.slug == shelved.slug}
        while len(alike) > MOST_KEPT or (len(alike) > LEAST_KEPT and sum(alike.values()) > MOST_ROWS):
            del alike[oldest := next(iter(alike))]
            del self._held[oldest]  # one that is drawn at every tick pushes no other kind out


def serve(server: Flask, shelf: Shelf) -> None:
    """Answer for the links of ``row``."""
    import flask

    @server.get("/export/<key>.<kind>")
    def export(key: str, kind: str) -> Any:
        kept = shelf.get(key)
        if kept is None or kind not in KINDS:
            return flask.Response(GONE, 410, mimetype="text/plain")
        write, mimetype = KINDS[kind]
        answer = flask.Response(write(kept.rows), mimetype=mimetype)
        answer.headers.set("Content-Disposition", "attachment", filename=f"{kept.slug}.{kind}")
        return answer


def row(page: Page, shelf: Shelf, figure: str, code: str) -> Any:
    """The line below a figure in the app.

    Args:
        figure: id of its Graph.
        code: Python that draws it.
    """
    from dash import html

    key = shelf.put(page)
    links = [
        html.A(name, href=f"/export/{key}.{kind}", target="_blank")  # which is seen where it says why there is no file
        for name, kind in (("CSV", "csv"), ("Parquet", "parquet"))
    ]
    drawn = [
        html.Button(kind.upper(), **{"data-save": kind, "data-of": figure, "data-name": page.slug})
        for kind in ("svg", "png")
    ]
    shown = html.Details([html.Summary("Python"), html.Code(code)])
    return html.Div([html.Span("Export:"), *links, *drawn, shown], className="exports")


def code(given: StudySettings | None, slug: str, *, linear: bool = False, published: bool = False) -> str:
    """The line of Python that draws a figure of a study.

    Args:
        given: what the study was asked for by; None for one in memory.
        linear: on linear axes, whatever they are as drawn.
        published: with published results laid over it.
    """
    rooms, page = ["catalogue"], f'catalogue.page(study, "{slug}")'
    if published:
        rooms, page = [*rooms, "published"], f"published.over({page}, study)"
    if linear:
        rooms, page = [*rooms, "linear"], f"linear.linear({page})"
    drawn = f"from dashboards.figures import {', '.join(rooms)}; {page}.figure"
    return drawn if given is None else f"{study(given)}; {drawn}"


def study(given: StudySettings) -> str:
    """The line of Python that fits a study."""
    settings, names = written(given)
    return f"from analysis import api; from analysis.settings import {names}; study = api.study({settings})[0]"


def written(given: StudySettings | CompareSettings) -> tuple[str, str]:
    """The settings as they are made in Python, but for what is as by default; and the names that this takes."""
    kind, defaults = type(given).__name__, type(given)()
    changed = {field.name: getattr(given, field.name) for field in fields(defaults)}
    changed = {name: value for name, value in changed.items() if value != getattr(defaults, name)}
    changed = {"runs": given.runs or str(default_root()), **{n: v for n, v in changed.items() if n != "runs"}}
    said = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return f"{kind}({said})", f"Fix, {kind}" if "fix" in changed else kind
