"""IsoFLOP analysis (Hoffmann et al. 2022, approach 2): a parabola in ln N at every budget, and the laws of its minima.

At each budget ln L is fitted by a parabola in ln N by least squares, on the runs within NEAR of the budget's best
loss: farther out the curve is no parabola. The minimum gives N*(C) and L*(C); D* follows from the runs' own C(N, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import Array

NEAR = 0.06  # runs more than this above their budget's best loss stay out of its parabola
SAME_BUDGET = 0.05  # relative spread of compute within one budget
MIN_SIZES = 3
MIN_RESIDUALS = 4  # residuals that are free to differ from zero, over all budgets


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """One budget."""

    budget: float  # geometric mean of its runs' compute, FLOPs
    run_ids: list[str]  # that were fitted
    far: list[str]  # that the NEAR rule left out
    coefficients: Array | None  # of ln L as a polynomial in ln N, highest power first
    leverage: Array | None  # hat values of the fitted runs
    residuals: Array | None  # in ln L
    n_star: float = float("nan")
    loss_star: float = float("nan")
    inside: bool = False  # the minimum lies within the fitted sizes
    reason: str = ""  # why there is no minimum

    @property
    def ok(self) -> bool:
        """Whether there is a minimum to use."""
        return self.coefficients is not None and self.inside


def by_budget(table: pd.DataFrame, compute: str) -> list[pd.DataFrame]:
    """Runs grouped by budget, cheapest first: by the recipe's budget, or by compute where there is none."""
    if table.budget_flops.notna().all():
        return [group for _, group in table.groupby("budget_flops", sort=True)]
    ordered = table.sort_values(compute)
    steps = np.log(ordered[compute]).diff().fillna(0.0) > np.log1p(SAME_BUDGET)
    return [group for _, group in ordered.groupby(steps.cumsum().to_numpy())]


def parabola(group: pd.DataFrame, size: str, compute: str) -> Parabola:
    """Fit one budget's parabola over the column ``size`` (params_nonembedding or params_total)."""
    budget = float(np.exp(np.log(group[compute]).mean()))
    mean_loss = group.groupby("size").loss.transform("mean")
    near = group[mean_loss <= mean_loss.min() * (1 + NEAR)].sort_values([size, "run_id"])
    ids, far = list(near.run_id), sorted(set(group.run_id) - set(near.run_id))
    x, y = np.log(near[size].to_numpy(float)), np.log(near.loss.to_numpy(float))
    return _fit(budget, ids, far, x, y)


def _fit(budget: float, ids: list[str], far: list[str], x: Array, y: Array) -> Parabola:
    def without(reason: str) -> Parabola:
        return Parabola(
            budget=budget, run_ids=ids, far=far, coefficients=None, leverage=None, residuals=None, reason=reason
        )

    sizes = len(np.unique(x))
    if sizes < MIN_SIZES:
        return without(f"{sizes} sizes near the best loss, {MIN_SIZES} are needed")
    centre = x.mean()
    design = np.stack([(x - centre) ** 2, x - centre, np.ones_like(x)], 1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    if solution[0] <= 0:
        return without("the parabola opens downwards: no minimum")
    at = -solution[1] / (2 * solution[0])
    inside = bool(x.min() <= at + centre <= x.max())
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    a, b, c = solution
    return Parabola(
        budget=budget,
        run_ids=ids,
        far=far,
        coefficients=np.array([a, b - 2 * a * centre, c - b * centre + a * centre**2]),
        leverage=leverage,
        residuals=y - design @ solution,
        n_star=float(np.exp(at + centre)) if inside else float("nan"),
        loss_star=float(np.exp(solution[2] - solution[1] ** 2 / (4 * solution[0]))),
        inside=inside,
        reason="" if inside else "the minimum lies outside the sizes that were run",
    )


def tokens_at(parabola: Parabola, table: pd.DataFrame, size: str) -> float:
    """D at a budget's minimum: the line of ln D over ln N through the budget's own runs, read off at N*."""
    group = table[table.run_id.isin(parabola.run_ids)]
    line = np.polyfit(np.log(group[size].astype(float)), np.log(group.tokens.astype(float)), 1)
    return float(np.exp(np.polyval(line, np.log(parabola.n_star))))


@dataclass(frozen=True, kw_only=True)
class Minima:
    """The minima of all budgets and the power laws through them, with bootstrap draws of both."""

    size: str
    compute: str
    parabolas: list[Parabola]
    exponent: float = float("nan")  # a of N* = k C^a
    coefficient: float = float("nan")  # k
    draws: Array | None = None  # (draws, 2 + budgets): a, ln k, ln L* of each used budget
    asked: int = 0  # draws asked for; those without a minimum inside the sizes of every budget are not among ``draws``

    @property
    def used(self) -> list[Parabola]:
        """Budgets with a minimum inside their sizes."""
        return [p for p in self.parabolas if p.ok]

    def n_star(self, compute: float) -> float:
        """Optimal parameters at a compute, by the power law."""
        return float(self.coefficient * compute**self.exponent)


def analyse(table: pd.DataFrame, *, size: str, compute: str, draws: int, seed: int) -> Minima:
    """Parabolas of all budgets, N*(C) = k C^a through their minima, and a bootstrap of it all.

    The bootstrap draws the parabolas' residuals, scaled by their leverage and pooled over budgets (a budget has too
    few runs to resample runs).
    """
    parabolas = [parabola(group, size, compute) for group in by_budget(table, compute)]
    used = [p for p in parabolas if p.ok]
    if len(used) < 2:
        return Minima(size=size, compute=compute, parabolas=parabolas)
    log_c = np.log([p.budget for p in used])
    a, ln_k = np.polyfit(log_c, np.log([p.n_star for p in used]), 1)
    pool = np.concatenate([_scaled(p) for p in used])
    if len(pool) < MIN_RESIDUALS:  # parabolas through all their points leave nothing to draw from
        draws = 0
    pool -= pool.mean() if len(pool) else 0.0
    rng = np.random.default_rng(seed)
    found = []
    sizes = table.set_index("run_id")[size].astype(float)
    for _ in range(draws):
        redrawn = []
        for p in used:
            x = np.log(sizes.loc[p.run_ids].to_numpy())
            assert p.coefficients is not None
            y = np.polyval(p.coefficients, x) + rng.choice(pool, len(x))
            redrawn.append(_fit(p.budget, p.run_ids, [], x, y))
        if all(r.ok for r in redrawn):  # a draw without a minimum inside the sizes would not have been used either
            slope, level = np.polyfit(log_c, np.log([r.n_star for r in redrawn]), 1)
            found.append([slope, level, *(np.log(r.loss_star) for r in redrawn)])
    return Minima(
        size=size,
        compute=compute,
        parabolas=parabolas,
        exponent=float(a),
        coefficient=float(np.exp(ln_k)),
        draws=np.array(found) if found else None,
        asked=draws,
    )


def _scaled(p: Parabola) -> Array:
    """Residuals with the variance of the errors: divided by sqrt(1 - leverage). A perfectly fitted point tells
    nothing.
    """
    assert p.residuals is not None and p.leverage is not None
    free = 1 - p.leverage
    kept = free > 0.05
    return p.residuals[kept] / np.sqrt(free[kept])
