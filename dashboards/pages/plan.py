"""Plan: at a compute, the best run with what it reaches and takes, and what to run before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import dash
from dash import dcc, html

from dashboards import exports, plan
from dashboards.behind import Behind, Found
from dashboards.live import Live, View
from dashboards.pages import gallery, inplace, inputs, tables
from dashboards.plan import Asked, Outlook
from gpt3core.words import number_of
from sweeps.watching.words import printable

if TYPE_CHECKING:
    from analysis.estimation.predict import Prediction
    from analysis.next_runs import NextRuns
    from analysis.study import Study

PATH, TITLE = "/plan", "Plan"
STATE = plan.STATE
Text: TypeAlias = str | None
Fields: TypeAlias = tuple[Text, Text, Text, Text, Text, Text]  # the values of STATE
FIGURE = "plan-figure"
MARKS = {-1: "1/10", 0: "1×", 1: "10×", 2: "100×", 3: "1000×", 4: "10⁴×"}  # of the highest-compute run
OF_SLIDERS = ("compute", "largest")
SAID = ("answer", "why", "next")
DRAWING = "The laws are drawn anew, for their intervals."


class Planner:
    """What the page says, made behind it: an outlook a study, proposals a request."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._outlooks: Behind[Outlook] = Behind()
        self._designs: Behind[NextRuns] = Behind()

    def outlook(self, view: View, study: Study) -> Found[Outlook]:
        """What a study says of larger runs."""
        return self._outlooks.ask(PATH, view.number, lambda: plan.outlook(study))

    def design(self, number: int, asked: Asked) -> Found[NextRuns]:
        """What to run next, after a study of that number."""
        return self._designs.ask(asked, number, lambda: plan.design(self.live.given, asked))


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """Inputs, and places for what the callbacks say."""
    from sweeps.planning import hardware

    highest = _highest(live.view)
    usual = "10× the largest run" if highest is None else plan.slid(1.0, highest)
    fields = [
        _field("planned run, FLOPs", _text("compute", state, usual), _slider("compute", "planned run", state, highest)),
        _field(
            "largest run before it, FLOPs",
            _text("largest", state, usual),
            _slider("largest", "largest run before it", state, highest),
        ),
        _choice("gpu", "GPU", state, {name: name for name in hardware.GPUS}),
        _field("days at most", _text("days", state)),
        _field("runs before it", _text("batch", state)),
        _choice("for", "to narrow", state, plan.TARGETS),
    ]
    return html.Article(
        [
            html.Div(fields, className="controls"),
            html.P(id="plan-wrong", className="warning", role="alert"),
            html.Dl(id="plan-answer"),
            html.Div(id="plan-why"),
            *gallery.figure(FIGURE),
            html.H2("What to run before it"),
            html.Div(id="plan-next"),
            dcc.Store(id="plan-said"),
        ]
    )


def register(app: Any, live: Live) -> None:
    """Sentences and figure follow the inputs, the study, and what is made behind the page."""
    planner = Planner(live)
    clocks = (dash.Input(clock, "n_intervals") for clock in ("tick", "hurry"))
    asked = (*(dash.Input({"state": name}, "value") for name in STATE), *clocks)

    @app.callback(
        dash.Output("plan-wrong", "children"),
        *(inplace.output(f"plan-{name}") for name in SAID),
        dash.Output("plan-answer", "aria-busy"),
        dash.Output("plan-said", "data"),
        *asked,
        dash.State("plan-said", "data"),
    )
    def say(*values: *tuple[*Fields, int | None, int | None, list[Any] | None]) -> tuple[Any, ...]:
        now, busy, parts = _said(planner, live.view, _state(values))
        if now == values[-1]:
            raise dash.exceptions.PreventUpdate
        wrong, *told = parts()
        return (wrong, *map(inplace.said, told), busy, now)

    @app.callback(*gallery.outputs(FIGURE), *asked, gallery.shown(FIGURE))
    def draw(*values: *tuple[*Fields, int | None, int | None, gallery.Shown | None]) -> tuple[Any, ...]:
        view, state = live.view, _state(values)
        found = None if view.study is None or view.study.table.empty else planner.outlook(view, view.study)
        if found is None or (known := found.value) is None:
            return gallery.draw(live, FIGURE, None, view.number, values[-1])
        compute = plan.asked(state, plan.highest_compute(known.study))[0].compute
        version, was = [found.of, compute], values[-1]
        if was is not None and was[1] == version:
            raise dash.exceptions.PreventUpdate
        from dashboards.figures.plan import plan as figure

        page = figure(known.study, known.along, plan.at(known, compute))
        return gallery.draw(live, FIGURE, page, version, was, _code(live, compute))

    for name in OF_SLIDERS:
        _follow(app, live, name)


