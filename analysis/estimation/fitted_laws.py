"""Every law fitted to the runs that it speaks of, with a bootstrap of its parameters and a verdict on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.estimation import envelope, robust, solve, uncertainty
from analysis.estimation.choices import (
    BY_BEST,
    FRONTIERS,
    REPEATED_RUNS,
    Choice,
    columns,
    covered,
    repeats,
    run_weights,
)
from analysis.estimation.isoflop import Minima
from analysis.estimation.robust import LEAST_SQUARES, Rho
from analysis.estimation.solve import Fit, FitStatus
from analysis.laws import (
    CHINCHILLA,
    DATA_CONSTRAINED,
    EXPONENT_NAMES,
    LAWS,
    Array,
    Data,
    Law,
    PowerSum,
    not_falling,
    optimal_exponents,
)

NO_FLOOR = 3e-3  # of the lowest loss fitted: an irreducible loss below this is at its bound, zero
LOOSE = 2.0  # an exponent whose interval spans more than this factor, or an E that may be nothing, is not determined
LEAST_BEST = 8  # runs on an envelope that a frontier may be drawn through
CLUSTER_SHARE = 4  # bootstraps by size and by budget take this part of the draws


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """A fitted law with bootstrap draws of its parameters."""

    fit: Fit
    fitted_to: str = ""  # which points
    draws: Array | None = None  # (draws, k) of theta, resampled by run
    by_cluster: dict[str, Array] = field(default_factory=dict)  # the same by size and by budget
    no_floor: float = 0.0  # an irreducible loss below this is at its bound, zero; in the unit of the losses

    @cached_property
    def published(self) -> dict[str, Array]:
        """Draws of the published parameters, (draws,) each; empty where there are none."""
        return {} if self.draws is None else described(self.fit.law, self.draws)

    @property
    def a_and_b(self) -> tuple[float, float]:
        """a and b of N* ~ C^a, D* ~ C^b by a fitted E + A/N^alpha + B/D^beta under 6ND = C; nan where it has none."""
        params = self.fit.params
        return optimal_exponents(params) if {"alpha", "beta"} <= set(params) else (np.nan, np.nan)

    @cached_property
    def a_draws(self) -> Array:
        """Bootstrap draws of that a, (draws,); nan where a draw has none."""
        if not {"alpha", "beta"} <= set(self.published):
            return np.empty(0)
        alpha, beta = self.published["alpha"], self.published["beta"]
        return np.where((alpha > 0) & (beta > 0), beta / (alpha + beta), np.nan)


def described(law: Law, draws: Array) -> dict[str, Array]:
    """The published parameters of rows of theta, (rows,) each."""
    if isinstance(law, PowerSum):
        with np.errstate(all="ignore"):
            return dict(zip(law.parameters, law.published(draws.T), strict=True))
    rows = [law.describe(theta) for theta in draws]
    return {name: np.array([row[name] for row in rows]) for name in law.parameters}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is fitted and how."""

    law: str = "all"
    joint: Law = CHINCHILLA  # of N and D; with fixed exponents where the user fixed some
    fixed_a: float | None = None  # of N* ~ C^a
    rho: Rho = robust.HUBER
    bootstrap: int = 1000
    seed: int = 0
    rules_off: tuple[str, ...] = ()  # of settings.RULES

    def wants(self, law: Law) -> bool:
        """Whether a law was asked for."""
        return self.law in ("all", law.name)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one law is fitted to: the columns that it needs, losses, weights, and the runs behind them, if any."""

    data: Data
    loss: Array
    fitted_to: str
    rho: Rho
    weights: Array | None = None
    runs: pd.DataFrame | None = None  # None: minima of budgets

    def fit(self, law: Law) -> Fit:
        """The law fitted to it."""
        return solve.fit(law, self.data, self.loss, rho=self.rho, weights=self.weights)


def fit_laws(table: pd.DataFrame, minima: Minima, request: Request) -> dict[str, FittedLaw]:
    """The laws asked for, by name; one that the runs cannot carry is there with a status and a reason.

    Args:
        table: the runs that passed the rules.
    """
    asked = [law for law in LAWS.values() if request.wants(law)]
    return {law.name: _fit_law(request.joint if law is CHINCHILLA else law, table, minima, request) for law in asked}


def fit_once(law: Law, table: pd.DataFrame, minima: Minima, rho: Rho) -> FittedLaw:
    """A law fitted to the runs that it speaks of, without a bootstrap: the numbers that every table shows."""
    observed = observe(law, table, minima, rho)
    if isinstance(observed, str):
        return FittedLaw(fit=Fit(law=law, status=FitStatus.NOT_APPLICABLE, reason=observed))
    return FittedLaw(fit=observed.fit(law), fitted_to=observed.fitted_to)


def _fit_law(law: Law, table: pd.DataFrame, minima: Minima, request: Request) -> FittedLaw:
    observed = observe(law, table, minima, request.rho)
    if isinstance(observed, str):
        return FittedLaw(fit=Fit(law=law, status=FitStatus.NOT_APPLICABLE, reason=observed))
    fit = observed.fit(law)
    no_floor = NO_FLOOR * float(observed.loss.min()) if len(observed.loss) else 0.0
    fitted = FittedLaw(fit=fit, fitted_to=observed.fitted_to, no_floor=no_floor)
    if fit.status is FitStatus.OK:  # where the solver found no optimum, resamples scatter by their starts
        fitted = replace(
            fitted, draws=_drawn(fit, observed, minima, request), by_cluster=_by_cluster(fit, observed, request)
        )
    return judged(fitted)


def _drawn(fit: Fit, observed: Observed, minima: Minima, request: Request) -> Array | None:
    """Parameters under resampled runs, or through the drawn minima of the budgets; None where nothing can be drawn."""
    if observed.runs is not None:
        return _resampled(fit, observed, observed.runs, "run", request.bootstrap, request.seed)
    return None if minima.draws is None else solve.refit(fit, observed.data, minima.draws[:, 2:])


def _by_cluster(fit: Fit, observed: Observed, request: Request) -> dict[str, Array]:
    """The same by size and by budget, of the laws of all runs."""
    if observed.runs is None or fit.law.name in (*FRONTIERS, *BY_BEST):
        return {}
    few = max(2, request.bootstrap // CLUSTER_SHARE)
    labels = {by: uncertainty.clusters(observed.runs, by) for by in uncertainty.CLUSTERS[1:]}
    enough = [by for by, label in labels.items() if len(np.unique(label)) > fit.law.dimension]
    return {by: _resampled(fit, observed, observed.runs, by, few, request.seed) for by in enough}


def _resampled(fit: Fit, observed: Observed, runs: pd.DataFrame, by: str, draws: int, seed: int) -> Array:
    counts = uncertainty.resamples(uncertainty.clusters(runs, by), draws=draws, seed=seed)
    return uncertainty.bootstrap(fit, observed.data, observed.loss, counts, observed.weights)


def observe(law: Law, table: pd.DataFrame, minima: Minima, rho: Rho) -> Observed | str:
    """What a law is fitted to, or why it is not fitted."""
    if law.name in FRONTIERS:
        return _frontier(law, table, minima, rho)
    if law.name in BY_BEST:
        return _best_by(law, BY_BEST[law.name], table, rho)
    missing = [name for name in law.needs if name not in table or table[name].isna().any()]
    if missing:
        return f"the runs do not say {' and '.join(missing)}"
    if law is DATA_CONSTRAINED and not repeats(table):
        return f"fewer than {REPEATED_RUNS} runs saw their text more than once"
    return _of_runs(law, table[covered(law, table)].reset_index(drop=True), "all runs", rho)


def _frontier(law: Law, table: pd.DataFrame, minima: Minima, rho: Rho) -> Observed | str:
    """L*(C): through the minima of the budgets; where these are not to be trusted, through the best runs."""
    if not minima.trusted and len(envelope.best_by(table, "C")) >= LEAST_BEST:
        return _best_by(law, "C", table, rho)
    data = {"C": np.array([p.budget for p in minima.used])}
    loss = np.array([p.loss_star for p in minima.used])  # smoothed already: least squares
    return Observed(data=data, loss=loss, fitted_to="the minima of the budgets", rho=LEAST_SQUARES)


def _best_by(law: Law, column: str, table: pd.DataFrame, rho: Rho) -> Observed | str:
    """L of one quantity where the others do not limit: the runs that none with less of it beats."""
    if column not in table or table[column].isna().any():
        return f"the runs do not say {column} (batch_tokens is needed)"
    best = envelope.best_by(table, column)
    return _of_runs(law, best, f"the {len(best)} runs that none with less {column} beats", rho)


def _of_runs(law: Law, runs: pd.DataFrame, fitted_to: str, rho: Rho) -> Observed:
    return Observed(
        data=columns(runs),
        loss=runs.loss.to_numpy(float),
        weights=run_weights(Choice(law=law, rho=rho), runs),
        fitted_to=fitted_to,
        rho=rho,
        runs=runs,
    )


def judged(law: FittedLaw) -> FittedLaw:
    """Mark a fit whose loss does not fall with scale, or whose parameters its own bootstrap cannot pin down."""
    if law.fit.theta is None:
        return law
    params = law.fit.params
    if wrong := not_falling(params):
        listed = ", ".join(f"{name} {params[name]:.3g}" for name in wrong)
        reason = f"the loss would not fall with scale ({listed}): these runs do not tell N from D"
        return replace(law, fit=replace(law.fit, status=FitStatus.ILL_DETERMINED, reason=reason))
    if law.draws is None and law.fit.status is FitStatus.OK:
        reason = f"{law.fit.runs} points, and nothing to draw anew: no interval"
        return replace(law, fit=replace(law.fit, status=FitStatus.UNTESTED, reason=reason))
    loose = []
    for name, draws in law.published.items():
        low, high = uncertainty.interval(draws)
        if name in EXPONENT_NAMES and (low <= 0 or high / low > LOOSE):
            loose.append(f"{name} {low:.3g} to {high:.3g}")
        if name == "E" and (params["E"] < law.no_floor or high - low > 0.5 * params["E"]):
            bound = "E is at its bound, zero" if params["E"] < law.no_floor else "E"
            loose.append(f"{bound} ({max(low, 0.0):.2f} to {high:.2f})")
    if not loose or law.fit.status is not FitStatus.OK:
        return law
    reason = "95% intervals: " + ", ".join(loose)
    return replace(law, fit=replace(law.fit, status=FitStatus.ILL_DETERMINED, reason=reason))
