"""A document, the unit that is shuffled and delimited by end-of-text."""

from __future__ import annotations

from dataclasses import dataclass

SIDES = TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A piece of text, the group it belongs to, the source that it is mixed in by, the domain that tasks name."""

    text: str
    group: str
    domain: str
    source: str = "text"
