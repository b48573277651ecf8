"""IsoFLOP analysis (Hoffmann et al. 2022, approach 2): a parabola in ln N at every budget, and the laws of its minima.

At each budget ln L is fitted by a parabola in ln N by least squares, on the runs within NEAR of the budget's best
loss: farther out the curve is no parabola. The minimum gives N*(C) and L*(C); D* follows from the runs' own C(N, D).
Beside it stand a cubic, and the minimum that the parametric law implies: a parabola through a curve that is not one
is biased when the sizes lie off centre or alpha differs from beta (arXiv 2603.22339), and ``bias`` says by how much.
What is carried on to other computes comes from all budgets at once: estimation.family.

Tables are the frames of conventions.points: run_id, size, N, D, C, loss, budget_flops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.estimation import family
from analysis.estimation.family import LEAST_BUDGETS, Family
from analysis.estimation.optimum import lowest
from analysis.estimation.solve import Fit
from analysis.laws import Array
from analysis.runs import rules

NEAR = 0.06  # runs more than this above their budget's best loss stay out of its parabola
SAME_BUDGET = 0.05  # relative spread of compute within one budget
MIN_SIZES = 3
CUBIC_SIZES = 5  # a cubic through four sizes has nothing left to be judged by
IN_BUDGETS = 0.5  # of the runs lie in groups of equal compute, or these are accidents
MOST_DOUBT = 0.5  # standard error of ln N* at a budget beyond which its minimum is not known


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """One budget."""

    budget: float  # geometric mean of its runs' compute, FLOPs
    run_ids: list[str]  # that were fitted
    far: list[str]  # that the NEAR rule left out
    ln_n: Array  # of the fitted runs, in the order of run_ids
    ln_d: Array
    ln_loss: Array
    coefficients: Array | None = None  # of ln L as a polynomial in ln N, highest power first
    leverage: Array | None = None  # hat values of the fitted runs
    residuals: Array | None = None  # in ln L
    n_star: float = float("nan")
    loss_star: float = float("nan")
    d_star: float = float("nan")  # tokens at the minimum, by the budget's own D(N)
    u_star: float = float("nan")  # unique tokens there, by the budget's own U(N)
    inside: bool = False  # the minimum lies within the fitted sizes
    reason: str = ""  # why there is no minimum
    n_cubic: float = float("nan")  # the cubic's minimum, where there are sizes enough and it has one inside

    @property
    def ok(self) -> bool:
        """Whether there is a minimum to use: one of fresh text, which laws of C alone speak of."""
        return (
            self.coefficients is not None and self.inside and not self.d_star > rules.MAX_EPOCHS * 1.001 * self.u_star
        )


def by_budget(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Runs grouped by budget, cheapest first: by the recipe's budget, or by compute where there is none.

    Groups without MIN_SIZES sizes are no budgets, nor are the accidents of a table most of whose runs lie in none: then
    there is no approach 2. Of the runs of one size in a budget the freshest count.
    """
    if "budget_flops" in table and table.budget_flops.notna().mean() >= IN_BUDGETS:  # the others are of none
        return [_freshest(group) for _, group in table.groupby("budget_flops", sort=True)]
    groups = equal_compute(table)
    return [_freshest(group) for group in groups] if sum(map(len, groups)) >= IN_BUDGETS * len(table) else []


