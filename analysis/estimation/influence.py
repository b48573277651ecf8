"""What moves the prediction: the ensemble refitted without each run, each size and each budget, its weights kept.

Every choice is refitted from where it stands, all groups at once. Where there are many runs a first-order form of the
same (an influence function) says which ones are worth it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.estimation import backtest, isoflop, optimum, solve, uncertainty
from analysis.estimation.choices import Choice, choice_ln_loss, refitted, run_weights
from analysis.estimation.ensemble import Ensemble
from analysis.estimation.family import LEAST_BUDGETS
from analysis.estimation.isoflop import Minima, Parabola
from analysis.estimation.solve import Fit
from analysis.laws import Array
from analysis.runs.ratio import per_6nd, tokens
from gpt3core.words import count, flops

MOST = 60  # groups that are refitted
LEAST_LEFT = 8  # runs that stay
Through = list[list[Parabola | None]]  # of each group and used budget; None where a budget has no minimum then
GRID = np.linspace(-1.5, 1.5, 61)  # of ln N around the prediction's, where its lowest loss is looked for


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What changes in the ensemble's prediction at a target when something is left out."""

    left_out: str  # a run's name, "size N" or "budget C"
    kind: str  # run | size | budget
    run_ids: tuple[str, ...]
    loss: float  # predicted at the target without it
    loss_change: float  # relative
    n_star: float  # the best size at the target's compute without it, found as the prediction's is; nan where none is
    n_star_change: float

    @property
    def runs(self) -> int:
        """How many were left out."""
        return len(self.run_ids)


def influences(ensemble: Ensemble, table: pd.DataFrame, point: pd.DataFrame, minima: Minima) -> list[Influence]:
    """Refit without each run, each size and each budget; the largest change of the loss first.

    Args:
        table: the runs that the ensemble was fitted to.
        point: the target, one row: N, D, C, U, optimal.
        minima: of the budgets.
    """
    groups = _groups(table, len(table) - LEAST_LEFT)
    if not groups or not np.isfinite(point.N.iloc[0]):
        return []
    if len(groups) > MOST:
        alone = first_order(ensemble, table, point)
        change = np.array([abs(alone[rows].sum()) for _, _, rows in groups])
        groups = [groups[i] for i in np.sort(np.argsort(-change, kind="stable")[:MOST])]
    left_out = np.zeros((len(groups), len(table)), bool)
    for out, (_, _, rows) in zip(left_out, groups, strict=True):
        out[rows] = True
    compute, x = float(point.C.iloc[0]), np.log(float(point.N.iloc[0])) + GRID
    d = tokens(per_6nd(table), x, compute)
    curve = pd.DataFrame({"N": np.exp(x), "D": d, "C": compute, "U": d})
    points = pd.concat([point, curve.assign(optimal=False)], ignore_index=True)
    left_out = np.vstack([np.zeros((1, len(table)), bool), left_out])
    through = parabolas(table, left_out, minima)
    base, *rest = predictions(ensemble, table, points, left_out, minima, through)
    by_family = minima.trusted and minima.family is not None
    ln_n = _by_family(through, minima, compute) if by_family else optimum.on_grid(x, np.array([base, *rest])[:, 1:])
    base_n, *sizes = np.exp(ln_n).tolist()
    found = []
    for (name, kind, out), row, without in zip(groups, rest, sizes, strict=True):
        found.append(
            Influence(
                left_out=name,
                kind=kind,
                run_ids=tuple(map(str, table.run_id.iloc[out])),
                loss=float(np.exp(row[0])),
                loss_change=float(np.expm1(row[0] - base[0])),
                n_star=without,
                n_star_change=without / base_n - 1,
            )
        )
    return sorted(found, key=lambda f: -abs(np.nan_to_num(f.loss_change)))


def predictions(
    ensemble: Ensemble,
    table: pd.DataFrame,
    points: pd.DataFrame,
    left_out: NDArray[np.bool_],
    minima: Minima,
    through: Through,
) -> Array:
    """ln L of the ensemble at points without the runs of each group, (groups, points), the weights of choices kept.

    Args:
        left_out: (groups, runs).
        through: the ``parabolas`` without them.
    """
    each = np.full((len(ensemble.choices), len(left_out), len(points)), np.nan)
    kept = np.ones((len(left_out), len(ensemble.runs)))
    kept[:, : len(table)] = ~left_out
    thetas = refitted(ensemble.choices, ensemble.fits, ensemble.runs, kept)
    for j, (choice, fit) in enumerate(zip(ensemble.choices, ensemble.fits, strict=True)):
        theta = _of_minima(fit, through, minima) if choice.frontier else thetas[j]
        each[j] = choice_ln_loss(choice, theta, points)
    return np.array([ensemble.weighted(each[:, i].T, points) for i in range(len(left_out))])


