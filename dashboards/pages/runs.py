"""The page of runs: a table of all, some of them beside each other, and one of them opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash
from dash import dash_table, dcc, html

from dashboards import curve_export, query, writing
from dashboards.columns import COLUMNS, DEFAULT, TEXT
from dashboards.live import Live
from dashboards.pages import inputs, opened
from dashboards.query import Group
from gpt3core.errors import StoreError
from gpt3core.hints import nearest
from gpt3core.words import plain
from sweeps.watching.run_table import Row, RunsView, RunTable

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
CELL = {
    "backgroundColor": "var(--paper)",
    "color": "var(--ink)",
    "border": "none",
    "borderBottom": "1px solid var(--line)",
    "fontFamily": "system-ui, sans-serif",
    "fontSize": "13px",
    "fontVariantNumeric": "tabular-nums",
    "maxWidth": "320px",
    "overflow": "hidden",
    "padding": "3px 10px 3px 0",
    "textAlign": "left",
    "textOverflow": "ellipsis",
}
OF_GROUPS = ("value", "runs", "done", "lowest", "median", "gpu_hours", "cost")


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
        debounce=0.1,
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
            _table(state),
            *opened.layout(state),
            *(inputs.hidden(name, state) for name in ("sort", "page", "chosen", "run")),
            dcc.Store(id="runs-shown"),
        ]
    )


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """What an address says of the table that it cannot show; of its filter and its runs the page says so itself."""
    if live.of_table:
        return {}
    wrong = inputs.refused(state, {"group": COLUMNS})
    unknown = [word for word in state["sort"].split(",") if word and word.removeprefix("-") not in COLUMNS]
    if unknown:
        wrong["sort"] = f"there is no column {unknown[0]:.40}{nearest(unknown[0], tuple(COLUMNS))}"
    if state["columns"] and shown_columns(state["columns"]) != _parsed(state["columns"]):
        wrong["columns"] = f"a list of columns, like {json.dumps(DEFAULT[:2])}"
    if state["page"] and str(_whole(state["page"])) != state["page"].lstrip("0"):
        wrong["page"] = "pages are counted from 1"
    return wrong


def _table(state: Mapping[str, str]) -> Any:
    right = [{"if": {"column_id": name}, "textAlign": "right"} for name, c in COLUMNS.items() if c.kind != TEXT]
    right += [{"if": {"column_id": name}, "textAlign": "right"} for name in OF_GROUPS[1:]]
    whole = {"if": {"column_id": "note"}, "whiteSpace": "normal", "minWidth": "220px"}
    return dash_table.DataTable(
        id="runs-table",
        page_action="custom",
        page_current=max(0, _whole(state["page"]) - 1),
        page_size=PAGE_ROWS,
        sort_action="custom",
        sort_mode="multi",
        sort_by=[
            {"column_id": c.name, "direction": "desc" if descending else "asc"}
            for c, descending in query.orders(state["sort"])
        ],
        style_table={"overflowX": "auto"},
        style_cell=CELL,
        style_cell_conditional=[*right, whole],
        style_header={"fontWeight": 600},
        style_data_conditional=[
            {"if": {"state": "active"}, "backgroundColor": "var(--paper)", "border": "1px solid var(--link)"},
            {"if": {"column_id": "run_id"}, "color": "var(--link)", "cursor": "pointer"},
        ],
    )


def shown_columns(text: str) -> list[str]:
    """Columns from an address; those by default where it says nothing sensible."""
    given = _parsed(text)
    known = [name for name in given if isinstance(name, str) and name in COLUMNS] if isinstance(given, list) else []
    return known or list(DEFAULT)


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
    _register_choice(app)
    opened.register(app, live, runs)


def _register_table(app: Any, live: Live, runs: RunTable) -> None:
    @app.callback(
        *(dash.Output("runs-table", name) for name in ("data", "columns", "page_count", "page_current")),
        *(dash.Output("runs-table", name) for name in ("row_selectable", "selected_rows")),
        dash.Output("runs-count", "children"),
        dash.Output({"state": "sort"}, "value"),
        dash.Output({"state": "page"}, "value"),
        dash.Output("runs-shown", "data"),
        dash.Input("tick", "n_intervals"),
        *(dash.Input({"state": name}, "value") for name in ("filter", "group", "columns")),
        dash.Input("runs-table", "sort_by"),
        dash.Input("runs-table", "page_current"),
        dash.State({"state": "chosen"}, "value"),
        dash.State("runs-shown", "data"),
    )
    def show(
        _: int | None,
        words: str | None,
        group: str | None,
        columns: list[str] | None,
        sort_by: list[dict[str, str]] | None,
        at: int | None,
        chosen: str | None,
        was: list[Any] | None,
    ) -> tuple[Any, ...]:
        by_clock = was is not None and dash.ctx.triggered_id in ("tick", None)
        view = runs.look(at_most_every=opened.LOOK_SECONDS) if by_clock or was is None else runs.view
        order = ",".join(("-" if by["direction"] == "desc" else "") + by["column_id"] for by in sort_by or ())
        wanted = query.parse(words or "", live.sets.find)
        asked = [words or "", group or "", order]
        at = 0 if was is not None and was[1] != asked else at or 0
        # of all that is asked, and not of the clock alone: an answer that a later tick overtook was discarded
        if by_clock and was is not None and was[:5] == [view.number, asked, wanted.problem, columns, at]:
            raise dash.exceptions.PreventUpdate
        kept = wanted.keep(view.rows)
        of_groups = asked[1] in COLUMNS
        data, heads, at, pages = _grouped(kept, asked[1], at) if of_groups else _listed(kept, order, columns, at)
        picked, ids = set((chosen or "").split(",")), [row["id"] for row in data]
        selected: Any = [] if of_groups else [i for i, name in enumerate(ids) if name in picked]
        if by_clock and was is not None and was[5] == ids:
            selected = dash.no_update  # a box that was just ticked may not be in the address yet
        said = _count(view, kept, wanted.problem, asked[0])
        table = (data, heads, pages, at, False if of_groups else "multi", selected)
        return (*table, said, order, str(at + 1), [view.number, asked, wanted.problem, columns, at, ids])


def _listed(kept: Sequence[Row], order: str, columns: Sequence[str] | None, at: int) -> tuple[Any, Any, int, int]:
    """A page of runs: its rows and columns, its number, and how many there are."""
    rows, at, pages = query.page(query.ordered(kept, order or ORDER), at, PAGE_ROWS)
    names = [name for name in columns or DEFAULT if name in COLUMNS]
    data = [{"id": row.run_id, **{name: COLUMNS[name].shown(row) for name in names}} for row in rows]
    return data, [{"id": name, "name": COLUMNS[name].title} for name in names], at, pages


def _grouped(kept: Sequence[Row], by: str, at: int) -> tuple[Any, Any, int, int]:
    """The same of groups."""
    groups, at, pages = query.page(query.grouped(kept, COLUMNS[by]), at, PAGE_ROWS)
    titles = (COLUMNS[by].title, "runs", "done", "lowest loss", "median loss", "GPU-hours", "USD")
    heads = [{"id": name, "name": title} for name, title in zip(OF_GROUPS, titles, strict=True)]
    return [_group(one) for one in groups], heads, at, pages


def _group(one: Group) -> dict[str, Any]:
    return {
        "id": one.word,
        "value": one.value,
        "runs": f"{one.runs:,}",
        "done": f"{one.done:,}",
        "lowest": "" if one.lowest is None else f"{one.lowest:.4f}",
        "median": "" if one.median is None else f"{one.median:.4f}",
        "gpu_hours": plain(one.gpu_hours),
        "cost": f"{one.cost:,.2f}",
    }


def _count(view: RunsView, kept: Sequence[Row], problem: str, words: str) -> list[Any]:
    """How many there are, what was not understood, and where to have their curves."""
    total = f"{len(kept):,} of {len(view.rows):,} runs" if len(kept) < len(view.rows) else f"{len(kept):,} runs"
    left = [f"{n:,} {what}" for n, what in ((view.unseen, "runs"), (view.unread, "losses")) if n]
    parts: list[Any] = [f"{total}{'; still being read: ' if left else ''}{' and '.join(left)}. "]
    if kept:
        parts += ["Their curves, every step: ", *opened.links(words)]
    for sentence in filter(None, (problem, view.problem)):
        parts.append(html.Span(f" {sentence}", className="warning"))
    return parts


def _register_choice(app: Any) -> None:
    """What is clicked in the table becomes part of the address."""

    @app.callback(
        dash.Output({"state": "chosen"}, "value"),
        dash.Input("runs-table", "selected_row_ids"),
        dash.State("runs-table", "data"),
        dash.State({"state": "chosen"}, "value"),
        prevent_initial_call=True,
    )
    def choose(selected: list[str] | None, data: list[dict[str, Any]] | None, chosen: str | None) -> str:
        before = [name for name in (chosen or "").split(",") if name]
        here = {row["id"] for row in data or ()}
        now = [name for name in before if name not in here or name in (selected or ())]
        now += [name for name in selected or () if name not in now]
        if now == before:
            raise dash.exceptions.PreventUpdate
        return ",".join(now)

    @app.callback(
        dash.Output({"state": "run"}, "value"),
        dash.Output({"state": "filter"}, "value"),
        dash.Output({"state": "group"}, "value"),
        dash.Output("runs-table", "active_cell"),
        dash.Output("runs-table", "selected_cells"),
        dash.Input("runs-table", "active_cell"),
        dash.State({"state": "filter"}, "value"),
        dash.State({"state": "group"}, "value"),
        prevent_initial_call=True,
    )
    def open_cell(cell: dict[str, Any] | None, words: str | None, group: str | None) -> tuple[Any, ...]:
        if not cell or not cell.get("row_id"):
            raise dash.exceptions.PreventUpdate
        kept = dash.no_update
        if group:
            return kept, f"{words or ''} {cell['row_id']}".strip(), None, None, []
        if cell.get("column_id") != "run_id":
            raise dash.exceptions.PreventUpdate
        return cell["row_id"], kept, kept, None, []


def _serve_curves(server: Any, live: Live, runs: RunTable) -> None:
    """The curves of the runs of a filter as one file, sent as it is read."""
    import flask

    @server.get("/runs/curves.<kind>")
    def curves(kind: str) -> Any:
        if kind not in curve_export.KINDS:
            return flask.Response(f"curves.{kind:.10}: csv or parquet\n", 404, mimetype="text/plain")
        wanted = query.parse(flask.request.args.get("filter", ""), live.sets.find)
        if wanted.problem:
            return flask.Response(f"{wanted.problem}\n", 400, mimetype="text/plain")
        view = runs.whole()
        if view.problem or view.unseen or view.unread:
            why = view.problem or f"{view.unseen + view.unread:,} runs cannot be read now"
            return flask.Response(f"{why}: the file would lack runs, try again\n", 503, mimetype="text/plain")
        ids = [row.run_id for row in wanted.keep(view.rows)]
        try:
            pieces = curve_export.by_a_process(live.root, ids, kind)
        except (StoreError, OSError) as error:
            return flask.Response(f"no file of curves could be begun: {error}\n", 503, mimetype="text/plain")
        answer = flask.Response(pieces, mimetype=curve_export.KINDS[kind][1])
        answer.headers.set("Content-Disposition", "attachment", filename=f"curves.{kind}")
        return answer
