"""The laws: every figure of the catalogue that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.live import Live
from dashboards.pages import tabs

PATH, TITLE = "/laws", "Laws"
STATE = {"figure": "frontier"}
TABS = tabs.Tabs(name="laws", key="figure", group="laws", empty="These runs have no loss that a law could be of.")


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """A tab a figure."""
    return tabs.layout(TABS, state)


def register(app: Any, live: Live) -> None:
    """The tabs follow the study."""
    tabs.register(app, live, TABS)
