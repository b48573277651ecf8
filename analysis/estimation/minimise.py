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


Equations = Callable[[NDArray[np.int_]], tuple[Array, Array, Array]]
"""Of some rows: the matrices of the Newton equations and of reweighted least squares, and the right-hand side."""

Known = tuple[Array, Array, Array, Array]
"""The objective of every row (P,), and these three: (P, k, k), (P, k, k), (P, k)."""


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
    known: Known | None = None,
) -> Solution:
    """Minimise from many starts at once; ``evaluate`` is the law on its data.

    Args:
        observed: ln loss, (n,) or one row a start, (P, n).
        theta: starting points (P, k).
        deltas: of the robust function, (P,), where the rows differ.
        weights: of the runs, (n,) or one row a start, (P, n).
        contest: what each row is a start of, (P,), where only the best of each is wanted: the hopeless are given up.
        known: the objective and the equations at the starts, where they need not be worked out.
    """
    np.empty(REUSED)
    rows, n = len(theta), observed.shape[-1]
    weights = np.ones(1) if weights is None else weights
    observed, weights = np.broadcast_to(observed, (rows, n)), np.broadcast_to(weights, (rows, n))
    delta = np.broadcast_to(rho.delta if deltas is None else deltas, rows)[:, None]
    batch = int(np.clip(BATCH // n, 1, ROWS))
    state = _State.before(theta)
    ask = partial(_look, evaluate, RHOS[rho.name])
    left, active, admitted = np.full(rows, ITERATIONS), np.empty(0, int), 0
    with np.errstate(all="ignore"):
        while len(active) or admitted < rows:
            if len(active) <= batch // 2 and admitted < rows:  # rows that have ended make room for others
                new = np.arange(admitted, min(rows, admitted + batch - len(active)))
                admitted += len(new)
                if known is None:
                    value, equations = ask(theta[new], observed=observed[new], weights=weights[new], delta=delta[new])
                    found = value, *equations(np.arange(len(new)))
                else:
                    found = known[0][new], known[1][new], known[2][new], known[3][new]
                state.begin(new, theta[new], *found)
                active = np.concatenate([active, new[np.isfinite(found[0])]])
            if len(active):
                at = partial(ask, observed=observed[active], weights=weights[active], delta=delta[active])
                ended, gain = _step(state, active, at, tolerance)
                left[active] -= ~ended
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

    def begin(self, rows: NDArray[np.int_], theta: Array, value: Array, *equations: Array) -> None:
        """Put some rows where they start."""
        self.move(rows, theta, value)
        self.learn(rows, *equations)

    def move(self, rows: NDArray[np.int_], theta: Array, value: Array) -> None:
        """Move some rows; an objective that is not a number is infinite."""
        self.theta[rows], self.value[rows] = theta, np.where(np.isnan(value), np.inf, value)

    def learn(self, rows: NDArray[np.int_], *equations: Array) -> None:
        """The equations of some rows where they are now."""
        self.newton[rows], self.reweighted[rows], self.right[rows] = equations


def _look(
    evaluate: Evaluated,
    rho: Function,
    theta: Array,
    *,
    observed: Array,
    weights: Array,
    delta: Array,
) -> tuple[Array, Equations]:
    """The objective of each row (P,), and what gives the equations of some: they are half of the work."""
    predicted, gradient = evaluate(theta)
    residual = observed - predicted
    value, slope, curvature = (weights * part for part in rho(residual, delta))

    def equations(rows: NDArray[np.int_]) -> tuple[Array, Array, Array]:
        own, k = gradient if len(rows) == len(gradient) else gradient[rows], gradient.shape[1]
        both = np.empty((len(rows), 2 * k, own.shape[2]))  # one product of matrices for both
        weighted = np.multiply(own, slope[rows, None], out=both[:, :k])
        np.multiply(own, curvature[rows, None], out=both[:, k:])
        found = both @ own.transpose(0, 2, 1)
        return found[:, k:], found[:, :k], (weighted @ residual[rows, :, None])[..., 0]

    return value.sum(1), equations


def _step(
    state: _State, rows: NDArray[np.int_], look: Callable[[Array], tuple[Array, Equations]], tolerance: float
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
    value, equations = look(trial)
    better = value < before
    gain = np.where(better, before - value, 0.0)
    state.move(rows[better], trial[better], value[better])
    state.damping[rows] = np.where(better, np.maximum(damping / LESS, 1e-12), damping * MORE)
    least = tolerance * np.maximum(state.value[rows], 1e-300)
    ended = np.where(better, gain <= least, (0.5 * np.abs((step * right).sum(1)) <= least) | (damping > 1e10))
    if len(going := np.flatnonzero(better & ~ended)):
        state.learn(rows[going], *equations(going))
    return ended, gain


def _hopeless(
    state: _State, rows: NDArray[np.int_], gain: Array, left: NDArray[np.int_], contest: NDArray[np.int_] | None
) -> NDArray[np.bool_]:
    """Which rows will not reach the best of their contest, if they are in one, at the pace of their last step."""
    if contest is None:
        return np.zeros(len(rows), bool)
    best = np.full(int(contest.max()) + 1, np.inf)
    np.minimum.at(best, contest, state.value)
    behind = state.value[rows] - PATIENCE * gain > best[contest[rows]]
    return behind & (gain > 0) & (left[rows] < ITERATIONS - LEAST_STEPS)
