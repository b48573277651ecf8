"""Robust fits of a law: screened multi-start, and Levenberg-Marquardt batched over starts or bootstrap resamples.

The objective is the sum over runs of weight x Huber_delta(ln L_observed - ln L_law). Sums, not means: with means the
stopping rules of general optimisers end early. Huber is minimised by iteratively reweighted least squares inside the
Levenberg-Marquardt steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array, Data, Law

DELTA = 1e-3  # Hoffmann et al. 2022
STARTS_KEPT = 60
ITERATIONS = 300
TOLERANCE = 1e-12  # relative decrease of the objective at which a row has converged
BASINS, BASIN_FACTOR = 5, 2.0
SAME_OPTIMUM = 1e-3  # relative difference of objectives of starts that found "the" optimum


class FitStatus(Enum):
    """How a fit ended. Anything but OK is a result that says so, never a silent number."""

    OK = "ok"
    ILL_DETERMINED = "ill-determined"
    TOO_FEW_RUNS = "too few runs"
    NOT_CONVERGED = "not converged"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law."""

    law: Law
    status: FitStatus
    theta: Array | None = None  # (k,)
    objective: float = float("nan")
    condition: float = float("nan")  # of the scaled Jacobian at the optimum
    share_at_optimum: float = float("nan")  # of the starts kept
    basins: Array | None = (
        None  # (few, k) solutions almost as good as the best, far apart: where resamples may prefer to lie
    )
    runs: int = 0
    reason: str = ""

    @property
    def params(self) -> dict[str, float]:
        """Published parameters; empty when there is no fit."""
        return {} if self.theta is None else self.law.describe(self.theta)

    def loss(self, data: Data) -> Array:
        """Predicted loss (n,)."""
        assert self.theta is not None, "there is no fit to predict with"
        values: Array = np.exp(self.law.log_loss(self.theta[None], data)[0][0])
        return values


def huber(residual: Array, delta: float) -> Array:
    """Huber's function: r^2/2 within delta, linear outside."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def fit(law: Law, data: Data, loss: Array, *, delta: float = DELTA) -> Fit:
    """The best fit from the law's starts."""
    k, n = len(law.parameters), len(loss)
    if n <= k:
        return Fit(
            law=law, status=FitStatus.TOO_FEW_RUNS, runs=n, reason=f"{n} runs for {k} parameters, {k + 1} are needed"
        )
    starts = law.starts(data, loss)
    observed = np.log(loss)
    value = huber(observed - law.log_loss(starts, data)[0], delta).sum(1)
    kept = starts[np.argsort(value, kind="stable")[:STARTS_KEPT]]
    theta, objective = minimise(law, data, np.broadcast_to(observed, (len(kept), n)), kept, delta=delta)
    best = int(np.argmin(objective))
    if not np.isfinite(objective[best]):
        return Fit(law=law, status=FitStatus.NOT_CONVERGED, runs=n, reason="no start reached a finite objective")
    share = float(np.mean(objective <= objective[best] * (1 + SAME_OPTIMUM)))
    condition = _condition(law, data, theta[best])
    status, reason = FitStatus.OK, ""
    if not np.isfinite(condition) or condition > 1e6:
        status, reason = FitStatus.ILL_DETERMINED, f"the Jacobian's condition number is {condition:.1e}"
    return Fit(
        law=law,
        status=status,
        theta=theta[best],
        objective=float(objective[best]),
        condition=condition,
        share_at_optimum=share,
        basins=_basins(theta, objective),
        runs=n,
        reason=reason,
    )


def _basins(theta: Array, objective: Array) -> Array:
    """Up to BASINS solutions within a factor of the best objective, chosen one after another as far apart as there
    are.
    """
    good = theta[np.isfinite(objective) & (objective <= BASIN_FACTOR * objective.min())]
    scale = np.maximum(np.ptp(good, axis=0), 1e-9)
    chosen = [theta[int(np.argmin(objective))]]
    while len(chosen) < min(BASINS, len(good)):
        distance = np.min([(((good - c) / scale) ** 2).sum(1) for c in chosen], axis=0)
        if distance.max() < 1e-6:
            break
        chosen.append(good[int(np.argmax(distance))])
    return np.array(chosen)


def refit(fit: Fit, data: Data, observed: Array, *, weights: Array | None = None, delta: float = DELTA) -> Array:
    """Refit many resamples at once, each from every basin of the original fit; the best solution of each, (P, k)."""
    assert fit.basins is not None
    solutions = []
    for basin in fit.basins:
        start = np.broadcast_to(basin, (len(observed), len(basin)))
        solutions.append(minimise(fit.law, data, observed, start, weights=weights, delta=delta))
    best = np.argmin(np.stack([value for _, value in solutions]), axis=0)
    chosen: Array = np.stack([theta for theta, _ in solutions])[best, np.arange(len(observed))]
    return chosen


def minimise(
    law: Law, data: Data, observed: Array, theta: Array, *, weights: Array | None = None, delta: float = DELTA
) -> tuple[Array, Array]:
    """Minimise from many starts at once.

    Args:
        observed: ln loss, (P, n): every row may have its own.
        theta: starting points (P, k).
        weights: of the runs in each row, (P, n); bootstrap counts, for instance.

    Returns:
        theta (P, k) and the objective (P,).
    """
    theta = theta.copy()
    weights = np.ones_like(observed) if weights is None else weights

    def objective(rows: Array, which: NDArray[np.intp]) -> Array:
        with np.errstate(all="ignore"):
            residual = observed[which] - law.log_loss(rows, data)[0]
            total = (weights[which] * huber(residual, delta)).sum(1)
        return np.where(np.isfinite(total), total, np.inf)

    value = objective(theta, np.arange(len(theta)))
    damping = np.full(len(theta), 1e-3)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(ITERATIONS):
        if not len(active):
            break
        predicted, gradient = law.log_loss(theta[active], data)
        residual = observed[active] - predicted
        irls = weights[active] / np.maximum(np.abs(residual) / delta, 1.0)
        weighted = irls[..., None] * gradient
        normal = np.einsum("pnk,pnl->pkl", weighted, gradient)
        right = np.einsum("pnk,pn->pk", weighted, residual)
        diagonal = np.einsum("pkk->pk", normal)
        scale = damping[active, None] * diagonal + 1e-14 * (1 + diagonal.max(1, keepdims=True))
        step = np.linalg.solve(normal + scale[:, :, None] * np.eye(theta.shape[1]), right[..., None])[..., 0]
        trial = theta[active] + step
        trial_value = objective(trial, active)
        better = trial_value < value[active]
        gain = np.where(better, value[active] - trial_value, 0.0)
        improved = active[better]
        theta[improved], value[improved] = trial[better], trial_value[better]
        finished = np.where(better, gain <= TOLERANCE * np.maximum(value[active], 1e-300), damping[active] > 1e10)
        damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-12), damping[active] * 4)
        active = active[~finished]
    return theta, value


def _condition(law: Law, data: Data, theta: Array) -> float:
    """Condition number of the Jacobian with unit columns."""
    jacobian = law.log_loss(theta[None], data)[1][0]
    norms = np.linalg.norm(jacobian, axis=0)
    if not np.all(norms > 0):
        return float("inf")
    return float(np.linalg.cond(jacobian / norms))
