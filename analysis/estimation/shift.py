"""One ladder as another with its compute multiplied: L_B(N, D) = L_A(N e^s, D e^t), fitted to both at once.

The multiplier mu = s + t of compute (in logarithms) is a smooth function of compute with two coefficients; the tilt
(s - t)/2 says whether it is parameters or tokens that B makes more of. What A's surface is does not matter much: it
turns a difference of losses into one of compute, by its slope. It is a law of N and D, or of C alone where the runs
vary along one line only, times a smooth correction in compute that both ladders share.

Three shapes are tried, each with the level of mu and one coefficient more: a line in ln C, which is what other
coefficients and other exponents make of two power laws; one that bends as C^gamma does, which is what a slightly lower
irreducible loss makes of them; and that lower irreducible loss itself, L_B(N, D) = L_A(N e^s, D e^t) - delta, whose
multiplier has no bound. They are weighted by how well they fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.estimation.minimise import minimise
from analysis.estimation.robust import LEAST_SQUARES
from analysis.laws import Array, Law

LN10 = float(np.log(10))
FLOOR = "floor"
SHAPES = ("line", "bend", FLOOR)
STEP = 1e-4  # of ln N and ln D, for slopes
CORRECTION = 0.01  # standard deviation of the shared correction's coefficients, in ln L
GROWTH, TILT = 0.5, 0.5  # of the growth of ln m a decade and of the tilt: they only bind where the runs do not tell
LOOSE = {"E": 2.0, "alpha": 0.3, "beta": 0.3, "alpha_C": 0.3}  # of theta around the first fit's, ln E among them
LOOSE_COEFFICIENT = 10.0  # of the others, logarithms of coefficients
TURN = 2.5  # scatters from which on a run's residual counts linearly, not squared
LEAST_LEFT = 1e-3  # of a loss, or of its reducible part, where a floor is taken off
ROUNDS, CONVERGED = 4, 1e-10
LEVEL, GROW, TILTED = 0, 1, 2  # places in p


@dataclass(frozen=True, kw_only=True)
class Points:
    """Runs or cells of one ladder or of both: arrays (n,)."""

    ln_n: Array
    ln_d: Array
    ln_c: Array
    ln_loss: Array
    shifted: Array  # one for ladder B, zero for A
    runs: Array  # how many a cell has: its weight


@dataclass(frozen=True, kw_only=True)
class Model:
    """The surface and the shape of the multiplier. Parameters: the law's theta, the correction's, then p (3,)."""

    law: Law
    line: bool  # a law of compute alone
    centre: float  # ln C around which compute is counted in decades
    half: float  # decades from there to the ends of the data
    corrections: int  # terms of the shared correction
    shape: str = "line"
    gamma: float = 0.15  # the exponent of the reducible loss along the frontier
    lower: float = 0.0  # of the shape floor: what one of p[GROW] takes off B's loss

    @property
    def dimension(self) -> int:
        """All parameters but p."""
        return self.law.dimension + self.corrections

    def basis(self, ln_c: Array) -> Array:
        """What p is multiplied with to give mu, (n, 2)."""
        x = ln_c - self.centre
        grown = x / LN10 if self.shape == "line" else np.expm1(self.gamma * x) / (self.gamma * LN10)
        grown = np.zeros_like(x) if self.shape == FLOOR else grown
        return np.stack([np.ones_like(x), grown], 1)

    def evaluate(self, parameters: Array, points: Points) -> tuple[Array, Array]:
        """Ln L (n,) and its derivatives (n, dimension + 3)."""
        k, theta, p = self.law.dimension, parameters[: self.law.dimension], parameters[self.dimension :]
        basis = self.basis(points.ln_c) * points.shifted[:, None]
        mu, tilt = basis @ p[:2], points.shifted * p[TILTED]
        n, d, c = points.ln_n + mu / 2 + tilt, points.ln_d + mu / 2 - tilt, points.ln_c + mu
        value, gradient = self._law(theta, n, d, c)
        jacobian = np.zeros((len(mu), self.dimension + 3))
        jacobian[:, :k] = gradient
        if self.line:
            by_mu = self._slope(theta, n, d, c, (0, 0, 1))
            by_tilt = np.zeros_like(mu)
        else:
            by_n, by_d = self._slope(theta, n, d, c, (1, 0, 0)), self._slope(theta, n, d, c, (0, 1, 0))
            by_mu, by_tilt = (by_n + by_d) / 2, by_n - by_d
        if self.corrections:
            terms, slopes = self._correction(c)
            value = value + terms @ parameters[k : self.dimension]
            jacobian[:, k : self.dimension] = terms
            by_mu = by_mu + slopes @ parameters[k : self.dimension]
        jacobian[:, self.dimension : self.dimension + 2] = by_mu[:, None] * basis
        jacobian[:, self.dimension + 2] = by_tilt * points.shifted
        lowered = self.lowered(value, p, points.shifted)
        jacobian *= np.exp(value - lowered)[:, None]
        jacobian[:, self.dimension + GROW] -= self.lower * points.shifted * np.exp(-lowered)
        return lowered, jacobian

    def lowered(self, ln_loss: Array, p: Array, shifted: Array | float = 1.0) -> Array:
        """Ln L less what the floor of B lies lower, (n,)."""
        share = self.lower * p[GROW] * shifted * np.exp(-ln_loss)
        return np.asarray(ln_loss + np.log(np.maximum(1 - share, LEAST_LEFT)))

    def ln_loss(self, theta: Array, n: Array, d: Array, c: Array) -> Array:
        """Ln L of the law alone at logarithms of N, D and C, (n,)."""
        return self._law(theta, n, d, c)[0]

    def _law(self, theta: Array, n: Array, d: Array, c: Array) -> tuple[Array, Array]:
        value, gradient = self.law.on({"N": np.exp(n), "D": np.exp(d), "C": np.exp(c)})(theta[None])
        return value[0], gradient[0].T

    def _slope(self, theta: Array, n: Array, d: Array, c: Array, along: tuple[int, int, int]) -> Array:
        up = [v + STEP * s for v, s in zip((n, d, c), along, strict=True)]
        down = [v - STEP * s for v, s in zip((n, d, c), along, strict=True)]
        return np.asarray((self._law(theta, *up)[0] - self._law(theta, *down)[0]) / (2 * STEP))

    def _correction(self, c: Array) -> tuple[Array, Array]:
        """Legendre polynomials of degree 2 and 3 over the data's compute and their slopes in ln C, (n, terms)."""
        z = (c - self.centre) / (LN10 * self.half)
        terms = np.stack([1.5 * z**2 - 0.5, 2.5 * z**3 - 1.5 * z], 1)[:, : self.corrections]
        slopes = np.stack([3 * z, 7.5 * z**2 - 1.5], 1)[:, : self.corrections] / (LN10 * self.half)
        return terms, slopes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Where a fit ended."""

    parameters: Array
    covariance: Array
    scatter: float  # standard deviation of a run around it, in ln L
    freedom: float  # degrees of freedom behind the scatter
    misfit: float  # weighted sum of squares, for the weights of the shapes
    count: int  # of runs or cells


def joint(model: Model, points: Points, start: Array) -> Estimate:
    """All parameters from all runs of both ladders.

    Args:
        start: of theta (k,).
    """
    loose = [LOOSE.get(name, LOOSE_COEFFICIENT) for name in model.law.parameters[: model.law.dimension]]
    prior = np.concatenate([loose, np.full(model.corrections, CORRECTION), _PRIOR])
    centre = np.concatenate([start, np.zeros(model.corrections + 3)])

    def residuals(parameters: Array) -> tuple[Array, Array]:
        value, jacobian = model.evaluate(parameters, points)
        return points.ln_loss - value, jacobian

    return _minimise(residuals, centre, prior, points.runs)


def paired(model: Model, a: Points, b: Points, surface: Estimate) -> Estimate:
    """All parameters: the three of p from the differences at shared cells, the surface's as all runs have them.

    Args:
        a, b: the same cells in both ladders, in one order.
    """
    m = model.dimension

    def whole(p: Array) -> Array:
        return np.concatenate([surface.parameters[:m], p])

    def residuals(p: Array) -> tuple[Array, Array]:
        (here, _), (there, jacobian) = model.evaluate(whole(p), a), model.evaluate(whole(p), b)
        return b.ln_loss - a.ln_loss - (there - here), jacobian[:, m:]

    weights = 1 / (1 / a.runs + 1 / b.runs)
    found = _minimise(residuals, surface.parameters[m:], _PRIOR, weights, centre=np.zeros(3))
    jacobian = model.evaluate(whole(found.parameters), b)[1] - model.evaluate(whole(found.parameters), a)[1]
    gain = found.covariance @ (jacobian[:, m:] * weights[:, None]).T / found.scatter**2
    moved, doubt = gain @ jacobian[:, :m], surface.covariance[:m, :m]
    covariance = np.block([[doubt, -doubt @ moved.T], [-moved @ doubt, found.covariance + moved @ doubt @ moved.T]])
    return Estimate(**{**vars(found), "parameters": whole(found.parameters), "covariance": covariance})


_PRIOR = np.array([10.0, GROWTH, TILT])


Residuals = Callable[[Array], tuple[Array, Array]]
"""Parameters -> measured - predicted (n,), and the derivatives of what is predicted (n, k)."""


def _minimise(
    residuals: Residuals, start: Array, prior: Array, weights: Array, centre: Array | None = None
) -> Estimate:
    """Huber's estimate by damped Gauss-Newton steps, with the scatter from the residuals and a normal prior."""
    centre = start if centre is None else centre
    parameters, precision = start.copy(), prior**-2.0
    residual, jacobian = residuals(parameters)
    scatter = max(float(np.sqrt((weights * residual**2).mean())), 1e-9)
    for _ in range(ROUNDS):
        robust = weights * np.minimum(1.0, TURN * scatter / np.maximum(np.abs(residual) * np.sqrt(weights), 1e-300))
        parameters, residual, jacobian = _descend(residuals, parameters, centre, precision, robust / scatter**2)
        normal = (jacobian * robust[:, None]).T @ jacobian / scatter**2
        covariance = np.linalg.inv(normal + np.diag(precision))
        used = float(np.trace(covariance @ normal))
        freedom = max(len(residual) - used - 1, 0.5)  # one more: the shape is chosen by the same runs
        scatter = max(float(np.sqrt((robust * residual**2).sum() / freedom)), 1e-9)
    normal = (jacobian * robust[:, None]).T @ jacobian / scatter**2
    return Estimate(
        parameters=parameters,
        covariance=np.linalg.inv(normal + np.diag(precision)),
        scatter=scatter,
        freedom=freedom,
        misfit=float((robust * residual**2).sum()),
        count=len(residual),
    )


def _descend(
    residuals: Residuals, parameters: Array, centre: Array, precision: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """Where the weighted sum of squares with the prior is lowest: parameters, residuals (n,), derivatives (n, k).

    Args:
        precision: (k,) of the prior around ``centre``.
    """
    n, k = len(weights), len(parameters)

    def evaluate(many: Array) -> tuple[Array, Array]:
        found, gradient = np.empty((len(many), n + k)), np.zeros((len(many), k, n + k))
        for value, slope, at in zip(found, gradient, many, strict=True):
            residual, jacobian = residuals(at)
            value[:n], value[n:] = -residual, at
            slope[:, :n], slope[:, n:] = jacobian.T, np.eye(k)
        return found, gradient

    observed, weighted = np.concatenate([np.zeros(n), centre]), np.concatenate([weights, precision])
    found = minimise(evaluate, observed, parameters[None], rho=LEAST_SQUARES, weights=weighted, tolerance=CONVERGED)
    return found.theta[0], *residuals(found.theta[0])
