"""Bounded laws of accuracy: between chance and a ceiling, against anything that grows with scale.

Not Laws of loss: their likelihood is binomial over the items of a task, so they carry their own fit. All models of a
ladder answer the same items; what is left between them beyond binomial noise is taken as overdispersion, never below
one, so that a few odd runs do not make a trend. The ceiling is fitted like the rest: a law is a mixture over ceilings,
each weighted by how well it explains the scores, so that an interval carries the doubt about a ceiling not yet reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.laws.base import Array

CEILINGS = 24  # tried between the floor and one
AT_ONE = 0.5  # prior probability that nothing but one bounds the scores; below one the prior is even
WIDE = 5.0  # standard deviation of the prior of level and slope, in logits a standard deviation of x
STEPS = 25  # of Fisher scoring
LONGEST_STEP = 4.0  # logits, anywhere in the data
ENOUGH = 1e-5  # of ln likelihood: a step that gains less is the last
NEGLIGIBLE = 1e-4  # weight of a ceiling that is not looked at more closely
ITEMS_AT_MOST = 1e6  # where scatter alone says how sharp a score is


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """p(x) = floor + (ceiling - floor) expit(level + slope (x - center)), a mixture over (G,) ceilings.

    Means over the mixture are sums, not products of BLAS, whose last bits depend on where an array lies in memory.
    """

    floor: float
    center: float
    ceilings: Array  # (G,) rising
    weights: Array  # (G,) their posterior probabilities
    levels: Array  # (G,)
    slopes: Array  # (G,)
    covariances: Array  # (G, 2, 2) of level and slope
    dispersion: float  # variance over the binomial one
    freedom: int  # degrees of freedom behind the dispersion
    items: float  # that one run answered, or what its scatter is worth
    p_value: float  # against no trend at all; see _against_flat

    @property
    def ceiling(self) -> float:
        """Posterior mean of the ceiling."""
        return float((self.weights * self.ceilings).sum())

    @property
    def ceiling_interval(self) -> list[float]:
        """Its central 95% interval."""
        inside = np.searchsorted(np.cumsum(self.weights), [0.025, 0.975])
        return [float(self.ceilings[min(i, len(self.ceilings) - 1)]) for i in inside]

    @property
    def slope(self) -> float:
        """Posterior mean of the slope, logits per unit of x."""
        return float((self.weights * self.slopes).sum())

    @property
    def slope_se(self) -> float:
        """Standard deviation of the slope, the doubt about the ceiling included."""
        return float(np.sqrt((self.weights * (self.covariances[:, 1, 1] + (self.slopes - self.slope) ** 2)).sum()))

    def at(self, x: Array) -> Array:
        """The mean over the mixture at x."""
        z = np.asarray(x, float)[..., None] - self.center
        return np.asarray((_curve(self.levels + self.slopes * z, self.floor, self.ceilings) * self.weights).sum(-1))

    def draws(self, x: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws of the mean accuracy at x (one draw an entry of x), and of what a new run would score on its items."""
        count = len(x)
        chosen = rng.choice(len(self.weights), count, p=self.weights)
        normal = np.einsum("nij,nj->ni", np.linalg.cholesky(self.covariances)[chosen], rng.standard_normal((count, 2)))
        if self.dispersion > 1:  # it is an estimate of so many degrees of freedom
            normal /= np.sqrt(rng.chisquare(self.freedom, count) / self.freedom)[:, None]
        trend = self.levels[chosen] + normal[:, 0] + (self.slopes[chosen] + normal[:, 1]) * (x - self.center)
        mean = _curve(trend, self.floor, self.ceilings[chosen])
        spread = np.sqrt(self.dispersion * mean * (1 - mean) / self.items)
        return mean, np.clip(mean + spread * rng.standard_normal(count), 0.0, 1.0)


