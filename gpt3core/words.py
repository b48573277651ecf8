"""Numbers as words, on a terminal, in a table and on a page: what tables and sentences are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

ROUNDS_UP = 0.9995  # of a unit: from here on three digits say a whole one
THIN = "\u202f"  # a narrow space at which no line is broken
MINUS = "\u2212"
NUMERIC = re.compile(rf"[-+{MINUS}]?[\d,]*\.?\d+(e[-+]?\d+)?[kMBT%]?( \(.*\))?( to .*)?|-|")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Symbols(str):
    """Words that spell symbols, alpha_C 0.05, and hold no name from outside: a page prints α as a paper does."""


class Name(str):
    """Words from outside, a folder of somebody's: a page prints them as they are, without signs and numbers."""


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits, one of thousands without a power of ten; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    said = f"{value:.{digits}g}"
    return f"{float(said):.0f}" if said.endswith(("e+03", "e+04")) else said


def is_number(cell: str) -> bool:
    """Whether a cell of a table is a number, with its interval or without, or lacks one: it is set to the right."""
    return NUMERIC.fullmatch(cell) is not None


def count(value: float) -> str:
    """1234567 -> 1.23M."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= ROUNDS_UP * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def some(names: Sequence[str], most: int = 8) -> str:
    """Some names, and how many more there are."""
    more = [] if len(names) <= most else [f"and {len(names) - most:,} more"]
    return " ".join([", ".join(names[:most]), *more])


def number_of(many: int, what: str) -> str:
    """1 run, 2,000 runs."""
    return f"{many:,} {what}{'' if many == 1 else 's'}"


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
    """The two ends of an interval to so many digits; a dash where there is none."""
    return between(values, lambda value: number(value, digits))


def nats(value: float) -> str:
    """A loss to three decimals; one in another unit, too small or too large for these, to four digits."""
    return f"{value:.3f}" if 0.1 <= value < 100 else f"{value:.4g}"


def between(values: Sequence[float] | None, written: Callable[[float], str] = nats) -> str:
    """The two ends of an interval, of losses where nothing else is said; a dash where there is none."""
    if values is None or not all(map(math.isfinite, values)):
        return "-"
    return f"{written(values[0])} to {written(values[1])}"


def shares(values: Sequence[float] | None) -> str:
    """The ends of an interval of accuracies, to three decimals like these; a dash where there is none."""
    return between(values, "{:.3f}".format)


def duration(seconds: float | None) -> str:
    """``2:03``, ``1:02:03``, and from 100 hours on ``4.2 days``: the one way in which time that passes is printed."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    minutes, s = divmod(round(max(0.0, seconds)), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours / 24:,.1f} days"
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def percent(share: float | None) -> str:
    """A share; empty where there is none."""
    return "" if share is None else f"{share:.0%}"


def amount(value: float) -> str:
    """Three digits, in full: 330,000 and 0.0105."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def cost(hours: float, usd: float, unit: str) -> str:
    """Device-hours, and what they cost where they cost anything: 12.3 GPU-hours (36.90 USD)."""
    return f"{amount(hours)} {unit}-hours" + (f" ({usd:,.2f} USD)" if usd else "")


# ------------------------------------------------------------------------------- in print: signs and spaces of a paper


def powers(value: float) -> str:
    """1.23 × 10¹⁴ and 10¹⁴, as a paper prints them; small counts as they are."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return plain(value)
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    lead = "" if mantissa == "1.00" else f"{mantissa}{THIN}×{THIN}"
    return f"{lead}10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", MINUS)


def plain(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}".replace("-", MINUS)


def fixed(value: float, digits: int) -> str:
    """So many digits after the point."""
    return f"{value:.{digits}f}".replace("-", MINUS)


def whole(value: float) -> str:
    """A whole number, in groups of three digits."""
    return f"{value:,.0f}"
