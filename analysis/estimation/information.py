"""What a run would teach about a target before it is made: a Gaussian prior, a linearised law, a drift near the target.

Laws drift: a run's misfit is shared by its neighbours and grows with its distance from the target. So beside the law's
parameters a Brownian bridge in ln N, ln D and ln D/N, pinned at the target, stands between the runs and it; cheap
runs far away cannot average it out. The variances were chosen on the replays of tests/benchmarks/design_replay.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.estimation import optimum, robust, uncertainty
from analysis.estimation.choices import columns
from analysis.estimation.minimise import minimise
from analysis.laws import Array, Law
from analysis.laws.base import Evaluated, PowerSum, log_variable

NOISE = 0.01  # of a run, in ln L
DISTANT = 0.005  # more noise for each factor e of compute between a run and the target
DISTANT_FIT = 0.01  # the same, as the fit weighs runs
DRIFT = {"N": 0.01, "D": 0.01, "M": 0.03}  # of the law, in ln L per square root of ln N, ln D and ln D/N
PRIOR_SHARES = (0.55, 0.2, 0.2)  # of the loss at the centre of the runs: E, A/N^alpha, B/D^beta ...
PRIOR_SPREADS = (0.5, 1.0, 1.0)  # ... and their standard deviations, in logarithms
EXPONENT, EXPONENT_SPREAD = 0.35, 0.3  # of alpha and beta


def posterior_mode(law: PowerSum, runs: pd.DataFrame, compute: float) -> tuple[Array, Prior]:
    """The fit that the design is linearised at, and its prior."""
    prior = Prior.of(law, runs)
    return modes(law, prior, runs, compute, np.ones((1, len(runs))))[0], prior


def modes(law: PowerSum, prior: Prior, runs: pd.DataFrame, compute: float, seen: Array) -> Array:
    """Least squares of ln L under a prior, runs far from the target weighing less; one fit a row of ``seen``, (P, k).

    Standard errors of the losses weigh too, where there are any.

    Args:
        seen: (P, n) weights, zero for runs that a fit does not see.
    """
    distance = np.log(compute / (6 * runs.N.to_numpy(float) * runs.D.to_numpy(float)))
    weights = seen * uncertainty.measured(runs) / (NOISE**2 + (DISTANT_FIT * distance) ** 2)
    found = minimise(
        prior.with_data(law.on(columns(runs))),
        np.concatenate([np.log(runs.loss.to_numpy(float)), prior.mean]),
        np.tile(prior.mode(), (len(seen), 1)),
        rho=robust.LEAST_SQUARES,
        weights=np.hstack([weights, np.tile(prior.spread**-2, (len(seen), 1))]),
    )
    return found.theta


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Gaussian on the logarithms of a law's terms at the centre of the runs, and of its exponents."""

    terms: Array  # (3, k): ln of each term at the centre is terms @ theta
    exponents: tuple[int, ...]  # columns of theta
    mean: Array  # (3 + exponents,)
    spread: Array

    @staticmethod
    def of(law: PowerSum, runs: pd.DataFrame) -> Prior:
        """Weakly informed: the loss shared out at the centre of the runs, exponents about 0.35."""
        centre = {name: np.exp(np.log(runs[[name]].to_numpy(float)).mean(0)) for name in ("N", "D")}
        terms = np.zeros((len(law.terms), law.dimension))
        for j, factors in enumerate(law.terms):
            for column, name in factors:
                terms[j, column] = 1.0 if name is None else -float(log_variable(centre, name)[0])
        exponents = tuple(sorted({column for factors in law.terms for column, name in factors if name is not None}))
        scale = float(np.median(runs.loss))
        tied = len(exponents) == 1  # eta is half of alpha = beta
        return Prior(
            terms=terms,
            exponents=exponents,
            mean=np.concatenate(
                [
                    np.log(scale * np.array(PRIOR_SHARES)),
                    np.full(len(exponents), np.log(EXPONENT / 2 if tied else EXPONENT)),
                ]
            ),
            spread=np.concatenate([PRIOR_SPREADS, np.full(len(exponents), EXPONENT_SPREAD)]),
        )

    def mode(self) -> Array:
        """theta at the prior's mean."""
        theta = np.zeros(self.terms.shape[1])
        theta[list(self.exponents)] = np.exp(self.mean[len(self.terms) :])
        others = [c for c in range(len(theta)) if c not in self.exponents]
        right = self.mean[: len(self.terms)] - self.terms @ theta
        theta[others] = np.linalg.solve(self.terms[:, others], right)
        return theta

    def away(self, theta: Array) -> Array:
        """How far theta lies from the prior's mean, in standard deviations, (3 + exponents,)."""
        there = np.concatenate([self.terms @ theta, np.log(theta[list(self.exponents)])])
        return np.asarray((there - self.mean) / self.spread)

    def whitening(self, theta: Array) -> Array:
        """d theta / d (standard normal variables of the prior) about theta, (k, 3 + exponents)."""
        return np.asarray(np.linalg.inv(self.jacobian(theta)) * self.spread)

    def jacobian(self, theta: Array) -> Array:
        """d (terms, ln exponents) / d theta, (3 + exponents, k)."""
        rows = np.zeros((len(self.exponents), len(theta)))
        for i, column in enumerate(self.exponents):
            rows[i, column] = 1 / theta[column]
        return np.vstack([self.terms, rows])

    def with_data(self, evaluate: Evaluated) -> Evaluated:
        """The law with the prior's coordinates as further rows of data."""

        def both(theta: Array) -> tuple[Array, Array]:
            value, gradient = evaluate(theta)
            with np.errstate(all="ignore"):
                ln_exponents = np.log(theta[:, list(self.exponents)])
            rows = np.stack([self.jacobian(row) for row in theta])  # (P, rows, k)
            own = np.hstack([theta @ self.terms.T, ln_exponents])
            return np.hstack([value, own]), np.concatenate([gradient, rows.transpose(0, 2, 1)], axis=2)

        return both


