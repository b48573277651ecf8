"""Levenberg-Marquardt on a robust objective, batched over starts or bootstrap resamples.

A step solves the Newton equations of the robust function, in which runs far off have no curvature, damped by those of
iteratively reweighted least squares, which never overshoot: three to four times fewer steps than the latter alone on
Huber's function, where most runs lie beyond delta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.estimation.robust import HUBER, RHOS, Function, Rho
from analysis.laws.base import Array, Evaluated

ITERATIONS = 300
TOLERANCE = 1e-12  # relative decrease of the objective at which a row has converged
LEAST_STEPS, PATIENCE = 10, 30  # a start is given up when at its pace so many steps more do not bring it to the best's
DAMPING, LESS, MORE = (
    1e-4,
    5.0,
    8.0,
)  # at a start; its fall after a step that improves, its rise after one that does not
BATCH, ROWS = 2**15, 512  # numbers of an array and rows of a batch: its arrays stay in the cache

# glibc gives what is freed beyond some size back to the system, and the arrays of the next step are then faulted in
# again, a page at a time: a tenth of a fit. Freeing one array of this many numbers, never touched, raises that size to
# twice its own (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
REUSED = 2**21


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where each row of a batch ended."""

    theta: Array  # (P, k)
    objective: Array  # (P,)
    converged: NDArray[np.bool_]  # (P,) False where the iterations ran out

    def of(self, rows: NDArray[np.int_]) -> Solution:
        """Some of the rows."""
        return Solution(theta=self.theta[rows], objective=self.objective[rows], converged=self.converged[rows])


def minimise(
    evaluate: Evaluated,
    observed: Array,
    theta: Array,
    *,
    rho: Rho = HUBER,
    deltas: Array | None = None,
    weights: Array | None = None,
    tolerance: float = TOLERANCE,
    contest: NDArray[np.int_] | None = None,
) -> Solution:
    """Minimise from many starts at once.

    Args:
        evaluate: the law on its data.
        observed: ln loss, (n,) or one row a start, (P, n).
        theta: starting points (P, k).
        deltas: of the robust function, (P,), where the rows differ.
        weights: of the runs, (n,) or one row a start, (P, n).
        contest: what each row is a start of, (P,), where only the best of each is wanted: the hopeless are given up.
    """
    np.empty(REUSED)
    rows, n = len(theta), observed.shape[-1]
    observed = np.broadcast_to(observed, (rows, n))
    weights = np.broadcast_to(np.ones(1) if weights is None else weights, (rows, n))
    delta = np.broadcast_to(rho.delta if deltas is None else deltas, rows)[:, None]
    batch = int(np.clip(BATCH // n, 1, ROWS))
    state = _State.before(theta)
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
                ended, gain = _step(state, active, at, tolerance)
                left[active] -= ~ended
                if contest is not None:
                    left[active[_hopeless(state, active, gain, left, contest) & ~ended]] = 0
                active = active[~ended & (left[active] > 0)]
    return Solution(theta=state.theta, objective=state.value, converged=left > 0)


@dataclass(frozen=True, kw_only=True)
class _State:
    """Where every row of a batch is; the arrays are written to."""

    theta: Array  # (P, k)
    value: Array  # (P,) the objective there
    newton: Array  # (P, k, k) the matrix of the Newton equations there ...
    reweighted: Array  # (P, k, k) ... that of reweighted least squares ...
    right: Array  # (P, k) ... and the right-hand side of both
    damping: Array  # (P,)

    @staticmethod
    def before(theta: Array) -> _State:
        """Nothing known yet."""
        rows, k = theta.shape
        return _State(
            theta=theta.copy(),
            value=np.full(rows, np.inf),
            newton=np.zeros((rows, k, k)),
            reweighted=np.zeros((rows, k, k)),
            right=np.zeros((rows, k)),
            damping=np.full(rows, DAMPING),
        )

    def put(self, rows: NDArray[np.int_], theta: Array, value: Array, *equations: Array) -> None:
        """Move some rows; an objective that is not a number is infinite."""
        self.theta[rows], self.value[rows] = theta, np.where(np.isnan(value), np.inf, value)
        self.newton[rows], self.reweighted[rows], self.right[rows] = equations


def _look(
    evaluate: Evaluated,
    rho: Function,
    theta: Array,
    *,
    observed: Array,
    weights: Array,
    delta: Array,
) -> tuple[Array, Array, Array, Array]:
    """The objective of each row (P,), and its equations: see _State."""
    predicted, gradient = evaluate(theta)
    residual, transposed = observed - predicted, gradient.transpose(0, 2, 1)
    value, slope, curvature = (weights * part for part in rho(residual, delta))
    weighted = gradient * slope[:, None]
    right = (weighted @ residual[..., None])[..., 0]
    return value.sum(1), (gradient * curvature[:, None]) @ transposed, weighted @ transposed, right


def _step(
    state: _State, rows: NDArray[np.int_], look: Callable[[Array], tuple[Array, Array, Array, Array]], tolerance: float
) -> tuple[NDArray[np.bool_], Array]:
    """Try a step of some rows: whether each has ended, and its gain.

    A row that does not improve stays where it is and raises its damping.
    """
    damping, before, k = state.damping[rows], state.value[rows], state.theta.shape[1]
    reweighted = state.reweighted[rows]
    diagonal = np.einsum("pkk->pk", reweighted)
    ridge = damping[:, None] * diagonal + 1e-14 * (1 + diagonal.max(1, keepdims=True))
    matrix = state.newton[rows] + damping[:, None, None] * reweighted + ridge[:, :, None] * np.eye(k)
    right = state.right[rows]
    step = np.linalg.solve(matrix, right[..., None])[..., 0]
    trial = state.theta[rows] + step
    found = look(trial)
    better = found[0] < before
    gain = np.where(better, before - found[0], 0.0)
    state.put(rows[better], trial[better], *(part[better] for part in found))
    state.damping[rows] = np.where(better, np.maximum(damping / LESS, 1e-12), damping * MORE)
    least = tolerance * np.maximum(state.value[rows], 1e-300)
    return np.where(better, gain <= least, (0.5 * np.abs((step * right).sum(1)) <= least) | (damping > 1e10)), gain


def _hopeless(
    state: _State, rows: NDArray[np.int_], gain: Array, left: NDArray[np.int_], contest: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Which rows will not reach the best of their contest at the pace of their last step."""
    best = np.full(int(contest.max()) + 1, np.inf)
    np.minimum.at(best, contest, state.value)
    behind = state.value[rows] - PATIENCE * gain > best[contest[rows]]
    return behind & (gain > 0) & (left[rows] < ITERATIONS - LEAST_STEPS)
