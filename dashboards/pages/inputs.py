"""Inputs that several pages have, what an address may say of them, and a command that is copied by a button."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dash import dcc, html

from dashboards.live import Live
from sweeps.watching.words import printable

LONGEST = 20_000  # characters of a value in an address


def dropdown(name: str, label: str, options: Mapping[str, str], value: str) -> Any:
    """One of some values, by their words."""
    listed = [{"label": words, "value": one} for one, words in options.items()]
    box = dcc.Dropdown(id={"state": name}, options=listed, value=value, clearable=False, searchable=len(listed) > 10)
    return html.Label([label, box])


def named(label: str, field: Any) -> Any:
    """A field whose name is not seen, for what is in it says the same, but is read out."""
    return html.Label([html.Span(label, className="unseen"), field])


def group(label: str, *inside: Any, **more: Any) -> Any:
    """Radio buttons or a slider with a name that is read out; a label is of one box."""
    return html.Div(list(inside), role="group", **{"aria-label": label}, **more)


def tabs(name: str, label: str, value: str, options: Mapping[str, str]) -> Any:
    """One of some values, all of them in sight."""
    box = dcc.RadioItems(id={"state": name}, value=value, options=options, className="tabs", inline=True)
    return group(label, box)


def hidden(name: str, state: Mapping[str, str]) -> Any:
    """What the address holds and no field shows."""
    return html.Div(dcc.Input(id={"state": name}, type="hidden", value=state[name]), hidden=True)


def copied(name: str, text: str = "") -> Any:
    """A command, with a button that copies it and a place where what came of that is read out."""
    button = html.Button(["copy", html.Span(" the command", className="unseen")], **{"data-copy": name})
    return html.Div([html.Code(text, id=name), button, html.Span(role="status")], className="copied")


def slugs(live: Live, group: str) -> list[str]:
    """The figures of a group that a page can show; before the first fit all that there may be."""
    from dashboards.figures import catalogue

    if live.view.number:
        return [page.slug for page in live.view.pages if page.group == group]
    return [*catalogue.SLUGS, "trunks", "finetuned"]


def absent(name: str, value: str, default: str, there: Sequence[str]) -> str:
    """A sentence on an address that asks for one of what a fit has not; the first stands in its place."""
    if value in ("", default, *there) or not there:
        return ""
    return printable(f"{name}={value:.40}: of these runs there are {', '.join(there)}; {there[0]} is taken")


def refused(state: Mapping[str, str], allowed: Mapping[str, Collection[str]]) -> dict[str, str]:
    """What an address says that is none of the allowed values, by name, and which these are."""
    return {
        name: f"allowed are {', '.join(values)}"
        for name, values in allowed.items()
        if values and state[name] and state[name] not in values
    }