def equal_compute(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups of MIN_SIZES sizes or more at the same compute, cheapest first, meant as budgets or not."""
    ordered = table.sort_values("C")
    n, c = ordered.N.to_numpy(float), ordered.C.to_numpy(float)
    breaks = np.flatnonzero(np.diff(np.log(c)) > np.log1p(SAME_BUDGET)) + 1
    ends = zip([0, *breaks], [*breaks, len(ordered)], strict=True)
    return [ordered.iloc[i:j] for i, j in ends if len(np.unique(n[i:j])) >= MIN_SIZES and _same_compute(c[i:j])]


def _freshest(group: pd.DataFrame) -> pd.DataFrame:
    """Of the runs of one size those with the most unique tokens."""
    if "U" not in group:
        return group
    _, size = np.unique(group.N.to_numpy(float), return_inverse=True)
    unique = group.U.to_numpy(float)
    most = np.zeros(len(group))
    np.fmax.at(most, size, unique)  # one that does not say it does not count
    return group[unique >= most[size] / (1 + SAME_BUDGET)]


def _same_compute(rising: Array) -> bool:
    """Chains of neighbours in a dense table are no budget."""
    return bool(rising[-1] <= rising[0] * (1 + SAME_BUDGET) ** 2)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one budget, by column."""

    run_id: NDArray[np.str_]
    n: Array
    d: Array
    u: Array | None  # unique tokens
    compute: Array
    loss: Array
    exempt: NDArray[np.bool_]  # from the NEAR rule

    @classmethod
    def of(cls, table: pd.DataFrame) -> Runs:
        """Those of a table."""
        n, d, compute, loss = (table[name].to_numpy(float) for name in ("N", "D", "C", "loss"))
        return cls(
            run_id=table.run_id.to_numpy(str),
            n=n,
            d=d,
            u=table.U.to_numpy(float) if "U" in table else None,
            compute=compute,
            loss=loss,
            exempt=rules.exempted(table, "near"),
        )

    def take(self, rows: NDArray[Any]) -> Runs:
        """Some of them, by a mask or by their places."""
        return Runs(
            run_id=self.run_id[rows],
            n=self.n[rows],
            d=self.d[rows],
            u=None if self.u is None else self.u[rows],
            compute=self.compute[rows],
            loss=self.loss[rows],
            exempt=self.exempt[rows],
        )


def parabola(runs: Runs) -> Parabola:
    """Fit one budget's parabola over N."""
    budget = float(np.exp(np.log(runs.compute).mean()))
    _, size, count = np.unique(runs.n, return_inverse=True, return_counts=True)
    mean_loss = (np.bincount(size, runs.loss) / count)[size]
    is_near = (mean_loss <= mean_loss.min(initial=np.inf) * (1 + NEAR)) | runs.exempt
    order = np.lexsort((runs.run_id, runs.n))
    near = runs.take(order[is_near[order]])
    far = sorted(runs.run_id[~is_near].tolist())
    x, y = np.log(near.n), np.log(near.loss)
    found = _fitted(
        Parabola(budget=budget, run_ids=near.run_id.tolist(), far=far, ln_n=x, ln_d=np.log(near.d), ln_loss=y)
    )
    if not found.ok:
        return found
    at = np.log(found.n_star)
    tokens = float(np.exp(np.polyval(np.polyfit(x, found.ln_d, 1), at)))
    unique = tokens if near.u is None else float(np.exp(np.interp(at, x, np.log(near.u))))
    found = replace(found, d_star=tokens, u_star=min(unique, tokens))
    if found.ok:
        return found
    return replace(found, reason=f"the text was seen {tokens / unique:.1f} times there: laws of C are of fresh text")


def parabolas(table: pd.DataFrame) -> list[Parabola]:
    """One for each budget of the runs, cheapest first."""
    return [parabola(Runs.of(group)) for group in by_budget(table)]


def _fitted(points: Parabola) -> Parabola:
    """The curve through the runs of a budget that has none yet, or why there is none."""
    x, y = points.ln_n, points.ln_loss
    sizes = len(np.unique(x))
    if sizes < MIN_SIZES:
        return replace(points, reason=f"sizes near the best loss: {sizes}, {MIN_SIZES} are needed")
    centre = x.mean()
    design = np.stack([(x - centre) ** 2, x - centre, np.ones_like(x)], 1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    if solution[0] <= 0:
        return replace(points, reason="the parabola opens downwards: no minimum")
    at = -solution[1] / (2 * solution[0])
    inside = bool(x.min() <= at + centre <= x.max())
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    a, b, c = solution
    return replace(
        points,
        coefficients=np.array([a, b - 2 * a * centre, c - b * centre + a * centre**2]),
        leverage=leverage,
        residuals=y - design @ solution,
        n_star=float(np.exp(at + centre)) if inside else float("nan"),
        loss_star=float(np.exp(solution[2] - solution[1] ** 2 / (4 * solution[0]))),
        inside=inside,
        reason="" if inside else f"the minimum lies {'above' if at > 0 else 'below'} the sizes fitted",
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


@dataclass(frozen=True, kw_only=True)
class Implied:
    """What a parametric law L(N, D) says of one budget."""

    n_star: float  # the law's own minimum along the budget
    bias: float  # ln of (parabola through the law's noise-free losses at the runs' sizes / the law's minimum)


def implied(parabola: Parabola, law: Fit) -> Implied | None:
    """The minimum of a fitted L(N, D) along a budget, and how far this budget's parabola would miss it without noise.

    None where there is no law or a single size, or the minimum lies outside four times the sizes that were run.
    """
    x = parabola.ln_n
    if law.theta is None or len(np.unique(x)) < 2:
        return None
    line = np.polyfit(x, parabola.ln_d, 1)  # ln D as a line in ln N

    def along(ln_n: Array) -> Array:
        return np.log(law.predict({"N": np.exp(ln_n), "D": np.exp(np.polyval(line, ln_n))}))

    minimum = lowest(along, x.min() - np.log(4), x.max() + np.log(4))
    if minimum is None:
        return None
    through = _fitted(
        Parabola(budget=parabola.budget, run_ids=parabola.run_ids, far=[], ln_n=x, ln_d=parabola.ln_d, ln_loss=along(x))
    )
    bias = float(np.log(through.n_star) - minimum) if through.ok else float("nan")
    return Implied(n_star=float(np.exp(minimum)), bias=bias)


@dataclass(frozen=True, kw_only=True)
class Minima:
    """The minima of all budgets, the family through them and its power law, with draws of what it leaves open."""

    parabolas: list[Parabola]
    family: Family | None = None  # of the budgets used
    exponent: float = float("nan")  # a of N* = k C^a
    coefficient: float = float("nan")  # k
    draws: Array | None = None  # (draws, 2 + budgets): a, ln k, ln L* of each used budget
    held_out: pd.DataFrame = field(default_factory=pd.DataFrame)  # N* of higher budgets by lower ones: family.held_out

    @property
    def used(self) -> list[Parabola]:
        """Budgets with a minimum inside their sizes."""
        return [p for p in self.parabolas if p.ok]

    @property
    def unsure(self) -> list[Parabola]:
        """Used budgets whose minimum is known to no better than MOST_DOUBT."""
        if self.family is None:
            return []
        doubt = np.sqrt(np.diag(self.family.of_centre))
        return [p for p, by in zip(self.used, doubt, strict=True) if by > MOST_DOUBT]

    @property
    def trusted(self) -> bool:
        """Whether N*(C) is to be read off these minima: three budgets or more, most of whose minima are known."""
        return len(self.used) >= LEAST_BUDGETS and 2 * len(self.unsure) < len(self.used)


def analyse(
    table: pd.DataFrame,
    *,
    draws: int,
    seed: int,
    a: float | None = None,
    budgets: Sequence[Sequence[str]] | None = None,
) -> Minima:
    """Parabolas of all budgets, the family of curves through them, and N*(C) = k C^a through its minima.

    Args:
        a: the exponent where it is fixed: then only k is fitted.
        budgets: the run_ids of each, where they are known otherwise than by ``table``.
    """
    every = (
        parabolas(table) if budgets is None else [parabola(Runs.of(table[table.run_id.isin(ids)])) for ids in budgets]
    )
    used = [p for p in every if p.ok]
    if len(used) < 2:
        return Minima(parabolas=every)
    whole = replace(through(used), fixed=a)
    below = [replace(through(used[:k]), fixed=a) for k in range(LEAST_BUDGETS, len(used))]
    tests = family.held_out(whole, below)
    whole = replace(whole, inflation=family.inflation(tests))
    levels, centres = whole.draws(draws, np.random.default_rng(seed))
    slope, ln_k = whole.line(whole.centre[None])[0]
    return Minima(
        parabolas=every,
        family=whole,
        exponent=float(slope),
        coefficient=float(np.exp(ln_k)),
        draws=np.column_stack([whole.line(centres), levels]) if draws else None,
        held_out=tests,
    )


def through(used: Sequence[Parabola]) -> Family:
    """The family of curves through budgets that each have a minimum."""
    return family.fit(
        np.repeat(np.arange(len(used)), [len(p.run_ids) for p in used]),
        np.concatenate([p.ln_n for p in used]),
        np.concatenate([p.ln_loss for p in used]),
        np.log([p.budget for p in used]),
        np.stack([np.array([np.log(p.loss_star), np.log(p.n_star), _bend(p)]) for p in used], 1),
    )


def _bend(p: Parabola) -> float:
    assert p.coefficients is not None
    return float(p.coefficients[0])


def noise(parabolas: list[Parabola]) -> float:
    """Standard deviation of a run around its budget's parabola, in ln L; zero where nothing is left to tell it."""
    used = [p for p in parabolas if p.ok and p.residuals is not None]
    freedom = sum(max(0, len(p.run_ids) - 3) for p in used)
    squares = sum(float((p.residuals**2).sum()) for p in used if p.residuals is not None)
    return float(np.sqrt(squares / freedom)) if freedom else 0.0
