"""The minima of all budgets at once: one family of curves in ln N whose centre is a smooth function of ln C.

At budget b, ln L = l_b + k_b (z^2 + g z^3) with z = ln N - m_b and ln k_b a line in ln C: the curves share how strongly
they bend and how skew they are, so that a budget of few or off-centre sizes still tells where its minimum lies. For
L = E + A/N^alpha + B/D^beta along 6ND = C the skewness g is (beta - alpha)/3 at every budget.

ln N*(C) is then a line whose slope drifts: integrated Brownian motion in ln C, its rate averaged over by likelihood.
Without drift it is Hoffmann et al.'s N* = k C^a; with it an interval widens with the distance from the budgets, more
so where the exponent was seen to change. What it would have said of the higher budgets from the lower ones is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.estimation.minimise import minimise
from analysis.estimation.robust import LEAST_SQUARES
from analysis.laws import Array

BEND_SPREAD, SKEW_SPREAD = 0.15, 0.1  # prior standard deviations of d ln k / d ln C and of g, around zero
PRIOR_NOISE, PRIOR_FREEDOM = 0.002, 1.0  # of a run around its budget's curve, in ln L
SLOPE, SLOPE_SPREAD = 0.55, 0.25  # prior of the exponent, loose: between Hoffmann et al.'s and Kaplan et al.'s
FIXED_SPREAD = 1e-6  # of an exponent that is given
DRIFTS = np.array([0.0, 0.02, 0.04, 0.08, 0.16, 0.32])  # standard deviation of the exponent over a decade ...
DRIFT_PRIOR = np.array([0.25, 0.2, 0.2, 0.15, 0.1, 0.1])  # ... and how likely each is before the budgets are seen
LEAST_BUDGETS = 3  # that N* is carried on from
TEST_PRIOR = 3.0  # held-out cuts that the stated widths count for


@dataclass(frozen=True, kw_only=True)
class Family:
    """The centres and levels of all budgets, and how well they are known."""

    ln_compute: Array  # (B,)
    centre: Array  # (B,) ln N*
    level: Array  # (B,) ln L*
    covariance: Array  # (2B, 2B) of the levels and, behind them, the centres
    bend: Array  # (B,) k
    skew: float  # g
    noise: float  # of a run, in ln L
    freedom: float  # degrees of freedom that ``noise`` rests on
    fixed: float | None = None  # the exponent, where it is given
    inflation: float = 1.0  # of the interval of a higher budget's minimum, by the held-out ones

    @property
    def of_centre(self) -> Array:
        """Covariance of the centres, (B, B)."""
        b = len(self.centre)
        return self.covariance[b:, b:]

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws of the levels and the centres, (count, B) each, t-distributed."""
        b = len(self.centre)
        factor = np.linalg.cholesky(self.covariance + 1e-18 * np.eye(2 * b))
        drawn = rng.standard_normal((count, 2 * b)) @ factor.T * _tails(self.freedom, count, rng)
        return self.level + drawn[:, :b], self.centre + drawn[:, b:]

    def line(self, centres: Array) -> Array:
        """The exponent and the level of the line through rows of centres (P, B), weighed by their errors: (P, 2)."""
        x, precision = self.ln_compute, np.linalg.inv(self.of_centre)
        if self.fixed is not None:
            level = (centres - self.fixed * x) @ precision.sum(1) / precision.sum()
            return np.column_stack([np.full(len(centres), self.fixed), level])
        basis = np.stack([x, np.ones_like(x)], 1)
        return np.asarray(centres @ np.linalg.solve(basis.T @ precision @ basis, basis.T @ precision).T)

    def carried(self, ln_compute: Array) -> Carried:
        """ln N* at other computes."""
        at = np.asarray(ln_compute, float)
        return _carried(self.ln_compute, self.centre, self.of_centre, at, self.fixed)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """ln N* at some computes: a mixture over how fast the exponent drifts."""

    weights: Array  # (drifts,)
    means: Array  # (drifts, n)
    variances: Array  # (drifts, n)

    @property
    def mean(self) -> Array:
        """Of the mixture, (n,)."""
        return np.asarray(self.weights @ self.means)

    @property
    def variance(self) -> Array:
        """Of the mixture, (n,)."""
        return np.asarray(self.weights @ (self.variances + (self.means - self.mean) ** 2))

    def draws(self, count: int, freedom: float, inflation: float, rng: np.random.Generator) -> Array:
        """Draws of ln N*, (count, n), every compute by itself."""
        chosen = rng.choice(len(self.weights), count, p=self.weights)
        drawn = np.sqrt(self.variances[chosen]) * rng.standard_normal((count, 1)) * _tails(freedom, count, rng)
        return np.asarray(self.mean + inflation * (self.means[chosen] - self.mean + drawn))


