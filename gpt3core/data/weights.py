"""The weights of a mixture's sources, and how much of each one's held-out text is read. Numbers of plain Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

ADD_UP_TO = (1.0, 100.0)
ROUNDING = 0.02  # GPT-3's own weights, 60/22/8/8/3, add up to 101
DIGITS = 12  # of a weight: shares and percents that say the same are the same
SUM_ROUNDING = 1e-9  # what DIGITS leave of a sum
LEAST_WINDOWS = 2  # of which a mean has a standard error
LEAST_SHARE = 1 / 16


def normalised(weights: Mapping[str, float], *, key: str = "data.weights") -> dict[str, float]:
    """Weights that add up to one, for weights that a user gave as shares or in percent; those that do are left alone.

    Raises:
        ValueError: for weights that are negative, not finite, or do not add up.
    """
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{key}.{name}={weight}: a weight is a share, 0 or more; 0 leaves the source out")
    total = math.fsum(weights.values())
    if not any(abs(total / whole - 1) <= ROUNDING for whole in ADD_UP_TO):
        raise ValueError(
            f"{key} add up to {total:g} ({', '.join(f'{name} {weight:g}' for name, weight in weights.items())}): give "
            "shares that add up to 1 or to 100, to rounding (they are normalised)"
        )
    if abs(total - 1) < SUM_ROUNDING:
        return dict(weights)
    return {name: float(f"{weight / total:.{DIGITS}g}") for name, weight in weights.items()}


def resolved(own: Mapping[str, float], asked: Mapping[str, float]) -> dict[str, float]:
    """The weights of a corpus's sources, which add up to one: those asked for, or its own.

    Raises:
        ValueError: where those asked for name a source that is not there, or leave one out.
    """
    if asked and len(own) == 1:
        raise ValueError(f"data.weights: the text is of one source, {next(iter(own))}: leave it out")
    if unknown := [name for name in asked if name not in own]:
        raise ValueError(f"data.weights.{unknown[0]}: there is no such source; there are {', '.join(own)}")
    if asked and (missing := [name for name in own if name not in asked]):
        raise ValueError(
            f"data.weights leaves out {', '.join(missing)}: give each source's weight ({', '.join(own)}), 0 for none"
        )
    chosen = asked or own
    total = math.fsum(chosen.values())
    return {name: chosen[name] / total for name in own}


def windows(available: Sequence[int], weights: Sequence[float], most: int) -> list[int]:
    """How many windows of each source's held-out text are read, ``most`` in all.

    By their weights, but for a source of little or no weight, whose loss is to be known too: at least LEAST_SHARE of
    them, and LEAST_WINDOWS.

    Args:
        available: windows that each source's held-out text has.
        weights: which add up to one.
    """
    parts = [max(weight, LEAST_SHARE) for weight in weights]
    wanted = [max(LEAST_WINDOWS, math.floor(most * part / math.fsum(parts))) for part in parts]
    return [min(pair) for pair in zip(available, wanted, strict=True)]
