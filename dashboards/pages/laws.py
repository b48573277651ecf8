"""The laws: chosen, fitted anew behind the page, what they leave unexplained, and what they foretell of larger runs.

The choice is in the address. While it is fitted, what is shown is the fit before, and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import unescape
from typing import TYPE_CHECKING, Any, TypeAlias

import dash
from dash import dcc, html

from analysis.settings import COMPUTES, COUNTS
from dashboards import exports, refit
from dashboards.desk import Desk, Of
from dashboards.live import Live
from dashboards.pages import gallery, inplace, inputs, tables
from dashboards.refit import STARTED, Choice, Cut, Fit
from gpt3core.errors import UsageError
from gpt3core.words import flops, number_of, powers
from sweeps.watching.words import printable

if TYPE_CHECKING:
    from dashboards.figures.style import Page

PATH, TITLE = "/laws", "Laws"
STATE = {"figure": "frontier", "axes": "drawn", "beside": "nothing", **refit.STATE, "cut": ""}
FIGURE, RESIDUALS, CUT = "laws-figure", "laws-residuals", "laws-cut"
AXES = {"drawn": "axes as drawn", "linear": "linear axes"}
BESIDE = {"nothing": "these runs alone", "published": "published results over them"}
LOOKS = {"axes": AXES, "beside": BESIDE}  # of a figure, how it is drawn
MOST_MARKS = 5  # of the slider that are named: a phone has room for these
BELOW = "residuals"  # the figure below each other one
UNFITTED, OLDER = "unfitted", "older"  # classes of what follows the fit: there is none; it is another one's
NO_CUT = "No cut leaves runs enough below it and above it: nothing can be foretold and measured."
EMPTY = "These runs have no loss that a law could be of."
CHOSEN = tuple(dash.Input({"state": name}, "value") for name in refit.STATE)
Text: TypeAlias = str | None


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """What can be chosen, the figures of the fit, a backtest's cut, and the command for the same."""
    return html.Article(
        [
            _choices(state),
            html.P(id="laws-said", role="status"),
            dcc.Store(id="laws-of"),
            html.Div(_shown(state), id="laws-shown", className=UNFITTED),
        ]
    )


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """What an address asks for that there is not; of a window and of runs left out, the page says so itself."""
    return {**inputs.refused(state, {"figure": inputs.slugs(live, refit.GROUP), **LOOKS}), **refit.unknown(state)}


def _shown(state: Mapping[str, str]) -> list[Any]:
    """What follows the fit: its answer, its figures and a cut of its backtests."""
    looks = [
        inputs.tabs(name, name, state[name] if state[name] in words else STATE[name], words)
        for name, words in LOOKS.items()
    ]
    return [
        html.Dl(id="laws-answer"),
        inputs.tabs("figure", "figure", state["figure"], {}),
        html.Div(looks, className="looks"),
        *gallery.figure(FIGURE),
        *gallery.figure(RESIDUALS),
        html.H2("Fit below, predict above"),
        html.P(id="laws-cut-said"),
        inputs.group(
            "fitted up to, FLOPs",
            dcc.Slider(0, 0, step=1, value=0, id="laws-slider", included=False, allow_direct_input=False),
            id="laws-slider-box",
        ),
        inputs.hidden("cut", state),
        *gallery.figure(CUT),
        html.H2("The same at the command line"),
        inputs.copied("laws-command"),
    ]


def _choices(state: Mapping[str, str]) -> Any:
    """The inputs of a choice, and what is left out by now."""
    from analysis.laws import AUTHORS, LAWS
    from analysis.runs import conventions

    chosen = refit.choice(state)
    authors = {law: author.capitalize() for author, law in reversed(AUTHORS.items())}
    laws = {"all": "all, weighted by their backtests"}
    laws |= {name: f"{name} ({authors[name]})" if name in authors else name for name in LAWS}
    counts = {name: conventions.LABELS[conventions.Parameters(name)] for name in COUNTS}
    computes = {name: conventions.LABELS[conventions.Compute(name)] for name in COMPUTES}
    lasso = "To leave runs out, draw a lasso around them in the figure (its tool is above the right corner):"
    return html.Div(
        [
            _dropdown("law", "Law", laws, chosen.law),
            _dropdown("N", "N counts", counts, chosen.n),
            _dropdown("C", "C is", computes, chosen.c),
            _field("from", "C from, FLOPs", state),
            _field("to", "C to, FLOPs", state),
            html.Div(
                [
                    html.P([lasso, " ", html.Span("none selected", id="laws-selected")]),
                    inputs.named(
                        "reason", dcc.Input(id="laws-reason", type="text", placeholder="why they do not count")
                    ),
                    html.Button("Leave out", id="laws-leave"),
                    html.Button("Undo", id="laws-undo"),
                    html.Span(id="laws-refused", className="warning", role="alert"),
                    html.Ul(id="laws-out"),
                    inputs.hidden("out", state),
                ],
                className="lasso",
            ),
        ],
        className="chosen",
    )


