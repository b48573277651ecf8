"""The loss about its optimum in learning rate and batch, of all pairs of N and D at once, and where the optimum lies.

With x = (ln lr, ln batch) and u = x - x*(N, D), the log of the loss over its pair's best is a level of the pair plus
one surface that all pairs share, u'Hu/2 and by choice a cubic: it is flatter below the best learning rate than above.
The optimum is linear in ln N and ln D: lr* = c N^a D^b, batch* = c' N^a' D^b' (Li et al. 2025, arXiv 2503.04715, fit
the best runs themselves, which throws away all others). Huber on the residuals, by iteratively reweighted Gauss-Newton
steps with the exact gradient; only runs within a window above their pair's best count, where such a surface holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.laws.base import Array
from analysis.runs import tuned
from gpt3core.rule import MOST_EXPONENT, PowerLaw

IntArray = NDArray[np.signedinteger]

DELTA = 1e-3  # of ln loss, where Huber turns: noise of a good run
START = (0.11, -0.03, 0.11)  # Cholesky factor of H: 1% of loss at a factor of 3.6
STEPS = 80
CLOSE = 1e-10
MOST_LOG = 600.0  # of a law's constant
LEAST_SPREAD = 0.05  # smaller over larger spread of the pairs in ln N and ln D; below, they lie on a line
SURFACE = 7  # numbers of the surface: three of H, four of the cubic
X = ("lr", "batch_tokens")
BESIDE = ("warmup_fraction", "final_fraction")


@dataclass(frozen=True, kw_only=True)
class Form:
    """What is fitted."""

    window: float = 0.02  # runs with a loss of at most so much (a share) above their pair's best count
    cubic: bool = True
    batch_of_n: bool = False  # whether the best batch may depend on N, not on D alone

    @property
    def size(self) -> int:
        """Its numbers beside those of other forms."""
        return 4 * self.cubic + self.batch_of_n

    @property
    def words(self) -> str:
        """In a few words."""
        batch = "batch*(N, D)" if self.batch_of_n else "batch*(D)"
        return f"{batch}, a {'cubic' if self.cubic else 'parabola'} within {self.window:.1%} of a pair's best"


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Runs as arrays, (n,) each: their pair's number, ln lr and ln batch, ln loss over the pair's best."""

    pair: IntArray
    x: Array  # (n, 2)
    y: Array
    z: Array  # (pairs, 2): ln N, ln D
    beside: Array  # (n, k): of what else was varied, whether a run had each value but the commonest
    values: tuple[tuple[str, float], ...] = ()  # k: these values, as ("warmup_fraction", 0.1)

    @property
    def pairs(self) -> int:
        """Of N and D."""
        return len(self.z)

    def of(self, kept: Sequence[int] | IntArray) -> Trials:
        """Some of the pairs, in this order; a pair may come twice."""
        rows = [np.flatnonzero(self.pair == k) for k in kept]
        number = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        at = np.concatenate(rows)
        return replace(self, pair=number, x=self.x[at], y=self.y[at], z=self.z[list(kept)], beside=self.beside[at])


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A fit."""

    form: Form
    lr: PowerLaw
    batch: PowerLaw
    curvature: Array  # (2, 2): H
    spread: float  # standard deviation of the residuals, of ln loss
    theta: Array  # of the fit, to start others from
    free: Array  # which of its numbers were fitted
    runs: int
    residual: Array
    inside: Array  # rows within the window
    effects: Array  # (k,): of the values beside, on ln loss
    effects_se: Array
    on_a_line: bool  # the pairs do not tell N and D apart: everything is a law of D

    def best(self, n: float, d: float) -> tuple[float, float]:
        """The learning rate and the batch in tokens."""
        return self.lr.at(n, d), self.batch.at(n, d)


def trials(table: pd.DataFrame) -> Trials:
    """Runs as arrays.

    Args:
        table: N, D, lr, batch_tokens, loss of runs that ended; rows of one N and nearly one D are a pair. The columns
            of BESIDE, where they vary, get an effect of each value, the same for all pairs.
    """
    pair = tuned.pairs(table)
    names = sorted(pair.unique())
    number = pair.map({name: i for i, name in enumerate(names)}).to_numpy()
    logs = np.log(table[["N", "D"]].to_numpy(float))
    z = np.array([logs[number == i].mean(0) for i in range(len(names))])
    loss = table.loss.to_numpy(float)
    best = np.array([loss[number == i].min() for i in range(len(names))])
    x, y = np.log(table[list(X)].to_numpy(float)), np.log(loss / best[number])
    named = values(table)
    beside = [np.round(table[name].to_numpy(float), 2) == value for name, value in named]
    columns = np.column_stack(beside).astype(float) if beside else np.empty((len(table), 0))
    return Trials(pair=number, x=x, y=y, z=z, beside=columns, values=named)


def values(table: pd.DataFrame) -> tuple[tuple[str, float], ...]:
    """What was varied beside learning rate and batch: every value but the commonest.

    To two digits, for a warm-up is of whole batches.
    """
    found: list[tuple[str, float]] = []
    for name in (name for name in BESIDE if name in table):
        counts = table[name].astype(float).round(2).value_counts()
        found += [(name, float(value)) for value in sorted(counts.index[1:])]
    return tuple(found)


def fit(data: Trials, form: Form, start: Array | None = None) -> Surface:
    """The surface and its optimum.

    Args:
        start: theta of another fit of as many pairs.
    """
    inside = data.y <= np.log1p(form.window)
    pair, x, y, beside = data.pair[inside], data.x[inside], data.y[inside], data.beside[inside]
    x0, z0 = x.mean(0), data.z.mean(0)
    scale = data.z - z0
    line = _on_a_line(scale)
    basis = np.column_stack([np.ones(len(scale)), scale])[pair]
    free = np.concatenate([_free(form, scale, line, data.pairs), beside.any(0)])
    theta = _first(len(free), data.pairs) if start is None or len(start) != len(free) else start.copy()
    theta[~free] = 0.0
    rows = _Rows(pair=pair, x=x - x0, basis=basis, beside=beside, y=y, count=data.pairs)
    theta, residual, jacobian = _solve(theta, free, rows)
    spread = float(np.sqrt(np.sum(residual**2) / max(1, len(residual) - free.sum())))
    at = data.pairs + SURFACE
    l11, l21, l22 = theta[data.pairs : data.pairs + 3]
    factor = np.array([[l11, l21], [0.0, l22]])
    return Surface(
        form=form,
        lr=_law(theta[at : at + 3], x0[0], z0),
        batch=_law(theta[at + 3 : at + 6], x0[1], z0),
        curvature=factor.T @ factor,
        spread=spread,
        theta=theta,
        free=free,
        runs=len(y),
        residual=residual,
        inside=inside,
        effects=theta[at + 6 :],
        effects_se=_errors(jacobian, free, residual, spread)[at + 6 :],
        on_a_line=line,
    )


def _on_a_line(scale: Array) -> bool:
    """Whether the pairs do not tell the exponents of N and D apart."""
    if len(scale) < 3:
        return True
    spread = np.linalg.svd(scale, compute_uv=False)
    return bool(spread[1] < LEAST_SPREAD * max(spread[0], 1e-12))


def _free(form: Form, scale: Array, line: bool, count: int) -> Array:
    """Which numbers are fitted: levels, H, cubic, and three each of the optimum's laws."""
    moves = np.ptp(scale, axis=0) > 1e-6
    by_n, by_d = bool(moves[0]) and not (line and moves[1]), bool(moves[1])
    return np.array(
        [True] * (count + 3) + [form.cubic] * 4 + [True, by_n, by_d] + [True, by_n and form.batch_of_n, by_d]
    )


