"""IsoFLOP analysis (Hoffmann et al. 2022, approach 2): a parabola in ln N at every budget, and the laws of its minima.

At each budget ln L is fitted by a parabola in ln N by least squares, on the runs within NEAR of the budget's best
loss: farther out the curve is no parabola. The minimum gives N*(C) and L*(C); D* follows from the runs' own C(N, D).
Beside it stand a cubic, and the minimum that the parametric law implies: a parabola through a curve that is not one
is biased when the sizes lie off centre or alpha differs from beta (arXiv 2603.22339), and ``bias`` says by how much.

Tables are the frames of conventions.points: run_id, size, N, D, C, loss, budget_flops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.estimation.optimum import lowest
from analysis.estimation.solve import Fit
from analysis.laws import Array
from analysis.runs import rules

NEAR = 0.06  # runs more than this above their budget's best loss stay out of its parabola
SAME_BUDGET = 0.05  # relative spread of compute within one budget
MIN_SIZES = 3
IN_BUDGETS = 0.5  # of the runs lie in groups of equal compute, or these are accidents
CUBIC_SIZES = 5  # a cubic through four sizes has nothing left to be judged by
TRUSTED = 0.5  # of the bootstrap draws have a minimum inside the sizes at every budget
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
    d_star: float = float("nan")  # tokens at the minimum, by the budget's own D(N)
    inside: bool = False  # the minimum lies within the fitted sizes
    reason: str = ""  # why there is no minimum
    n_cubic: float = float("nan")  # the cubic's minimum, where there are sizes enough and it has one inside

    @property
    def ok(self) -> bool:
        """Whether there is a minimum to use."""
        return self.coefficients is not None and self.inside


def by_budget(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Runs grouped by budget, cheapest first: by the recipe's budget, or by compute where there is none.

    Groups without MIN_SIZES sizes are no budgets, nor are the accidents of a table most of whose runs lie in none: then
    there is no approach 2.
    """
    if "budget_flops" in table and table.budget_flops.notna().all():
        return [group for _, group in table.groupby("budget_flops", sort=True)]
    groups = equal_compute(table)
    return groups if sum(map(len, groups)) >= IN_BUDGETS * len(table) else []


def equal_compute(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups of MIN_SIZES sizes or more at the same compute, cheapest first, meant as budgets or not."""
    ordered = table.sort_values("C")
    steps = np.log(ordered.C).diff().fillna(0.0) > np.log1p(SAME_BUDGET)
    groups = [group for _, group in ordered.groupby(steps.cumsum().to_numpy())]
    return [group for group in groups if group.N.nunique() >= MIN_SIZES and _same_compute(group)]


def _same_compute(group: pd.DataFrame) -> bool:
    """Chains of neighbours in a dense table are no budget."""
    return bool(group.C.max() <= group.C.min() * (1 + SAME_BUDGET) ** 2)


def parabola(group: pd.DataFrame) -> Parabola:
    """Fit one budget's parabola over N."""
    budget = float(np.exp(np.log(group.C).mean()))
    mean_loss = group.groupby("N").loss.transform("mean")
    near = (mean_loss <= mean_loss.min() * (1 + NEAR)) | rules.exempted(group, "near")
    near = group[near].sort_values(["N", "run_id"])
    ids, far = list(near.run_id), sorted(set(group.run_id) - set(near.run_id))
    x, y = np.log(near.N.to_numpy(float)), np.log(near.loss.to_numpy(float))
    found = _fit(budget, ids, far, x, y)
    if not found.ok:
        return found
    return replace(found, d_star=float(np.exp(np.polyval(_tokens_line(near), np.log(found.n_star)))))


def parabolas(table: pd.DataFrame) -> list[Parabola]:
    """One for each budget of the runs, cheapest first."""
    return [parabola(group) for group in by_budget(table)]


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
        n_cubic=_cubic_minimum(x, y) if sizes >= CUBIC_SIZES else float("nan"),
    )


def _cubic_minimum(x: Array, y: Array) -> float:
    """N at the minimum of a cubic inside the sizes; nan where it has none."""
    centre = x.mean()
    cubic = np.polyfit(x - centre, y, 3)
    roots = np.roots(np.polyder(cubic))
    real = roots[np.isreal(roots)].real
    minima = [r for r in real if np.polyval(np.polyder(cubic, 2), r) > 0 and x.min() <= r + centre <= x.max()]
    return float(np.exp(minima[0] + centre)) if minima else float("nan")


def _tokens_line(runs: pd.DataFrame) -> Array:
    """ln D as a line in ln N through a budget's own runs."""
    line: Array = np.polyfit(np.log(runs.N.to_numpy(float)), np.log(runs.D.to_numpy(float)), 1)
    return line


@dataclass(frozen=True, kw_only=True)
class Implied:
    """What a parametric law L(N, D) says of one budget."""

    n_star: float  # the law's own minimum along the budget
    bias: float  # ln of (parabola through the law's noise-free losses at the runs' sizes / the law's minimum)


def implied(parabola: Parabola, table: pd.DataFrame, law: Fit) -> Implied | None:
    """The minimum of a fitted L(N, D) along a budget, and how far this budget's parabola would miss it without noise.

    None where there is no law, or its minimum lies outside four times the sizes that were run.
    """
    if law.theta is None or not parabola.run_ids:
        return None
    group = table[table.run_id.isin(parabola.run_ids)].sort_values(["N", "run_id"])
    line = _tokens_line(group)
    x = np.log(group.N.to_numpy(float))

    def along(ln_n: Array) -> Array:
        return np.log(law.predict({"N": np.exp(ln_n), "D": np.exp(np.polyval(line, ln_n))}))

    minimum = lowest(along, x.min() - np.log(4), x.max() + np.log(4))
    if minimum is None:
        return None
    through = _fit(parabola.budget, parabola.run_ids, [], x, along(x))
    bias = float(np.log(through.n_star) - minimum) if through.ok else float("nan")
    return Implied(n_star=float(np.exp(minimum)), bias=bias)


