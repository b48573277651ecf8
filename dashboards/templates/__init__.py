"""The HTML that is not Dash's: files of this folder, filled by jinja2, which escapes all that is not marked as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from dashboards import typeset
from gpt3core.words import Name, Symbols, is_number

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, /, **values: Any) -> str:
    """A file of this folder, filled; a value that it names and is not given is an error."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def typeset_(text: object, names: Iterable[str] = ()) -> Markup:
        words = text if isinstance(text, Symbols | Name) else str(text)
        return Markup("".join(typeset.tagged((escape(part), tags)) for part, tags in typeset.pieces(words, names)))

    def linked(pieces: Iterable[tuple[str, str]]) -> Markup:
        link = Markup('<a class="behind" href="{}">{}</a>').format
        return Markup("").join(link(to, typeset_(text)) if to else typeset_(text) for text, to in pieces)

    made = Environment(
        loader=PackageLoader("dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"typeset": typeset_, "linked": linked}
    made.tests["number_like"] = is_number
    return made
