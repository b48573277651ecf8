"""How fast runs of each size are, from all that was measured of them: pure.

What is learned is ln(measured / expected) of a worker's FLOP/s, as a smooth function of ln N: one level that all sizes
share, a slope, what bends beside it, what a gang loses, and what is one size's own (a Gaussian process: Rasmussen and
Williams 2006, chapter 2). A size that runs is believed by how long it has been seen, its neighbours by how near they
are, and a size far from all that ran gets what they have in common. What a gang loses is a random walk along
ln(workers): gangs beyond the largest that ran lose as much as it, and less surely. With nothing measured the
expectation stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# standard deviations of ln(measured / expected); chosen once on the sweeps of tests/benchmarks/sweep_estimates.py
LEVEL = 1.5  # of all sizes together: another machine
SLOPE = 0.15  # per factor e of N
BEND, REACH = 0.25, 1.5  # of what is smooth beside that, and the factors of e of N that it is smooth over
GANG = 0.9  # of a gang of e workers, growing with the root of ln(workers); chosen by hand
OWN = 0.1  # of a size
RUN = 0.1  # of a run of a size: who else is on its machine
SEEN_SECONDS = 20.0  # of a run under way, after which it tells as much as twice that noise


What = tuple[float, int]  # ln N of a size, and how many workers it is on


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one run showed."""

    size: float  # ln N
    ratio: float  # ln(measured / expected)
    workers: int = 1
    seconds: float = math.inf  # of training that it was seen for; infinite of one that ended

    @property
    def variance(self) -> float:
        """Of the noise in it."""
        return RUN**2 * (1 + 4 * SEEN_SECONDS / max(self.seconds, 1e-3))


@dataclass(frozen=True, kw_only=True)
class _Point:
    """All runs of a size on so many workers."""

    what: What
    ratio: float
    variance: float


class Throughput:
    """ln(measured / expected) by size, from runs that are added and replaced."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._known: dict[What, tuple[float, float]] | None = None  # answers given
        self._solved: tuple[list[_Point], Any, Any] | None = None  # sizes, weights, inverse covariance

    def take(self, seen: Mapping[str, Seen]) -> None:
        """Add runs by name, in place of what they showed before."""
        self._seen.update(seen)
        self._known = self._solved = None

    def at(self, size: float, workers: int = 1) -> tuple[float, float]:
        """What is expected of a size (ln N) on so many workers, and its standard deviation."""
        if self._known is None:
            self._known = {}
        if (size, workers) not in self._known:
            self._known[size, workers] = self._answer((size, workers))
        return self._known[size, workers]

    def _answer(self, what: What) -> tuple[float, float]:
        if not self._seen:
            return 0.0, LEVEL
        import numpy as np  # which a sweep that asks nothing does without

        if self._solved is None:
            points = _by_size(list(self._seen.values()))
            matrix = np.array([[_covariance(a.what, b.what) for b in points] for a in points])
            matrix += np.diag([point.variance for point in points])
            inverse = np.linalg.inv(matrix)
            weights = inverse @ np.array([point.ratio for point in points])
            self._solved = points, weights, inverse
        points, weights, inverse = self._solved
        row = np.array([_covariance(what, point.what) for point in points])
        variance = _covariance(what, what) - float(row @ inverse @ row)
        return float(row @ weights), math.sqrt(max(variance, 0.0))


def _covariance(a: What, b: What) -> float:
    """Prior, of two sizes; the slope is about ln N = 12, which only shifts what the level takes."""
    near = math.exp(-0.5 * ((a[0] - b[0]) / REACH) ** 2)
    gangs = GANG**2 * math.log(min(a[1], b[1]))
    slope = SLOPE**2 * (a[0] - 12) * (b[0] - 12)
    return LEVEL**2 + slope + BEND**2 * near + gangs + (OWN**2 if a == b else 0.0)


def _by_size(seen: list[Seen]) -> list[_Point]:
    """One point a size and number of workers: the weighted median, which a run that stood still does not move."""
    sizes: dict[What, list[Seen]] = {}
    for one in seen:
        sizes.setdefault((one.size, one.workers), []).append(one)
    found = []
    for what, runs in sorted(sizes.items()):
        runs.sort(key=lambda run: run.ratio)
        weights = [1 / run.variance for run in runs]
        half, total, middle = sum(weights) / 2, 0.0, runs[-1].ratio
        for run, weight in zip(runs, weights, strict=True):
            total += weight
            if total >= half:
                middle = run.ratio
                break
        found.append(_Point(what=what, ratio=middle, variance=1 / sum(weights)))
    return found
