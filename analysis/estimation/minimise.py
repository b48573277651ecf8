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
# A start is given up after so many steps, when at its pace so many more do not bring it to the best's; the second where
# nothing is made of the other optima.
PATIENT, HASTY = (10, 30), (4, 10)
# at a start; its fall after a step that improves, its rise after one that does not
DAMPING, LESS, MORE = 1e-4, 5.0, 8.0
BATCH, ROWS = 2**15, 512  # numbers of an array and rows of a batch: its arrays stay in the cache

# glibc gives what is freed beyond some size back to the system, and the arrays of the next step are then faulted in
# again, a page at a time: a tenth of a fit. Freeing one array of this many numbers, never touched, raises that size to
# twice its own (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
REUSED = 2**21
FEW_PLACES = 8  # rows that start from one place, from which on these are looked at together


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
    patience: tuple[int, int] = PATIENT,
) -> Solution:
    """Minimise from many starts at once.

    Args:
        evaluate: the law on its data.
        observed: ln loss, (n,) or one row a start, (P, n).
        theta: starting points (P, k).
        deltas: of the robust function, (P,), where the rows differ.
        weights: of the runs, (n,) or one row a start, (P, n).
        contest: what each row is a start of, (P,), where only the best of each is wanted: the hopeless are given up.
        patience: the steps that a start has at least, and those in which it has to reach the best at its pace.
    """
    np.empty(REUSED)
    rows, n = len(theta), observed.shape[-1]
    delta = np.broadcast_to(rho.delta if deltas is None else deltas, rows)[:, None]
    batch = int(np.clip(BATCH // n, 1, ROWS))
    state, function = _State.before(theta), RHOS[rho.name]
    begin = _from_places(evaluate, function, theta, observed, weights, delta)

    def looking(at: NDArray[np.int_]) -> Look:
        counted = None if weights is None else _of(weights, at)
        return partial(_look, evaluate, function, observed=_of(observed, at), weights=counted, delta=delta[at])

    left, active, admitted = np.full(rows, ITERATIONS), np.empty(0, int), 0
    with np.errstate(all="ignore"):
        while len(active) or admitted < rows:
            if len(active) <= batch // 2 and admitted < rows:  # rows that have ended make room for others
                new = np.arange(admitted, min(rows, admitted + batch - len(active)))
                admitted = int(new[-1]) + 1
                found = looking(new)(theta[new]) if begin is None else begin(new)
                state.put(new, theta[new], *found)
                active = np.concatenate([active, new[np.isfinite(found[0])]])
            if len(active):
                ended, gain = _step(state, active, looking(active), tolerance)
                left[active] -= ~ended
                if contest is not None:
                    left[active[_hopeless(state, active, gain, left, contest, patience) & ~ended]] = 0
                active = active[~ended & (left[active] > 0)]
    return Solution(theta=state.theta, objective=state.value, converged=left > 0)


def _of(array: Array, rows: NDArray[np.int_]) -> Array:
    """What belongs to some rows of a batch: all of it where the rows share it."""
    return array[rows] if array.ndim == 2 else array


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


Equations = tuple[Array, Array, Array, Array]
"""Of rows: the objective (P,), and the equations; see _State."""
Look = Callable[[Array], Equations]


def _look(
    evaluate: Evaluated,
    rho: Function,
    theta: Array,
    *,
    observed: Array,
    weights: Array | None,
    delta: Array,
) -> Equations:
    """Where rows are."""
    predicted, gradient = evaluate(theta)
    residual, transposed = observed - predicted, gradient.transpose(0, 2, 1)
    value, slope, curvature = _counted(rho(residual, delta), weights)
    weighted = gradient * slope[:, None]
    right = (weighted @ residual[..., None])[..., 0]
    return value.sum(1), (gradient * curvature[:, None]) @ transposed, weighted @ transposed, right


def _counted(parts: tuple[Array, Array, Array], weights: Array | None) -> tuple[Array, Array, Array]:
    """What a robust function gives for each run, each counted by its weight."""
    if weights is None:
        return parts
    value, slope, curvature = parts
    return weights * value, weights * slope, weights * curvature


def _from_places(
    evaluate: Evaluated, rho: Function, theta: Array, observed: Array, weights: Array | None, delta: Array
) -> Callable[[NDArray[np.int_]], Equations] | None:
    """The same for rows that start from a few places on the same runs, weighted: sums over runs, a product for all.

    None where the rows have nothing in common.
    """
    if weights is None or weights.ndim == 1 or observed.ndim == 2:
        return None
    places, of = np.unique(np.hstack([theta, delta]), axis=0, return_inverse=True)
    if FEW_PLACES * len(places) > len(theta):
        return None
    k = theta.shape[1]
    first, second = np.triu_indices(k)
    with np.errstate(all="ignore"):
        predicted, gradient = evaluate(places[:, :k])
        residual = (observed - predicted)[:, None]  # (places, 1, n)
        value, slope, curvature = rho(residual, places[:, k:, None])
        products = gradient[:, first] * gradient[:, second]
        each = np.concatenate([value, curvature * products, slope * products, slope * residual * gradient], 1)

    def look(rows: NDArray[np.int_]) -> Equations:
        sums = np.empty((len(rows), each.shape[1]))
        for place in np.unique(of[rows]):
            here = of[rows] == place
            sums[here] = weights[rows[here]] @ each[place].T
        matrices = np.empty((2, len(rows), k, k))
        matrices[..., first, second] = matrices[..., second, first] = (
            sums[:, 1:-k].reshape(len(rows), 2, -1).swapaxes(0, 1)
        )
        return sums[:, 0], matrices[0], matrices[1], sums[:, -k:]

    return look


def _step(state: _State, rows: NDArray[np.int_], look: Look, tolerance: float) -> tuple[NDArray[np.bool_], Array]:
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
    state: _State,
    rows: NDArray[np.int_],
    gain: Array,
    left: NDArray[np.int_],
    contest: NDArray[np.int_],
    patience: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which rows will not reach the best of their contest at the pace of their last step."""
    best = np.full(int(contest.max()) + 1, np.inf)
    np.minimum.at(best, contest, state.value)
    least, most = patience
    behind = state.value[rows] - most * gain > best[contest[rows]]
    return behind & (gain > 0) & (left[rows] < ITERATIONS - least)
