"""Robust fits of a law: screened multi-start, and Levenberg-Marquardt batched over starts or bootstrap resamples.

The objective is the sum over runs of weight x rho(ln L_observed - ln L_law). Sums, not means: with means the stopping
rules of general optimisers end early. A robust rho is minimised by iteratively reweighted least squares inside the
Levenberg-Marquardt steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from analysis.laws.base import Array, Data, Evaluated, Law

DELTA = 1e-3  # Hoffmann et al. 2022
STARTS_KEPT = 24  # of the screened starts: the best
MANY_RUNS, SAMPLE_KEPT = 500, 6  # beyond so many runs, starts are tried on a sample, and so many go on
ITERATIONS = 300
TOLERANCE = 1e-12  # relative decrease of the objective at which a row has converged
RESAMPLED = 1e-9  # the same for a resample: its standard errors are a converged bootstrap's to four digits
BASINS, BASIN_FACTOR = 5, 2.0
SAME_OPTIMUM = 1e-3  # relative difference of objectives of starts that found "the" optimum
ILL_CONDITIONED = 1e6
VANISHED = 1e-3  # a term that is nowhere more than this share of the loss is at its bound, zero
ROWS = 128  # of a batch: its arrays stay in the cache


class FitStatus(Enum):
    """How a fit ended. Anything but OK is a result that says so, never a silent number."""

    OK = "ok"
    UNTESTED = "not tested"  # fitted, and nothing was left over to tell how well
    ILL_DETERMINED = "ill-determined"
    TOO_FEW_RUNS = "too few runs"
    NOT_CONVERGED = "not converged"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, kw_only=True)
class Rho:
    """The robust function of the residual that an objective sums; see ``RHOS``."""

    name: str = "huber"
    delta: float = DELTA

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.name not in RHOS:
            raise ValueError(f"loss_function={self.name}: allowed are {', '.join(RHOS)}")
        if not self.delta > 0:
            raise ValueError(f"delta={self.delta}: it must be positive")

    def value(self, residual: Array) -> Array:
        """Its value."""
        return RHOS[self.name][0](residual, self.delta)

    def weight(self, residual: Array) -> Array:
        """rho'(r)/r, the weight of iteratively reweighted least squares."""
        return RHOS[self.name][1](residual, self.delta)


def _huber(residual: Array, delta: float) -> Array:
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return np.asarray(inside * (size - 0.5 * inside))


_Function = Callable[[Array, float], Array]
RHOS: dict[str, tuple[_Function, _Function]] = {
    # r^2/2 within delta, linear outside (Huber 1964)
    "huber": (_huber, lambda r, delta: delta / np.maximum(np.abs(r), delta)),
    "least_squares": (lambda r, delta: 0.5 * r**2, lambda r, delta: np.ones_like(r)),
    # a Huber without the kink: delta^2 (sqrt(1 + (r/delta)^2) - 1)
    "soft_l1": (
        lambda r, delta: delta**2 * (np.sqrt(1 + (r / delta) ** 2) - 1),
        lambda r, delta: 1 / np.sqrt(1 + (r / delta) ** 2),
    ),
    # forgets far runs: delta^2/2 ln(1 + (r/delta)^2)
    "cauchy": (
        lambda r, delta: 0.5 * delta**2 * np.log1p((r / delta) ** 2),
        lambda r, delta: 1 / (1 + (r / delta) ** 2),
    ),
}
HUBER = Rho()
LEAST_SQUARES = Rho(name="least_squares")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law, or why there is none."""

    law: Law
    status: FitStatus
    theta: Array | None = None  # (k,)
    rho: Rho = HUBER
    objective: float = float("nan")
    condition: float = float("nan")  # of the scaled Jacobian at the optimum
    share_at_optimum: float = float("nan")  # of the starts kept
    at_bounds: tuple[str, ...] = ()  # parameters whose term has vanished
    basins: Array | None = None  # (few, k) solutions almost as good as the best, far apart
    runs: int = 0
    reason: str = ""

    @property
    def params(self) -> dict[str, float]:
        """Published parameters; empty when there is no fit."""
        return {} if self.theta is None else self.law.describe(self.theta)

    def predict(self, data: Data) -> Array:
        """Predicted loss (n,)."""
        assert self.theta is not None, "there is no fit to predict with"
        values: Array = np.exp(self.law.on(data)(self.theta[None])[0][0])
        return values


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where each row of a batch ended."""

    theta: Array  # (P, k)
    objective: Array  # (P,)
    converged: Array  # (P,) False where the iterations ran out


