"""Where a budget's minimum is expected from those of other budgets: ln N* is a line in ln C, under a prior; pure.

The prior is what a recipe says of the lowest budget and of the growth. Its doubt is wide in the level (a factor of
four, one sigma) and narrow in the exponent (0.2), so one measured minimum settles the level, two the exponent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL_SPREAD = math.log(4.0)  # of ln N* at the prior's budget, one sigma
EXPONENT_SPREAD = 0.2  # published exponents with N non-embedding or total and C exact or 6ND: 0.46 to 0.73
DRIFT = 0.1  # of ln N* from a line, one sigma, on top of a minimum's own error


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """ln N* of a budget, and its standard deviation."""

    ln_c: float
    ln_n: float
    sigma: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """ln N* = level + exponent (ln C - ln C0), with the covariance of the two."""

    ln_c0: float
    level: float
    exponent: float
    covariance: tuple[float, float, float]  # of level, of both, of exponent

    def at(self, ln_c: float) -> tuple[float, float]:
        """ln N* expected at a budget, and its standard deviation."""
        x = ln_c - self.ln_c0
        a, b, c = self.covariance
        return self.level + self.exponent * x, math.sqrt(a + 2 * b * x + c * x * x + DRIFT**2)


def fit(ln_c0: float, ln_n0: float, exponent: float, minima: Sequence[Minimum]) -> Line:
    """The line through a prior (N at C0, exponent) and the minima so far: its posterior mean, in closed form."""
    p11, p12, p22 = LEVEL_SPREAD**-2, 0.0, EXPONENT_SPREAD**-2  # precision
    r1, r2 = 0.0, 0.0  # of the deviations from the prior's mean
    for m in minima:
        x, weight = m.ln_c - ln_c0, 1 / (m.sigma**2 + DRIFT**2)
        miss = m.ln_n - ln_n0 - exponent * x
        p11, p12, p22 = p11 + weight, p12 + weight * x, p22 + weight * x * x
        r1, r2 = r1 + weight * miss, r2 + weight * x * miss
    det = p11 * p22 - p12 * p12
    return Line(
        ln_c0=ln_c0,
        level=ln_n0 + (p22 * r1 - p12 * r2) / det,
        exponent=exponent + (p11 * r2 - p12 * r1) / det,
        covariance=(p22 / det, -p12 / det, p11 / det),
    )


def vertex(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Where the parabola of least squares through points is lowest; None where it opens downwards or there are two."""
    n = len(set(x))
    if n < 3:
        return None
    mid = sum(x) / len(x)
    u = [value - mid for value in x]
    s = [sum(value**k for value in u) for k in range(5)]
    t = [sum(value**k * out for value, out in zip(u, y, strict=True)) for k in range(3)]
    a, b = _solve(s, t)
    return None if not a > 0 else mid - b / (2 * a)


def _solve(s: Sequence[float], t: Sequence[float]) -> tuple[float, float]:
    """Curvature and slope of the normal equations of a parabola, by Cramer's rule."""
    det = s[4] * (s[2] * s[0] - s[1] ** 2) - s[3] * (s[3] * s[0] - s[1] * s[2]) + s[2] * (s[3] * s[1] - s[2] ** 2)
    a = t[2] * (s[2] * s[0] - s[1] ** 2) - s[3] * (t[1] * s[0] - s[1] * t[0]) + s[2] * (t[1] * s[1] - s[2] * t[0])
    b = s[4] * (t[1] * s[0] - s[1] * t[0]) - t[2] * (s[3] * s[0] - s[1] * s[2]) + s[2] * (s[3] * t[0] - t[1] * s[2])
    return a / det, b / det