@dataclass(frozen=True, kw_only=True)
class Minima:
    """The minima of all budgets and the power laws through them, with bootstrap draws of both."""

    parabolas: list[Parabola]
    exponent: float = float("nan")  # a of N* = k C^a
    coefficient: float = float("nan")  # k
    draws: Array | None = None  # (draws, 2 + budgets): a, ln k, ln L* of each used budget
    asked: int = 0  # draws asked for; those without a minimum inside the sizes of every budget are not among ``draws``

    @property
    def used(self) -> list[Parabola]:
        """Budgets with a minimum inside their sizes."""
        return [p for p in self.parabolas if p.ok]

    @property
    def trusted(self) -> bool:
        """Whether N*(C) is to be read off these minima: three budgets or more that keep theirs when redrawn."""
        kept = 0 if self.draws is None else len(self.draws)
        return len(self.used) >= 3 and kept >= TRUSTED * self.asked

    def optimum(self, compute: Array) -> tuple[Array, Array]:
        """N* and D* at each compute, by the power laws through the minima."""
        c, d = np.log([p.budget for p in self.used]), np.log([p.d_star for p in self.used])
        tokens = np.exp(np.polyval(np.polyfit(c, d, 1), np.log(compute)))
        return np.asarray(self.coefficient * compute**self.exponent), np.asarray(tokens)


def analyse(table: pd.DataFrame, *, draws: int, seed: int, a: float | None = None) -> Minima:
    """Parabolas of all budgets, N*(C) = k C^a through their minima, and a bootstrap of it all.

    The bootstrap draws the parabolas' residuals, scaled by their leverage and pooled over budgets (a budget has too
    few runs to resample runs).

    Args:
        a: the exponent where it is fixed: then only k is fitted.
    """
    every = parabolas(table)
    used = [p for p in every if p.ok]
    if len(used) < 2:
        return Minima(parabolas=every)
    log_c = np.log([p.budget for p in used])
    exponent, ln_k = _power(log_c, np.log([p.n_star for p in used]), a)
    pool = np.concatenate([_scaled(p) for p in used])
    if len(pool) < MIN_RESIDUALS:  # parabolas through all their points leave nothing to draw from
        draws = 0
    pool -= pool.mean() if len(pool) else 0.0
    rng = np.random.default_rng(seed)
    sizes = table.set_index("run_id").N.astype(float)
    redrawn = [_redrawn(p, np.log(sizes.loc[p.run_ids].to_numpy()), pool, draws, rng) for p in used]
    n_star, loss_star = (np.stack([r[i] for r in redrawn], 1) for i in (0, 1))  # (draws, budgets), logarithms
    whole = np.isfinite(n_star).all(1)  # a draw without a minimum inside the sizes would not have been used either
    found = None
    if whole.any():
        slope, level = _power(log_c, n_star[whole].T, a)
        found = np.column_stack([slope, level, loss_star[whole]])
    return Minima(
        parabolas=every,
        exponent=float(exponent),
        coefficient=float(np.exp(ln_k)),
        draws=found,
        asked=draws,
    )


def _power(log_c: Array, log_n: Array, a: float | None) -> Array:
    """Slope and level of ln N* in ln C, each a number or (draws,) for log_n (budgets, draws)."""
    if a is None:
        return np.asarray(np.polyfit(log_c, log_n, 1))
    level = (log_n.T - a * log_c).T.mean(0)
    return np.stack([np.full_like(level, a), level])


def _redrawn(p: Parabola, x: Array, pool: Array, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """ln N* and ln L* of a budget's parabola with residuals drawn anew, (draws,) each; nan without a minimum inside."""
    assert p.coefficients is not None
    if not draws:
        return np.empty(0), np.empty(0)
    centre = x.mean()
    design = np.stack([(x - centre) ** 2, x - centre, np.ones_like(x)], 1)
    y = np.polyval(p.coefficients, x) + rng.choice(pool, (draws, len(x)))
    a, b, c = np.linalg.pinv(design) @ y.T
    with np.errstate(all="ignore"):
        at = -b / (2 * a)
        inside = (a > 0) & (x.min() <= at + centre) & (at + centre <= x.max())
        return np.where(inside, at + centre, np.nan), np.where(inside, c - b**2 / (4 * a), np.nan)


def noise(parabolas: list[Parabola]) -> float:
    """Standard deviation of a run around its budget's parabola, in ln L; zero where nothing is left to tell it."""
    used = [p for p in parabolas if p.ok and p.residuals is not None]
    freedom = sum(max(0, len(p.run_ids) - 3) for p in used)
    squares = sum(float((p.residuals**2).sum()) for p in used if p.residuals is not None)
    return float(np.sqrt(squares / freedom)) if freedom else 0.0


def _scaled(p: Parabola) -> Array:
    """Residuals with the variance of the errors: divided by sqrt(1 - leverage), where a point has any left to tell."""
    assert p.residuals is not None and p.leverage is not None
    free = 1 - p.leverage
    kept = free > 0.05
    return p.residuals[kept] / np.sqrt(free[kept])
