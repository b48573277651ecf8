"""Robust fits of a law: screened multi-start, and Levenberg-Marquardt batched over starts or bootstrap resamples.

The objective is the sum over runs of weight x rho(ln L_observed - ln L_law). Sums, not means: with means the stopping
rules of general optimisers end early. A robust rho is minimised by iteratively reweighted least squares inside the
Levenberg-Marquardt steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np
from numpy.typing import NDArray

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
BATCH, ROWS = 2**14, 512  # numbers of an array and rows of a batch: its arrays stay in the cache


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


def _huber(residual: Array, delta: Array | float) -> Array:
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return np.asarray(inside * (size - 0.5 * inside))


_Function = Callable[[Array, Array | float], Array]  # of residuals and delta, which broadcasts against them
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
    converged: NDArray[np.bool_]  # (P,) False where the iterations ran out

    def of(self, rows: NDArray[np.int_]) -> Solution:
        """Some of the rows."""
        return Solution(theta=self.theta[rows], objective=self.objective[rows], converged=self.converged[rows])


def fit(law: Law, data: Data, loss: Array, *, rho: Rho = HUBER, weights: Array | None = None) -> Fit:
    """The best fit from the law's starts.

    Args:
        data: columns that the law needs, each (n,).
        loss: (n,) measured, nats per token.
        rho: what is summed over the residuals of ln L.
        weights: (n,) of the runs; one each by default.
    """
    return fit_each(law, data, loss, [(rho, weights)])[0]


def fit_each(law: Law, data: Data, loss: Array, asked: Sequence[tuple[Rho, Array | None]]) -> list[Fit]:
    """The same under several robust functions and weights of the runs, all at once."""
    k, n = law.dimension, len(loss)
    if n <= k:
        reason = f"{n} runs for {k} parameters, {k + 1} are needed"
        return [Fit(law=law, status=FitStatus.TOO_FEW_RUNS, runs=n, reason=reason)] * len(asked)
    evaluate, observed = law.on(data), np.log(loss)
    weights = [np.ones(n) if given is None else given for _, given in asked]
    starts = {rho: _starts(law, data, loss, rho) for rho, _ in asked if n > MANY_RUNS}
    with np.errstate(all="ignore"):
        every = law.starts(data, loss) if not starts else np.empty(0)
    kept = [
        _screened(evaluate, observed, starts.get(rho, every), rho, w)
        for (rho, _), w in zip(asked, weights, strict=True)
    ]
    fits: dict[int, Fit] = {}
    for name in {rho.name for rho, _ in asked}:
        chosen = [i for i, (rho, _) in enumerate(asked) if rho.name == name]
        counts = [len(kept[i]) for i in chosen]
        found = minimise(
            evaluate,
            observed,
            np.concatenate([kept[i] for i in chosen]),
            rho=asked[chosen[0]][0],
            deltas=np.repeat([asked[i][0].delta for i in chosen], counts),
            weights=np.repeat([weights[i] for i in chosen], counts, axis=0),
        )
        for i, rows in zip(chosen, np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]), strict=True):
            fits[i] = _best(law, data, found.of(rows), asked[i][0], n)
    return [fits[i] for i in range(len(asked))]


def _best(law: Law, data: Data, found: Solution, rho: Rho, n: int) -> Fit:
    """The fit that the solutions from all starts give."""
    best = int(np.argmin(found.objective))
    if not np.isfinite(found.objective[best]):
        return Fit(law=law, status=FitStatus.NOT_CONVERGED, runs=n, reason="no start reached a finite objective")
    theta = found.theta[best]
    condition = _condition(law.on(data)(theta[None])[1][0])
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
    """Where the law's starts end on an even sample of many runs."""
    sample = np.linspace(0, len(loss) - 1, MANY_RUNS // 2).astype(int)
    few, observed = {name: column[sample] for name, column in data.items()}, np.log(loss[sample])
    evaluate = law.on(few)
    with np.errstate(all="ignore"):
        starts = law.starts(few, loss[sample])
    kept = _screened(evaluate, observed, starts, rho, np.ones(len(sample)))
    found = minimise(evaluate, observed, kept, rho=rho)
    return found.theta[np.argsort(found.objective, kind="stable")[:SAMPLE_KEPT]]


def _screened(evaluate: Evaluated, observed: Array, starts: Array, rho: Rho, weights: Array) -> Array:
    """The STARTS_KEPT starts with the lowest objective."""
    chunks = [starts[i : i + ROWS] for i in range(0, len(starts), ROWS)]
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
    deltas: Array | None = None,
    weights: Array | None = None,
    tolerance: float = TOLERANCE,
) -> Solution:
    """Minimise from many starts at once.

    Args:
        evaluate: the law on its data.
        observed: ln loss, (n,) or one row a start, (P, n).
        theta: starting points (P, k).
        deltas: of the robust function, (P,), where the rows differ.
        weights: of the runs, (n,) or one row a start, (P, n).
    """
    rows, n = len(theta), observed.shape[-1]
    observed = np.broadcast_to(observed, (rows, n))
    weights = np.broadcast_to(np.ones(1) if weights is None else weights, (rows, n))
    delta = np.broadcast_to(rho.delta if deltas is None else deltas, rows)[:, None]
    batch = int(np.clip(BATCH // n, 1, ROWS))
    state = _State(
        theta=theta.copy(),
        value=np.full(rows, np.inf),
        normal=np.zeros((rows, theta.shape[1], theta.shape[1])),
        right=np.zeros(theta.shape),
        damping=np.full(rows, 1e-3),
    )
    look = partial(_look, evaluate, RHOS[rho.name])
    left, active, admitted = np.full(rows, ITERATIONS), np.empty(0, int), 0
    with np.errstate(all="ignore"):
        while len(active) or admitted < rows:
            if len(active) <= batch // 2 and admitted < rows:  # rows that have ended make room for others
                new = np.arange(admitted, min(rows, admitted + batch - len(active)))
                admitted = int(new[-1]) + 1
                found = look(theta[new], observed=observed[new], weights=weights[new], delta=delta[new])
                state.put(new, theta[new], *found)
                active = np.concatenate([active, new[np.isfinite(found[0])]])
            if len(active):
                at = partial(look, observed=observed[active], weights=weights[active], delta=delta[active])
                ended = _step(state, active, at, tolerance)
                left[active] -= ~ended
                active = active[~ended & (left[active] > 0)]
    return Solution(theta=state.theta, objective=state.value, converged=left > 0)


@dataclass(frozen=True, kw_only=True)
class _State:
    """Where every row of a batch is; the arrays are written to."""

    theta: Array  # (P, k)
    value: Array  # (P,) the objective there
    normal: Array  # (P, k, k) the normal equations there: the matrix ...
    right: Array  # (P, k) ... and the right-hand side
    damping: Array  # (P,)

    def put(self, rows: NDArray[np.int_], theta: Array, value: Array, normal: Array, right: Array) -> None:
        """Move some rows; an objective that is not a number is infinite."""
        self.theta[rows], self.normal[rows], self.right[rows] = theta, normal, right
        self.value[rows] = np.where(np.isnan(value), np.inf, value)


def _look(
    evaluate: Evaluated,
    rho: tuple[_Function, _Function],
    theta: Array,
    *,
    observed: Array,
    weights: Array,
    delta: Array,
) -> tuple[Array, Array, Array]:
    """The objective of each row (P,), and its normal equations (P, k, k) and (P, k)."""
    predicted, gradient = evaluate(theta)
    residual = observed - predicted
    value = (weights * rho[0](residual, delta)).sum(1)
    weighted = gradient * (weights * rho[1](residual, delta))[:, None]
    return value, weighted @ gradient.transpose(0, 2, 1), (weighted @ residual[..., None])[..., 0]


def _step(
    state: _State, rows: NDArray[np.int_], look: Callable[[Array], tuple[Array, Array, Array]], tolerance: float
) -> NDArray[np.bool_]:
    """Try a step of some rows, and whether each has ended; one that does not improve stays and raises its damping."""
    damping, before, k = state.damping[rows], state.value[rows], state.theta.shape[1]
    normal = state.normal[rows]
    diagonal = np.einsum("pkk->pk", normal)
    ridge = damping[:, None] * diagonal + 1e-14 * (1 + diagonal.max(1, keepdims=True))
    step = np.linalg.solve(normal + ridge[:, :, None] * np.eye(k), state.right[rows][..., None])[..., 0]
    trial = state.theta[rows] + step
    found = look(trial)
    better = found[0] < before
    gain = np.where(better, before - found[0], 0.0)
    state.put(rows[better], trial[better], *(part[better] for part in found))
    state.damping[rows] = np.where(better, np.maximum(damping / 5, 1e-12), damping * 4)
    return np.where(better, gain <= tolerance * np.maximum(state.value[rows], 1e-300), damping > 1e10)


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