def _dropdown(name: str, label: str, words: Mapping[str, str], value: str | None) -> Any:
    return inputs.dropdown(name, label, {STARTED: "as started", **words}, value or STARTED)


def _field(name: str, label: str, state: Mapping[str, str]) -> Any:
    box = dcc.Input(id={"state": name}, type="text", value=state[name], debounce=True, placeholder="open")
    return html.Label([label, box])


def register(app: Any, live: Live) -> None:
    """The figures follow the fit, the fit the choice."""
    desk = Desk(live)
    _register_fit(app, desk)
    _register_figures(app, desk)
    _register_cut(app, desk)
    _register_left_out(app, desk)


def _shown_fit(desk: Desk, of: Of | None) -> Fit:
    """The fit that a browser shows, for a callback: PreventUpdate where there is none."""
    found = desk.shown(of)
    if found is None:
        raise dash.exceptions.PreventUpdate
    return found


def _register_fit(app: Any, desk: Desk) -> None:
    @app.callback(
        dash.Output("laws-of", "data"),
        *(dash.Output("laws-said", what) for what in ("children", "aria-busy")),
        dash.Output("laws-shown", "className"),
        *CHOSEN,
        *(dash.Input(clock, "n_intervals") for clock in ("tick", "hurry")),
        *(dash.State({"state": name}, "value") for name in ("figure", "cut")),  # which what is drawn does not wait for
        dash.State("laws-of", "data"),
        dash.State("laws-said", "children"),
    )
    def fitted(
        *given: *tuple[Text, Text, Text, Text, Text, Text, int | None, int | None, Text, Text, Of | None, Text],
    ) -> tuple[Any, ...]:
        *values, _, _, slug, cut, of, said = given
        state = {name: value or "" for name, value in zip(refit.STATE, values, strict=True)}
        view = desk.live.view
        if view.study is None:
            if said == view.waiting:
                raise dash.exceptions.PreventUpdate
            return dash.no_update, view.waiting, False, UNFITTED
        found = desk.ask(view, state)
        now = [found.of, state]
        wrong = [*refit.unread(state, view.study), *unfound(found.value, slug or "", cut or "")]
        parts = [f"{printable(sentence)}." for sentence in wrong]
        parts += [progress(found, state, shown=desk.shown(of) if of != now else None)]
        told = " ".join(part for part in parts if part)
        ready = found.value is not None and of != now
        shown = "" if ready or of == now else UNFITTED if of is None else OLDER
        return now if ready else dash.no_update, told if told != said else dash.no_update, not found.done, shown


def unfound(fit: Fit | None, slug: str, cut: str) -> list[str]:
    """What an address asks for that a fit has not, a sentence each."""
    if fit is None:
        return []
    figure = inputs.absent("figure", slug, STATE["figure"], [page.slug for page in fit.pages])
    return [sentence for sentence in (figure, refit.moved(cut, fit.cuts)) if sentence]


def progress(found: Any, state: Mapping[str, str], shown: Fit | None) -> str:
    """What goes on behind the page, and whether what it shows is older.

    Args:
        found: of the fit that was asked for: behind.Found.
        shown: the fit that the browser shows, where it is another one.
    """
    before = found.value or shown
    older = f" What is shown is the fit before: {short(before)}." if before is not None else ""
    if found.problem:
        return f"Not fitted: {found.problem}.{older}"
    if not found.done:
        newer = "Results were added: fitting them" if found.value is not None else "Fitting"
        return f"{newer} behind the page for {found.seconds:.0f} s.{older}"
    if refit.choice(state) == Choice():
        return f"As the app was started: {short(found.value)}."
    return f"Fitted in {found.seconds:.1f} s: {short(found.value)}."


