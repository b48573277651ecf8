"""From the fitted shift of one ladder against another to multipliers of compute, each with its interval.

The shift is one of N and D; what it is worth in compute depends on what a token costs at a size, which each ladder's
own runs say (6N, or more where the head and attention are counted). The shapes of the shift are mixed by their weights;
an interval holds 95% of the mixture of their t distributions. That of a lower irreducible loss is one of m^-gamma, the
share of A's reducible loss that is left above B's: where none is left A reaches B's loss at no compute, and m is
infinite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import special

from analysis import laws
from analysis.estimation import optimum, shift, solve, uncertainty
from analysis.estimation.ensemble import missing_direction
from analysis.estimation.pairs import WORTH, Pairs
from analysis.estimation.shift import FLOOR, GROW, LEAST_LEFT, LN10, SHAPES, STEP, TILTED, Estimate, Model, Points
from analysis.laws import Array, Law
from gpt3core.errors import UsageError

SPARE = 4  # runs of both ladders beyond the parameters of a law of N and D
GAMMA = (0.02, 0.6)  # between which the exponent of a frontier is believed
BISECTIONS = 60
FARTHEST = 100 * LN10  # of ln m: what lies beyond is infinite


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Ln of the FLOPs of a token as a parabola in ln N through a ladder's runs, a straight line outside its sizes."""

    coefficients: Array
    low: float
    high: float

    def of(self, ln_n: Array) -> Array:
        """Ln FLOPs a token."""
        inside = np.clip(ln_n, self.low, self.high)
        slope = np.polyval(np.polyder(self.coefficients), inside)
        return np.asarray(np.polyval(self.coefficients, inside) + slope * (ln_n - inside))


