"""Long series as few points for a browser, chosen and never averaged: what is shown was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int_]
MOST = 2000  # points of a curve
AT_EDGES = 0.5  # of the points, that gaps and restarts may take


def downsample(
    x: Sequence[float] | NDArray[np.float64],
    y: Sequence[float] | NDArray[np.float64],
    most: int = MOST,
    *,
    log: bool = True,
    restarts: Sequence[int] | Indices = (),
) -> Indices:
    """Which points of a series to show, (k,) indices that rise, at most ``most`` of them.

    Kept are the first and the last point, the lowest and the highest of every stretch of the axis and so of all, both
    sides of every gap (a value that is not finite) and of every restart. Stretches are equally wide in ln x where the
    axis is logarithmic, so that its left end is as dense as its right. Where gaps and restarts alone would take more
    than half of the points, they are kept at even distances.

    Args:
        x: (n,) steps, tokens or FLOPs, in the order in which they were logged; where it goes back is a restart.
        y: (n,) the values; nan where there is none.
        most: 8 or more.
        log: whether x is shown on a logarithmic axis.
        restarts: indices of first points after a restart that x does not show.

    Raises:
        ValueError: when ``most`` is below 8 or x and y differ in length.
    """
    at, values = np.asarray(x, float), np.asarray(y, float)
    if most < 8 or len(at) != len(values):
        raise ValueError(f"downsample: {len(at)} x and {len(values)} y to most={most}: equally many, and 8 at least")
    if len(at) <= most:
        return np.arange(len(at))
    kept = _fewer(_edges(at, values, restarts), int(AT_EDGES * most))
    ends = np.array([0, len(at) - 1])
    stretches = max(1, (most - len(kept) - len(ends)) // 2)
    return np.unique(np.concatenate([ends, kept, _extremes(_places(at, log), values, stretches)]))


def _edges(x: NDArray[np.float64], y: NDArray[np.float64], restarts: Sequence[int] | Indices) -> Indices:
    """Both sides of gaps and of restarts."""
    there = np.isfinite(y)
    changes = (np.flatnonzero(there[1:] != there[:-1]), np.flatnonzero(x[1:] <= x[:-1]))
    before = np.unique(np.concatenate([*changes, np.asarray(restarts, int) - 1]))
    before = before[(before >= 0) & (before < len(x) - 1)]
    return np.union1d(before, before + 1)


def _fewer(chosen: Indices, most: int) -> Indices:
    """At most so many of some indices, at even distances; all where they are few."""
    if len(chosen) <= most:
        return chosen
    return np.asarray(chosen[np.unique(np.linspace(0, len(chosen) - 1, most).astype(int))])


def _places(x: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Where points lie on the axis; on a logarithmic one what is not positive lies at its left end."""
    if not log or not (x > 0).any():
        return x
    return np.asarray(np.log(np.maximum(x, x[x > 0].min())))


def _extremes(places: NDArray[np.float64], y: NDArray[np.float64], stretches: int) -> Indices:
    """The lowest and the highest finite point of each of so many equal stretches."""
    there = np.flatnonzero(np.isfinite(y) & np.isfinite(places))
    if not len(there):
        return there
    place = places[there] - places[there].min()
    stretch = np.minimum((place / max(place.max(), 1e-300) * stretches).astype(int), stretches - 1)
    order = there[np.lexsort((y[there], stretch))]
    starts = np.flatnonzero(np.diff(np.sort(stretch))) + 1
    return np.concatenate([order[np.r_[0, starts]], order[np.r_[starts - 1, len(order) - 1]]])
