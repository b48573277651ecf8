"""Every law fitted to the runs that it speaks of, with a bootstrap of its parameters and a verdict on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis import envelope, laws, solve, stacking, uncertainty
from analysis.isoflop import Minima
from analysis.laws import Array, Law
from analysis.solve import LEAST_SQUARES, Fit, FitStatus, Loss
from analysis.stacking import Choice

NO_FLOOR = 1e-2  # nats: an irreducible loss below this is at its bound, zero
LOOSE = 2.0  # an exponent whose interval spans more than this factor, or an E that may be nothing, is not determined
EXPONENTS = ("alpha", "beta", "eta", "alpha_C", "alpha_N", "alpha_D", "alpha_S")
LEAST_BEST = 8  # runs on an envelope that a frontier may be drawn through
CLUSTER_SHARE = 4  # bootstraps by size and by budget take this part of the draws


@dataclass(frozen=True, kw_only=True)
class LawFit:
    """A fitted law with bootstrap draws of its parameters."""

    fit: Fit
    fitted_to: str = ""  # which points
    draws: Array | None = None  # (draws, k) of theta, resampled by run
    by_cluster: dict[str, Array] = field(default_factory=dict)  # the same by size and by budget

    def published(self, draws: Array | None = None) -> dict[str, Array]:
        """Draws of the published parameters."""
        rows = self.draws if draws is None else draws
        if rows is None:
            return {}
        named = [self.fit.law.describe(theta) for theta in rows]
        return {name: np.array([row[name] for row in named]) for name in self.fit.law.parameters}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is fitted and how."""

    law: str = "all"
    loss: Loss = solve.HUBER
    bootstrap: int = 1000
    seed: int = 0

    def wants(self, law: Law) -> bool:
        """Whether a law was asked for."""
        return self.law in ("all", law.name)


def fit_all(table: pd.DataFrame, minima: Minima, request: Request) -> dict[str, LawFit]:
    """The laws asked for, by name; one that the runs cannot carry is there with a status and a reason.

    Args:
        table: the runs that passed the rules.
    """
    fitters: dict[str, Callable[[Law], LawFit]] = {
        **dict.fromkeys(
            ("compute_frontier", "compute_frontier_irreducible", "broken"),
            lambda law: _frontier(law, table, minima, request),
        ),
        "kaplan_n": lambda law: _best_by(law, "N", table, request),
        "kaplan_d": lambda law: _best_by(law, "D", table, request),
        "kaplan_c_min": lambda law: _best_by(law, "C_min", table, request),
        "data_constrained": lambda law: _repeated(law, table, request),
    }
    wanted = [law for law in laws.LAWS.values() if request.wants(law)]
    found = {}
    for law in wanted:
        fitter = fitters.get(law.name)
        found[law.name] = judged(fitter(law) if fitter else _joint(law, table, request))
    return found


def _frontier(law: Law, table: pd.DataFrame, minima: Minima, request: Request) -> LawFit:
    """L*(C): through the minima of the budgets; where these are not to be trusted, through the best runs."""
    if not minima.trusted and len(envelope.best_by(table, "C")) >= LEAST_BEST:
        return _best_by(law, "C", table, request)
    data = {"C": np.array([p.budget for p in minima.used])}
    loss = np.array([p.loss_star for p in minima.used])
    fit = solve.fit(law, data, loss, function=LEAST_SQUARES)  # minima are smoothed already
    draws = None
    if fit.theta is not None and minima.draws is not None:
        draws = solve.refit(fit, data, minima.draws[:, 2:])
    return LawFit(fit=fit, fitted_to="the minima of the budgets", draws=draws)


def _best_by(law: Law, column: str, table: pd.DataFrame, request: Request) -> LawFit:
    """L of one quantity where the others do not limit: the runs that none with less of it beats."""
    if column not in table or table[column].isna().any():
        return _not_applicable(law, f"the runs do not say {column} (batch_tokens is needed)")
    best = envelope.best_by(table, column)
    return _resampled(law, best, f"the {len(best)} runs that none with less {column} beats", request)


def _joint(law: Law, table: pd.DataFrame, request: Request) -> LawFit:
    missing = [name for name in law.needs if name not in table or table[name].isna().any()]
    if missing:
        return _not_applicable(law, f"the runs do not say {' and '.join(missing)}")
    covered = table[stacking.covered(law, table)].reset_index(drop=True)
    return _resampled(law, covered, "all runs", request, clusters=True)


def _repeated(law: Law, table: pd.DataFrame, request: Request) -> LawFit:
    if int((table.D > 1.05 * table.U).sum()) < stacking.REPEATED_RUNS:
        return _not_applicable(law, f"fewer than {stacking.REPEATED_RUNS} runs saw their text more than once")
    return _joint(law, table, request)


def _resampled(law: Law, table: pd.DataFrame, fitted_to: str, request: Request, clusters: bool = False) -> LawFit:
    data, loss = stacking.columns(table), table.loss.to_numpy(float)
    weights = stacking.weights(Choice(law=law, loss=request.loss), table)
    fit = solve.fit(law, data, loss, function=request.loss, weights=weights)
    if fit.theta is None:
        return LawFit(fit=fit, fitted_to=fitted_to)

    def drawn(by: str, draws: int) -> Array:
        counts = uncertainty.resamples(uncertainty.clusters(table, by), draws=draws, seed=request.seed)
        return uncertainty.bootstrap(fit, data, loss, counts, weights)

    by_cluster = {}
    if clusters:
        for by in uncertainty.CLUSTERS[1:]:
            if len(np.unique(uncertainty.clusters(table, by))) > law.size:
                by_cluster[by] = drawn(by, max(2, request.bootstrap // CLUSTER_SHARE))
    return LawFit(fit=fit, fitted_to=fitted_to, draws=drawn("run", request.bootstrap), by_cluster=by_cluster)


def _not_applicable(law: Law, reason: str) -> LawFit:
    return LawFit(fit=Fit(law=law, status=FitStatus.NOT_APPLICABLE, reason=reason))


def judged(law: LawFit) -> LawFit:
    """Mark a fit whose parameters its own bootstrap cannot pin down."""
    loose = []
    params = law.fit.params
    for name, draws in law.published().items():
        low, high = uncertainty.interval(draws)
        if name in EXPONENTS and (low <= 0 or high / low > LOOSE):
            loose.append(f"{name} {low:.3g} to {high:.3g}")
        if name == "E" and (params["E"] < NO_FLOOR or high - low > 0.5 * params["E"]):
            bound = "E is at its bound, zero" if params["E"] < NO_FLOOR else "E"
            loose.append(f"{bound} ({max(low, 0.0):.2f} to {high:.2f})")
    if not loose or law.fit.status is not FitStatus.OK:
        return law
    reason = "95% intervals: " + ", ".join(loose)
    return replace(law, fit=replace(law.fit, status=FitStatus.ILL_DETERMINED, reason=reason))
