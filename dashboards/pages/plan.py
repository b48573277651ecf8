"""The page Plan: at a compute, the best run with what it reaches and takes, and what to run before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.runs.conventions import LABELS
from dashboards import plan
from dashboards.behind import Behind, Found
from dashboards.figures.plan import plan as figure
from dashboards.live import Live, View
from dashboards.pages.html import CONFIG
from dashboards.plan import Asked, Outlook
from sweeps.planning import hardware

if TYPE_CHECKING:
    import dash
    from dash.development.base_component import Component

    from analysis.next_runs import NextRuns
    from analysis.output.answer import Line
    from analysis.study import Study

PATH = "/plan"
TITLE = "Plan"
STATE = plan.STATE
TICK_MS = 500  # between looks at what is made behind the page
MARKS = {-1: "0.1x", 0: "1x", 1: "10x", 2: "100x", 3: "1000x", 4: "10⁴x"}  # of the highest-compute run
OF_SLIDERS = ("compute", "largest")


class Planner:
    """What the page shows, made behind it: an outlook a study, a proposal a request."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._outlooks: Behind[Outlook] = Behind()
        self._designs: Behind[NextRuns] = Behind()

    def outlook(self, number: int, study: Study) -> Found[Outlook]:
        """What a study says of larger runs."""
        return self._outlooks.ask(number, lambda: plan.outlook(study))

    def command(self, asked: Asked) -> str:
        """What to type for the same proposals."""
        return plan.command(self._live.given, asked)

    def design(self, number: int, asked: Asked) -> Found[NextRuns]:
        """What to run next."""
        return self._designs.ask((number, asked), lambda: plan.design(self._live.given, asked))


def layout(live: Live, state: Mapping[str, str]) -> Component:
    """Inputs, with places for what the callbacks say."""
    from dash import dcc, html

    highest = _highest(live.view)
    return html.Div(
        [
            html.Div(
                [
                    _field("planned run, FLOPs", _typed("compute", state), _slider("compute", state, highest, 1.0)),
                    _field(
                        "largest run before it, FLOPs",
                        _typed("largest", state),
                        _slider("largest", state, highest, 1.0),
                    ),
                    _field("runs before it", _typed("batch", state, "number")),
                    _field("to narrow", _choice("for", state, plan.TARGETS)),
                    _field("GPU", _choice("gpu", state, dict.fromkeys(hardware.GPUS, ""))),
                    _field("days at most", _typed("days", state, "number")),
                ],
                className="controls",
            ),
            html.P(id="plan-wrong", className="warning", role="alert"),
            html.Dl(id="plan-answer"),
            dcc.Graph(id="plan-figure", config=CONFIG, style={"display": "none"}),
            html.P(id="plan-about"),
            html.H2("What to run before it"),
            html.Div(id="plan-next", role="status"),
            dcc.Store(id="plan-shown"),
            dcc.Interval(id="plan-tick", interval=TICK_MS),
        ]
    )


def register(app: dash.Dash, live: Live) -> None:
    """The page's callbacks."""
    import dash
    from dash import Input, Output, State

    planner = Planner(live)
    names = list(STATE)

    @app.callback(
        *(Output(f"plan-{name}", what) for name, what in _SHOWN),
        *(Input({"state": name}, "value") for name in names),
        Input("plan-tick", "n_intervals"),
        State("plan-shown", "data"),
    )
    def show(*values: Any) -> tuple[Any, ...]:
        view, shown = live.view, values[-1]
        state = {name: "" if value is None else str(value) for name, value in zip(names, values[:-2], strict=True)}
        now, parts = _drawn(planner, view, state)
        if now == shown:
            raise dash.exceptions.PreventUpdate
        return (*parts(), now)

    for name in OF_SLIDERS:
        _follow(app, live, name)


_SHOWN = (
    *(("wrong", "children"), ("answer", "children"), ("figure", "figure"), ("figure", "style")),
    *(("about", "children"), ("next", "children"), ("shown", "data")),
)


def _follow(app: dash.Dash, live: Live, name: str) -> None:
    """A slider and a field that say the same, in one callback, for each follows the other."""
    import dash
    from dash import Input, Output

    field, slider = {"state": name}, f"plan-{name}-slider"

    @app.callback(
        *(Output(field, "value"), Output(slider, "value")),
        *(Input(field, "value"), Input(slider, "value")),
        prevent_initial_call=True,
    )
    def follow(text: str | None, place: float) -> tuple[Any, Any]:
        highest = _highest(live.view)
        if highest is None:
            raise dash.exceptions.PreventUpdate
        if dash.ctx.triggered_id == slider:
            return plan.slid(place, highest), dash.no_update
        return dash.no_update, plan.decades(text or "", highest, plan.FARTHER * highest)


def _highest(view: View) -> float | None:
    """FLOPs of the highest-compute run, once a study is there."""
    return None if view.study is None else float(view.study.table.C.max())


# -------------------------------------------------------------------------------------------------------------- drawing


