"""How a benchmark ends: one line a target, for a person or a script to read at a glance what falls short."""

from __future__ import annotations

import math
import operator

COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def target(name: str, value: float | None, comparison: str, goal: float) -> bool:
    """Print ``TARGET <name> <value> <comparison> <goal> <met|missed|not-run>``; whether it is met.

    Args:
        name: one word, with its unit.
        value: measured; None where it could not be, because a peer or a device is missing.
        comparison: of COMPARISONS.
    """
    if not name or any(c.isspace() for c in name):
        raise ValueError(f"{name!r}: the name of a target is one word")
    if comparison not in COMPARISONS:
        raise ValueError(f"{comparison!r}: allowed are {', '.join(COMPARISONS)}")
    if value is None:
        print(f"TARGET {name} - {comparison} {goal:.6g} not-run")
        return False
    met = math.isfinite(value) and COMPARISONS[comparison](value, goal)
    print(f"TARGET {name} {value:.6g} {comparison} {goal:.6g} {'met' if met else 'missed'}")
    return met