def costs_of(table: pd.DataFrame) -> Costs:
    """From N, D and C of a ladder's runs."""
    ln_n = np.log(table.N.to_numpy(float))
    per_token = np.log((table.C / table.D).to_numpy(float))
    degree = min(2, table.N.nunique() - 1)
    return Costs(coefficients=np.polyfit(ln_n, per_token, degree), low=float(ln_n.min()), high=float(ln_n.max()))


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Ladder B as ladder A with its compute multiplied: a fit for each shape, and the law behind them."""

    models: list[Model]
    estimates: list[Estimate]  # of all parameters, or of p alone where cells were paired
    law: Model  # without a correction: what carries beyond the data
    surface: Estimate  # of the law
    costs: tuple[Costs, Costs]
    sizes: tuple[float, float]  # ln N within which optima are looked for

    @cached_property
    def weights(self) -> Array:
        """Of the shapes, summing to one: likelihoods at their best, with the scatter profiled out."""
        misfit = np.array([max(e.misfit, 1e-300) for e in self.estimates])
        power = -0.5 * self.estimates[0].freedom * np.log(misfit / misfit.min())
        return np.asarray(np.exp(power) / np.exp(power).sum())

    @property
    def best(self) -> int:
        """The shape that fits best."""
        return int(np.argmax(self.weights))

    def by_shape(self, compute: Array) -> tuple[Array, Array]:
        """Ln m and its standard deviation by each shape, as _bent has them, (shapes, n)."""
        found = [self._by(i, compute) for i in range(len(self.models))]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found])

    def _by(self, shape: int, compute: Array) -> tuple[Array, Array]:
        covariance = _of(self.estimates[shape], self.law.law.dimension)[1]
        centre, gradient = self.gradient(shape, compute)
        return centre, np.sqrt(np.einsum("ni,ij,nj->n", gradient, covariance, gradient))

    def gradient(self, shape: int, compute: Array) -> tuple[Array, Array]:
        """Ln m at each compute, as _bent has it, and its derivatives by theta and p, (n,) and (n, k + 3)."""
        parameters, k = _of(self.estimates[shape], self.law.law.dimension)[0], self.law.law.dimension
        mu = self.models[shape].basis(np.log(compute)) @ parameters[k : k + 2]
        ln_n = np.zeros_like(mu) if self.law.line else self._best_size(shape, compute, parameters[k:])
        ln_m, by_p = self._by_shift(shape, compute, ln_n)
        by = np.hstack([np.zeros((len(mu), k)), by_p])
        if self.models[shape].shape != FLOOR:
            return ln_m, by
        left, gamma = self._left(shape, compute, ln_n, parameters), self._gamma(shape)
        share = np.exp(-gamma * ln_m)
        by *= (share * left)[:, None]
        for i, step in enumerate(np.eye(k + 3) * STEP):
            up, down = (self._left(shape, compute, ln_n, parameters + sign * step) for sign in (1, -1))
            by[:, i] -= share * (up - down) / (2 * STEP * gamma)
        return (1 - share * left) / gamma, by

    def _bent(self, ln_m: Array) -> Array:
        """Ln m on the scale of each shape, (shapes, n): as it is, and (1 - m^-gamma)/gamma where B's floor is lower.

        There it is linear in what the floor lies lower, and has no bound where A reaches B's loss at no compute.
        """
        gammas = [self._gamma(i) if model.shape == FLOOR else 0.0 for i, model in enumerate(self.models)]
        return np.array([-np.expm1(-gamma * ln_m) / gamma if gamma else ln_m for gamma in gammas])

    def unbent(self, best: Array) -> Array:
        """Ln m from the scale of the shape that fits best, (n,); infinite where A reaches B's loss at no compute."""
        if self.models[self.best].shape != FLOOR:
            return best
        gamma = self._gamma(self.best)
        with np.errstate(divide="ignore"):
            return -np.log(np.maximum(1 - gamma * best, 0.0)) / gamma

    def _gamma(self, shape: int) -> float:
        """The exponent of A's reducible loss along its frontier."""
        return self._exponent(self.estimates[shape].parameters[: self.law.law.dimension])

    def _exponent(self, theta: Array) -> float:
        return float(np.clip(_frontier_exponent(self.law.law.describe(theta)), *GAMMA))

    def _left(self, shape: int, compute: Array, ln_n: Array, parameters: Array) -> Array:
        """The share m^-gamma of A's reducible loss that a lower floor leaves above B's, (n,): none where out of reach.

        A's reducible loss falls as C^-gamma along its frontier: delta less is worth (1 - delta/reducible)^(-1/gamma).
        """
        model, theta, p = self.models[shape], parameters[:-3], parameters[-3:]
        known = self.law.law.describe(theta)
        each = zip(np.log(compute), ln_n, strict=True)
        reached = np.exp([self._at(shape, theta, p, np.array([c]), np.array([n]))[0] for c, n in each])
        reducible = np.maximum(reached - known["E"], LEAST_LEFT * reached)
        left = 1 - model.lower * p[GROW] / reducible
        return np.asarray(np.sign(left) * np.abs(left) ** (self._gamma(shape) / self._exponent(theta)))

    def _by_shift(self, shape: int, compute: Array, ln_n: Array) -> tuple[Array, Array]:
        """Ln m of the shift alone and its derivatives by p, (n, 3), at sizes that are best for B."""
        p = of_shift(self.estimates[shape])[0]
        basis = self.models[shape].basis(np.log(compute))
        mu = basis @ p[:2]
        if self.law.line:
            return mu, np.column_stack([basis, np.zeros(len(mu))])

        def ln_m(mu: Array, tilt: float) -> Array:
            theirs = self.costs[0].of(ln_n + mu / 2 + tilt)
            return np.asarray(mu / 2 - tilt + theirs - self.costs[1].of(ln_n))

        h = 1e-4
        by_mu = (ln_m(mu + h, p[2]) - ln_m(mu - h, p[2])) / (2 * h)
        by_tilt = (ln_m(mu, p[2] + h) - ln_m(mu, p[2] - h)) / (2 * h)
        return ln_m(mu, p[2]), np.column_stack([by_mu[:, None] * basis, by_tilt])

    def _best_size(self, shape: int, compute: Array, p: Array) -> Array:
        """Ln N of B's optimum at each compute by the law; the middle of the sizes where it has none."""
        middle = (self.costs[1].low + self.costs[1].high) / 2
        found = [self._optimum(shape, float(c), p, shifted=True) for c in compute]
        return np.array([middle if n is None else n for n in found])

    def _optimum(self, shape: int, compute: float, p: Array, *, shifted: bool) -> float | None:
        return optimum.lowest(lambda n: self._along(shape, compute, n, p, shifted=shifted), *self.sizes)

    def _along(self, shape: int, compute: float, ln_n: Array, p: Array, *, shifted: bool) -> Array:
        """Ln L of A or B at a compute and sizes, by the law; of B before its floor is lowered."""
        ln_c, theta = np.full_like(ln_n, np.log(compute)), self._theta(shape)
        if shifted:
            return self._at(shape, theta, p, ln_c, ln_n)
        return self.law.ln_loss(theta, ln_n, ln_c - self.costs[0].of(ln_n), ln_c)

    def _at(self, shape: int, theta: Array, p: Array, ln_c: Array, ln_n: Array) -> Array:
        """Ln L of B before its floor is lowered."""
        mu, ln_d = self.models[shape].basis(ln_c) @ p[:2], ln_c - self.costs[1].of(ln_n)
        return self.law.ln_loss(theta, ln_n + mu / 2 + p[TILTED], ln_d + mu / 2 - p[TILTED], ln_c + mu)

    def _theta(self, shape: int) -> Array:
        """The law's parameters: of all runs with a line, or those that belong to a floor, which they hang on."""
        k = self.law.law.dimension
        return (self.estimates[shape] if self.models[shape].shape == FLOOR else self.surface).parameters[:k]

    def frontier(self, compute: Array) -> tuple[Array, Array]:
        """The losses of A and of B at each compute along the frontier, by the law; nan where it has no optimum."""
        return self._frontier(compute, shifted=False), self._frontier(compute, shifted=True)

    def _frontier(self, compute: Array, *, shifted: bool) -> Array:
        p = of_shift(self.estimates[self.best])[0]
        found = []
        for c in compute:
            n = 0.0 if self.law.line else self._optimum(self.best, float(c), p, shifted=shifted)
            found.append(
                np.nan if n is None else self._along(self.best, float(c), np.array([n]), p, shifted=shifted)[0]
            )
        return np.exp(self.models[self.best].lowered(np.array(found), p, float(shifted)))

    def predict(self, table: pd.DataFrame, *, shifted: bool) -> Array:
        """Ln L of A or B at runs or cells (n,), by the law and the shape that fits best."""
        theta = self._theta(self.best)
        n, d, c = (np.log(table[name].to_numpy(float)) for name in ("N", "D", "C"))
        if not shifted:
            return self.law.ln_loss(theta, n, d, c)
        p = of_shift(self.estimates[self.best])[0]
        mu = self.models[self.best].basis(c) @ p[:2]
        ln_loss = self.law.ln_loss(theta, n + mu / 2 + p[TILTED], d + mu / 2 - p[TILTED], c + mu)
        return self.models[self.best].lowered(ln_loss, p)

    def interval(self, compute: Array, level: float = uncertainty.LEVEL) -> Array:
        """Low end, median and high end of the central interval of ln m at each compute, some infinite, (n, 3)."""
        centre, spread = self.by_shape(compute)
        at = [(1 - level) / 2, 0.5, (1 + level) / 2]
        return np.stack([self._quantile(centre, spread, q) for q in at], 1)

    def _quantile(self, centre: Array, spread: Array, q: float) -> Array:
        freedom = np.array([e.freedom for e in self.estimates])[:, None]
        low, high = np.full(centre.shape[1], -FARTHEST), np.full(centre.shape[1], FARTHEST)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            with np.errstate(all="ignore"):
                below = self.weights @ special.stdtr(freedom, (self._bent(middle) - centre) / spread) < q
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(high == FARTHEST, np.inf, (low + high) / 2)