def _drawn(planner: Planner, view: View, state: Mapping[str, str]) -> tuple[list[Any], Any]:
    """What is shown, in short, and the function that draws it: nothing is drawn that the browser has."""
    study = view.study
    if study is None or study.table.empty:
        said = "laws are being fitted" if study is None else "no run passed the rules: there is nothing to plan by"
        return [view.number, said], lambda: _empty(said)
    asked, wrong = plan.asked(state, float(study.table.C.max()))
    known, design = planner.outlook(view.number, study), planner.design(view.number, asked)
    if known.problem:
        return [view.number, known.problem], lambda: _empty(known.problem)
    now = [view.number, repr(asked), wrong, known.done, design.done]
    return now, lambda: _whole(planner, study, asked, wrong, known, design)


def _empty(said: str) -> tuple[Any, ...]:
    return said, [], {}, {"display": "none"}, "", ""


def _whole(
    planner: Planner, study: Study, asked: Asked, wrong: list[str], known: Found[Outlook], design: Found[NextRuns]
) -> tuple[Any, ...]:
    nexts = _next(planner, asked, design)
    if known.value is None:
        return (
            "; ".join(wrong),
            _lines([("", "the laws are drawn anew, for their intervals ...")]),
            {},
            _HIDDEN,
            "",
            nexts,
        )
    p = plan.at(known.value, asked.compute)
    made = figure(study, known.value.along, p)
    drawn = {**made.figure.to_plotly_json()}
    drawn["layout"] = {**drawn["layout"], "uirevision": "plan"}  # a reader's zoom stays when the plan moves
    if p is None:
        wrong = [*wrong, f"no size is best at {asked.compute:.3g} FLOPs by the laws fitted here"]
        return "; ".join(wrong), [], drawn, {}, made.about, nexts
    run = plan.trained(known.value, p, asked)
    counted = f"N {LABELS[study.convention.n]}, C {LABELS[study.convention.c]}"
    answer = [*_lines([*plan.reached(p), *plan.taken(run, asked), ("counted", counted)])]
    return "; ".join(wrong), answer, drawn, {}, made.about, nexts


_HIDDEN = {"display": "none"}


def _lines(lines: list[Line]) -> list[Any]:
    from dash import html

    return [part for label, sentence in lines for part in (html.Dt(label), html.Dd(sentence))]


def _next(planner: Planner, asked: Asked, design: Found[NextRuns]) -> list[Any]:
    """The runs proposed, whether they are worth it, and the commands."""
    from dash import html

    from analysis.output import proposals

    if not design.done:
        return [html.P("proposals are being computed ...")]
    if design.value is None:
        return [html.P(design.problem, className="warning")]
    header, rows = proposals.rows(design.value)
    table = html.Table(
        [
            html.Thead(html.Tr([html.Th(name) for name in header])),
            html.Tbody(
                [
                    html.Tr([html.Td(cell, className="number" if i else "") for i, cell in enumerate(row)])
                    for row in rows
                ]
            ),
        ]
    )
    said = [html.P(sentence) for sentence in proposals.sentences(design.value)]
    return [html.Div(table, className="wide"), *said, *_commands(planner, asked, design.value)]


def _commands(planner: Planner, asked: Asked, found: NextRuns) -> list[Any]:
    """What to type: for the runs, and for the same proposals."""
    from dash import html

    from analysis.output import proposals

    runs = [_copied("plan-run", "\n".join(found.commands))] if found.commands else []
    by_hand = [html.P(proposals.BY_HAND)] if found.design.proposals and not found.commands else []
    return [*runs, *by_hand, html.P("the same at a terminal:"), _copied("plan-again", planner.command(asked))]


def _copied(name: str, text: str) -> Any:
    """A command with a button that copies it."""
    from dash import dcc, html

    return html.Div([html.Pre(text, id=name), dcc.Clipboard(target_id=name, title="copy")], className="copied")


# --------------------------------------------------------------------------------------------------------------- inputs


def _field(label: str, *inside: Any) -> Any:
    from dash import html

    return html.Label([html.Span(label), *inside])


def _typed(name: str, state: Mapping[str, str], kind: str = "text") -> Any:
    from dash import dcc

    return dcc.Input(id={"state": name}, value=state[name], type=kind, debounce=True)


def _choice(name: str, state: Mapping[str, str], known: Mapping[str, str]) -> Any:
    from dash import dcc

    options = [{"value": value, "label": label or value} for value, label in known.items()]
    return dcc.Dropdown(id={"state": name}, value=state[name], options=options, clearable=False, searchable=False)


def _slider(name: str, state: Mapping[str, str], highest: float | None, default: float) -> Any:
    from dash import dcc

    place = default if highest is None else plan.decades(state[name], highest, plan.FARTHER * highest)
    return dcc.Slider(
        id=f"plan-{name}-slider", min=-1, max=plan.SHOWN, step=0.05, value=place, marks=MARKS, included=False
    )
