"""Where a loss is lowest along a budget: continuously, for any law or mean of laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.laws import Array, Law

REACH = 1e3  # how far beyond the sizes that were run an optimum is looked for, as a factor
GRID = 401  # points of each look; each one looks between the neighbours of the lowest point of the one before
LOOKS = 5  # from a factor of 1e12 in N down to one of 1 + 1e-8


def lowest(ln_loss: Callable[[Array], Array], low: float, high: float) -> float | None:
    """ln N of the minimum between two ln N; None where the loss is lowest at an end: then there is no optimum.

    Args:
        ln_loss: ln L at every ln N, (n,) -> (n,); nan where there is no value.
    """
    ends = low, high
    for look in range(LOOKS):
        x = np.linspace(*ends, GRID)
        with np.errstate(all="ignore"):
            values = np.asarray(ln_loss(x), float)
        values = np.where(np.isfinite(values), values, np.inf)
        at = int(np.argmin(values))
        if not np.isfinite(values[at]) or (look == 0 and at in (0, GRID - 1)):
            return None
        at = int(np.clip(at, 1, GRID - 2))  # close to a minimum rounding may be lowest at an end
        ends = float(x[at - 1]), float(x[at + 1])
    return float(np.mean(ends))


def on_grid(x: Array, values: Array) -> Array:
    """Where each row of values is lowest on an even grid, (P,): by a parabola through its lowest point and neighbours.

    Args:
        x: (n,) ln N.
        values: (P, n) ln L; nan where there is no value.

    Returns:
        nan where a row is lowest at an end, or beside a point without a value.
    """
    values = np.where(np.isfinite(values), values, np.inf)
    at = values.argmin(1)
    inner, rows = np.clip(at, 1, len(x) - 2), np.arange(len(values))
    with np.errstate(all="ignore"):
        left, centre, right = (values[rows, inner + step] for step in (-1, 0, 1))
        bend = left - 2 * centre + right
        off = np.where(bend > 0, 0.5 * (left - right) / bend, 0.0)
    return np.where((at == inner) & np.isfinite(off), x[inner] + off * (x[1] - x[0]), np.nan)


def within_reach(sizes: Array) -> tuple[float, float]:
    """ln N between which an optimum is looked for, from the sizes that were run."""
    return float(np.log(sizes.min() / REACH)), float(np.log(sizes.max() * REACH))


def of_law(law: Law, theta: Array, compute: float, ends: tuple[float, float]) -> float | None:
    """ln N where a law of N and D is lowest along 6ND = compute, between two ln N; None where it has no optimum."""

    def along(x: Array) -> Array:
        return np.asarray(law.on({"N": np.exp(x), "D": compute / (6 * np.exp(x))})(theta[None])[0][0])

    return lowest(along, *ends)