def fit_bounded(
    x: Array, hits: Array, items: Array, *, floor: float, significant: float | None = None
) -> Bounded | None:
    """The binomial fit; None where there is no information (no hits, or fewer than three points on x).

    Args:
        x: (n,) what accuracy is held against: log10 FLOPs, or minus the loss.
        hits: (n,) items answered right, of ``items``.
        significant: p value from which on a trend is none, and None is returned.
    """
    if not hits.sum() or len(np.unique(x)) < 3:
        return None
    center = float(x.mean())
    z = x - center
    p_value = _against_flat(z, hits, items, floor)
    if p_value is None or (significant is not None and p_value >= significant):
        return None
    ceilings = floor + (1 - floor) * np.arange(1, CEILINGS + 1) / CEILINGS
    found = _over(ceilings, z, hits, items, floor)
    near = np.flatnonzero(found.weights[:-1] > NEGLIGIBLE)  # below one: look between the grid's own points
    if len(near):
        step = (1 - floor) / CEILINGS
        low, high = max(floor + step / 4, ceilings[near[0]] - step), min(1 - step / 4, ceilings[near[-1]] + step)
        found = _over(np.append(np.linspace(low, high, CEILINGS - 1), 1.0), z, hits, items, floor)
    return Bounded(
        floor=floor,
        center=center,
        ceilings=found.ceilings,
        weights=found.weights,
        levels=found.theta[:, 0],
        slopes=found.theta[:, 1],
        covariances=found.dispersion * found.covariances,
        dispersion=found.dispersion,
        freedom=max(1, len(x) - 3),
        items=float(items.mean()),
        p_value=p_value,
    )


def worth_of_scatter(x: Array, accuracy: Array, *, floor: float) -> float:
    """How many items would scatter one run around its trend as much as these do, where nothing says how many there are.

    Args:
        x, accuracy: (n,) at least four.
    """
    z = x - x.mean()
    one = np.ones(len(x))
    found = _over(np.linspace(floor, 1, CEILINGS + 1)[1:], z, accuracy, one, floor)
    best = int(np.argmax(found.likelihood))
    p = _probability(found.theta[best : best + 1], z, floor, found.ceilings[best : best + 1])[0]
    scatter = float(((accuracy - p) ** 2 / (p * (1 - p))).sum() / max(1, len(x) - 3))
    return float(min(ITEMS_AT_MOST, 1 / max(scatter, 1 / ITEMS_AT_MOST)))


def _curve(trend: Array, floor: float, ceiling: Array | float) -> Array:
    return np.asarray(floor + (ceiling - floor) * special.expit(trend))


def _against_flat(z: Array, hits: Array, items: Array, floor: float) -> float | None:
    """The p value of a trend under a ceiling of one against none; None where a trend cannot be told at all.

    The gain has to be beyond the items' own noise (chi squared) and beyond the runs' scatter (F): the larger p counts.
    How much runs scatter beyond their items is not known beforehand, and the F test alone has the right size whatever
    it is; but a few scores on few items lie on a line by accident, and chi squared is what they do not pass. So the
    test is never above its size, and nears it where runs are many or scatter (tests/benchmarks/null_trends.py).
    """
    one, spread = np.ones(1), max(float(z.std()), 1e-12)
    theta = _scored(one, z, hits, items, floor, np.array([WIDE, WIDE / spread]) ** -2.0)
    p = _probability(theta, z, floor, one)[0]
    flat = np.clip(hits.sum() / items.sum(), max(floor, 1e-12), 1 - 1e-12)
    gain = (hits * np.log(p / flat) + (items - hits) * np.log((1 - p) / (1 - flat))).sum()
    freedom = max(1, len(z) - 2)
    dispersion = float(((hits - items * p) ** 2 / (items * p * (1 - p))).sum() / freedom)
    if not np.linalg.cond(_information(theta, z, items, floor, one)[0]) < 1e12:
        return None
    gain = max(2 * float(gain), 0.0)
    return float(max(special.chdtrc(1, gain), special.fdtrc(1, freedom, gain / max(dispersion, 1e-12))))


@dataclass(frozen=True, kw_only=True)
class _Over:
    """Level and slope under each of (G,) ceilings."""

    ceilings: Array
    theta: Array  # (G, 2)
    covariances: Array  # (G, 2, 2) of binomial noise
    likelihood: Array  # (G,) ln, with the priors of level and slope
    dispersion: float  # under the best of them
    weights: Array