def short(fit: Fit) -> str:
    """Which law, of which runs."""
    law = "all laws" if fit.asked.law == "all" else fit.asked.law
    every = len(fit.study.everything)
    return f"{law}, {len(fit.study.table)} of {number_of(every, 'run')}"


def _register_figures(app: Any, desk: Desk) -> None:
    drawn_by = (
        dash.Input({"state": "figure"}, "value"),
        dash.Input("laws-of", "data"),
        *(dash.Input({"state": name}, "value") for name in LOOKS),
    )

    @app.callback(
        *gallery.outputs(FIGURE),
        *drawn_by,
        gallery.seen(FIGURE),
        gallery.shown(FIGURE),
    )
    def figure(
        slug: str, of: Of | None, axes: str, beside: str, seen: gallery.Seen | None, was: gallery.Shown | None
    ) -> tuple[Any, ...]:
        fit = _shown_fit(desk, of)
        page = chosen_page(fit, slug)
        about, *drawn = _drawn(desk, FIGURE, fit, page, [of, axes, beside], seen, was)
        return about if page else EMPTY, *drawn

    @app.callback(
        *gallery.outputs(RESIDUALS),
        *drawn_by,
        gallery.seen(RESIDUALS),
        gallery.shown(RESIDUALS),
    )
    def below(
        slug: str, of: Of | None, axes: str, _: str, seen: gallery.Seen | None, was: gallery.Shown | None
    ) -> tuple[Any, ...]:
        fit = _shown_fit(desk, of)
        page = None if slug == BELOW else next((page for page in fit.pages if page.slug == BELOW), None)
        return _drawn(desk, RESIDUALS, fit, page, [of, axes, STATE["beside"]], seen, was)

    @app.callback(
        inplace.output("laws-answer"),
        *(dash.Output(name, "children") for name in ("laws-out", "laws-command")),
        dash.Output({"state": "figure"}, "options"),
        dash.Input("laws-of", "data"),
    )
    def words(of: Of | None) -> tuple[Any, ...]:
        fit = _shown_fit(desk, of)
        assert of is not None
        steps = refit.choice(of[1]).left_out
        out = [html.Li(f"{step.reason}: {', '.join(step.runs)}") for step in steps]
        names = [{"label": page.title, "value": page.slug} for page in fit.pages]
        return inplace.said(_answer(fit, desk.live)), out, refit.command(fit.asked), names


def chosen_page(fit: Fit, slug: str) -> Page | None:
    """The figure of an address; the first where it is none of these."""
    return next((page for page in fit.pages if page.slug == slug), fit.pages[0] if fit.pages else None)


def _drawn(
    desk: Desk,
    name: str,
    fit: Fit,
    page: Page | None,
    version: Sequence[Any],
    seen: gallery.Seen | None,
    was: gallery.Shown | None,
) -> tuple[Any, ...]:
    """A figure on the axes, and with what is beside it, that were chosen: ``version`` ends with these."""
    *_, axes, beside = version
    looks = {"published": beside == "published", "linear": axes == "linear"}
    code = None if page is None else exports.code(fit.asked, page.slug, **looks)
    if page is not None:
        from dashboards.figures.linear import linear
        from dashboards.figures.published import over

        page = over(page, fit.study) if looks["published"] else page
        page = linear(page) if looks["linear"] else page
    return gallery.draw(desk.live, name, page, version, was, code, seen=seen)


def _answer(fit: Fit, live: Live) -> list[Any]:
    """The answer of the fit, and what it was as the app was started, where that is something else."""
    parts, sets = [], live.sets if fit.study.runs.store else None
    for label, now, was in refit.beside(fit.answer, live.view.answer):
        parts += [html.Dt(gallery.typeset(label)), html.Dd(tables.linked(now, sets))]
        if was:
            parts.append(html.Dd(["as started: ", *tables.linked(was, sets)], className="before"))
    return parts