def _first(size: int, count: int) -> Array:
    """Where to start: the optimum in the middle of what was tried."""
    return np.concatenate([np.zeros(count), START, np.zeros(size - count - len(START))])


def _law(m: Array, x0: float, z0: Array) -> PowerLaw:
    """From the level and slopes about the middle of the pairs; where a fit went astray, the nearest law there is."""
    by_n, by_d = np.clip(m[1:], -MOST_EXPONENT, MOST_EXPONENT)
    level = np.clip(x0 + m[0] - by_n * z0[0] - by_d * z0[1], -MOST_LOG, MOST_LOG)
    return PowerLaw(constant=float(np.exp(level)), N=float(by_n), D=float(by_d))


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The runs of a fit, (n, ...) each."""

    pair: IntArray
    x: Array
    basis: Array
    beside: Array
    y: Array
    count: int  # of pairs


def _surface(theta: Array, rows: _Rows) -> tuple[Array, Array]:
    """The surface's values (n,) and its Jacobian (n, numbers)."""
    count, x, basis, pair = rows.count, rows.x, rows.basis, rows.pair
    l11, l21, l22, k1, k2, k3, k4 = theta[count : count + SURFACE]
    at = count + SURFACE
    u, w = x[:, 0] - basis @ theta[at : at + 3], x[:, 1] - basis @ theta[at + 3 : at + 6]
    v1, v2 = l11 * u + l21 * w, l22 * w
    value = theta[pair] + 0.5 * (v1**2 + v2**2) + k1 * u**3 + k2 * u**2 * w + k3 * u * w**2 + k4 * w**3
    value += rows.beside @ theta[at + 6 :]
    slope_u = v1 * l11 + 3 * k1 * u**2 + 2 * k2 * u * w + k3 * w**2
    slope_w = v1 * l21 + v2 * l22 + k2 * u**2 + 2 * k3 * u * w + 3 * k4 * w**2
    jacobian = np.zeros((len(pair), len(theta)))
    jacobian[np.arange(len(pair)), pair] = 1.0
    columns = (v1 * u, v1 * w, v2 * w, u**3, u**2 * w, u * w**2, w**3)
    jacobian[:, count:at] = np.column_stack(columns)
    jacobian[:, at : at + 3] = -slope_u[:, None] * basis
    jacobian[:, at + 3 : at + 6] = -slope_w[:, None] * basis
    jacobian[:, at + 6 :] = rows.beside
    return value, jacobian