def _tails(freedom: float, count: int, rng: np.random.Generator) -> Array:
    """What makes a Gaussian draw one of a t distribution, (count, 1)."""
    return np.asarray(np.sqrt(freedom / rng.chisquare(freedom, (count, 1))))


def fit(budget: Array, x: Array, y: Array, ln_compute: Array, start: Array) -> Family:
    """The family through runs, by penalised least squares.

    Args:
        budget: (n,) the index of each run's budget, 0 to B - 1.
        x, y: (n,) ln N and ln L.
        ln_compute: (B,)
        start: (3, B) level, centre and bend of each budget's own parabola.
    """
    b = len(ln_compute)
    c = ln_compute - ln_compute.mean()
    spread = np.array([BEND_SPREAD, SKEW_SPREAD])
    theta = np.concatenate([start[0], start[1], [np.median(np.log(start[2])), 0.0, 0.0]])
    noise, freedom = 5 * PRIOR_NOISE, PRIOR_FREEDOM
    normal = np.eye(len(theta))
    for _ in range(3):  # the noise weighs the data against the priors of the shape
        theta, normal, squares = _least_squares(theta, budget, x, y, c, noise / spread)
        told = 1 - noise**2 * np.diag(np.linalg.inv(normal))[-2:] / spread**2  # of the shape, by the data
        freedom = max(0.0, len(y) - 2 * b - 1 - float(told.sum()))
        noise = float(np.sqrt((PRIOR_FREEDOM * PRIOR_NOISE**2 + squares) / (PRIOR_FREEDOM + freedom)))
    covariance = noise**2 * np.linalg.inv(normal)[: 2 * b, : 2 * b]
    return Family(
        ln_compute=ln_compute,
        centre=theta[b : 2 * b],
        level=theta[:b],
        covariance=(covariance + covariance.T) / 2,
        bend=np.exp(theta[2 * b] + theta[2 * b + 1] * c),
        skew=float(theta[-1]),
        noise=noise,
        freedom=PRIOR_FREEDOM + freedom,
    )


def _least_squares(
    theta: Array, budget: Array, x: Array, y: Array, c: Array, ridge: Array
) -> tuple[Array, Array, float]:
    """Where the squares are least, the normal matrix there, and the squares of the runs alone.

    Args:
        ridge: (2,) weights of the last two of theta, the shape's, as if each had been measured as zero.
    """
    b, k, n = len(c), len(theta), len(y)
    rows, at = np.arange(n), budget.astype(int)

    def evaluate(many: Array) -> tuple[Array, Array]:
        found, gradient = np.empty((len(many), n + 2)), np.zeros((len(many), k, n + 2))
        for value, slope, theta in zip(found, gradient, many, strict=True):
            z, bend = x - theta[b + at], np.exp(theta[2 * b] + theta[2 * b + 1] * c[at])
            shape = bend * (z**2 + theta[-1] * z**3)
            value[:n], value[n:] = theta[at] + shape, theta[-2:]
            slope[at, rows] = 1.0
            slope[b + at, rows] = -bend * (2 * z + 3 * theta[-1] * z**2)
            slope[2 * b, :n], slope[2 * b + 1, :n], slope[-1, :n] = shape, c[at] * shape, bend * z**3
            slope[-2, n], slope[-1, n + 1] = 1.0, 1.0
        return found, gradient

    observed, weights = np.concatenate([y, np.zeros(2)]), np.concatenate([np.ones(n), ridge**2])
    theta = minimise(evaluate, observed, theta[None], rho=LEAST_SQUARES, weights=weights).theta[0]
    (value,), (gradient,) = evaluate(theta[None])
    return theta, (gradient * weights) @ gradient.T, float(((y - value[:n]) ** 2).sum())


