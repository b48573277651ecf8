"""Few-shot: every figure of the catalogue that shows accuracies, a tab each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
from dash import html

from dashboards.live import Live
from dashboards.pages import gallery, inputs

PATH, TITLE = "/fewshot", "Few-shot"
KEY, GROUP = "accuracy", "few-shot"  # of the chosen figure in the address, and of figures
STATE = {KEY: "accuracy-compute"}
FIGURE = "fewshot-figure"
EMPTY = "These runs were not evaluated on any task."


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """Tabs over a figure, whose slug is in the address; of the first, where there is none such."""
    return html.Article([inputs.tabs(KEY, "figure", state[KEY], {}), *gallery.figure(FIGURE)])


def unread(live: Live, state: Mapping[str, str]) -> dict[str, str]:
    """What an address asks for that there is not."""
    return inputs.refused(state, {KEY: inputs.slugs(live, GROUP)})


def register(app: Any, live: Live) -> None:
    """The tabs follow the study, the figure the tab."""

    @app.callback(
        dash.Output({"state": KEY}, "options"),
        *gallery.outputs(FIGURE),
        dash.Input({"state": KEY}, "value"),
        dash.Input("tick", "n_intervals"),
        gallery.seen(FIGURE),
        gallery.shown(FIGURE),
    )
    def show(chosen: str, _: int | None, seen: gallery.Seen | None, was: gallery.Shown | None) -> tuple[Any, ...]:
        view = live.view
        pages = [page for page in view.pages if page.group == GROUP]
        page = next((page for page in pages if page.slug == chosen), pages[0] if pages else None)
        why = EMPTY if view.number else view.waiting
        said = inputs.absent(KEY, chosen, STATE[KEY], [page.slug for page in pages])
        version = [view.number, said] if pages else why  # what is said there changes too
        about, *drawn = gallery.draw(live, FIGURE, page, version, was, seen=seen)
        labels = [{"label": page.title, "value": page.slug} for page in pages]
        lead = [html.Strong(f"{said}. ", className="warning")] if said else []
        return labels, [*lead, *about] if pages else why, *drawn
