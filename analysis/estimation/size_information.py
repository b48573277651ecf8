"""What a run would teach about the compute-optimal size before it is made.

Along a budget the loss is a law plus a smooth misfit of ln L, a Gaussian process over ln N and ln D, and N* is where
their slopes cancel. So a run tells about N* by what it says of the slope there, and a profile of sizes at the target
measures that slope itself, whatever the law misses elsewhere. How large the misfit and a run's noise are follows from
the runs: their posterior mean on a grid. L(N, D) with free exponents alone: tied exponents would answer by assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.estimation import uncertainty
from analysis.estimation.choices import columns
from analysis.estimation.information import Covariance, compute_optimal, posterior_mode, residuals
from analysis.laws import Array
from analysis.laws.base import PowerSum
from gpt3core.errors import UsageError

LENGTH = 3.0  # over which the misfit is smooth, in ln N and ln D
NOISE, MISFIT = 0.004, 0.008  # standard deviations in ln L that are likeliest before any run is seen ...
FACTOR = 2.5  # ... and the factor by which they may be off (one sigma)
NOISES, MISFITS = np.geomspace(0.0005, 0.05, 9), np.geomspace(0.0005, 0.05, 9)
MOST_RUNS = 200  # of the highest compute, that tell the two
ALONG = np.array([1.0, -1.0])  # of (ln N, ln D): a budget
STEP = 1e-3  # in ln N, of the slope's difference quotient
FLAT = 1e-4  # curvature of ln L along the budget below which no size is best


@dataclass(frozen=True, kw_only=True)
class SizeFit:
    """A law, its misfit and a run's noise, linearised where the law is lowest along the target's budget."""

    law: PowerSum
    theta: Array
    whitening: Array  # (k, k): theta - its mode, over standard normal variables
    point: tuple[float, float]  # N* and D* by the law alone
    slope: Array  # (k,): of ln L along the budget at the point, by those variables
    curvature: float  # of ln L there
    noise: float  # of a run, in ln L
    misfit: float
    ln_n: float = float("nan")  # ln N*, misfit included

    def covariance(self, runs: pd.DataFrame, worth: Array | None = None) -> Covariance:
        """Of ln L at the runs' N and D and of ln N*, before anything is measured.

        Args:
            worth: of each run's loss by its standard error, (runs,); see uncertainty.measured.
        """
        gradient, u, t = self._gradient(runs), _logarithms(runs), np.log(np.array([self.point]))
        matrix = np.zeros((len(runs) + 1, len(runs) + 1))
        matrix[:-1, :-1] = gradient @ gradient.T + self.misfit**2 * _smooth(u, u)
        to_slope = self.misfit**2 * _smooth(u, t)[:, 0] * ((u - t) @ ALONG) / LENGTH**2
        matrix[:-1, -1] = matrix[-1, :-1] = -(gradient @ self.slope + to_slope) / self.curvature
        matrix[-1, -1] = (self.slope @ self.slope + 2 * self.misfit**2 / LENGTH**2) / self.curvature**2
        each = np.ones(len(runs)) if worth is None else worth
        return Covariance(matrix=matrix, noise=self.noise**2 / each)

    def _gradient(self, runs: pd.DataFrame) -> Array:
        """d ln L / d (standard normal variables) of every run, (runs, k)."""
        return np.asarray(self.law.on(columns(runs))(self.theta[None])[1][0].T @ self.whitening)


def fit(law: PowerSum, runs: pd.DataFrame, compute: float, at: tuple[float, float] | None = None) -> SizeFit:
    """The fit that the design for N* is linearised at.

    Args:
        runs: N, D and loss of the runs that ended; loss_se where it is known.
        at: N and D to linearise at; by default the compute-optimal ones of the law.

    Raises:
        UsageError: where the law has no size that is best.
    """
    theta, prior = posterior_mode(law, runs, compute)
    point = at or compute_optimal(law, theta, runs, compute)
    whitening = prior.whitening(theta)
    slope, curvature = _along(law, theta, point)
    if not curvature > FLAT:
        raise UsageError(f"target=n_star: no size is best at C={compute:.3g} by these runs: take target=loss")
    found = SizeFit(
        law=law,
        theta=theta,
        whitening=whitening,
        point=point,
        slope=slope @ whitening,
        curvature=curvature,
        noise=NOISE,
        misfit=MISFIT,
    )
    gradient, away, residual = found._gradient(runs), prior.away(theta), residuals(law, theta, prior, runs)
    worth = uncertainty.measured(runs)
    noise, misfit = _scales(gradient, _logarithms(runs), residual, worth)
    whole = SizeFit(**{**vars(found), "noise": noise, "misfit": misfit})
    known = whole.covariance(runs, worth)
    told = known.matrix[-1, :-1] @ np.linalg.solve(known.matrix[:-1, :-1] + np.diag(known.noise), residual)
    ln_n = np.log(point[0]) + whole.slope @ away / curvature + told
    return SizeFit(**{**vars(whole), "ln_n": float(ln_n)})


def _along(law: PowerSum, theta: Array, point: tuple[float, float]) -> tuple[Array, float]:
    """d/dtheta of the slope of ln L along the point's budget, (k,), and the slope's own derivative there."""
    step = np.array([-STEP, 0.0, STEP])
    data = {"N": point[0] * np.exp(step), "D": point[1] * np.exp(-step)}
    value, gradient = (both[0] for both in law.on(data)(theta[None]))
    curvature = float(value[2] - 2 * value[1] + value[0]) / STEP**2
    return np.asarray((gradient[:, 2] - gradient[:, 0]) / (2 * STEP)), curvature


def _logarithms(runs: pd.DataFrame) -> Array:
    return np.asarray(np.log(runs[["N", "D"]].to_numpy(float)))


def _smooth(u: Array, v: Array) -> Array:
    """Correlation of the misfit between two lists of points (ln N, ln D)."""
    return np.asarray(np.exp(-0.5 * ((u[:, None] - v[None]) ** 2).sum(-1) / LENGTH**2))


def _scales(gradient: Array, u: Array, residual: Array, worth: Array) -> tuple[float, float]:
    """Noise of a usual run and size of the misfit: roots of their squares' posterior means on the grid."""
    near = np.argsort(u.sum(1))[-MOST_RUNS:]
    root = np.sqrt(worth[near])  # times ln L, every run has the noise of a usual one
    gradient, residual, alike = root[:, None] * gradient[near], root * residual[near], np.outer(root, root)
    law = gradient @ gradient.T
    log_posterior = np.empty((len(MISFITS), len(NOISES)))
    for i, misfit in enumerate(MISFITS):
        values, vectors = np.linalg.eigh(law + misfit**2 * alike * _smooth(u[near], u[near]))
        squares = (vectors.T @ residual) ** 2
        total = np.maximum(values, 0.0)[:, None] + NOISES**2  # (runs, noises)
        log_posterior[i] = -0.5 * (np.log(total) + squares[:, None] / total).sum(0)
    log_posterior -= 0.5 * (np.log(NOISES / NOISE) / np.log(FACTOR)) ** 2
    log_posterior -= 0.5 * (np.log(MISFITS / MISFIT) / np.log(FACTOR))[:, None] ** 2
    weight = np.exp(log_posterior - log_posterior.max())
    weight /= weight.sum()
    return float(np.sqrt(weight.sum(0) @ NOISES**2)), float(np.sqrt(weight.sum(1) @ MISFITS**2))
