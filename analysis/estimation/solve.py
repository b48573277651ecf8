"""Robust fits of a law: from screened starts, and again on bootstrap resamples.

The objective is the sum over runs of weight x rho(ln L_observed - ln L_law). Sums, not means: with means the stopping
rules of general optimisers end early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from analysis.estimation.minimise import BATCH, HASTY, ITERATIONS, PATIENT, ROWS, Solution, minimise
from analysis.estimation.robust import HUBER, RHOS, Rho
from analysis.laws.base import Array, Data, Evaluated, Law, PowerSum
from analysis.laws.fixed import FixedExponents
from analysis.laws.repeated import MOST_REPEATS, REPEATS
from gpt3core.words import number_of

STARTS_KEPT = 24  # of the screened starts: the best
MANY_RUNS, SAMPLE_KEPT = 500, 6  # beyond so many runs, starts are tried on a sample, and so many go on
RESAMPLED = 1e-7  # relative decrease at which a resample has converged: to 1% of its standard error
LINEAR_RUNS = 1000  # from so many on
LINEAR_STEPS, LINEAR_CHECKED = 4, 20  # of resamples of many runs, where a law is linear enough ...
LINEAR_MISS, LINEAR_REACH = 0.2, 4.0  # ... to be followed to this part of a standard error, and so many far ...
LINEAR_ENOUGH = 0.95  # ... in this share of those looked at
DIFFERENCE = 1e-4  # of a parameter, for second derivatives
BASINS, BASIN_FACTOR = 5, 2.0
SAME_OPTIMUM = 1e-3  # relative difference of objectives of starts that found "the" optimum
NOTHING = 1e-18  # an objective of exact data is rounding
ILL_CONDITIONED = 1e6
VANISHED = 1e-3  # a term that is nowhere more than this share of the loss is at its bound, zero


class FitStatus(Enum):
    """How a fit ended. Anything but OK is a result that says so, never a silent number."""

    OK = "ok"
    UNTESTED = "not tested"  # fitted, and nothing was left over to tell how well
    ILL_DETERMINED = "ill-determined"
    TOO_FEW_RUNS = "too few runs"
    NOT_CONVERGED = "not converged"
    NOT_APPLICABLE = "not applicable"


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


def fit(law: Law, data: Data, loss: Array, *, rho: Rho = HUBER, weights: Array | None = None) -> Fit:
    """The best fit from the law's starts.

    Args:
        data: columns that the law needs, each (n,).
        loss: (n,) measured, nats per token.
        rho: what is summed over the residuals of ln L.
        weights: (n,) of the runs; one each by default.
    """
    return fit_each(law, data, loss, [(rho, weights)])[0]


Asked = Sequence[tuple[Rho, Array | None]]
"""Robust functions and weights of the runs (n,), one each by default."""


def fit_each(law: Law, data: Data, loss: Array, asked: Asked) -> list[Fit]:
    """The same under several robust functions and weights of the runs, all at once."""
    k, n = law.dimension, len(loss)
    if n <= k:
        reason = f"{number_of(n, 'run')} for {number_of(k, 'parameter')}, {k + 1} are needed"
        return [Fit(law=law, status=FitStatus.TOO_FEW_RUNS, runs=n, reason=reason)] * len(asked)
    evaluate, found = law.on(data), _solved(law, data, loss, asked, PATIENT)
    return [_best(law, evaluate, each, rho, n) for each, (rho, _) in zip(found, asked, strict=True)]


def optima(law: Law, data: Data, loss: Array, asked: Asked) -> list[Array | None]:
    """Where each of them has its optimum and nothing else of the fits, theta (k,); None where there is no fit."""
    if len(loss) <= law.dimension:
        return [None] * len(asked)
    found = _solved(law, data, loss, asked, HASTY)
    best = [(each, int(np.argmin(each.objective))) for each in found]
    return [_told(law, each.theta[i : i + 1])[0] if np.isfinite(each.objective[i]) else None for each, i in best]


def _solved(law: Law, data: Data, loss: Array, asked: Asked, patience: tuple[int, int]) -> list[Solution]:
    """Where the starts of each of them end."""
    n, observed = len(loss), np.log(loss)
    weights = [np.ones(n) if given is None else given for _, given in asked]
    kept = _kept(law, data, loss, [rho for rho, _ in asked], weights)
    solved: dict[int, Solution] = {}
    for name in {rho.name for rho, _ in asked}:
        chosen = [i for i, (rho, _) in enumerate(asked) if rho.name == name]
        counts = [len(kept[i]) for i in chosen]
        found = minimise(
            law.on(data),
            observed,
            np.concatenate([kept[i] for i in chosen]),
            rho=asked[chosen[0]][0],
            deltas=np.repeat([asked[i][0].delta for i in chosen], counts),
            weights=np.repeat([weights[i] for i in chosen], counts, axis=0),
            contest=np.repeat(np.arange(len(chosen)), counts) if _gives_up(law, asked[chosen[0]][0]) else None,
            patience=patience,
        )
        for i, rows in zip(chosen, np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]), strict=True):
            solved[i] = found.of(rows)
    return [solved[i] for i in range(len(asked))]


def _kept(law: Law, data: Data, loss: Array, rhos: Sequence[Rho], weights: Sequence[Array]) -> list[Array]:
    """The starts of each fit, (few, k): the law's best by each fit's objective."""
    if len(loss) > MANY_RUNS:
        ended = {rho: _starts(law, data, loss, rho) for rho in rhos}
        return [ended[rho] for rho in rhos]
    with np.errstate(all="ignore"):
        starts = law.starts(data, loss)
    return _screened(law.on(data), np.log(loss), starts, list(zip(rhos, weights, strict=True)))


def _best(law: Law, evaluate: Evaluated, found: Solution, rho: Rho, n: int) -> Fit:
    """The fit that the solutions from all starts give."""
    best = int(np.argmin(found.objective))
    found = replace(found, theta=_told(law, found.theta))
    if not np.isfinite(found.objective[best]):
        return Fit(law=law, status=FitStatus.NOT_CONVERGED, runs=n, reason="no start reached a finite objective")
    theta = found.theta[best]
    jacobian = evaluate(theta[None])[1][0]
    condition, at_bounds = _condition(jacobian), _at_bounds(law, jacobian)
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
        share_at_optimum=_share(found, best),
        at_bounds=at_bounds,
        basins=_basins(found),
        runs=n,
        reason=reason,
    )


def _gives_up(law: Law, rho: Rho) -> bool:
    """Whether starts that fall behind are given up: where the way to the optimum is a straight one.

    That of a sum of powers is, under a convex function, whether its exponents are free or tied; the valleys of other
    laws are curved, and the pace of a step says little there.
    """
    return isinstance(law, PowerSum | FixedExponents) and rho.name != "cauchy"


def _share(found: Solution, best: int) -> float:
    """Of the starts that arrived somewhere, those that found the best."""
    arrived = found.objective[found.converged] if found.converged.any() else found.objective
    return float(np.mean(arrived <= found.objective[best] * (1 + SAME_OPTIMUM) + NOTHING))


def _starts(law: Law, data: Data, loss: Array, rho: Rho) -> Array:
    """Where the law's starts end on a sample of many runs."""
    sample = np.random.default_rng(0).permutation(len(loss))[: MANY_RUNS // 2]
    sampled, observed = {name: column[sample] for name, column in data.items()}, np.log(loss[sample])
    evaluate = law.on(sampled)
    with np.errstate(all="ignore"):
        starts = law.starts(sampled, loss[sample])
    (kept,) = _screened(evaluate, observed, starts, [(rho, np.ones(len(sample)))])
    contest = np.zeros(len(kept), int) if _gives_up(law, rho) else None
    found = minimise(evaluate, observed, kept, rho=rho, contest=contest)
    return found.theta[np.argsort(found.objective, kind="stable")[:SAMPLE_KEPT]]


def _screened(evaluate: Evaluated, observed: Array, starts: Array, asked: Sequence[tuple[Rho, Array]]) -> list[Array]:
    """The STARTS_KEPT starts with the lowest objective for each robust function and weights of the runs."""
    values = np.empty((len(asked), len(starts)))
    with np.errstate(all="ignore"):
        for i in range(0, len(starts), ROWS):
            residual = observed - evaluate(starts[i : i + ROWS])[0]
            for value, (rho, weights) in zip(values, asked, strict=True):
                value[i : i + ROWS] = rho.value(residual) @ weights
    values[~np.isfinite(values)] = np.inf
    return [starts[np.argsort(value, kind="stable")[:STARTS_KEPT]] for value in values]


def refit(fit: Fit, data: Data, observed: Array, *, weights: Array | None = None) -> Array:
    """Refit many resamples at once, each from the basin of the original fit that suits it best, (P, k).

    Args:
        observed: ln loss, (n,), or one row a resample, (P, n).
        weights: of the runs in each resample, (P, n); bootstrap counts, for instance. One each by default.
    """
    counted = np.ones(np.atleast_2d(observed).shape) if weights is None else weights
    return refit_each([fit], data, observed, [counted])[0]


def refit_each(fits: Sequence[Fit], data: Data, observed: Array, weights: Sequence[Array]) -> list[Array]:
    """The same of a law that was fitted to the same runs in several ways, all of them at once."""
    evaluate, many = fits[0].law.on(data), observed.ndim == 1 and len(observed) > LINEAR_RUNS
    if many and len(weights[0]) > 2 * LINEAR_CHECKED:
        return [_mostly_linear(f, evaluate, observed, w) for f, w in zip(fits, weights, strict=True)]
    found: dict[int, Array] = {}
    for name in {fit.rho.name for fit in fits}:
        chosen = [i for i, fit in enumerate(fits) if fit.rho.name == name]
        ended = _refit([fits[i] for i in chosen], evaluate, observed, [weights[i] for i in chosen])
        found |= zip(chosen, ended, strict=True)
    return [found[i] for i in range(len(fits))]


def _refit(fits: Sequence[Fit], evaluate: Evaluated, observed: Array, weights: Sequence[Array]) -> list[Array]:
    """Each resample to its optimum, (P, k) of each fit; of one kind of robust function."""
    starts = [_nearest_basins(fit, evaluate, observed, of) for fit, of in zip(fits, weights, strict=True)]
    counts = [len(start) for start in starts]
    found = minimise(
        evaluate,
        observed if observed.ndim == 1 else np.tile(observed, (len(fits), 1)),
        np.concatenate(starts),
        rho=fits[0].rho,
        deltas=np.repeat([fit.rho.delta for fit in fits], counts),
        weights=np.concatenate(weights),
        tolerance=RESAMPLED,
    )
    return np.split(_told(fits[0].law, found.theta), np.cumsum(counts)[:-1])


def _nearest_basins(fit: Fit, evaluate: Evaluated, observed: Array, weights: Array) -> Array:
    """The basin that suits each resample best, (P, k)."""
    assert fit.basins is not None, "there is no fit to start from"
    residual = np.atleast_2d(observed)[:, None] - evaluate(fit.basins)[0][None]  # (P or 1, basins, n)
    value = (fit.rho.value(residual) @ weights[..., None])[..., 0]  # (P or 1, basins)
    return np.asarray(fit.basins[np.argmin(value, axis=1)])


def _mostly_linear(fit: Fit, evaluate: Evaluated, observed: Array, weights: Array) -> Array:
    """Resamples of many runs by the law linearised at the fit, (P, k): a tenth of the work where that will do.

    The more runs, the nearer resamples lie to the fit (the k-step bootstrap: Davidson and MacKinnon 1999, Andrews
    2002). A few are refitted to their optimum: where the linearised law misses it, all are. Those that stray are too.
    """
    checked = np.linspace(0, len(weights) - 1, LINEAR_CHECKED).astype(int)
    (exact,) = _refit([fit], evaluate, observed, [weights[checked]])
    try:
        near, _ = _linearised(fit, evaluate, observed, weights[checked])
        if not (np.abs(near - exact) <= LINEAR_MISS * exact.std(0)).mean() >= LINEAR_ENOUGH:
            return _refit([fit], evaluate, observed, [weights])[0]
        theta, moving = _linearised(fit, evaluate, observed, weights)
    except np.linalg.LinAlgError:  # the runs do not tell a parameter
        return _refit([fit], evaluate, observed, [weights])[0]
    if len(moving):
        (theta[moving],) = _refit([fit], evaluate, observed, [weights[moving]])
    theta[checked] = exact
    return theta


@np.errstate(all="ignore")
def _linearised(fit: Fit, evaluate: Evaluated, observed: Array, weights: Array) -> tuple[Array, NDArray[np.int_]]:
    """Where a few Newton steps from the fit lead under each row of weights, (P, k), and the rows that go on moving."""
    assert fit.theta is not None
    predicted, gradient = (part[0] for part in evaluate(fit.theta[None]))  # (n,), (k, n)
    residual, function, delta = observed - predicted, RHOS[fit.rho.name], fit.rho.delta
    _, slope, curvature = function(residual, delta)
    mean = weights.mean(0)
    bent = _bent(evaluate, fit.theta, mean * slope * residual)
    first, second = np.triu_indices(len(gradient))
    products = gradient[first] * gradient[second]

    def step(curved: Array, right: Array) -> Array:
        matrix = np.empty((len(right), len(gradient), len(gradient)))
        matrix[:, first, second] = matrix[:, second, first] = curved
        return np.asarray(np.linalg.solve(matrix - bent, right[..., None])[..., 0])

    # the first step starts from one place for all
    moved = step(weights @ (curvature * products).T, weights @ (slope * residual * gradient).T)
    moving, batch = np.arange(len(weights)), max(1, 8 * BATCH // len(observed))
    for _ in range(LINEAR_STEPS - 1):
        last = np.empty((len(moving), len(gradient)))
        for part in np.split(np.arange(len(moving)), range(batch, len(moving), batch)):
            rows = moving[part]
            left = residual - moved[rows] @ gradient
            _, slope, curvature = (weights[rows] * of for of in function(left, delta))
            last[part] = step(curvature @ products.T, (slope * left) @ gradient.T + moved[rows] @ bent)
        moved[moving] += last
        low, middle, high = np.quantile(moved, (0.16, 0.5, 0.84), axis=0)
        moving = moving[~(np.abs(last) <= LINEAR_MISS * (high - low) / 2).all(1)]
    strayed = ~(np.abs(moved - middle) <= LINEAR_REACH * (high - low) / 2).all(1)
    return fit.theta + moved, np.union1d(moving, np.flatnonzero(strayed))


def _bent(evaluate: Evaluated, theta: Array, pull: Array) -> Array:
    """The sum over runs of pull times the law's second derivatives, (k, k): it counts where a law misses its runs."""
    apart = np.eye(len(theta)) * DIFFERENCE * np.maximum(1.0, np.abs(theta))
    up, down = (evaluate(theta + sign * apart)[1] @ pull for sign in (0.5, -0.5))
    found = (up - down) / np.diag(apart)[:, None]
    return np.asarray((found + found.T) / 2)


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


def _told(law: Law, theta: Array) -> Array:
    """Rows with repetitions that have no limit, or are nothing, at a value that says so and that a refit can leave."""
    columns = [law.parameters.index(name) for name in REPEATS if name in law.parameters]
    within = theta.copy()
    within[:, columns] = np.clip(theta[:, columns], -np.log(MOST_REPEATS), np.log(MOST_REPEATS))
    return within


def _at_bounds(law: Law, jacobian: Array) -> tuple[str, ...]:
    """Coefficients of terms that have vanished, and repetitions that may as well be endless or none.

    By their logarithms they move no prediction by more than VANISHED.

    Args:
        jacobian: (k, n) of ln L; by ln of a coefficient it is the term's share of the loss.
    """
    return tuple(
        name
        for name, row in zip(law.parameters, jacobian, strict=False)
        if name in ("E", "A", "B", "a", "b", *REPEATS) and np.abs(row).max() < VANISHED
    )


def _condition(jacobian: Array) -> float:
    """Condition number of the Jacobian (k, n) with unit rows."""
    norms = np.linalg.norm(jacobian, axis=1)
    if not np.all(norms > 0) or not np.all(np.isfinite(norms)):
        return float("inf")
    return float(np.linalg.cond(np.linalg.qr((jacobian / norms[:, None]).T, mode="r")))
