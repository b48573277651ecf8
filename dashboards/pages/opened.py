"""Below the table of runs: those that were chosen, beside each other, and the one that is open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dash
from dash import dcc, html

from dashboards import one_run, side_by_side
from dashboards.live import Live
from dashboards.one_run import OneRun
from dashboards.pages import gallery, inplace, written
from dashboards.pages.tables import table
from dashboards.side_by_side import Line, SideBySide
from gpt3core.errors import StoreError
from gpt3core.store.rundir import RunDir
from sweeps.watching import loss_trace
from sweeps.watching.run_table import RunTable
from sweeps.watching.words import printable

LOOK_SECONDS = 1.5  # between two looks at the store, however many pages ask
BESIDE = 8  # runs beside each other at most
CURVE = "runs-curve"


def layout(state: Mapping[str, str]) -> list[Any]:
    """Places for both; of the one that is open its curve stands before all that was written of it."""
    figure = html.Div(gallery.figure(CURVE) if state["run"] else [], id="runs-figure")
    told, commands = html.Div(id="runs-told"), html.Div(id="runs-commands")
    one = [html.Div(id="runs-one"), figure, told, written.layout(state), commands]
    return [
        html.Section(id="runs-beside"),
        html.Section(one),
        *(dcc.Store(id=name) for name in ("runs-opened", "runs-compared")),
    ]


def register(app: Any, live: Live, runs: RunTable) -> None:
    """Both follow the address and the store; what was chosen or opened is let go of by assets/inplace.js."""
    _register_beside(app, live, runs)
    _register_one(app, live, runs)
    _register_curve(app, live, runs)
    written.register(app, live, runs)


def links(words: str) -> list[Any]:
    """Where the curves of the runs of a filter are handed out."""
    query_of = urlencode({"filter": words})
    made = [
        html.A(name, href=f"/runs/curves.{name.lower()}?{query_of}", target="_blank") for name in ("CSV", "Parquet")
    ]
    return [made[0], " ", made[1]]


def _register_beside(app: Any, live: Live, runs: RunTable) -> None:
    @app.callback(
        inplace.output("runs-beside"),
        dash.Output("runs-compared", "data"),
        dash.Input({"state": "chosen"}, "value"),
        dash.Input("tick", "n_intervals"),
        dash.State("runs-compared", "data"),
    )
    def beside(chosen: str | None, _: int | None, was: list[Any] | None) -> tuple[Any, Any]:
        known = [row.run_id for row in runs.look(at_most_every=LOOK_SECONDS).rows] if chosen else []
        now = list(one_run.names((chosen or "").split(","), known))
        if was == now:  # asked at every tick, for a large store is read in pieces
            raise dash.exceptions.PreventUpdate
        return inplace.said(_chosen(live.root, *now)), now


def _register_one(app: Any, live: Live, runs: RunTable) -> None:
    @app.callback(
        *(inplace.output(name) for name in ("runs-one", "runs-told")),
        dash.Output("runs-opened", "data"),
        dash.Input({"state": "run"}, "value"),
        dash.Input("tick", "n_intervals"),
        dash.State("runs-opened", "data"),
    )
    def open_run(run_id: str | None, _: int | None, was: list[Any] | None) -> tuple[Any, ...]:
        row = runs.look(at_most_every=LOOK_SECONDS).row(run_id) if run_id else None
        version = "" if row is None else f"{hash((row, loss_trace.stamp(RunDir(live.root, row.run_id))))}"
        now = [run_id or "", version]
        if was == now:
            raise dash.exceptions.PreventUpdate
        if row is None:
            return inplace.said([html.P(_nobody(run_id))] if run_id else []), inplace.said([]), now
        run = one_run.read(live.root, row)
        return inplace.said(_opened(run)), inplace.said(_told(run)), now

    @app.callback(dash.Output("runs-commands", "children"), dash.Input("runs-opened", "data"))
    def commands(now: list[str] | None) -> list[Any]:
        row = runs.view.row(now[0]) if now else None
        if row is None:
            return []
        told = [
            part
            for name, words in one_run.commands(live.root, row)
            for part in (html.Dt(name), html.Dd(html.Code(words)))
        ]
        return [html.H3("Commands"), html.Dl(told)]


def _register_curve(app: Any, live: Live, runs: RunTable) -> None:
    @app.callback(
        dash.Output("runs-figure", "children"),
        dash.Input({"state": "run"}, "value"),
        dash.State("runs-figure", "children"),
        prevent_initial_call=True,
    )
    def place(run_id: str | None, there: list[Any] | None) -> list[Any]:
        if there or not run_id:  # what draws is five megabytes, which the table does without
            raise dash.exceptions.PreventUpdate
        return gallery.figure(CURVE)

    @app.callback(
        *gallery.outputs(CURVE),
        dash.Input({"state": "run"}, "value"),
        dash.Input("tick", "n_intervals"),
        gallery.shown(CURVE),
    )
    def curve(run_id: str | None, _: int | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        row = runs.view.row(run_id) if run_id else None
        version = None if row is None else [row.run_id, f"{hash(loss_trace.stamp(RunDir(live.root, row.run_id)))}"]
        if was is not None and was[1] == version:
            raise dash.exceptions.PreventUpdate
        page = None if row is None else one_run.curve(live.root, row.run_id)
        code = None if row is None else one_run.code(live.root, row.run_id)
        return gallery.draw(live, CURVE, page, version, was, code=code, of=run_id)


def _nobody(name: str) -> str:
    return printable(f"No run of this store is called {name:.80}.")


def _chosen(root: Path, there: list[str], unknown: list[str]) -> list[Any]:
    """What was chosen, beside each other, and what there is none of."""
    parts: list[Any] = [html.P(_nobody(name)) for name in unknown[:3]]
    if len(unknown) > 3:
        parts.append(html.P(f"Nor are there {len(unknown) - 3:,} others that are chosen."))
    if there or unknown:
        parts.append(html.Button("choose none", **{"data-clear": "chosen"}))
    if len(there) == 1:
        parts.append(
            html.P(f"{there[0]} is chosen; with another one their configurations are shown beside each other.")
        )
    if len(there) < 2:
        return parts
    if len(there) > BESIDE:
        parts.append(html.P(f"The first {BESIDE} of {len(there):,} that are chosen."))
    try:
        found = side_by_side.compare([RunDir(root, run_id) for run_id in there[:BESIDE]])
    except (StoreError, OSError) as error:
        return [*parts, html.P(str(error), className="warning")]
    return [*parts, *_beside(found)]


def _beside(found: SideBySide) -> list[Any]:
    """What differs first, then what is the same, folded away."""
    header = ("", *found.run_ids)
    n = len(found.weights)
    differs = f"{n} setting{'s' * (n != 1)} that can change the weights differ{'s' * (n == 1)}"
    parts: list[Any] = [html.H2(f"{len(found.run_ids)} runs beside each other")]
    parts.append(html.P(f"{differs}." if n else "The same run: whatever can change the weights is the same."))
    if n:
        parts.append(table(header, [_line(line) for line in found.weights]))
    if found.beside:
        parts.append(html.P("Beside that, without a say in what run it is:"))
        parts.append(table(header, [_line(line) for line in found.beside]))
    same = table(("", "of all of them"), [_line(line) for line in found.same])
    return [*parts, html.Details([html.Summary(f"{len(found.same)} settings are the same"), same])]


def _line(line: Line) -> list[Any]:
    named: list[Any] = [line.words or line.field]
    named += [" ", html.Code(line.field)] if line.words else []
    return [html.Span(named), *line.values]


def _opened(run: OneRun) -> list[Any]:
    """A run: its facts, and what it met."""
    parts: list[Any] = [html.H2(run.row.run_id), html.Button("close", **{"data-clear": "run"})]
    parts += [html.P(word, className="warning") for word in (run.row.note, run.problem) if word]
    parts.append(html.Dl([html.Div([html.Dt(name), html.Dd(shown)]) for name, shown in run.facts], className="facts"))
    parts.append(html.P(["Its curve, every step: ", *links(f"run_id={run.row.run_id}")]))
    if run.met:
        parts += [html.H3("Met on the way"), html.Ul([html.Li(word) for word in run.met])]
    return parts


def _told(run: OneRun) -> list[Any]:
    """Its scores and its log."""
    parts = list[Any]()
    if run.held_out:
        parts += [html.H3("Held-out text"), html.P(run.held_out)]
    if run.measured:
        right = one_run.MEASURED[1:3] + one_run.MEASURED[4:]
        parts += [html.H3("Evaluations"), table(one_run.MEASURED, run.measured, right=right)]
    earlier = f", the last {len(run.said):,} of {len(run.said) + run.unsaid:,}" if run.unsaid else ""
    log = html.Pre("\n".join(run.said) or "Nothing was logged of it: it has not started yet.")
    return [*parts, html.Details([html.Summary(f"What was logged{earlier}"), log])]
