"""The architectures there are, by name: add one by a file like gpt_spec.py, its module, and a line here."""

from __future__ import annotations

from typing import Any

from gpt3core.model import gpt_spec
from gpt3core.model.architecture import Architecture, ModelSpec

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in (gpt_spec.ENTRY,)}


def named(name: Any) -> Architecture:
    """The architecture of that name.

    Raises:
        ValueError: when there is none.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"model.architecture={name!r}: allowed are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def of(model: ModelSpec) -> Architecture:
    """The architecture of a specification."""
    return named(model.architecture)