def fit(law: Law, data: Data, loss: Array, *, rho: Rho = HUBER, weights: Array | None = None) -> Fit:
    """The best fit from the law's starts.

    Args:
        data: columns that the law needs, each (n,).
        loss: (n,) measured, nats per token.
        rho: what is summed over the residuals of ln L.
        weights: (n,) of the runs; one each by default.
    """
    k, n = law.dimension, len(loss)
    if n <= k:
        return Fit(
            law=law, status=FitStatus.TOO_FEW_RUNS, runs=n, reason=f"{n} runs for {k} parameters, {k + 1} are needed"
        )
    evaluate, observed = law.on(data), np.log(loss)
    weights = np.ones(n) if weights is None else weights
    kept = _screened(evaluate, observed, _starts(law, data, loss, rho), rho, weights)
    found = minimise(evaluate, observed, kept, rho=rho, weights=weights)
    best = int(np.argmin(found.objective))
    if not np.isfinite(found.objective[best]):
        return Fit(law=law, status=FitStatus.NOT_CONVERGED, runs=n, reason="no start reached a finite objective")
    theta = found.theta[best]
    condition = _condition(evaluate(theta[None])[1][0])
    at_bounds = _at_bounds(law, data, theta)
    status, reason = FitStatus.OK, ""
    if not found.converged[best] and not at_bounds:  # a coefficient on its way to zero never arrives
        status, reason = FitStatus.NOT_CONVERGED, f"{ITERATIONS} iterations did not suffice"
    elif not condition <= ILL_CONDITIONED:
        status, reason = FitStatus.ILL_DETERMINED, f"the Jacobian's condition number is {condition:.1e}"
    return Fit(
        law=law,
        status=status,
        theta=theta,
        rho=rho,
        objective=float(found.objective[best]),
        condition=condition,
        share_at_optimum=float(np.mean(found.objective <= found.objective[best] * (1 + SAME_OPTIMUM))),
        at_bounds=at_bounds,
        basins=_basins(found),
        runs=n,
        reason=reason,
    )