def _state(values: tuple[Any, ...]) -> dict[str, str]:
    """The inputs of a callback by their names; an empty field is one that says nothing."""
    return {name: "" if value is None else str(value) for name, value in zip(STATE, values, strict=False)}


def _follow(app: Any, live: Live, name: str) -> None:
    """A slider and a field that say the same, in one callback, for each follows the other."""
    field, slider = {"state": name}, f"plan-{name}-slider"

    @app.callback(
        *(dash.Output(field, "value"), dash.Output(slider, "value")),
        *(dash.Input(field, "value"), dash.Input(slider, "value")),
        prevent_initial_call=True,
    )
    def follow(text: str | None, place: float) -> tuple[Any, Any]:
        if (highest := _highest(live.view)) is None:
            raise dash.exceptions.PreventUpdate
        if dash.ctx.triggered_id == slider:
            return plan.slid(place, highest), dash.no_update
        return dash.no_update, plan.decades(text or "", highest)


def _highest(view: View) -> float | None:
    """FLOPs of the highest-compute run, once a study is there that has runs."""
    return None if view.study is None or view.study.table.empty else plan.highest_compute(view.study)


def _code(live: Live, compute: float) -> str:
    """The Python that draws the figure."""
    settings, names = exports.written(live.given)
    return (
        f"from analysis import api; from analysis.settings import {names}; from dashboards import plan; "
        f"from dashboards.figures.plan import plan as figure; study = api.study({settings})[0]; "
        f"known = plan.outlook(study); figure(study, known.along, plan.at(known, {compute:g})).figure"
    )


# ------------------------------------------------------------------------------------------------------------ sentences


def _said(planner: Planner, view: View, state: Mapping[str, str]) -> tuple[list[Any], bool, Any]:
    """What is said, in short, whether more comes, and what spells it out: nothing is made that the browser has."""
    study = view.study
    if study is None or study.table.empty:
        said = view.waiting if study is None else "No run passed the rules: there is nothing to plan by."
        return [view.number, said], False, lambda: (said, [], [], [])
    known = planner.outlook(view, study)
    asked, wrong = plan.asked(state, plan.highest_compute(study if known.value is None else known.value.study))
    design = planner.design(known.of or view.number, asked)
    now = [known.of, repr(asked), wrong, known.problem, known.done, design.of, design.problem, design.done]
    return now, not (known.done and design.done), lambda: _spelt(planner, asked, wrong, known, design)


def _spelt(
    planner: Planner, asked: Asked, wrong: list[str], known: Found[Outlook], design: Found[NextRuns]
) -> tuple[Any, ...]:
    nexts = _next(planner, asked, design)
    wrong = [*map(printable, wrong), *filter(None, [known.problem])]
    older = "" if known.value is None else f" What is shown is of {number_of(len(known.value.study.table), 'run')}."
    waits = [] if known.done else [html.Dt("waiting"), html.Dd(f"{DRAWING}{older}")]
    if known.value is None:
        return "; ".join(wrong), waits, [], nexts
    p = plan.at(known.value, asked.compute)
    if p is None:
        wrong = [*wrong, f"no size is best at {asked.compute:.3g} FLOPs by the laws fitted here"]
        return "; ".join(wrong), waits, [], nexts
    lines, why = _answered(planner, asked, known.value, p)
    return "; ".join(wrong), [*waits, *lines], why, nexts


