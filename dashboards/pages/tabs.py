"""The figures of one group of the catalogue, a tab each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dash
from dash import dcc, html

from dashboards.live import Live
from dashboards.pages import gallery


@dataclass(frozen=True, kw_only=True)
class Tabs:
    """Tabs of a page."""

    name: str  # of the page: ids begin with it
    key: str  # of the chosen figure in the address; no other page's, for Dash
    group: str  # of figures
    empty: str  # said where the study has none


def layout(tabs: Tabs, state: Mapping[str, str]) -> Any:
    """Tabs over a figure, whose slug is in the address; of the group's first, where there is none such."""
    chosen = dcc.RadioItems(id={"state": tabs.key}, value=state[tabs.key], options=[], className="tabs", inline=True)
    return html.Article([chosen, *gallery.figure(f"{tabs.name}-figure")])


def register(app: Any, live: Live, tabs: Tabs) -> None:
    """The tabs follow the study, the figure the tab."""
    name = f"{tabs.name}-figure"

    @app.callback(
        dash.Output({"state": tabs.key}, "options"),
        *gallery.outputs(name),
        dash.Input({"state": tabs.key}, "value"),
        dash.Input("tick", "n_intervals"),
        gallery.shown(name),
    )
    def show(chosen: str, _: int | None, was: list[Any] | None) -> tuple[Any, ...]:
        view = live.view
        pages = [page for page in view.pages if page.group == tabs.group]
        page = next((page for page in pages if page.slug == chosen), pages[0] if pages else None)
        about, *drawn = gallery.draw(live, name, page, view.number, was)
        labels = [{"label": page.title, "value": page.slug} for page in pages]
        return labels, about if pages or not view.number else tabs.empty, *drawn
