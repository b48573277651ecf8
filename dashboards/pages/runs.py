"""The page of runs: a table of all, some of them beside each other, and one of them opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import dash
from dash import dcc, html

from dashboards import curve_export, faults, query, writing
from dashboards.columns import COLUMNS, DEFAULT, TEXT
from dashboards.live import Live
from dashboards.pages import inputs, opened
from dashboards.query import Group
from gpt3core.errors import StoreError
from gpt3core.hints import nearest
from gpt3core.words import plain
from sweeps.watching.run_table import Row, RunsView, RunTable
from sweeps.watching.words import printable

PATH, TITLE = "/runs", "Runs"
PAGE_ROWS = 50
ORDER = "size,flops,seed"  # where none is asked for
GROUPS = ("size", "sweep", "status", "budget", "lr", "batch_tokens", "schedule", "seed", "n_layer", "corpus", "device")
STATE = {
    "filter": "",
    "sort": "",
    "group": "",
    "columns": json.dumps(DEFAULT, separators=(",", ":")),
    "page": "1",
    "chosen": "",  # run ids with commas, to be shown beside each other
    "run": "",  # the one that is open
    "prompt": writing.PROMPT,  # after which it writes
}
Shown: TypeAlias = Annotated[
    list[Any], (int, list[str], str, list[str] | None, int)
]  # of which view, and what was asked
OF_GROUPS = ("runs", "done", "lowest loss", "median loss", "GPU-hours", "USD")  # beside what they have in common


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """The table below what chooses its rows, and below it what was chosen of them."""
    if live.of_table:
        return html.P("These runs come from a table, which has neither curves nor logs: its points are in the figures.")
    groups = [{"label": f"by {COLUMNS[name].title}", "value": name} for name in GROUPS]
    columns = [{"label": column.title, "value": name} for name, column in COLUMNS.items()]
    grouped = {"value": state["group"] or None, "placeholder": "group"}
    chosen = {"value": shown_columns(state["columns"]), "multi": True}
    search = dcc.Input(
        id={"state": "filter"},
        value=state["filter"],
        type="search",
        debounce=0.05,
        placeholder="filter: loss<3.2 size=d64 status!=done lr>=1e-3, or any word",
    )
    return html.Article(
        [
            html.Div(
                [
                    inputs.named("filter", search),
                    inputs.named("group", dcc.Dropdown(id={"state": "group"}, options=groups, **grouped)),
                    inputs.named("columns", dcc.Dropdown(id={"state": "columns"}, options=columns, **chosen)),
                ],
                className="runs-choices",
            ),
            html.P(id="runs-count", role="status"),
            html.Div(html.Table([html.Thead(html.Tr(id="runs-heads")), html.Tbody(id="runs-rows")]), className="wide"),
            html.Nav(id="runs-pages", **{"aria-label": "pages of the table"}),
            *opened.layout(state),
            *(inputs.hidden(name, state) for name in ("sort", "page", "chosen", "run")),
            *(dcc.Store(id=name) for name in ("runs-table", "runs-shown")),
        ]
    )


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """What an address says of the table that it cannot show; of its filter and its runs the page says so itself."""
    if live.of_table:
        return {}
    wrong = inputs.refused(state, {"group": COLUMNS})
    words = [word for word in state["sort"].split(",") if word]
    unknown = [word for word in words if word.removeprefix("-") not in COLUMNS]
    if unknown:
        wrong["sort"] = f"there is no column {unknown[0]:.40}{nearest(unknown[0], tuple(COLUMNS))}"
    elif len({word.removeprefix("-") for word in words}) < len(words):
        wrong["sort"] = "a column stands there twice"
    if state["columns"] and shown_columns(state["columns"]) != _parsed(state["columns"]):
        wrong["columns"] = f"a list of columns, like {json.dumps(DEFAULT[:2])}"
    if state["page"] and str(_whole(state["page"])) != state["page"].lstrip("0"):
        wrong["page"] = "pages are counted from 1"
    return wrong


def shown_columns(text: str) -> list[str]:
    """Columns from an address; those by default where it says nothing sensible."""
    given = _parsed(text)
    known = [name for name in given if isinstance(name, str) and name in COLUMNS] if isinstance(given, list) else []
    return list(dict.fromkeys(known)) or list(DEFAULT)


def _parsed(text: str) -> Any:
    """What JSON says; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 1


def register(app: Any, live: Live) -> None:
    """The page follows the store and what its reader chooses."""
    runs = RunTable(live.root)
    _serve_curves(app.server, live, runs)
    _register_table(app, live, runs)
    opened.register(app, live, runs)