def _answered(planner: Planner, asked: Asked, known: Outlook, p: Prediction) -> tuple[list[Any], list[Any]]:
    """The run that is planned, in lines, and why it is cut so; what it is to reach leads to the runs that say so."""
    from analysis.output import evidence
    from analysis.runs.conventions import LABELS

    run, behind = plan.trained(known, p, asked), evidence.of_prediction(known.study, optimal=True)
    sets = planner.live.sets if known.study.runs.store else None
    convention = known.study.convention
    counted = f"N {LABELS[convention.n]}, C {LABELS[convention.c]}; shape and batch grow as GPT-3's do"
    (compute, far), *reached = plan.reached(p)
    lines = [(compute, gallery.typeset(far))]
    lines += [(label, tables.linked([(said, behind)], sets)) for label, said in reached]
    lines += [(label, gallery.typeset(said)) for label, said in [*plan.taken(run, asked), ("counted", counted)]]
    spelt = [part for label, said in lines for part in (html.Dt(label), html.Dd(said))]
    why = [html.Li(said) for said in plan.why(run)]
    return spelt, [html.Details([html.Summary("Why it is cut so"), html.Ul(why)])] if why else []


def _next(planner: Planner, asked: Asked, design: Found[NextRuns]) -> list[Any]:
    """The runs proposed, whether they are worth it, and the commands."""
    from analysis.output import proposals

    again = [html.P("The same at a terminal:"), inputs.copied("plan-again", plan.command(planner.live.given, asked))]
    found, told = design.value, ""
    if design.problem:
        told = f"Not proposed: {design.problem}."
    elif not design.done:
        told = "Proposals are being computed."
    if told and found is not None:
        told += " What is shown was proposed before results were added."
    first = [html.P(told, className="warning" if design.problem else "")] if told else []
    if found is None:
        return [*first, *again]
    header, rows = proposals.rows(found)
    cells = [[gallery.typeset(cell) for cell in row] for row in rows]
    table = [tables.table(header, cells, right=header[1:])] if rows else []
    said = [html.Li(gallery.typeset(_begun(sentence))) for sentence in proposals.sentences(found)]
    return [*first, *table, html.Ul(said), *_how(found), *again]


def _how(found: NextRuns) -> list[Any]:
    """How to run them: by a command, or by hand where there is no recipe."""
    from analysis.output import proposals

    if not found.commands:
        return [html.P(_begun(proposals.BY_HAND))] if found.design.proposals else []
    return [html.P(_begun(proposals.how(found)[0])), inputs.copied("plan-run", "\n".join(found.commands))]


def _begun(sentence: str) -> str:
    """With a capital letter."""
    return sentence[:1].upper() + sentence[1:]


# --------------------------------------------------------------------------------------------------------------- inputs


def _field(label: str, *inside: Any) -> Any:
    return html.Label([html.Span(label), *inside])


def _text(name: str, state: Mapping[str, str], usual: str = "") -> Any:
    return dcc.Input(id={"state": name}, value=state[name], type="text", debounce=True, placeholder=usual)


def _choice(name: str, label: str, state: Mapping[str, str], known: Mapping[str, str]) -> Any:
    options = [{"value": value, "label": label} for value, label in known.items()]
    box = dcc.RadioItems(id={"state": name}, value=state[name], options=options, inline=True)
    return inputs.group(label, html.Span(label), box)


def _slider(name: str, label: str, state: Mapping[str, str], highest: float | None) -> Any:
    box = dcc.Slider(
        id=f"plan-{name}-slider",
        min=-1,
        max=plan.SHOWN,
        step=0.05,
        value=1.0 if highest is None else plan.decades(state[name], highest),
        marks=MARKS,
        included=False,
        allow_direct_input=False,
    )
    return inputs.group(f"{label}, decades beyond the runs", box)
