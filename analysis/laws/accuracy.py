"""Bounded laws of accuracy: between chance and a ceiling, against anything that grows with scale.

Not Laws of loss: their likelihood is binomial over the items of a task, so they carry their own fit. All models of a
ladder answer the same items; what is left between them beyond binomial noise is taken as overdispersion, never below
one, so that a few odd runs do not make a trend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from analysis.laws.base import Array


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """p(x) = floor + (ceiling - floor) expit(level + slope (x - center))."""

    floor: float
    ceiling: float
    center: float
    level: float
    slope: float
    covariance: Array  # (2, 2) of level and slope
    dispersion: float  # variance over the binomial one
    p_value: float  # against no trend at all, by an F test

    @property
    def slope_se(self) -> float:
        """Standard error of the slope."""
        return float(np.sqrt(self.covariance[1, 1]))

    def at(self, x: Array, level: Array | None = None, slope: Array | None = None) -> Array:
        """p at x; other levels and slopes (draws) broadcast against it."""
        level = np.asarray(self.level) if level is None else level
        slope = np.asarray(self.slope) if slope is None else slope
        return np.asarray(self.floor + (self.ceiling - self.floor) * special.expit(level + slope * (x - self.center)))

    def draws(self, x: Array, items: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws of the mean accuracy at x (one draw an entry of x), and of what a new run would score on its items."""
        level, slope = rng.multivariate_normal([self.level, self.slope], self.covariance, size=len(x)).T
        mean = self.at(x, level, slope)
        spread = np.sqrt(self.dispersion * mean * (1 - mean) / items)
        return mean, np.clip(mean + spread * rng.standard_normal(len(x)), 0.0, 1.0)


def fit_bounded(x: Array, hits: Array, items: Array, *, floor: float, ceiling: float = 1.0) -> Bounded | None:
    """The binomial fit; None where there is no information (no hits, or fewer than three points on x).

    Args:
        x: (n,) what accuracy is held against: log10 FLOPs, or minus the loss.
        hits: (n,) items answered right, of ``items``.
    """
    if not hits.sum() or len(np.unique(x)) < 3:
        return None
    center = float(x.mean())
    z, span = x - center, ceiling - floor

    def probability(theta: Array) -> Array:
        trend = theta[0] + (theta[1] * z if len(theta) > 1 else 0.0)
        return np.asarray(np.clip(floor + span * special.expit(trend), 1e-12, 1 - 1e-12))

    def negative(theta: Array) -> float:
        p = probability(theta)
        return float(-(hits * np.log(p) + (items - hits) * np.log1p(-p)).sum())

    start = float(special.logit(np.clip((hits.sum() / items.sum() - floor) / span, 0.01, 0.99)))
    flat = optimize.minimize(negative, [start], method="BFGS")
    full = optimize.minimize(negative, [start, 0.0], method="BFGS")
    p = probability(full.x)
    freedom = max(1, len(x) - 2)
    dispersion = max(1.0, float(((hits - items * p) ** 2 / (items * p * (1 - p))).sum() / freedom))
    sigmoid = special.expit(full.x[0] + full.x[1] * z)
    weight = items * (span * sigmoid * (1 - sigmoid)) ** 2 / (p * (1 - p))  # Fisher information of level + slope z
    information = np.array([[weight.sum(), weight @ z], [weight @ z, weight @ z**2]])
    if not np.linalg.cond(information) < 1e12:
        return None
    return Bounded(
        floor=floor,
        ceiling=ceiling,
        center=center,
        level=float(full.x[0]),
        slope=float(full.x[1]),
        covariance=dispersion * np.linalg.inv(information),
        dispersion=dispersion,
        p_value=float(stats.f.sf(max(2 * (flat.fun - full.fun) / dispersion, 0.0), 1, freedom)),
    )
