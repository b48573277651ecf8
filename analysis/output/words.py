"""Numbers as words: what tables and sentences are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

ROUNDS_UP = 0.9995  # of a unit: from here on three digits say a whole one


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def count(value: float) -> str:
    """1234567 -> 1.23M."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= ROUNDS_UP * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def number_of(many: int, what: str) -> str:
    """1 run, 2 runs."""
    return f"{many} {what}{'' if many == 1 else 's'}"


def flops(value: float) -> str:
    """Compute as it is typed: 3.14e23."""
    return f"{value:.3g}".replace("e+", "e")


def size(value: float, interval: list[float] | None) -> str:
    """A size with what it may be, where it is an estimate."""
    return count(value) if interval is None else f"{count(value)} ({' to '.join(map(count, interval))})"


def outside(decades: float) -> str:
    """Where a point lies of the computes that were run: so many decades beyond, below (negative), or within."""
    words = f"{abs(decades):.1f} decades"
    return "within" if words.startswith("0.0") else f"{words} {'beyond' if decades > 0 else 'below'}"


def change(value: float, digits: int = 0) -> str:
    """A relative change, signed, in percent."""
    return f"{value:+.{digits}%}" if math.isfinite(value) else "-"


def span(values: Sequence[float] | None, digits: int = 3) -> str:
    """The two ends of an interval; a dash where there is none."""
    if values is None or not all(map(math.isfinite, values)):
        return "-"
    return f"{number(values[0], digits)} to {number(values[1], digits)}"
