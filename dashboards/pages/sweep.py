"""The page of a sweep: how it stands by its store alone, whether a cluster answers or not, and without a fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dash
from dash import dcc, html

from dashboards.live import Live
from dashboards.pages import gallery, inplace, inputs
from dashboards.pages.tables import link, table
from dashboards.watch import SHOWN, Past, Watch, Watched, sparkline
from gpt3core.errors import StoreError
from gpt3core.store import sweepdir
from gpt3core.words import count, percent
from sweeps.watching import said, standing
from sweeps.watching.standing import Standing

if TYPE_CHECKING:
    from dashboards.figures.style import Page

PATH, TITLE = "/sweep", "Sweep"
STATE = {"sweep": ""}  # a name; by default the one that the app was started for, or the one last driven
FIGURES = {
    "timeline": "Runs over nodes",
    "utilisation": "Devices held",
    "speed": "How well they are used",
    "spending": "Cost and end",
}
OTHERS = 40  # runs that wait, failed or are held that are listed
BAD = (standing.DEAD, "failed", standing.SILENT)


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """Which sweep, and how it stands."""
    if live.of_table:
        return html.P("These runs come from a table: there is no sweep to watch.")
    name = state["sweep"] or _first(live, _names(live))  # else the address would change by itself
    return html.Article(
        [
            html.Div(
                inputs.named("sweep", dcc.Dropdown(id={"state": "sweep"}, value=name, options=[name], clearable=False)),
                className="runs-choices",
            ),
            html.Div(id="sweep-standing"),
            dcc.Store(id="sweep-shown"),
            *(part for name, what in FIGURES.items() for part in (html.H2(what), *gallery.figure(f"sweep-{name}"))),
        ]
    )


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """A sweep that there is not; where there are none the page says why."""
    names = _names(live)
    return {} if not names or state["sweep"] in ("", *names) else {"sweep": f"there are {', '.join(names)}"}


def _names(live: Live) -> list[str]:
    try:
        return [] if live.of_table else sweepdir.names(live.root)
    except (StoreError, OSError):
        return []


def _first(live: Live, names: Sequence[str]) -> str:
    """The sweep to show where none was chosen; empty where there is none."""
    asked = live.given.sweep
    return asked if asked is not None and asked in names else next(iter(names), "")


def register(app: Any, live: Live) -> None:
    """The page follows the store."""
    watch = Watch(live.root)

    @app.callback(
        dash.Output({"state": "sweep"}, "options"),
        dash.Output({"state": "sweep"}, "value"),
        inplace.output("sweep-standing"),
        dash.Output("sweep-shown", "data"),
        dash.Input("tick", "n_intervals"),
        dash.Input({"state": "sweep"}, "value"),
        dash.State({"state": "sweep"}, "options"),
        dash.State("sweep-shown", "data"),
    )
    def show(_: int | None, chosen: str | None, options: list[Any], was: str | None) -> tuple[Any, ...]:
        try:
            names = watch.names()
        except (StoreError, OSError) as error:
            names, problem = [], str(error)
        else:
            problem = "" if names else "This store has no sweeps yet: python sweeps/sizes.py starts one."
        name = chosen if chosen in names else _first(live, names)
        body = inplace.said(drawn(watch.look(name)) if name else [html.P(problem)])
        now = hashlib.sha256(body.encode()).hexdigest()
        same = [dash.no_update] * 3
        if (names, now) == (options, was):
            raise dash.exceptions.PreventUpdate
        kept = name if name and not chosen else dash.no_update
        return (names, kept, *(same[:2] if now == was else (body, now)))

    for figure in FIGURES:
        _register_figure(app, live, watch, figure)


def _register_figure(app: Any, live: Live, watch: Watch, figure: str) -> None:
    """A figure of what became of the sweep follows its log."""
    name = f"sweep-{figure}"

    @app.callback(
        *gallery.outputs(name),
        dash.Input("tick", "n_intervals"),
        dash.Input({"state": "sweep"}, "value"),
        gallery.shown(name),
    )
    def show(_: int | None, chosen: str | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        if chosen is None or chosen not in _names(live):
            raise dash.exceptions.PreventUpdate
        past = watch.past(chosen)
        version = [chosen, past.number]
        if was is not None and was[1] == version:
            raise dash.exceptions.PreventUpdate
        page = _page(past, figure)
        return gallery.draw(live, name, page, version, was, code=_code(live, chosen, figure), of=chosen)


def _page(past: Past, figure: str) -> Page | None:
    """A figure of what became of a sweep; None where it would be empty."""
    from dashboards.figures import timeline, usage

    history = past.history
    if figure == "timeline":
        return timeline.timeline(history, past.sizes) if history.stays or history.coming else None
    if figure == "speed":
        return usage.speed(history, past.speeds) if past.speeds else None
    if figure == "spending":
        return usage.spending(history) if history.stays or history.ends is not None else None
    return usage.utilisation(history) if history.stays else None


def _code(live: Live, sweep: str, figure: str) -> str:
    """The line of Python that draws a figure."""
    room = "timeline" if figure == "timeline" else "usage"
    more = {"timeline": ", past.sizes", "speed": ", past.speeds"}.get(figure, "")
    return (
        f"from pathlib import Path; from dashboards.figures import {room}; from dashboards.watch import Watch; "
        f"past = Watch(Path({str(live.root)!r})).past({sweep!r}); {room}.{figure}(past.history{more}).figure"
    )


def drawn(watched: Watched) -> list[Any]:
    """A sweep: its head, then the runs under way, those that wait or failed, and the last that ended."""
    sweep = watched.standing
    parts = _head(sweep)
    if sweep.running:
        parts += [html.H2(f"Running ({len(sweep.running):,})"), _running(watched)]
    met = [(run_id, word) for run_id, under in watched.under.items() for word in under.met]
    if met:
        parts += [html.H2(f"Met on the way ({len(met):,})"), table(("run", "what"), [[link(r), w] for r, w in met])]
    others = said.others(sweep)
    if others:
        rows = [
            [link(other.run) if other.state == "failed" else other.run, other.when, other.reason]
            for other in others[:OTHERS]
        ]
        rows += [[f"and {len(others) - OTHERS:,} more", "", ""]] if len(others) > OTHERS else []
        states = ", ".join(dict.fromkeys(other.state for other in others)).capitalize()
        parts += [html.H2(states), table(("run", "starts in", "why"), rows, right=("starts in",))]
    if sweep.finished:
        rows = [
            [
                link(run.run_id),
                f"{run.loss:.4f}" if run.loss is not None else run.status,
                said.ago(run.time, sweep.time),
            ]
            for run in sweep.finished
        ]
        parts += [html.H2("Last done"), table(("run", "loss", "ago"), rows, right=("loss", "ago"))]
    return parts


def _head(sweep: Standing) -> list[Any]:
    counts = ", ".join(filter(None, [f"{sweep.done:,} of {sweep.asked:,} done", said.counts(sweep)]))
    lines = [said.ends(sweep), said.driver(sweep), said.spent(sweep), said.wrong(sweep)]
    bad = "warning" if sweep.driver in BAD else ""
    return [
        html.P(html.Strong(counts)),
        html.Progress(value=str(sweep.done), max=str(max(1, sweep.asked)), **{"aria-label": "runs done"}),
        html.Ul([html.Li(line, className=bad if line == lines[1] else "") for line in lines if line]),
        *(html.P(remark, className="warning") for remark in sweep.remarks[:10]),
    ]


def _running(watched: Watched) -> Any:
    """The runs under way, the silent ones marked."""
    sweep = watched.standing
    speed = "MFU" if any(live.mfu is not None for live in sweep.running) else "GFLOP/s"
    header = ("run", "done", "loss", "since its start", "tokens/s", speed, "heard", "saved", "ends in")
    rows, marks = [], []
    for live in sweep.running[:SHOWN]:
        under = watched.under.get(live.run_id)
        image = sparkline(under.losses) if under is not None else ""
        flops = live.flops_per_second
        rows.append(
            [
                link(live.run_id),
                said.done(live),
                "" if live.loss is None else f"{live.loss:.3f}",
                html.Img(src=image, alt="loss of the training batches so far", className="spark") if image else "",
                count(live.tokens_per_second) if live.tokens_per_second else "",
                percent(live.mfu) if speed == "MFU" else "" if not flops else f"{flops / 1e9:,.0f}",
                said.ago(live.heartbeat, sweep.time),
                said.ago(live.checkpoint, sweep.time),
                said.left(live, sweep),
            ]
        )
        marks.append(said.silent(live, sweep))
    if len(sweep.running) > SHOWN:
        more = f"and {len(sweep.running) - SHOWN:,} more"
        rows.append([dcc.Link(more, href=f"/runs?{urlencode({'filter': 'status=running'})}"), *[""] * 8])
        marks.append(False)
    right = tuple(name for name in header if name not in ("run", "since its start"))
    return table(header, rows, right=right, marks=marks)