def _register_cut(app: Any, desk: Desk) -> None:
    @app.callback(
        dash.Output({"state": "cut"}, "value"),
        *(dash.Output("laws-slider", name) for name in ("min", "max", "marks", "value")),
        *(dash.Output(name, what) for name, what in (("laws-slider-box", "style"), ("laws-cut-said", "children"))),
        *gallery.outputs(CUT),
        dash.Input({"state": "cut"}, "value"),
        dash.Input("laws-slider", "value"),
        dash.Input("laws-of", "data"),
        gallery.seen(CUT),
        gallery.shown(CUT),
    )
    def cut(
        text: str, place: float, of: Of | None, seen: gallery.Seen | None, was: gallery.Shown | None
    ) -> tuple[Any, ...]:
        fit = _shown_fit(desk, of)
        found = fit.cuts
        if not found:
            nothing = gallery.draw(desk.live, CUT, None, of, was)
            return dash.no_update, 0, 0, {}, 0, gallery.HIDDEN, NO_CUT, *nothing
        moved = dash.ctx.triggered_id == "laws-slider"
        if moved or dash.ctx.triggered_id == f"{CUT}-seen":
            here = found[min(max(0, round(place)), len(found) - 1)]
        else:  # the address leads, and the slider follows
            here = refit.nearest_cut(found, text)
        from dashboards.figures.backtest import backtest

        page = backtest(fit.study, rows=here.rows)
        drawn = gallery.draw(desk.live, CUT, page, [of, here.fitted_to], was, _code(fit, here), seen=seen)
        written = flops(here.fitted_to) if moved else dash.no_update
        slider: tuple[Any, ...] = (0, len(found) - 1, _marks(found), found.index(here), {})
        return written, *slider, gallery.typeset(refit.foretold(here)), *drawn


def _marks(cuts: Sequence[Cut]) -> dict[int, str]:
    """The computes of some cuts by their place on the slider, none twice."""
    every, shown = -(-len(cuts) // MOST_MARKS), ""
    marks = {}
    for i, cut in enumerate(cuts):
        said = powers(cut.fitted_to) if i % every == 0 else ""
        marks[i] = said if said != shown else ""
        shown = said or shown
    return marks


def _code(fit: Fit, cut: Cut) -> str:
    """The line of Python that draws a cut."""
    return (
        f"{exports.study(fit.asked)}; from dashboards import refit; from dashboards.figures.backtest import backtest; "
        f'backtest(study, rows=refit.nearest_cut(refit.cuts(study), "{cut.fitted_to:.6g}").rows).figure'
    )


def _register_left_out(app: Any, desk: Desk) -> None:
    @app.callback(
        dash.Output("laws-selected", "children"),
        dash.Input(FIGURE, "selectedData"),
        prevent_initial_call=True,
    )
    def selected(chosen: Mapping[str, Any] | None) -> str:
        return f"{number_of(len(runs_in(chosen)), 'run')} selected"

    @app.callback(
        dash.Output({"state": "out"}, "value"),
        *(dash.Output(*to) for to in (("laws-refused", "children"), ("laws-reason", "value"))),
        dash.Output(FIGURE, "selectedData"),
        dash.Output(FIGURE, "figure", allow_duplicate=True),
        dash.Input("laws-leave", "n_clicks"),
        dash.Input("laws-undo", "n_clicks"),
        dash.State(FIGURE, "selectedData"),
        dash.State("laws-reason", "value"),
        dash.State({"state": "out"}, "value"),
        prevent_initial_call=True,
    )
    def change(
        _: int | None, __: int | None, chosen: Mapping[str, Any] | None, reason: Text, out: str
    ) -> tuple[Any, ...]:
        now, same = Choice(left_out=refit.left_out(out)), dash.no_update
        if dash.ctx.triggered_id == "laws-undo":
            return refit.left_out_text(now.undone().left_out), "", same, same, same
        try:
            steps = now.without(runs_in(chosen), reason or "").left_out
        except UsageError as error:
            return same, str(error), same, same, same
        unmarked = dash.Patch()
        unmarked["layout"]["selections"] = []
        return refit.left_out_text(steps), "", "", None, unmarked


def runs_in(selection: Mapping[str, Any] | None) -> list[str]:
    """The runs inside a lasso; a minimum or a prediction has no name, and a marker of many has several."""
    points = (selection or {}).get("points") or []
    carried = [p.get("customdata") for p in points if isinstance(p, dict)]
    names = [name for some in carried for name in (some if isinstance(some, list) else [some])]
    return list(dict.fromkeys(unescape(name) for name in names if isinstance(name, str)))  # style.plain escaped them
