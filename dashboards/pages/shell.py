"""The frame around the pages of the app: navigation, the address, the clock, and a line on what goes on behind them.

The address holds all that a page shows: whoever opens it sees the same. A change of an input with an id
``{"state": NAME}`` replaces the address (assets/address.js), so that "back" leads to the page before, as it was left.
The clock (assets/clock.js) is ``tick``, an input of whatever follows the store, and ``hurry`` of what is made behind a
page, while an element of the page says by aria-busy that something is.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any
from urllib.parse import parse_qs

import dash
import flask
from dash import dcc, html

from dashboards import faults
from dashboards.figures.look import COLOURS
from dashboards.live import Live, View
from dashboards.pages import answer, compare, fewshot, laws, plan, runs, sweep
from dashboards.pages.inputs import LONGEST
from gpt3core.hints import nearest
from sweeps.watching.words import printable

TICK_SECONDS = 2.0
HURRY_SECONDS = 0.5
PAGES: tuple[ModuleType, ...] = (
    answer,
    laws,
    runs,
    sweep,
    fewshot,
    plan,
    compare,
)
MOST_WORDS = 100  # values in an address
IN_VAIN = "Not taken from the address: "
HEAD = '<meta name="viewport" content="width=device-width">'
DATA = '<script type="application/json" id="{}">{}</script>'  # for assets


def app(live: Live) -> Any:
    """The Dash app over what is followed."""
    folder = Path(__file__).resolve().parent.parent / "assets"
    server = flask.Flask("isoflop", static_folder=None)  # else it hands out what is in ./static
    made = dash.Dash("isoflop", server=server, title="isoflop", update_title="", assets_folder=str(folder))
    made.config.suppress_callback_exceptions = True  # a page's components are there while it is shown
    clock = {"app": secrets.token_hex(8), "every": TICK_SECONDS, "hurried": HURRY_SECONDS, "runs": not live.of_table}
    data = "".join(DATA.format(name, json.dumps(of)) for name, of in (("colours", COLOURS), ("clock", clock)))
    made.index_string = made.index_string.replace("</head>", f"{HEAD}{data}</head>")
    made.layout = lambda: _frame(live)
    _register(made, live)
    made.server.get("/beat")(lambda: {"app": clock["app"], **standing(live.view)})
    for page in PAGES:
        page.register(made, live)
    return made


def standing(view: View) -> dict[str, str]:
    """The lines above every page."""
    return {"name": f"isoflop: {view.name}" if view.name else "isoflop", "said": said(view)}


def said(view: View) -> str:
    """Of when the page is, and what goes on behind it."""
    parts = [f"as of {time.strftime('%H:%M:%S', time.localtime(view.made))}"] if view.number else []
    if view.fitting is not None:
        seconds = max(0.0, time.time() - view.fitting)  # a clock may be set back
        parts.append(f"fitting {'the runs' if not view.number else 'new results'} for {seconds:.0f} s")
    if view.problem:
        parts.append(view.problem)
    return "; ".join(parts) or "starting"


def filled(defaults: Mapping[str, str], search: str) -> tuple[dict[str, str], list[str]]:
    """What a page's address says of it, a value that its query lacks being the default; and what it says in vain."""
    try:
        given = parse_qs(search.removeprefix("?"), keep_blank_values=True, max_num_fields=MOST_WORDS)
    except ValueError:
        return dict(defaults), [f"more than {MOST_WORDS} values: none of them is taken"]
    wrong = [
        f"{name or '=':.40}: this page has no such value{nearest(name, tuple(defaults))}"
        for name in given.keys() - defaults
    ]
    twice = [name for name in defaults if len(given.get(name, [])) > 1]
    wrong += [f"{name}: given {len(given[name])} times; the last one is taken" for name in twice]
    long = [name for name in defaults if len(given.get(name, [""])[-1]) > LONGEST]
    wrong += [f"{name}: longer than {LONGEST:,} characters" for name in long]
    state = {name: value if name in long else given.get(name, [value])[-1] for name, value in defaults.items()}
    return state, sorted(wrong)


def taken(page: ModuleType, live: Live, search: str) -> tuple[dict[str, str], str]:
    """The state that a page shows for an address, and a sentence on what of the address it is not."""
    state, wrong = filled(page.STATE, search)
    unread: dict[str, str] = page.unread(live, state) if hasattr(page, "unread") else {}
    for name, why in unread.items():
        instead = f"; {page.STATE[name]} is taken" if page.STATE[name] else ""
        wrong.append(f"{name}={state[name]:.40}: {why}{instead}")
    said = printable(f"{IN_VAIN}{'; '.join(wrong)}") if wrong else ""
    end = "" if not said or said.endswith("?") else "."
    return {**state, **{name: page.STATE[name] for name in unread}}, said + end


def _frame(live: Live) -> Any:
    now = standing(live.view)
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="route"),
            dcc.Store(id="defaults", data={}),
            dcc.Store(id="written"),
            html.Header(
                [html.H1(now["name"], id="name"), html.Nav(id="nav"), html.P(now["said"], id="state", role="status")]
            ),
            *(html.P(id=name, className="warning", role="alert") for name in ("unread", faults.PLACE)),
            html.Main(id="page"),
            *(dcc.Interval(id=name, disabled=True) for name in ("tick", "hurry")),
        ]
    )


def _register(made: Any, live: Live) -> None:
    client = dash.ClientsideFunction
    made.clientside_callback(
        client("address", "route"),
        dash.Output("route", "data"),
        dash.Input("url", "pathname"),
        dash.Input("url", "search"),
    )
    made.clientside_callback(
        client("address", "write"),
        dash.Output("written", "data"),
        dash.Input({"state": dash.ALL}, "value"),
        dash.State({"state": dash.ALL}, "id"),
        dash.State("defaults", "data"),
    )

    @made.callback(
        *(dash.Output(name, "children") for name in ("page", "nav", "unread")),
        dash.Output("defaults", "data"),
        dash.Input("route", "data"),
        prevent_initial_call=True,
    )
    def show(route: Annotated[list[str], (str, str)]) -> tuple[Any, ...]:
        path, search = route
        page = next((page for page in PAGES if page.PATH == path), None)
        nav = [
            html.Span(dcc.Link(p.TITLE, href=p.PATH), **{"aria-current": "page"} if p is page else {}) for p in PAGES
        ]
        if page is None:
            return html.P("There is no such page: the links above lead to those that there are."), nav, "", {}
        chosen, wrong = taken(page, live, search)
        return page.layout(live, chosen), nav, wrong, page.STATE
