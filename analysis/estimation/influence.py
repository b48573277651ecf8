"""What moves the prediction: the ensemble refitted without each run, each size and each budget, its weights kept.

Every choice is refitted from where it stands, all groups at once. Where there are many runs a first-order form of the
same (an influence function) says which ones are worth it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.estimation import backtest, isoflop, optimum, solve, uncertainty
from analysis.estimation.choices import Choice, choice_ln_loss, refitted, run_weights
from analysis.estimation.ensemble import Ensemble
from analysis.estimation.isoflop import Minima
from analysis.estimation.solve import Fit
from analysis.laws import Array

MOST = 60  # groups that are refitted
LEAST_LEFT = 8  # runs that stay
GRID = np.linspace(-1.5, 1.5, 61)  # of ln N around the prediction's, where its lowest loss is looked for


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What changes in the ensemble's prediction at a target when something is left out."""

    left_out: str  # a run's name, "size N" or "budget C"
    kind: str  # run | size | budget
    runs: int
    loss: float  # predicted at the target without it
    loss_change: float  # relative
    n_star: float  # where the ensemble is lowest at the target's compute without it; nan where there is no such size
    n_star_change: float


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
    x = np.log(float(point.N.iloc[0])) + GRID
    n = np.exp(x)
    curve = pd.DataFrame({"N": n, "D": point.C.iloc[0] / (6 * n), "C": point.C.iloc[0]}).assign(U=lambda t: t.D)
    points = pd.concat([point, curve.assign(optimal=False)], ignore_index=True)
    base, *rest = predictions(ensemble, table, points, np.vstack([np.zeros((1, len(table)), bool), left_out]), minima)
    base_n, *sizes = np.exp(optimum.on_grid(x, np.array([base, *rest])[:, 1:])).tolist()
    found = []
    for (name, kind, out), row, without in zip(groups, rest, sizes, strict=True):
        found.append(
            Influence(
                left_out=name,
                kind=kind,
                runs=len(out),
                loss=float(np.exp(row[0])),
                loss_change=float(np.expm1(row[0] - base[0])),
                n_star=without,
                n_star_change=without / base_n - 1,
            )
        )
    return sorted(found, key=lambda f: -abs(np.nan_to_num(f.loss_change)))


def predictions(
    ensemble: Ensemble, table: pd.DataFrame, points: pd.DataFrame, left_out: NDArray[np.bool_], minima: Minima
) -> Array:
    """ln L of the ensemble at points without the runs of each group, (groups, points), the weights of choices kept.

    Args:
        left_out: (groups, runs).
    """
    each = np.full((len(ensemble.choices), len(left_out), len(points)), np.nan)
    kept = np.ones((len(left_out), len(ensemble.runs)))
    kept[:, : len(table)] = ~left_out
    for j, (choice, fit) in enumerate(zip(ensemble.choices, ensemble.fits, strict=True)):
        if choice.frontier:
            theta = _of_minima(fit, table, left_out, minima)
        else:
            theta = refitted(choice, fit, ensemble.runs, kept)
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


def _of_minima(fit: Fit, table: pd.DataFrame, left_out: NDArray[np.bool_], minima: Minima) -> Array:
    """A law of compute through the budgets' minima without the runs of each group, (groups, k)."""
    used = minima.used
    members = [table.run_id.isin([*p.run_ids, *p.far]).to_numpy(bool) for p in used]
    loss = np.tile(np.log([p.loss_star for p in used]), (len(left_out), 1))
    kept = np.ones(loss.shape)
    for i, out in enumerate(left_out):
        for k, member in enumerate(members):
            if (out & member).any():
                again = isoflop.parabola(table[member & ~out]) if (member & ~out).any() else None
                loss[i, k], kept[i, k] = (
                    (np.log(again.loss_star), 1.0) if again is not None and again.ok else (0.0, 0.0)
                )
    theta = solve.refit(fit, {"C": np.array([p.budget for p in used])}, loss, weights=kept)
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
                groups.append((f"size {n:.3g}" if kind == "size" else f"budget {c:.2g}", kind, rows))
    return groups
