"""The figures of a sweep, live in a browser: ``python -m dashboards.app runs=ROOT``.

Takes the settings of analysis.fit. Serves on 127.0.0.1 only (port=8050): whoever may use this machine may see the
pages, nobody else. The figures follow the store: new results appear within seconds. Needs the extra ``app`` (pip
install 'isoflop[app]').
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.settings import StudySettings
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError
from gpt3core.store.rundir import default_root

if TYPE_CHECKING:
    from dashboards.figures.style import Page

POLL_SECONDS = 3
_SHOWN = (("figure", "figure"), ("about", "children"), ("state", "children"), ("shown", "data"))


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
    app = build(given)  # what is wrong with the store is said here, before a server starts
    app.run(host="127.0.0.1", port=int(ports[-1]) if ports else 8050, debug=False)
    return 0


class Live:
    """The pages of a study, drawn anew when a result was added to its runs; one thread at a time."""

    def __init__(self, given: StudySettings) -> None:
        self._given = given
        self._root = Path(given.runs).expanduser().absolute() if given.runs else default_root()
        self._one_at_a_time = threading.Lock()  # a fit takes longer than a tick: the ticks behind it find it done
        self._pages: list[Page] = []
        self.token: tuple[int, float] | None = None
        self.name = ""

    def pages(self) -> list[Page]:
        """The pages as of now."""
        from dashboards import data
        from dashboards.figures import catalogue

        with self._one_at_a_time:
            token = _token(self._root)
            if self.token != token:
                study, _ = data.load(self._given)
                self._pages, self.name = catalogue.pages(study, data.losses(study.runs)), study.runs.name
                self.token = token
            return list(self._pages)


def build(given: StudySettings) -> Any:
    """The Dash app over a store."""
    try:
        import dash
    except ImportError as error:
        raise StoreError("dashboards.app needs dash: pip install 'isoflop[app]', or use dashboards.report") from error

    live = Live(given)
    made = live.pages()
    app = dash.Dash("isoflop", title=f"isoflop: {live.name}", update_title="")
    app.layout = _layout(live.name, made)

    @app.callback(
        *(dash.Output(name, what) for name, what in _SHOWN),
        *(dash.Input("tab", "value"), dash.Input("tick", "n_intervals"), dash.State("shown", "data")),
    )
    def show(slug: str, _: int | None, shown: list[Any] | None) -> tuple[Any, Any, str, list[Any]]:
        found = {page.slug: page for page in live.pages()}
        now = [slug, *(live.token or ())]
        # compared with what the browser has, not with what was sent: a slow answer that a later tick overtook is
        # discarded
        if shown == now:
            raise dash.exceptions.PreventUpdate
        page = found.get(slug, next(iter(found.values())))
        page.figure.update_layout(height=None, uirevision=slug)  # a reader's zoom survives an update
        return page.figure, page.about, f"{len(page.rows)} rows behind it, as of {time.strftime('%H:%M:%S')}", now

    return app


def _layout(name: str, made: list[Page]) -> Any:
    """Tabs over one figure, and a clock that asks for what is new."""
    from dash import dcc, html

    from dashboards.pages.html import CONFIG

    return html.Main(
        [
            html.H1(f"isoflop: sweep {name}"),
            dcc.Tabs(id="tab", value=made[0].slug, children=[dcc.Tab(label=p.title, value=p.slug) for p in made]),
            html.P(id="about"),
            dcc.Graph(id="figure", config=CONFIG, style={"height": "70vh"}),
            html.P(id="state", role="status"),
            dcc.Store(id="shown"),
            dcc.Interval(id="tick", interval=1000 * POLL_SECONDS),
        ],
        style={"maxWidth": "1200px", "margin": "0 auto", "fontFamily": "system-ui, sans-serif"},
    )


def _token(root: Path) -> tuple[int, float]:
    """Changes when a result or an evaluation is added."""
    written = [root] if root.is_file() else [*root.glob("runs/*/result.json"), *root.glob("runs/*/evals/*.parquet")]
    times = [path.stat().st_mtime for path in written]
    return len(times), max(times, default=0.0)


if __name__ == "__main__":
    cli.run(main)