def _starts(law: Law, data: Data, loss: Array, rho: Rho) -> Array:
    """The law's starts; for many runs, where these end on an even sample of them."""
    with np.errstate(all="ignore"):
        if len(loss) <= MANY_RUNS:
            return law.starts(data, loss)
        sample = np.linspace(0, len(loss) - 1, MANY_RUNS // 2).astype(int)
        few, observed = {name: column[sample] for name, column in data.items()}, np.log(loss[sample])
        evaluate = law.on(few)
        kept = _screened(evaluate, observed, law.starts(few, loss[sample]), rho, np.ones(len(sample)))
    found = minimise(evaluate, observed, kept, rho=rho)
    return found.theta[np.argsort(found.objective, kind="stable")[:SAMPLE_KEPT]]


def _screened(evaluate: Evaluated, observed: Array, starts: Array, rho: Rho, weights: Array) -> Array:
    """The STARTS_KEPT starts with the lowest objective."""
    chunks = [starts[i : i + 4 * ROWS] for i in range(0, len(starts), 4 * ROWS)]
    with np.errstate(all="ignore"):
        value = np.concatenate([rho.value(observed - evaluate(chunk)[0]) @ weights for chunk in chunks])
    return starts[np.argsort(np.where(np.isfinite(value), value, np.inf), kind="stable")[:STARTS_KEPT]]


def refit(fit: Fit, data: Data, observed: Array, *, weights: Array | None = None) -> Array:
    """Refit many resamples at once, each from the basin of the original fit that suits it best, (P, k).

    Args:
        observed: ln loss, (n,), or one row a resample, (P, n).
        weights: of the runs in each resample, (P, n); bootstrap counts, for instance. One each by default.
    """
    assert fit.basins is not None, "there is no fit to start from"
    evaluate = fit.law.on(data)
    residual = np.atleast_2d(observed)[:, None] - evaluate(fit.basins)[0][None]  # (P or 1, basins, n)
    each = fit.rho.value(residual)
    value = (
        each.sum(2)
        if weights is None
        else np.einsum("pbn,pn->pb", np.broadcast_to(each, (len(weights), *each.shape[1:])), weights)
    )
    start = fit.basins[np.argmin(value, axis=1)]
    return minimise(evaluate, observed, start, rho=fit.rho, weights=weights, tolerance=RESAMPLED).theta


def minimise(
    evaluate: Evaluated,
    observed: Array,
    theta: Array,
    *,
    rho: Rho = HUBER,
    weights: Array | None = None,
    tolerance: float = TOLERANCE,
) -> Solution:
    """Minimise from many starts at once.

    Args:
        evaluate: the law on its data.
        observed: ln loss, (n,) or one row a start, (P, n).
        theta: starting points (P, k).
        weights: of the runs, (n,) or one row a start, (P, n).
    """
    shape = (len(theta), observed.shape[-1])
    observed = np.broadcast_to(observed, shape)
    weights = np.broadcast_to(np.ones(1) if weights is None else weights, shape)
    parts = [
        _minimise(evaluate, observed[i : i + ROWS], theta[i : i + ROWS], rho, weights[i : i + ROWS], tolerance)
        for i in range(0, len(theta), ROWS)
    ]
    return Solution(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
    )


def _minimise(
    evaluate: Evaluated, observed: Array, theta: Array, rho: Rho, weights: Array, tolerance: float
) -> Solution:
    """One batch. A row that failed to improve keeps its gradient and only raises its damping."""
    theta, k = theta.copy(), theta.shape[1]
    with np.errstate(all="ignore"):
        predicted, gradient = evaluate(theta)
        residual = observed - predicted
        value = np.nan_to_num((weights * rho.value(residual)).sum(1), nan=np.inf, posinf=np.inf)
        damping = np.full(len(theta), 1e-3)
        active = np.flatnonzero(np.isfinite(value))
        normal, right = np.zeros((len(theta), k, k)), np.zeros((len(theta), k))
        stale = np.ones(len(theta), bool)  # rows whose normal equations are not those of theta
        for _ in range(ITERATIONS):
            if not len(active):
                break
            fresh = active[stale[active]]
            irls = weights[fresh] * rho.weight(residual[fresh])
            weighted = gradient[fresh] * irls[:, None]
            normal[fresh] = weighted @ gradient[fresh].transpose(0, 2, 1)
            right[fresh] = (weighted @ residual[fresh][..., None])[..., 0]
            stale[fresh] = False
            diagonal = np.einsum("pkk->pk", normal[active])
            ridge = damping[active, None] * diagonal + 1e-14 * (1 + diagonal.max(1, keepdims=True))
            step = np.linalg.solve(normal[active] + ridge[:, :, None] * np.eye(k), right[active][..., None])[..., 0]
            trial = theta[active] + step
            trial_predicted, trial_gradient = evaluate(trial)
            trial_residual = observed[active] - trial_predicted
            trial_value = (weights[active] * rho.value(trial_residual)).sum(1)
            better = trial_value < value[active]
            gain = np.where(better, value[active] - trial_value, 0.0)
            improved = active[better]
            theta[improved], value[improved] = trial[better], trial_value[better]
            residual[improved], gradient[improved] = trial_residual[better], trial_gradient[better]
            stale[improved] = True
            small = gain <= tolerance * np.maximum(value[active], 1e-300)
            finished = np.where(better, small, damping[active] > 1e10)
            damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-12), damping[active] * 4)
            active = active[~finished]
    converged = np.ones(len(theta), bool)
    converged[active] = False
    return Solution(theta=theta, objective=value, converged=converged)


def _basins(found: Solution) -> Array:
    """Up to BASINS solutions within a factor of the best objective: where resamples may prefer to lie.

    They are chosen one after another, each as far from those before it as there are.
    """
    good = found.theta[np.isfinite(found.objective) & (found.objective <= BASIN_FACTOR * found.objective.min())]
    scale = np.maximum(np.ptp(good, axis=0), 1e-9)
    chosen = [found.theta[int(np.argmin(found.objective))]]
    while len(chosen) < min(BASINS, len(good)):
        distance = np.min([(((good - c) / scale) ** 2).sum(1) for c in chosen], axis=0)
        if distance.max() < 1e-6:
            break
        chosen.append(good[int(np.argmax(distance))])
    return np.array(chosen)


def _at_bounds(law: Law, data: Data, theta: Array) -> tuple[str, ...]:
    """Coefficients of terms that have vanished: raising one by VANISHED of itself moves no prediction."""
    gradient = law.on(data)(theta[None])[1][0]  # of ln L by ln coefficient: the term's share of the loss
    return tuple(
        name
        for name, row in zip(law.parameters, gradient, strict=False)
        if name in ("E", "A", "B", "a", "b") and np.abs(row).max() < VANISHED
    )


def _condition(jacobian: Array) -> float:
    """Condition number of the Jacobian (k, n) with unit rows."""
    norms = np.linalg.norm(jacobian, axis=1)
    if not np.all(norms > 0) or not np.all(np.isfinite(norms)):
        return float("inf")
    return float(np.linalg.cond(jacobian / norms[:, None]))