def of_shift(estimate: Estimate) -> tuple[Array, Array]:
    """The three of p and their covariance."""
    return estimate.parameters[-3:], estimate.covariance[-3:, -3:]


def _of(estimate: Estimate, k: int) -> tuple[Array, Array]:
    """Theta and p without the correction's, (k + 3,), and their covariance."""
    kept = np.r_[:k, -3:0] % len(estimate.parameters)
    return estimate.parameters[kept], estimate.covariance[np.ix_(kept, kept)]


def fit(a: pd.DataFrame, b: pd.DataFrame, cells: Pairs | None, law: Law, like: Shifted | None = None) -> Shifted:
    """Every shape fitted.

    Args:
        cells: the shared ones, where the ladders are compared cell by cell.
        law: of N and D; L(C) takes its place where the runs vary along one line only.
        like: a fit of the same law to more runs, to start from.

    Raises:
        UsageError: when there are too few runs for any law.
    """
    table = pd.concat([a, b], ignore_index=True)
    points = points_of(table, np.repeat([0.0, 1.0], [len(a), len(b)]), _worth(table))
    line = missing_direction(table) is not None
    law = laws.LOSS_OF_C_WITH_FLOOR if line else law
    if len(table) < law.dimension + SPARE:
        raise UsageError(f"both ladders together have {len(table)} runs: {law.dimension + SPARE} are needed")
    theta = like.surface.parameters[: law.dimension] if like and like.law.law == law else _start(law, a, b)
    centre, half = float(points.ln_c.mean()), float(np.ptp(points.ln_c) / 2 / LN10)
    pure = Model(law=law, line=line, centre=centre, half=max(half, 0.1), corrections=0)
    surface = shift.joint(pure, points, theta)
    known = law.describe(surface.parameters[: law.dimension])
    gamma = float(np.clip(_frontier_exponent(known), *GAMMA))
    middle = float(np.exp(np.median(points.ln_loss)))
    lower = max(middle - known["E"], LEAST_LEFT * middle) / LN10  # then p[GROW] is the growth a decade there
    corrections = int(np.clip(len(np.unique(np.round(points.ln_c / LN10, 1))) - 3, 0, 2))
    models = [
        replace(pure, corrections=corrections, shape=shape, gamma=gamma, lower=lower if shape == FLOOR else 0.0)
        for shape in SHAPES
    ]
    estimates = [shift.joint(model, points, surface.parameters[: law.dimension]) for model in models]
    if cells is not None:
        first = points_of(cells.a, np.zeros(len(cells.a)), cells.a.runs.to_numpy(float))
        second = points_of(cells.b, np.ones(len(cells.b)), cells.b.runs.to_numpy(float))
        estimates = [shift.paired(m, first, second, e) for m, e in zip(models, estimates, strict=True)]
    return Shifted(
        models=models,
        estimates=estimates,
        law=pure,
        surface=surface,
        costs=(costs_of(a), costs_of(b)),
        sizes=optimum.within_reach(table.N.to_numpy(float)),
    )


