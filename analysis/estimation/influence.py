"""What moves the prediction: L(N, D) refitted without each run, each size and each budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import laws
from analysis.estimation import solve, uncertainty
from analysis.estimation.ensemble import columns, covered
from analysis.estimation.solve import Fit


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What changes at a target when something is left out of L(N, D) = E + A/N^alpha + B/D^beta."""

    left_out: str  # a run's name, "size N" or "budget C"
    kind: str  # run | size | budget
    runs: int
    loss: float  # predicted at the target without it
    loss_change: float  # relative
    n_star: float
    n_star_change: float


def influences(fit: Fit, table: pd.DataFrame, compute: float) -> list[Influence]:
    """Refit without each run, each size and each budget, all at once; the largest change of the loss first.

    Empty where the law has no optimum at the target. What leaves no optimum when it is left out has nan for its loss.

    Args:
        fit: of the law chinchilla to ``table``.
        compute: FLOPs of the target.
    """
    if fit.theta is None or fit.law is not laws.CHINCHILLA:
        return []
    base_n, base_loss = _optimum(fit.params, compute)
    if not np.isfinite(base_n):
        return []
    table = table[covered(fit.law, table)].reset_index(drop=True)
    groups = _groups(table, len(table) - fit.law.dimension - 1)
    weights = np.stack([~hit for _, _, hit in groups]).astype(np.float64)
    theta = solve.refit(fit, columns(table), np.log(table.loss.to_numpy(float)), weights=weights)
    found = []
    for (name, kind, hit), row in zip(groups, theta, strict=True):
        n, loss = _optimum(fit.law.describe(row), compute)
        found.append(
            Influence(
                left_out=name,
                kind=kind,
                runs=int(hit.sum()),
                loss=loss,
                loss_change=loss / base_loss - 1,
                n_star=n,
                n_star_change=n / base_n - 1,
            )
        )
    return sorted(found, key=lambda f: -abs(np.nan_to_num(f.loss_change)))


def _groups(table: pd.DataFrame, most: int) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(name, kind, rows) of what is left out: every run, and sizes and budgets of 2 to ``most`` runs."""
    groups = [(str(name), "run", (table.run_id == name).to_numpy(bool)) for name in table.run_id]
    for kind, by in (("size", "size"), ("budget", "budget")):
        labels = uncertainty.clusters(table, by)
        for label in np.unique(labels):
            hit = np.asarray(labels == label)
            first = table[hit].iloc[0]
            name = f"size {first.N:.3g}" if kind == "size" else f"budget {np.exp(np.log(table.C[hit]).mean()):.2g}"
            if 1 < hit.sum() <= most:
                groups.append((name, kind, hit))
    return groups


def _optimum(params: dict[str, float], compute: float) -> tuple[float, float]:
    """N* and the loss there, under 6ND = C; nan where the law has no optimum."""
    with np.errstate(all="ignore"):
        n, d = laws.allocation(params, np.array(compute))
        loss = params["E"] + params["A"] / n ** params["alpha"] + params["B"] / d ** params["beta"]
    return float(n), float(loss)