def residuals(law: PowerSum, theta: Array, prior: Prior, runs: pd.DataFrame) -> Array:
    """ln L of the runs less that of the prior's mean law, linearised at theta, (runs,)."""
    value, gradient = (both[0] for both in law.on(columns(runs))(theta[None]))
    return np.asarray(
        np.log(runs.loss.to_numpy(float)) - value + gradient.T @ prior.whitening(theta) @ prior.away(theta)
    )


def compute_optimal(law: Law, theta: Array, runs: pd.DataFrame, compute: float) -> tuple[float, float]:
    """N and D where the law is lowest along 6ND = compute; where it has no optimum, at the runs' mean D/N."""
    ln_n = optimum.of_law(law, theta, compute, optimum.within_reach(runs.N.to_numpy(float)))
    if ln_n is None:
        ln_n = (np.log(compute / 6) - float(np.log(runs.D / runs.N).mean())) / 2
    return float(np.exp(ln_n)), float(compute / (6 * np.exp(ln_n)))


@dataclass(kw_only=True)
class Covariance:
    """Of ln L at every run and of the target, under one law; the target is the last row."""

    matrix: Array
    noise: Array  # independent variance of a run

    @staticmethod
    def of(
        law: PowerSum,
        theta: Array,
        prior: Prior,
        runs: pd.DataFrame,
        point: tuple[float, float],
        worth: Array | None = None,
    ) -> Covariance:
        """Before anything is measured.

        Args:
            runs: N and D of every run, made or not.
            point: N and D of the target.
            worth: of each run's loss by its standard error, (runs,); see uncertainty.measured.
        """
        n, d = runs.N.to_numpy(float), runs.D.to_numpy(float)
        data = {"N": np.append(n, point[0]), "D": np.append(d, point[1])}
        gradient = law.on(data)(theta[None])[1][0].T  # (runs + 1, k)
        whitened = gradient @ prior.whitening(theta)
        matrix = whitened @ whitened.T
        for name, drift in DRIFT.items():
            at = {"N": data["N"], "D": data["D"], "M": data["D"] / data["N"]}[name]
            matrix += drift**2 * _pinned(np.log(at / at[-1]))
        distance = np.log(6 * point[0] * point[1] / (6 * n * d))
        own = NOISE**2 if worth is None else NOISE**2 / worth
        return Covariance(matrix=matrix, noise=own + (DISTANT * distance) ** 2)

    def surprise(self, residual: Array) -> float:
        """Sum of squares of the first runs' residuals in standard deviations: about one a run where the scale is right.

        Args:
            residual: of ln L from the prior's mean law, (runs,).
        """
        seen = slice(len(residual))
        matrix = self.matrix[seen, seen] + np.diag(self.noise[seen])
        return float(residual @ np.linalg.solve(matrix, residual))

    @property
    def target_variance(self) -> float:
        """Of the target, given what was conditioned on."""
        return float(max(self.matrix[-1, -1], 1e-300))

    def condition(self, rows: Sequence[int] | range) -> None:
        """Take runs as measured, whatever their outcome."""
        chosen = list(rows)
        if not chosen:
            return
        block = self.matrix[np.ix_(chosen, chosen)] + np.diag(self.noise[chosen])
        self.matrix = self.matrix - self.matrix[:, chosen] @ np.linalg.solve(block, self.matrix[chosen])

    def gain(self) -> Array:
        """What measuring each run would take off the logarithm of the target's variance, (runs,)."""
        with_target = self.matrix[:-1, -1] ** 2
        alone = np.diag(self.matrix)[:-1] + self.noise
        return np.asarray(-np.log1p(-np.minimum(with_target / (alone * self.target_variance), 1 - 1e-12)))


def _pinned(x: Array) -> Array:
    """Covariance of a two-sided Brownian motion that is zero at x = 0."""
    same = np.sign(x)[:, None] == np.sign(x)[None]
    return np.where(same, np.minimum(np.abs(x)[:, None], np.abs(x)[None]), 0.0)
