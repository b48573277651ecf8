"""A figure of a page: the sentence above it, the figure, what it hands out, drawn anew only when it has changed."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import dash
from dash import dcc, html

from dashboards import exports
from dashboards.figures.look import CONFIG
from dashboards.live import Live
from dashboards.pages import inplace
from dashboards.typeset import pieces
from gpt3core.words import number_of

if TYPE_CHECKING:
    from dashboards.figures.style import Page

HIDDEN = {"display": "none"}
WHOLE = ("annotations", "images", "shapes")  # of a layout: lists that a figure may be without
Shown: TypeAlias = Annotated[list[Any], (Any, Any, Any)]  # what a browser has of a figure: which one, of what, its axes
Seen: TypeAlias = Annotated[list[Any], (str, str, dict[str, list[float]])]  # of which figure and axes, and their ranges


def figure(name: str) -> list[Any]:
    """The components of a figure: ``name`` is the id of its Graph, and begins with that of its page."""
    return [
        html.P(id=f"{name}-about", className="about"),
        dcc.Graph(id=name, config=CONFIG, style=HIDDEN),
        html.Div(id=f"{name}-exports"),
        dcc.Store(id=f"{name}-shown"),
        dcc.Store(id=f"{name}-seen"),
    ]


def outputs(name: str) -> tuple[Any, ...]:
    """What ``draw`` returns, as a callback's outputs."""
    return tuple(
        dash.Output(component, what)
        for component, what in (
            (f"{name}-about", "children"),
            (name, "figure"),
            (name, "style"),
            (f"{name}-exports", "data-said"),
            (f"{name}-shown", "data"),
        )
    )


def shown(name: str) -> Any:
    """What the browser has of a figure, as a callback's State: for ``draw``."""
    return dash.State(f"{name}-shown", "data")


def seen(name: str) -> Any:
    """What a reader looks at closely in a figure, as a callback's Input: for ``draw``."""
    return dash.Input(f"{name}-seen", "data")


def draw(
    live: Live,
    name: str,
    page: Page | None,
    version: Any,
    was: Shown | None,
    code: str | None = None,
    *,
    of: Any = None,
    seen: Seen | EllipsisType | None = ...,
) -> tuple[Any, ...]:
    """What a figure's components become.

    Args:
        page: None where there is nothing to draw yet.
        version: changes when the figure does, and is plain JSON: the number of the study, a cut, a law.
        was: what the browser has; compared with that and not with what was sent, for a slow answer that a later tick
            overtook is discarded. Where it is of the same figure of the same thing, a reader's zoom stays.
        code: Python that draws it; by default that of a figure of the catalogue.
        of: what it shows, where that is not the study: a run, a sweep, a pair; plain JSON.
        seen: what the reader looks at closely; all points are drawn on a page that does not say.

    Raises:
        PreventUpdate: when the browser has it already.
    """
    key = None if page is None else [page.slug, of]
    view = _view(page, key, seen) if isinstance(seen, list) else None
    version = version if view is None else [version, view]
    if was is not None and was[:2] == [key, version]:
        raise dash.exceptions.PreventUpdate
    whole, under = _whole(page, view, thin=seen is not ...)
    if page is None or not whole["data"]:  # which says why
        about = [] if page is None else typeset(page.about)
        return about, {"data": [], "layout": {}}, HIDDEN, inplace.said([]), [key, version, []]
    now = [key, version, _axes(whole["layout"])]
    whole["layout"].setdefault("legend", {})["uirevision"] = json.dumps(key)  # what is hidden there stays so
    if under is not None:
        whole["layout"]["meta"] = _meta(key, whole["layout"])
    _tell_apart(whole["data"])
    size = {"height": f"{whole['layout'].get('height', 560)}px"}
    about = [*typeset(page.about), f" {number_of(len(page.rows), 'row')} behind it."]
    if not live.of_table and any("customdata" in trace for trace in whole["data"]):
        about.append(" A click on a run opens it.")
    if under:
        about.append(f" {number_of(under, 'point')} lie under others, which say so: a closer look parts them.")
    code = code or exports.code(live.given, page.slug)
    told = _changed(whole) if was and was[::2] == now[::2] else whole
    return about, told, size, inplace.said([exports.row(page, live.shelf, name, code)]), now


def _view(page: Page | None, key: Any, seen: Sequence[Any]) -> dict[str, list[float]] | None:
    """The ranges that a reader looks at, where they are of this figure and on these axes."""
    from dashboards.figures.packed import layout

    *of, view = seen
    return view if page is not None and of == _meta(key, layout(page.figure)) else None


def _meta(key: Any, layout: Mapping[str, Any]) -> list[str]:
    """Which figure, and on which axes: where a look is closer, the browser says of which (assets/closer.js)."""
    return [json.dumps(key), json.dumps(_axes(layout))]


def _whole(page: Page | None, view: dict[str, list[float]] | None, *, thin: bool) -> tuple[dict[str, Any], int | None]:
    """A figure as plotly's JSON, and how many of its points lie under others; None where none may."""
    if page is None:
        return {"data": []}, None
    from dashboards.figures.packed import drawn

    return drawn(page.figure, view) if thin else (page.figure.to_plotly_json(), None)


def _tell_apart(traces: list[dict[str, Any]]) -> None:
    """Name each trace for the browser: by its place alone another one would be hidden where one comes before it."""
    seen: Counter[str] = Counter()
    for trace in traces:
        name = f"{zlib.crc32(json.dumps([trace.get('legendgroup'), trace.get('name')]).encode()):08x}"
        trace["uid"] = f"{name}-{seen[name]}"  # part of a selector of CSS
        seen[name] += 1


def _is_axis(name: str) -> bool:
    return name.startswith(("xaxis", "yaxis"))


def _axes(layout: Mapping[str, Any]) -> list[Any]:
    """What a zoom is of: where another axis comes, or one measures something else, it would show the wrong thing."""
    return [
        [name, axis.get("type"), axis.get("title", {}).get("text"), _range(axis), sorted(axis)]
        for name, axis in sorted(layout.items())
        if _is_axis(name)
    ]


def _range(axis: Mapping[str, Any]) -> list[str]:
    """The range that the figure itself gives, if any."""
    return [str(end) for end in axis.get("range") or ()]


def _changed(whole: dict[str, Any]) -> Any:
    """The figure without the ranges of its axes and without selections, which are the reader's.

    The browser's layout holds what the reader sees: uirevision does not outlive a Graph's own updates.
    """
    patch = dash.Patch()
    patch["data"] = whole["data"]
    for name in WHOLE:  # of the figure before these would stay
        patch["layout"][name] = []
    for name, value in whole["layout"].items():
        if not _is_axis(name):
            patch["layout"][name] = value
            continue
        for key, part in value.items():
            if key not in ("range", "autorange"):
                patch["layout"][name][key] = part
    return patch


def typeset(text: str, names: Iterable[str] = ()) -> list[Any]:
    """Words with their powers raised and their indices lowered, but for names from outside in them."""
    return [_tagged(*piece) for piece in pieces(text, names)]


def _tagged(part: Any, tags: Sequence[str]) -> Any:
    for tag in reversed(tags):
        part = {"sup": html.Sup, "sub": html.Sub}[tag](part)
    return part
