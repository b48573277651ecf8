"""A document, the unit that is shuffled and delimited by end-of-text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Document:
    """A piece of text, the group it belongs to, and the domain that evaluation names."""

    text: str
    group: str
    domain: str
