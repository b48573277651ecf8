"""Few-shot: every figure of the catalogue that shows accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.live import Live
from dashboards.pages import tabs

PATH, TITLE = "/fewshot", "Few-shot"
STATE = {"accuracy": "accuracy-compute"}
TABS = tabs.Tabs(name="fewshot", key="accuracy", group="few-shot", empty="These runs were not evaluated on any task.")


def layout(live: Live, state: Mapping[str, str]) -> Any:
    """A tab a figure."""
    return tabs.layout(TABS, state)


def register(app: Any, live: Live) -> None:
    """The tabs follow the study."""
    tabs.register(app, live, TABS)