def _carried(ln_compute: Array, centre: Array, covariance: Array, at: Array, fixed: float | None = None) -> Carried:
    """Gaussian regression on a line whose slope drifts, under each of the DRIFTS; a fixed slope does not."""
    slope, spread = (SLOPE, SLOPE_SPREAD) if fixed is None else (fixed, FIXED_SPREAD)
    drifts, prior = (DRIFTS, DRIFT_PRIOR) if fixed is None else (DRIFTS[:1], DRIFT_PRIOR[:1])
    origin = ln_compute.mean()
    t, s = ln_compute - ln_compute.min(), at - ln_compute.min()
    h, h_at = (np.stack([np.ones_like(v), v - origin], 1) for v in (ln_compute, at))
    prior_precision = np.diag([0.0, spread**-2])
    likelihoods, means, variances = [], [], []
    for drift in drifts:
        rate = drift**2 / np.log(10)
        v = covariance + rate * _integrated(t, t)
        cross, own = rate * _integrated(s, t), rate * np.diag(_integrated(s, s))
        precision = np.linalg.inv(v)
        information = h.T @ precision @ h + prior_precision
        beta = np.linalg.solve(information, h.T @ precision @ centre + prior_precision @ [0.0, slope])
        left = centre - h @ beta
        gain = cross @ precision
        rest = h_at - gain @ h
        means.append(h_at @ beta + gain @ left)
        known = np.einsum("ij,jk,ik->i", rest, np.linalg.inv(information), rest)
        variances.append(np.maximum(own - np.einsum("ij,ij->i", gain, cross), 0.0) + known)
        misfit = left @ precision @ left + ((beta[1] - slope) / spread) ** 2
        likelihoods.append(-0.5 * (np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + misfit))
    share = np.exp(np.array(likelihoods) - max(likelihoods)) * prior
    return Carried(weights=share / share.sum(), means=np.array(means), variances=np.array(variances))


def _integrated(t: Array, s: Array) -> Array:
    """Covariance of integrated Brownian motion that starts at rest at zero, (len(t), len(s)); zero before."""
    a, b = np.meshgrid(np.maximum(t, 0.0), np.maximum(s, 0.0), indexing="ij")
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.asarray(low**2 * (3 * high - low) / 6)


def held_out(whole: Family, below: list[Family]) -> pd.DataFrame:
    """What families of the lower budgets say of the minima of the higher ones; intervals as stated, not inflated.

    Args:
        below: families of the first so many budgets of ``whole``.

    Returns:
        fitted_to, compute, decades, predicted and measured (N*), z (the miss in standard deviations), covered95.
    """
    rows = []
    for family in below:
        b = len(family.centre)
        said = family.carried(whole.ln_compute[b:])
        spread = np.sqrt(said.variance + np.diag(whole.of_centre)[b:])
        z = (whole.centre[b:] - said.mean) / spread
        rows.append(
            pd.DataFrame(
                {
                    "fitted_to": np.exp(family.ln_compute[-1]),
                    "compute": np.exp(whole.ln_compute[b:]),
                    "decades": (whole.ln_compute[b:] - family.ln_compute[-1]) / np.log(10),
                    "predicted": np.exp(said.mean),
                    "measured": np.exp(whole.centre[b:]),
                    "z": z,
                    "covered95": np.abs(z) <= special.stdtrit(family.freedom, 0.975),
                }
            )
        )
    columns = ["fitted_to", "compute", "decades", "predicted", "measured", "z", "covered95"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def inflation(tests: pd.DataFrame) -> float:
    """By how much held-out minima missed more than was said, cuts counting equally; one where they did not."""
    if tests.empty:
        return 1.0
    squares = (tests.z**2).groupby(tests.fitted_to).mean()
    return float(np.sqrt(max(1.0, (TEST_PRIOR + squares.sum()) / (TEST_PRIOR + len(squares)))))