def first_order(ensemble: Ensemble, table: pd.DataFrame, point: pd.DataFrame) -> Array:
    """Change of the ensemble's ln L at a point without each run, (n,), by an influence function; those of runs add up.

    Laws of the minima stay out.
    """
    changes = np.full((len(ensemble.choices), len(table)), np.nan)
    for j, (choice, fit) in enumerate(zip(ensemble.choices, ensemble.fits, strict=True)):
        if not choice.frontier:
            changes[j] = _per_run(choice, fit, ensemble.runs, point)[: len(table)]
    return np.nan_to_num(backtest.combine(changes.T, ensemble.weights(point)[0]))


def _per_run(choice: Choice, fit: Fit, table: pd.DataFrame, point: pd.DataFrame) -> Array:
    """Change of one choice's ln L when each run is left out, (n,)."""
    assert fit.theta is not None
    rows = choice.takes(table)
    runs = table[rows]
    weights = run_weights(choice, runs)
    values, gradient = (part[0] for part in choice.law.on(choice.columns(runs))(fit.theta[None]))
    residual = np.log(runs.loss.to_numpy(float)) - values
    curvature = fit.rho.weight(residual) * (1.0 if weights is None else weights)
    hessian = (gradient * curvature) @ gradient.T
    hessian += 1e-9 * np.diag(np.diag(hessian))
    at = choice.law.on(choice.columns(point))(fit.theta[None])[1][0][:, 0]
    moves = np.linalg.pinv(hessian, hermitian=True) @ gradient
    leverage = np.clip(curvature * (gradient * moves).sum(0), 0.0, 0.9)
    found = np.zeros(len(table))
    found[rows] = -(at @ moves) * curvature * residual / (1 - leverage)
    return found


def parabolas(table: pd.DataFrame, left_out: NDArray[np.bool_], minima: Minima) -> Through:
    """The used budgets' parabolas without the runs of each group; None where a budget has no minimum then."""
    members = [table.run_id.isin([*p.run_ids, *p.far]).to_numpy(bool) for p in minima.used]
    runs = [isoflop.Runs.of(table[member]) for member in members]

    def without(p: Parabola, its: isoflop.Runs, out: NDArray[np.bool_]) -> Parabola | None:
        if not out.any():
            return p
        again = None if out.all() else isoflop.parabola(its.take(~out))
        return again if again is not None and again.ok else None

    each = list(zip(minima.used, runs, members, strict=True))
    return [[without(p, its, out[member]) for p, its, member in each] for out in left_out]


def _by_family(through: Through, minima: Minima, compute: float) -> Array:
    """ln N* at a compute by the family of the budgets without the runs of each group, (groups,)."""
    assert minima.family is not None
    found = np.full(len(through), np.nan)
    for i, every in enumerate(through):
        used = [p for p in every if p is not None]
        if len(used) >= LEAST_BUDGETS:
            family = replace(isoflop.through(used), fixed=minima.family.fixed)
            found[i] = family.carried(np.log([compute])).mean[0]
    return found


def _of_minima(fit: Fit, through: Through, minima: Minima) -> Array:
    """A law of compute through the budgets' minima without the runs of each group, (groups, k)."""
    loss = np.array([[0.0 if p is None else np.log(p.loss_star) for p in every] for every in through])
    kept = np.array([[float(p is not None) for p in every] for every in through])
    theta = solve.refit(fit, {"C": np.array([p.budget for p in minima.used])}, loss, weights=kept)
    return np.where((kept.sum(1) > fit.law.dimension)[:, None], theta, np.nan)


def _groups(table: pd.DataFrame, most: int) -> list[tuple[str, str, NDArray[np.int_]]]:
    """(name, kind, rows) of what is left out: every run, and sizes and budgets of 2 to ``most`` runs."""
    groups = [(str(name), "run", np.array([row])) for row, name in enumerate(table.run_id)]
    for kind in ("size", "budget"):
        labels = uncertainty.clusters(table, kind)
        order = np.argsort(labels, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            if 1 < len(rows) <= most:
                n, c = table.N.iloc[rows[0]], np.exp(np.log(table.C.iloc[rows]).mean())
                stated = "budget_flops" in table and table.budget_flops.iloc[rows].notna().all()
                name = f"size {count(n)}" if kind == "size" else f"{'budget' if stated else 'C about'} {flops(c)}"
                groups.append((name, kind, rows))
    return groups