def _over(ceilings: Array, z: Array, hits: Array, items: Array, floor: float) -> _Over:
    """Fisher scoring under every ceiling at once."""
    spread = max(float(z.std()), 1e-12)
    precision = np.array([WIDE, WIDE / spread]) ** -2.0
    theta = _scored(ceilings, z, hits, items, floor, precision)
    p = _probability(theta, z, floor, ceilings)
    information = _information(theta, z, items, floor, ceilings) + np.diag(precision)
    likelihood = (hits * np.log(p) + (items - hits) * np.log1p(-p)).sum(1) - 0.5 * (precision * theta**2).sum(1)
    best = p[int(np.argmax(likelihood))]
    chi2 = float(((hits - items * best) ** 2 / (items * best * (1 - best))).sum())
    dispersion = max(1.0, chi2 / max(1, len(z) - 3))
    ln_weight = (likelihood - likelihood.max()) / dispersion
    weight = np.exp(ln_weight) * np.where(ceilings == 1, AT_ONE, (1 - AT_ONE) / max(1, len(ceilings) - 1))
    return _Over(
        ceilings=ceilings,
        theta=theta,
        covariances=np.asarray(np.linalg.inv(information), float),
        likelihood=likelihood,
        dispersion=dispersion,
        weights=weight / weight.sum(),
    )


def _probability(theta: Array, z: Array, floor: float, ceilings: Array) -> Array:
    """(G, n), kept off zero and one."""
    trend = theta[:, :1] + theta[:, 1:] * z
    return np.clip(_curve(trend, floor, ceilings[:, None]), 1e-12, 1 - 1e-12)


def _information(theta: Array, z: Array, items: Array, floor: float, ceilings: Array) -> Array:
    """Fisher information of level and slope, (G, 2, 2)."""
    sigmoid = special.expit(theta[:, :1] + theta[:, 1:] * z)
    p = _probability(theta, z, floor, ceilings)
    weight = items * ((ceilings[:, None] - floor) * sigmoid * (1 - sigmoid)) ** 2 / (p * (1 - p))
    return np.asarray(weight @ np.stack([np.ones_like(z), z, z, z**2], 1)).reshape(-1, 2, 2)


def _scored(ceilings: Array, z: Array, hits: Array, items: Array, floor: float, precision: Array) -> Array:
    """The most probable level and slope under each ceiling, (G, 2), by damped Fisher scoring."""
    share = np.clip((hits.sum() / items.sum() - floor) / (ceilings - floor), 0.05, 0.95)
    theta = np.stack([special.logit(share), np.zeros(len(ceilings))], 1)
    both, reach = np.stack([np.ones_like(z), z], 1), float(np.abs(z).max())

    def value(at: Array) -> Array:
        p = _probability(at, z, floor, ceilings)
        return np.asarray((hits * np.log(p) + (items - hits) * np.log1p(-p)).sum(1) - 0.5 * (precision * at**2).sum(1))

    now, damping = value(theta), np.full(len(ceilings), 1e-3)
    for _ in range(STEPS):
        sigmoid = special.expit(theta[:, :1] + theta[:, 1:] * z)
        p = _probability(theta, z, floor, ceilings)
        score = (hits - items * p) / (p * (1 - p)) * (ceilings[:, None] - floor) * sigmoid * (1 - sigmoid)
        gradient = score @ both - precision * theta
        hessian = _information(theta, z, items, floor, ceilings) + np.diag(precision)
        hessian = hessian * (1 + damping[:, None, None] * np.eye(2))
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        longest = np.abs(step[:, 0]) + np.abs(step[:, 1]) * reach
        step *= np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))[:, None]
        trial = theta + step
        reached = value(trial)
        better = reached >= now
        promised = (gradient * step).sum(1)  # twice what the step would gain were the curve a parabola
        theta[better], now = trial[better], np.where(better, reached, now)
        damping = np.where(better, damping / 10, damping * 10)
        if np.all(promised < ENOUGH):
            break
    return theta
