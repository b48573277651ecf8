"""The figures of a sweep, live in a browser: ``python -m dashboards.app runs=ROOT``. Takes the settings of
analysis.fit.

Serves on 127.0.0.1 only (port=8050): whoever may use this machine may see the pages, nobody else. The figures follow
the store: new results appear within seconds. Needs the extra ``app`` (pip install 'isoflop[app]').
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import fit
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError
from gpt3core.store.rundir import default_root

POLL_SECONDS = 3
_SHOWN = (("figure", "figure"), ("about", "children"), ("state", "children"), ("shown", "data"))


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    words = [word for word in argv if not word.startswith("port=")]
    ports = [word.split("=", 1)[1] for word in argv if word.startswith("port=")]
    if ports and not (ports[-1].isdecimal() and 0 < int(ports[-1]) < 65_536):
        raise UsageError(f"port={ports[-1]}: a number from 1 to 65535")
    given = fit.settings(words)
    fit.analyse(given)  # what is wrong with the store is said here, before a server starts
    app = build(given)
    app.run(host="127.0.0.1", port=int(ports[-1]) if ports else 8050, debug=False)
    return 0


def build(given: fit.Settings) -> Any:
    """The Dash app over a store."""
    try:
        import dash
        from dash import dcc, html
    except ImportError as error:
        raise StoreError("dashboards.app needs dash: pip install 'isoflop[app]', or use dashboards.report") from error

    from dashboards import figures, report
    from dashboards.style import Page

    root = Path(given.runs).expanduser().absolute() if given.runs else default_root()
    cache: dict[str, Any] = {"token": None, "pages": []}

    one_at_a_time = threading.Lock()  # a fit takes longer than a tick: the ticks behind it wait and find it done

    def pages() -> list[Page]:
        with one_at_a_time:
            token = _token(root)
            if cache["token"] != token:
                study, _ = fit.analyse(given)
                cache.update(token=token, pages=figures.pages(study), sweep=study.runs.name)
            return list(cache["pages"])

    made = pages()
    app = dash.Dash("isoflop", title=f"isoflop: {cache['sweep']}", update_title="")
    app.layout = html.Main(
        [
            html.H1(f"isoflop: sweep {cache['sweep']}"),
            dcc.Tabs(id="tab", value=made[0].slug, children=[dcc.Tab(label=p.title, value=p.slug) for p in made]),
            html.P(id="about"),
            dcc.Graph(id="figure", config=report.CONFIG, style={"height": "70vh"}),
            html.P(id="state", role="status"),
            dcc.Store(id="shown"),
            dcc.Interval(id="tick", interval=1000 * POLL_SECONDS),
        ],
        style={"maxWidth": "1200px", "margin": "0 auto", "fontFamily": "system-ui, sans-serif"},
    )

    @app.callback(
        *(dash.Output(name, what) for name, what in _SHOWN),
        *(dash.Input("tab", "value"), dash.Input("tick", "n_intervals"), dash.State("shown", "data")),
    )
    def show(slug: str, _: int | None, shown: list[Any] | None) -> tuple[Any, Any, str, list[Any]]:
        found = {page.slug: page for page in pages()}
        now = [slug, *cache["token"]]
        # compared with what the browser has, not with what was sent: a slow answer that a later tick overtook is
        # discarded
        if shown == now:
            raise dash.exceptions.PreventUpdate
        page = found.get(slug, next(iter(found.values())))
        page.figure.update_layout(height=None, uirevision=slug)  # a reader's zoom survives an update
        return page.figure, page.about, f"{len(page.rows)} rows behind it, as of {time.strftime('%H:%M:%S')}", now

    return app


def _token(root: Path) -> tuple[int, float]:
    """Changes when a result is added."""
    times = [path.stat().st_mtime for path in ([root] if root.is_file() else root.glob("runs/*/result.json"))]
    return len(times), max(times, default=0.0)


if __name__ == "__main__":
    cli.run(main)
