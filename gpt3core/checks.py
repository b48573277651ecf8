"""What specifications share: positive and bounded numbers, integers given for floats, the types of fields."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

field_types = cache(get_type_hints)  # of a dataclass, by name; every annotation is read anew without


def as_floats(instance: Any) -> None:
    """Store integers given for float fields as floats, so that 1 and 1.0 are the same specification."""
    for f in fields(instance):
        value = getattr(instance, f.name)
        if f.type in ("float", float) and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(instance, f.name, float(value))


def require_positive(instance: Any, *names: str, where: str = "") -> None:
    """Refuse fields that are not finite numbers above zero.

    Raises:
        ValueError: naming the first of them, after ``where``.
    """
    for name in names:
        value = getattr(instance, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{where}{name}={value}: it must be positive and finite")


def require_between(instance: Any, low: float, high: float, *names: str, where: str = "") -> None:
    """Refuse fields outside ``low`` to ``high``, both included.

    Raises:
        ValueError: naming the first of them, after ``where``.
    """
    for name in names:
        value = getattr(instance, name)
        if not low <= value <= high:
            raise ValueError(f"{where}{name}={value}: it must lie from {low:g} to {high:g}")
