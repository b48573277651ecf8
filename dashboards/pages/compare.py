"""Two sweeps, or two arms of a table: is B better than A, and by how much compute; compared behind the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import dash
from dash import dcc, html

from dashboards import exports, pairs, typed
from dashboards.behind import Behind, Found
from dashboards.live import Live
from dashboards.pages import gallery, inplace, inputs
from dashboards.pairs import Pair
from gpt3core.errors import StoreError, UsageError

if TYPE_CHECKING:
    from analysis.estimation.compare import Comparison
    from analysis.runs.ladders import Ladders

PATH, TITLE = "/compare", "Compare"
STATE = pairs.STATE
MULTIPLIER, FRONTIERS = "compare-multiplier", "compare-frontiers"
ALONE = (
    "There are no two to compare: a store is compared by its sweeps, and this one has not two; a table by a column of "
    "few values, such as the data mixture."
)
CHOSEN = tuple(dash.Input({"state": name}, "value") for name in pairs.STATE)
Of: TypeAlias = Annotated[list[Any], (int, str, str, str)]  # what is shown: the number of its study, and the pair
Compared: TypeAlias = "list[tuple[Ladders, Comparison]]"


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """Which two, what was found in sentences and figures, and the command for the same."""
    try:
        ladders = pairs.known(live.given, live.root)
    except (UsageError, StoreError, OSError) as error:
        return html.Article(html.P(str(error), className="warning"))
    pair = pairs.chosen(state, ladders, live.view.name)
    if pair is None:
        return html.Article(html.P(ALONE))
    arms = {name: name for name in ladders[pair.by]}
    return html.Article(
        [
            html.Div(
                [
                    inputs.dropdown("by", "Told apart by", {name: name for name in ladders}, pair.by),
                    inputs.dropdown("A", "A, the baseline", arms, pair.a),
                    inputs.dropdown("B", "B", arms, pair.b),
                ],
                className="chosen",
            ),
            html.P(id="compare-said", role="status"),
            dcc.Store(id="compare-of"),
            html.Div(id="compare-words"),
            html.H2("Compute multiplier"),
            *gallery.figure(MULTIPLIER),
            html.H2("Both frontiers"),
            *gallery.figure(FRONTIERS),
            html.H2("The same at the command line"),
            inputs.copied("compare-command"),
        ]
    )


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """What an address asks for that there is not; where nothing can be compared the page says why."""
    try:
        ladders = pairs.known(live.given, live.root)
    except (UsageError, StoreError, OSError):
        return {}
    wrong = inputs.refused(state, {"by": ladders})
    arms = ladders.get(state["by"]) or next(iter(ladders.values()), [])
    wrong |= inputs.refused(state, {"A": arms, "B": arms})
    return wrong or ({"A": "is B too"} if state["A"] and state["A"] == state["B"] else {})


def register(app: Any, live: Live) -> None:
    """Sentences and figures follow the comparison, the comparison the two that are chosen."""
    done: Behind[Compared] = Behind()
    _register_choice(app, live)
    _register_comparison(app, live, done)
    _register_shown(app, live, done)


def _register_choice(app: Any, live: Live) -> None:
    @app.callback(
        *(dash.Output({"state": name}, what) for name in ("A", "B") for what in ("options", "value")),
        dash.Input({"state": "by"}, "value"),
        dash.State({"state": "A"}, "value"),
        dash.State({"state": "B"}, "value"),
        prevent_initial_call=True,
    )
    def arms(by: str, a: str, b: str) -> tuple[Any, ...]:
        try:
            ladders = pairs.known(live.given, live.root)
        except (UsageError, StoreError, OSError) as error:  # it is away: what is shown stays
            raise dash.exceptions.PreventUpdate from error
        pair = pairs.chosen({"by": by, "A": a, "B": b}, ladders, live.view.name)
        if pair is None:
            raise dash.exceptions.PreventUpdate
        return ladders[pair.by], pair.a, ladders[pair.by], pair.b


def _register_comparison(app: Any, live: Live, done: Behind[Compared]) -> None:
    @app.callback(
        dash.Output("compare-of", "data"),
        *(dash.Output("compare-said", what) for what in ("children", "aria-busy")),
        *CHOSEN,
        *(dash.Input(clock, "n_intervals") for clock in ("tick", "hurry")),
        dash.State("compare-of", "data"),
        dash.State("compare-said", "children"),
    )
    def compared(
        by: str, a: str, b: str, _: int | None, __: int | None, of: Of | None, said: str | None
    ) -> tuple[Any, ...]:
        if not live.view.number and not live.view.problem:
            return dash.no_update, "Reading the runs.", False
        if a == b:
            return dash.no_update, "A and B are the same: choose another.", False
        asked = pairs.settings(live.given, live.root, Pair(by=by, a=a, b=b))
        found = done.ask((by, a, b), live.view.number, lambda: pairs.compare(asked))
        now = [found.of, by, a, b]
        told = progress(found, "" if of is None else f"{of[3]} against {of[2]}")
        ready = found.value is not None and of != now
        return now if ready else dash.no_update, told if told != said else dash.no_update, not found.done


def progress(found: Found[Compared], shown: str) -> str:
    """What goes on behind the page, and whether what it shows is older.

    Args:
        shown: the two that the browser shows, in words.
    """
    older = f" What is shown is older: {shown}." if shown else ""
    if found.value is not None:
        older = " What is shown was compared before results were added."
    if found.problem:
        return f"Not compared: {found.problem}.{older}"
    return "" if found.done else f"Comparing behind the page for {found.seconds:.0f} s.{older}"


def _register_shown(app: Any, live: Live, done: Behind[Compared]) -> None:
    def shown(of: Of | None) -> tuple[Of, Compared]:
        found = None if of is None else done.peek(tuple(of[1:]))
        if of is None or found is None:
            raise dash.exceptions.PreventUpdate
        return of, found

    @app.callback(dash.Output("compare-command", "children"), *CHOSEN)
    def command(by: str, a: str, b: str) -> str:
        return typed.command("analysis.compare", pairs.settings(live.given, live.root, Pair(by=by, a=a, b=b)))

    @app.callback(inplace.output("compare-words"), dash.Input("compare-of", "data"))
    def said(of: Of | None) -> str:
        from analysis.output import comparison as words

        parts = []
        for _, found in shown(of)[1]:
            sentences = [html.Li(gallery.typeset(line, words.named(found))) for line in words.sentences(found)]
            parts += [html.H2(words.title(found)), html.Ul(sentences)]
        return inplace.said(parts)

    @app.callback(*gallery.outputs(MULTIPLIER), dash.Input("compare-of", "data"), gallery.shown(MULTIPLIER))
    def multiplier(of: Of | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        from dashboards.figures.comparison import multipliers

        of, compared = shown(of)
        page = multipliers([found for _, found in compared])
        return gallery.draw(live, MULTIPLIER, page, of, was, _code(live, of, "multipliers"), of=of[1:])

    @app.callback(
        *gallery.outputs(FRONTIERS),
        dash.Input("compare-of", "data"),
        gallery.seen(FRONTIERS),
        gallery.shown(FRONTIERS),
    )
    def both(of: Of | None, seen: gallery.Seen | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        from dashboards.figures.comparison import frontiers

        of, compared = shown(of)
        page = frontiers(*compared[0])
        return gallery.draw(live, FRONTIERS, page, of, was, _code(live, of, "frontiers"), of=of[1:], seen=seen)


def _code(live: Live, of: Of, figure: str) -> str:
    """The line of Python that draws one of the figures."""
    settings, names = exports.written(pairs.settings(live.given, live.root, Pair(by=of[1], a=of[2], b=of[3])))
    drawn = {
        "multipliers": "multipliers([c for _, c in found])",
        "frontiers": "frontiers(*found[0])",
    }[figure]
    return (
        f"from analysis.settings import {names}; from dashboards import pairs; from dashboards.figures.comparison "
        f"import {figure}; found = pairs.compare({settings}); {drawn}.figure"
    )