def _worth(table: pd.DataFrame) -> Array:
    return table[WORTH].to_numpy(float) if WORTH in table else np.ones(len(table))


def points_of(table: pd.DataFrame, shifted: Array, runs: Array) -> Points:
    """Runs or cells as the arrays that a model reads."""
    n, d, c = (np.log(table[name].to_numpy(float)) for name in ("N", "D", "C"))
    loss = table.ln_loss.to_numpy(float) if "ln_loss" in table else np.log(table.loss.to_numpy(float))
    return Points(ln_n=n, ln_d=d, ln_c=c, ln_loss=loss, shifted=shifted, runs=runs)


def _start(law: Law, a: pd.DataFrame, b: pd.DataFrame) -> Array:
    """Theta by the ladder that has more runs; by both where it has too few."""
    most = max(a, b, key=len)
    table = most if len(most) > law.dimension + 1 else pd.concat([a, b], ignore_index=True)
    found = solve.fit(law, {n: table[n].to_numpy(float) for n in ("N", "D", "C")}, table.loss.to_numpy(float))
    if found.theta is None:
        raise UsageError(f"{law.equation} could not be fitted to these runs: {found.reason}")
    return found.theta


def _frontier_exponent(params: dict[str, float]) -> float:
    """The exponent of L*(C) - E."""
    if "alpha_C" in params:
        return params["alpha_C"]
    alpha, beta = params["alpha"], params["beta"]
    return alpha * beta / (alpha + beta) if alpha > 0 and beta > 0 else 0.0
