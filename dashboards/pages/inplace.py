"""What a page says in place: in the browser only that is exchanged of it which is now another.

All that is below the children of a callback Dash makes anew: what a reader has selected there, unfolded, or reached by
the keyboard, would be gone at each look at a sweep that goes on. So what is said goes there as data
(assets/inplace.js). It may have links and the buttons of assets, and no inputs of callbacks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dash
from dash import dcc
from dash.development.base_component import Component

ATTRIBUTES = {"className": "class"}  # whose name in HTML is another one


def output(name: str) -> Any:
    """What is said in the place of an id, as a callback's output."""
    return dash.Output(name, "data-said")


def said(parts: str | Sequence[Any]) -> str:
    """What a callback returns for it: words and components of dash.html, and links."""
    return json.dumps(_listed(parts), ensure_ascii=False, separators=(",", ":"))


def _listed(parts: Any) -> list[Any]:
    if parts is None:
        return []
    if isinstance(parts, list | tuple):
        return [one for part in parts for one in _listed(part)]
    if not isinstance(parts, Component):
        return [str(parts)]
    given: dict[str, Any] = dict(parts.to_plotly_json()["props"])
    inside = _listed(given.pop("children", None))
    there = {name: value for name, value in given.items() if value is not None and value is not False}
    attributes = {ATTRIBUTES.get(name, name): _spelt(value) for name, value in there.items()}
    page = {"data-page": ""} if isinstance(parts, dcc.Link) else {}
    return [["a" if page else type(parts).__name__.lower(), attributes | page, inside]]


def _spelt(value: Any) -> str:
    """An attribute as HTML has it: one that is only there or not has no words."""
    assert isinstance(value, str | int), value
    return "" if value is True else str(value)