def _register_table(app: Any, live: Live, runs: RunTable) -> None:
    @app.callback(
        dash.Output("runs-table", "data"),
        dash.Output("runs-count", "children"),
        dash.Output({"state": "page"}, "value"),
        dash.Output("runs-shown", "data"),
        dash.Input("tick", "n_intervals"),
        *(dash.Input({"state": name}, "value") for name in ("filter", "group", "columns", "sort", "page")),
        dash.State("runs-shown", "data"),
    )
    def show(
        _: int | None,
        words: str | None,
        group: str | None,
        columns: list[str] | None,
        order: str | None,
        page: str | None,
        was: Shown | None,
    ) -> tuple[Any, ...]:
        by_clock = was is not None and dash.ctx.triggered_id in ("tick", None)
        view = runs.look(at_most_every=opened.LOOK_SECONDS) if by_clock or was is None else runs.view
        wanted = query.parse(words or "", live.sets.find)
        asked = [words or "", group or "", order or ""]
        at = 0 if was is not None and was[1] != asked else _whole(page or "1") - 1
        # of all that is asked, and not of the clock alone: an answer that a later tick overtook was discarded
        if by_clock and was == [view.number, asked, wanted.problem, columns, at]:
            raise dash.exceptions.PreventUpdate
        kept = wanted.keep(view.rows)
        table = _grouped(kept, asked[1], at, asked[0]) if asked[1] in COLUMNS else _listed(kept, asked[2], columns, at)
        said = _count(view, kept, [wanted.problem, _beyond(at + 1, table["pages"])], asked[0])
        return table, said, str(at + 1), [view.number, asked, wanted.problem, columns, at]

    app.clientside_callback(
        dash.ClientsideFunction("table", "draw"),
        dash.Input("runs-table", "data"),
        dash.Input({"state": "chosen"}, "value"),
    )


def _beyond(asked: int, pages: int) -> str:
    """A sentence on a page beyond the last one."""
    return (
        f"page={asked}: there {'is' if pages == 1 else 'are'} {pages}; the last one is shown" if asked > pages else ""
    )


def _listed(kept: Sequence[Row], order: str, columns: Sequence[str] | None, at: int) -> dict[str, Any]:
    """A page of runs for assets/table.js, ``at`` from zero."""
    rows, at, pages = query.page(query.ordered(kept, order or ORDER), at, PAGE_ROWS)
    shown = [COLUMNS[name] for name in columns or DEFAULT if name in COLUMNS]
    heads = [{"name": c.name, "title": c.title, "kind": "" if c.kind == TEXT else "number"} for c in shown]
    data = [{"id": row.run_id, "cells": [column.shown(row) for column in shown]} for row in rows]
    return {"heads": heads, "rows": data, "sort": order, "page": at + 1, "pages": pages, "groups": False}


def _grouped(kept: Sequence[Row], by: str, at: int, words: str) -> dict[str, Any]:
    """The same of groups, each by the filter that gives its runs."""
    groups, at, pages = query.page(query.grouped(kept, COLUMNS[by]), at, PAGE_ROWS)
    heads = [{"name": by, "title": COLUMNS[by].title, "kind": ""}]
    heads += [{"name": title, "title": title, "kind": "number"} for title in OF_GROUPS]
    data = [{"id": f"{words} {one.word}".strip(), "cells": _group(one)} for one in groups]
    return {"heads": heads, "rows": data, "sort": "", "page": at + 1, "pages": pages, "groups": True}


def _group(one: Group) -> list[str]:
    """The cells of a group: what they have in common, and those of OF_GROUPS."""
    losses = ["" if loss is None else f"{loss:.4f}" for loss in (one.lowest, one.median)]
    return [one.value, f"{one.runs:,}", f"{one.done:,}", *losses, plain(one.gpu_hours), f"{one.cost:,.2f}"]


def _count(view: RunsView, kept: Sequence[Row], problems: Sequence[str], words: str) -> list[Any]:
    """How many there are, what was not understood, and where to have their curves."""
    total = f"{len(kept):,} of {len(view.rows):,} runs" if len(kept) < len(view.rows) else f"{len(kept):,} runs"
    left = [f"{n:,} {what}" for n, what in ((view.unseen, "runs"), (view.unread, "losses")) if n]
    parts: list[Any] = [f"{total}{'; still being read: ' if left else ''}{' and '.join(left)}. "]
    if kept:
        parts += ["Their curves, every step: ", *opened.links(words)]
    for sentence in filter(None, (*problems, view.problem)):
        parts.append(html.Span(f" {printable(sentence)}", className="warning"))
    return parts


def _serve_curves(server: Any, live: Live, runs: RunTable) -> None:
    """The curves of the runs of a filter as one file, sent as it is read."""
    import flask

    @server.get("/runs/curves.<kind>")
    def curves(kind: str) -> Any:
        if kind not in curve_export.KINDS:
            return flask.Response(f"curves.{kind:.10}: csv or parquet\n", 404, mimetype="text/plain")
        asked = flask.request.args.to_dict(flat=False)
        words = asked.pop("filter", [""])
        wanted = query.parse(words[0], live.sets.find)
        if asked or len(words) > 1 or wanted.problem:
            why = wanted.problem or "a file of curves takes one filter=, and nothing else"
            return flask.Response(f"{printable(why)}\n", 400, mimetype="text/plain")
        view = runs.whole()
        if view.problem or view.unseen or view.unread:
            why = view.problem or f"{view.unseen + view.unread:,} runs cannot be read now"
            return flask.Response(f"{why}: the file would lack runs, try again\n", 503, mimetype="text/plain")
        ids = [row.run_id for row in wanted.keep(view.rows)]
        try:
            pieces = curve_export.by_a_process(live.root, ids, kind)
        except (StoreError, OSError) as error:
            return flask.Response(f"no file of curves could be begun: {error}\n", 503, mimetype="text/plain")
        answer = flask.Response(faults.sent(pieces), mimetype=curve_export.KINDS[kind][1])
        answer.headers.set("Content-Disposition", "attachment", filename=f"curves.{kind}")
        return answer
