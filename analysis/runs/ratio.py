"""A ratio that depends on a model's size: of its compute to 6ND, or of one count of its parameters to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import Array

PLAIN, TINY = 1e-9, 1e-12  # relative departures from one that are looked at as a power law, or as none
MOST_BELOW, MOST_ABOVE = 0.9, 1e6  # such departures where a power law is carried far
STEPS = 50  # of the fixed point that a size is
LARGEST = 100.0  # ratio of runs from which on it is none that grows out of a model's parts


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """ln of the ratio as a function of ln N: zero, a power law of its departure from one, else a line.

    The head and the attention add to 6ND, and the embedding to the other parameters, as a power of the size.
    """

    line: Array  # (2,) of the ratio, or of ln |ratio - 1|
    sign: float  # of ratio - 1 where it is a power law; zero where it is a line
    ends: tuple[float, float]  # ln N between which a line holds

    @staticmethod
    def of(ln_n: Array, ln_ratio: Array) -> Ratio:
        """As the runs have it, (n,) both."""
        ends = float(ln_n.min()), float(ln_n.max())
        if np.abs(ln_ratio).max() < TINY:
            return Ratio(line=np.zeros(2), sign=0.0, ends=ends)
        excess = np.expm1(ln_ratio)
        for sign in (1.0, -1.0):
            if (sign * excess > PLAIN).all() and (np.abs(ln_ratio) < np.log(LARGEST)).all():
                return Ratio(line=_line(ln_n, np.log(sign * excess)), sign=sign, ends=ends)
        return Ratio(line=_line(ln_n, ln_ratio), sign=0.0, ends=ends)

    def ln(self, ln_n: Array) -> Array:
        """Ln of the ratio at sizes, (n,)."""
        if not self.sign:
            return np.asarray(np.polyval(self.line, np.clip(ln_n, *self.ends)))
        most = np.log(MOST_BELOW if self.sign < 0 else MOST_ABOVE)
        return np.asarray(np.log1p(self.sign * np.exp(np.minimum(np.polyval(self.line, ln_n), most))))


def _line(x: Array, y: Array) -> Array:
    """Slope and level; no slope where there is one size."""
    return np.polyfit(x, y, 1) if len(np.unique(x)) > 1 else np.array([0.0, y.mean()])


def per_6nd(table: pd.DataFrame) -> Ratio:
    """C/(6ND) of runs as a function of their size."""
    n, d, c = (np.log(table[name].to_numpy(float)) for name in ("N", "D", "C"))
    return Ratio.of(n, c - np.log(6.0) - n - d)


def tokens(cost: Ratio, ln_n: Array, compute: Array | float) -> Array:
    """D of runs of some sizes at a compute.

    Args:
        cost: of ``per_6nd``.
    """
    return np.asarray(np.exp(np.log(compute) - np.log(6.0) - cost.ln(ln_n) - ln_n))


def sizes(cost: Ratio, ln_d: Array, compute: Array) -> Array:
    """N of runs of some tokens at a compute."""
    ln_n = np.log(compute) - np.log(6.0) - ln_d
    found = ln_n.copy()
    for _ in range(STEPS):  # the ratio moves slowly with the size
        found = ln_n - cost.ln(found)
    return np.asarray(np.exp(found))
