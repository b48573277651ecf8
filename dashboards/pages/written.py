"""Of a run that is open: the text that it writes after a prompt, when a reader asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import dash
from dash import dcc, html

from dashboards import writing
from dashboards.behind import Behind
from dashboards.live import Live
from dashboards.pages import gallery, inputs
from sweeps.watching.run_table import RunTable

Asked: TypeAlias = Annotated[list[str], (str, str)]  # a run, and a prompt


def layout(state: Mapping[str, str]) -> Any:
    """A prompt, a button, and the place of the text; hidden until a run is open that can write."""
    words = {"value": state["prompt"], "placeholder": "a new document"}
    return html.Div(
        [
            html.H3("Text that it writes"),
            html.Div(
                [
                    inputs.named("prompt", dcc.Input(id={"state": "prompt"}, type="text", **words)),
                    html.Button(f"Write {writing.TOKENS} tokens", id="runs-write"),
                ],
                className="prompt",
            ),
            html.Div(id="runs-written", role="status"),
            dcc.Store(id="runs-asked"),
        ],
        id="runs-text",
        style=gallery.HIDDEN,
    )


def register(app: Any, live: Live, runs: RunTable) -> None:
    """Nothing is written before the button is pressed, and one text at a time."""
    texts: Behind[writing.Written] = Behind()

    @app.callback(dash.Output("runs-text", "style"), dash.Input("runs-opened", "data"))
    def offered(now: list[str] | None) -> dict[str, str]:
        row = runs.view.row(now[0]) if now else None
        return {} if row is not None and row.status in writing.TRAINED else gallery.HIDDEN

    @app.callback(
        dash.Output("runs-asked", "data"),
        dash.Input("runs-write", "n_clicks"),
        dash.State({"state": "run"}, "value"),
        dash.State({"state": "prompt"}, "value"),
        prevent_initial_call=True,
    )
    def ask(clicks: int | None, run_id: str | None, prompt: str | None) -> list[str]:
        if not clicks or not run_id:  # the button has just come
            raise dash.exceptions.PreventUpdate
        return [run_id, prompt or ""]

    @app.callback(
        *(dash.Output("runs-written", what) for what in ("children", "aria-busy")),
        dash.Input("runs-asked", "data"),
        dash.Input({"state": "run"}, "value"),
        dash.Input("hurry", "n_intervals"),
    )
    def written(asked: Asked | None, run_id: str | None, _: int | None) -> tuple[Any, bool]:
        row = runs.view.row(run_id) if asked and asked[0] == run_id else None
        if row is None or asked is None:
            return [], False
        prompt = asked[1]
        found = texts.ask((row.run_id, prompt), 1, lambda: writing.write(live.root, row, prompt))
        if not found.done:
            return html.P(f"It is being written, for {found.seconds:.0f} s by now."), True
        if found.problem:
            return html.P(found.problem, className="warning"), False
        assert found.value is not None
        return [html.Pre([html.Strong(prompt), found.value.text]), *map(html.P, found.value.notes)], False
