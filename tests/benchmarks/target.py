"""How a benchmark says what it reached: one line a target, for a person or a script."""

from __future__ import annotations

import operator

COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}


def target(name: str, value: float | None, comparison: str, goal: float) -> bool:
    """Print ``TARGET <name> <value> <comparison> <target> <met|missed|not-run>``; whether it was met.

    Args:
        value: None where it was not run.
    """
    if value is None:
        print(f"TARGET {name} - {comparison} {goal:g} not-run")
        return False
    met = bool(COMPARISONS[comparison](value, goal))
    print(f"TARGET {name} {value:.4g} {comparison} {goal:g} {'met' if met else 'missed'}")
    return met