def _objective(residual: Array) -> float:
    """Huber's, summed."""
    size = np.abs(residual)
    inside = np.minimum(size, DELTA)
    return float(np.sum(inside * (size - 0.5 * inside)))


def _solve(theta: Array, free: Array, rows: _Rows) -> tuple[Array, Array, Array]:
    """Levenberg-Marquardt on the weighted residuals; theta, and the residuals and the Jacobian there."""
    damping = 1e-3
    value, jacobian = _surface(theta, rows)
    residual = rows.y - value
    objective = _objective(residual)
    for _ in range(STEPS):
        weight = DELTA / np.maximum(np.abs(residual), DELTA)
        j = jacobian[:, free]
        normal, slope = (j * weight[:, None]).T @ j, (j * weight[:, None]).T @ residual
        for _ in range(12):
            bent = normal + damping * np.diag(np.maximum(np.diag(normal), 1e-12))
            proposal = theta.copy()
            proposal[free] += np.linalg.lstsq(bent, slope, rcond=None)[0]
            value, jacobian_there = _surface(proposal, rows)
            found = _objective(rows.y - value)
            if found < objective:
                break
            damping *= 4
        else:
            break
        gained = objective - found
        theta, residual, jacobian, objective = proposal, rows.y - value, jacobian_there, found
        damping = max(1e-9, damping / 6)
        if gained < CLOSE * objective:
            break
    return theta, residual, jacobian


def _errors(jacobian: Array, free: Array, residual: Array, spread: float) -> Array:
    """Standard errors of theta from the weighted normal equations; zero of what was not fitted."""
    weight = DELTA / np.maximum(np.abs(residual), DELTA)
    j = jacobian[:, free]
    found = np.zeros(len(free))
    found[free] = spread * np.sqrt(np.maximum(0.0, np.diag(np.linalg.pinv((j * weight[:, None]).T @ j))))
    return found


def with_losses(data: Trials, fitted: Surface, noise: Array) -> Trials:
    """The trials with losses as the fit has them, and other residuals (of the runs inside the window)."""
    y = data.y.copy()
    y[fitted.inside] += noise - fitted.residual
    return replace(data, y=y)
