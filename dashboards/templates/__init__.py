"""The HTML that is not Dash's: files of this folder, filled by jinja2, which escapes all that is not marked as HTML."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from dashboards import typeset

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, /, **values: Any) -> str:
    """A file of this folder, filled; a value that it names and is not given is an error."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def typeset_(text: object) -> Markup:
        pieces = ((escape(part), raised) for part, raised in typeset.pieces(str(text)))
        return Markup("".join(f"<sup>{part}</sup>" if raised else part for part, raised in pieces))

    made = Environment(
        loader=PackageLoader("dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["typeset"] = typeset_
    made.tests["number_like"] = typeset.is_number
    return made
