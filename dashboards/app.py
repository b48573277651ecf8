"""The figures of a sweep, live in a browser: ``python -m dashboards.app runs=ROOT``.

Takes the settings of analysis.fit. Serves on 127.0.0.1 only (port=8050): whoever may use this machine may see the
pages, nobody else. It listens at once; laws are fitted behind the page, which says so, and again when results were
added. Needs the extra ``app`` (pip install 'isoflop[app]').
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from typing import Any

from analysis.settings import StudySettings
from dashboards.live import Live, View
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError

TICK_SECONDS = 2.0
ANSWER = "answer"  # the tab that opens
TABS_CSS = (
    ".tab--selected { background: var(--paper) !important; color: var(--ink) !important; }"  # dash has them white
)
_SHOWN = (
    ("name", "children"),
    ("tabs", "children"),
    ("answer", "children"),
    ("figure", "figure"),
    ("figure", "style"),
    ("about", "children"),
    ("shown", "data"),
)


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    for word in argv:
        if word.startswith("host="):
            raise UsageError(
                f"{word:.80}: the pages are served on 127.0.0.1 alone, for they ask nobody for a token; from another "
                "machine: ssh -L 8050:127.0.0.1:8050 HOST, or dashboards.report, whose folder can be sent"
            )
    words = [word for word in argv if not word.startswith("port=")]
    ports = [word.split("=", 1)[1] for word in argv if word.startswith("port=")]
    if ports and not (ports[-1].isdecimal() and 0 < int(ports[-1]) < 65_536):
        raise UsageError(f"port={ports[-1]}: a number from 1 to 65535")
    given = cli.settings(StudySettings(), words)
    given.check()
    _require_runs(given)
    live = Live(given)
    server = serve(live, int(ports[-1]) if ports else 8050)
    print(f"http://127.0.0.1:{server.port} (Ctrl-C ends it); laws are fitted behind the page", flush=True)
    live.follow()
    server.serve_forever()
    return 0


def _require_runs(given: StudySettings) -> None:
    """Say at once, before anything listens, that there are no such runs; what is wrong with them the page says.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    from analysis.runs import selection, store
    from analysis.runs.scores import Asked

    path = store.place(given.runs) if given.runs else store.default_root()
    if path.suffix and not path.is_dir():
        selection.select(given, asked=Asked.of(given))
    else:
        store.known(path, given.sweep)


def serve(live: Live, port: int) -> Any:
    """A server that listens, not yet serving. Requests are not logged: a page asks every two seconds.

    Raises:
        UsageError: when something else has the port.
    """
    app = build(live)
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as probe:  # werkzeug would print lines of its own and exit
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"port={port}: {error.strerror}; give another, like port={port + 1}") from error
    return make_server("127.0.0.1", port, app.server, threaded=True)


def build(live: Live) -> Any:
    """The Dash app over what is followed."""
    try:
        import dash
    except ImportError as error:
        raise StoreError("dashboards.app needs dash: pip install 'isoflop[app]', or use dashboards.report") from error
    from dashboards.pages.html import CSS

    app = dash.Dash("isoflop", title="isoflop", update_title="")
    app.layout = _layout
    app.index_string = app.index_string.replace("</head>", f"<style>{CSS}{TABS_CSS}</style></head>")

    @app.callback(
        *(dash.Output(name, what) for name, what in _SHOWN),
        *(dash.Input("tabs", "value"), dash.Input("tick", "n_intervals"), dash.State("shown", "data")),
    )
    def show(tab: str, _: int | None, shown: list[Any] | None) -> tuple[Any, ...]:
        view = live.view
        now = [tab, view.number]
        # compared with what the browser has, not with what was sent: a slow answer that a later tick overtook is
        # discarded
        if shown == now:
            raise dash.exceptions.PreventUpdate
        return (*_drawn(view, tab, fresh=shown is None or shown[0] != tab or not shown[1]), now)

    @app.callback(dash.Output("state", "children"), dash.Input("tick", "n_intervals"))
    def state(_: int | None) -> str:
        return said(live.view)

    return app


def said(view: View) -> str:
    """The line below the figure: of when it is, and what goes on behind it."""
    parts = [f"as of {time.strftime('%H:%M:%S', time.localtime(view.made))}"] if view.number else []
    if view.fitting is not None:
        parts.append(
            f"fitting {'the runs' if not view.number else 'new results'} for {time.time() - view.fitting:.0f} s"
        )
    if view.problem:
        parts.append(view.problem)
    return "; ".join(parts) or "starting"


def _drawn(view: View, tab: str, *, fresh: bool) -> tuple[Any, ...]:
    """Name, tabs, answer, figure and its style, and text of a tab.

    Args:
        fresh: whether another tab, or none, was drawn before; else a reader's zoom stays.
    """
    from dash import Patch, dcc, html

    tabs = [dcc.Tab(label="Answer", value=ANSWER), *(dcc.Tab(label=p.title, value=p.slug) for p in view.pages)]
    if not view.pages:
        return "isoflop", tabs, [], {}, {"display": "none"}, ""
    page = {page.slug: page for page in view.pages}.get(tab, view.pages[0])
    drawn: Any = page.figure.to_plotly_json()
    drawn["layout"] = {name: value for name, value in drawn["layout"].items() if name != "height"}
    if not fresh:  # the browser's layout holds what the reader sees: uirevision does not outlive a Graph's own updates
        whole, drawn = drawn, Patch()
        drawn["data"] = whole["data"]
        for name in set(whole["layout"]) - {"xaxis", "yaxis"}:
            drawn["layout"][name] = whole["layout"][name]
        drawn["layout"]["yaxis"]["tickvals"] = whole["layout"]["yaxis"].get("tickvals")
    lines = view.answer if tab == ANSWER else []
    answer = [part for label, sentence in lines for part in (html.Dt(label), html.Dd(sentence))]
    about = f"{page.about} {len(page.rows)} rows behind it."
    return f"isoflop: {view.name}", tabs, answer, drawn, {"height": "70vh"}, about


def _layout() -> Any:
    """Tabs over one figure, and a clock that asks for what is new."""
    from dash import dcc, html

    from dashboards.pages.html import CONFIG

    return html.Main(
        [
            html.H1("isoflop", id="name"),
            dcc.Tabs(id="tabs", value=ANSWER, children=[dcc.Tab(label="Answer", value=ANSWER)]),
            html.Dl(id="answer"),
            html.P(id="about"),
            dcc.Graph(id="figure", config=CONFIG, style={"display": "none"}),
            html.P(id="state", role="status"),
            dcc.Store(id="shown"),
            dcc.Interval(id="tick", interval=1000 * TICK_SECONDS),
        ]
    )


if __name__ == "__main__":
    cli.run(main)
