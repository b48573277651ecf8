"""Is ladder B better than ladder A, and by how much compute: the multiplier at equal loss along the frontier.

m(C) is such that A needs m C for the loss that B reaches with C: L_A*(m C) = L_B*(C). Where the two ladders share
cells, m is fitted to the differences of ln loss there, so that what no law explains of a cell cancels; elsewhere to
all runs of both at once. See estimation.shift for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis import laws
from analysis.estimation import isoflop, multiplier, uncertainty
from analysis.estimation.design import FARTHER
from analysis.estimation.multiplier import Shifted, of_shift
from analysis.estimation.pairs import LEAST, WORTH, Pairs, pairs
from analysis.estimation.shift import GROW
from analysis.laws import Array, Law
from gpt3core.errors import UsageError

LEAST_RUNS = 4  # of each ladder
MOST_BUDGETS = 8  # that are listed; more are no budgets, but a cloud of runs
SPREAD = 5  # computes that are listed for a cloud
LEVEL = uncertainty.LEVEL
SURE = 0.98  # of the band that must exclude one: stricter than 95%, for the shape was chosen by the same runs
ROUNDING = 1e-9  # of ln m: what rounding leaves between ladders of the same losses
CUT = 0.9  # decades below the largest compute, at which the comparison is backtested
MOST_DECADES = 6.0  # decades outside the computes that both ladders reach, from which on no multiplier is given
SAME = "not told apart"
APART = "no common compute"


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """At one compute."""

    compute: float
    value: float  # m; infinite where A reaches B's loss at no compute
    interval: list[float]  # 95%; ends may be infinite too
    told_apart: bool  # from one, at all budgets run at once
    loss_a: float  # on each frontier, by the law of both
    loss_b: float
    decades: float  # outside the computes that both ladders reach
    carried: float  # decades that the nearer ladder is carried on by, outside its runs, to the loss of the other


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """Both ladders fitted below a cut, and the losses above it predicted."""

    cut: float  # FLOPs
    runs: int  # above it
    difference: float  # root mean square miss of ln L_B - ln L_A at shared cells; nan where there are none
    loss: float  # median absolute miss of ln L
    free: float  # the same without the fixed exponents; nan where none is fixed


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ladders."""

    names: tuple[str, str]
    domain: str  # held-out text; empty where there is one only
    paired: bool
    cells: int  # shared
    runs: tuple[int, int]
    law: str  # equation of the surface
    at: list[Multiplier]  # the budgets that were run
    beyond: list[Multiplier]  # targets
    verdict: str  # of B: better | worse | crosses | not told apart | no common compute
    growth: float  # factor of m a decade of compute, by the line in ln C
    growth_interval: list[float]
    scatter: float  # standard deviation of a run around the comparison, in ln L
    noise: tuple[float, float]  # between seeds of one point in each ladder, in ln L; nan where there are none
    resolved: float  # the smallest multiplier above one that would be told from one at some budget
    shapes: dict[str, float]  # weights
    backtest: Backtest | None
    cellwise: pd.DataFrame  # of each shared cell: N, D, C, difference (ln L_B - ln L_A)
    texts: tuple[str, str] = ("", "")  # what each one's losses were measured on; empty where that is not known
    precisions: tuple[str, str] = ("", "")  # that each one's runs were trained in; empty where that is not known

    @property
    def one_text(self) -> bool:
        """Whether nothing says that the losses are of different held-out texts."""
        return self.texts[0] == self.texts[1] or not all(self.texts)


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    names: tuple[str, str] = ("A", "B"),
    domain: str = "",
    texts: tuple[str, str] = ("", ""),
    paired: bool | None = None,
    targets: tuple[float, ...] = (),
    law: Law = laws.CHINCHILLA,
    backtested: bool = True,
) -> Comparison:
    """Compare two ladders of runs that passed the rules (run_id, size, N, D, C, U, loss; loss_se where it is known).

    Args:
        paired: whether cell by cell; by default where they share enough cells.
        targets: FLOPs; ten times the largest compute by default.
        law: of N and D: chinchilla, or the same with fixed exponents.
        backtested: fit below a decade under the top too.

    Raises:
        UsageError: for too few runs, or shared cells if paired=True, or a target MOST_DECADES outside the data.
    """
    a, b = _weighed(a, b)
    by_cell = _checked(a, b, shared := pairs(a, b), names, paired)
    _within_reach(np.array(targets, float), (a, b))
    found = multiplier.fit(a, b, shared if by_cell else None, law)
    run, beyond = _at(found, _budgets(a, b), (a, b)), targets or (FARTHER * max(a.C.max(), b.C.max()),)
    growth, growth_interval = _growth(found)
    return Comparison(
        names=names,
        domain=domain,
        texts=texts,
        precisions=(_precisions(a), _precisions(b)),
        paired=by_cell,
        cells=len(shared.a),
        runs=(len(a), len(b)),
        law=found.law.law.equation,
        at=run,
        beyond=_at(found, np.array(beyond, float), (a, b)),
        verdict=_verdict(run),
        growth=growth,
        growth_interval=growth_interval,
        scatter=found.estimates[found.best].scatter,
        noise=(uncertainty.noise(a).seed, uncertainty.noise(b).seed),
        resolved=float(np.exp(found.unbent(_reach(found, np.array([m.compute for m in run])))).min()),
        shapes={m.shape: float(w) for m, w in zip(found.models, found.weights, strict=True)},
        backtest=_backtest(a, b, by_cell, law, found) if backtested else None,
        cellwise=shared.a[["N", "D", "C"]].assign(difference=shared.b.ln_loss - shared.a.ln_loss),
    )


def _precisions(table: pd.DataFrame) -> str:
    found = sorted(set(table.precision)) if "precision" in table else ["unknown"]
    return "" if "unknown" in found else " and ".join(found)


def _weighed(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the column WORTH where either has standard errors of its losses: one measure for both."""
    if not any("loss_se" in table for table in (a, b)):
        return a, b
    worth = uncertainty.measured(pd.concat([a, b], ignore_index=True))
    return a.assign(**{WORTH: worth[: len(a)]}), b.assign(**{WORTH: worth[len(a) :]})


def _checked(a: pd.DataFrame, b: pd.DataFrame, shared: Pairs, names: tuple[str, str], paired: bool | None) -> bool:
    """Whether to compare cell by cell, when there are runs enough at all."""
    for name, table in zip(names, (a, b), strict=True):
        if len(table) < LEAST_RUNS:
            raise UsageError(f"{name} has {len(table)} usable runs: {LEAST_RUNS} are needed to compare ladders")
    if paired and len(shared.a) < LEAST:
        raise UsageError(
            f"paired=true: {names[0]} and {names[1]} share {len(shared.a)} cells of equal N and D, {LEAST} are needed"
        )
    return shared.enough if paired is None else paired


def _within_reach(targets: Array, tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Refuse targets that no shape of the multiplier can be believed at."""
    low, high = _both_reach(tables)
    for c, decades in zip(targets, _outside(targets, tables), strict=True):
        if decades > MOST_DECADES:
            raise UsageError(
                f"target_compute={c:.3g}: {decades:.1f} decades {'beyond' if c > high else 'below'} the computes that "
                f"both ladders reach ({low:.3g} to {high:.3g}), and no multiplier is carried on by more than "
                f"{MOST_DECADES:g}: name one from {low / 10**MOST_DECADES:.3g} to {high * 10**MOST_DECADES:.3g}"
            )


def _both_reach(tables: tuple[pd.DataFrame, pd.DataFrame]) -> tuple[float, float]:
    """The lowest and the highest compute that both ladders reach; the other way round where they share none."""
    return max(float(t.C.min()) for t in tables), min(float(t.C.max()) for t in tables)


def _outside(compute: Array, tables: tuple[pd.DataFrame, pd.DataFrame]) -> Array:
    """Decades outside of these, (n,)."""
    return _beyond(compute, *_both_reach(tables))


def _carried(compute: Array, m: Array, tables: tuple[pd.DataFrame, pd.DataFrame]) -> Array:
    """Decades from its runs to where A reaches the loss of B at each compute, or B that of A; the fewer, (n,)."""
    a, b = ((float(t.C.min()), float(t.C.max())) for t in tables)
    with np.errstate(divide="ignore"):  # m may be infinite
        return np.minimum(_beyond(compute * m, *a), _beyond(compute / m, *b))


def _beyond(compute: Array, low: float, high: float) -> Array:
    """Decades outside of two computes, (n,)."""
    return np.asarray(np.log10(np.maximum(np.maximum(compute / high, low / compute), 1.0)))


def _some(decades: Array) -> Array:
    """Decades outside of runs, none where these are of the budget: its compute is the mean of theirs."""
    return np.where(decades <= np.log10(1 + isoflop.SAME_BUDGET), 0.0, decades)


def _at(found: Shifted, compute: Array, tables: tuple[pd.DataFrame, pd.DataFrame]) -> list[Multiplier]:
    """Multipliers at computes; ``told_apart`` by a band that holds at all of them at once, where both ladders reach."""
    low, middle, high = found.interval(compute).T
    centre = found.by_shape(compute)[0][found.best]
    apart = np.abs(centre) > np.maximum(_reach(found, compute), ROUNDING)
    loss_a, loss_b = found.frontier(compute)
    outside, carried = _some(_outside(compute, tables)), _some(_carried(compute, np.exp(middle), tables))
    return [
        Multiplier(
            compute=float(c),
            value=float(np.exp(middle[i])),
            interval=np.exp([low[i], high[i]]).tolist(),
            told_apart=bool(apart[i] and not outside[i]),
            loss_a=float(loss_a[i]),
            loss_b=float(loss_b[i]),
            decades=float(outside[i]),
            carried=float(carried[i]),
        )
        for i, c in enumerate(compute)
    ]


def _reach(found: Shifted, compute: Array) -> Array:
    """Half widths of Scheffe's band of the two coefficients, which holds at every compute at once.

    In ln m, or on the scale of the shape that fits best.
    """
    estimate = found.estimates[found.best]
    spread = found.by_shape(compute)[1][found.best]
    return np.asarray(np.sqrt(2 * special.fdtri(2, max(estimate.freedom, 1.0), SURE)) * spread)


def _verdict(run: list[Multiplier]) -> str:
    """By the computes that both ladders reach."""
    if all(m.decades for m in run):
        return APART
    better = any(m.told_apart and m.value > 1 for m in run)
    worse = any(m.told_apart and m.value < 1 for m in run)
    return "crosses" if better and worse else "better" if better else "worse" if worse else SAME


def _growth(found: Shifted) -> tuple[float, list[float]]:
    """The factor by which m grows in a decade, by the line in ln C, and its interval."""
    estimate = found.estimates[[m.shape for m in found.models].index("line")]
    p, covariance = of_shift(estimate)
    half = float(special.stdtrit(estimate.freedom, (1 + LEVEL) / 2) * np.sqrt(covariance[GROW, GROW]))
    return float(np.exp(p[GROW])), np.exp([p[GROW] - half, p[GROW] + half]).tolist()


def _budgets(a: pd.DataFrame, b: pd.DataFrame) -> Array:
    """The computes to compare at: budgets of either ladder, or some through the range that both share."""
    groups = [group for table in (a, b) for group in isoflop.by_budget(table)]
    every = np.sort([float(np.exp(np.log(group.C).mean())) for group in groups])
    if len(every):
        apart = np.diff(np.log(every), prepend=-np.inf) > np.log1p(isoflop.SAME_BUDGET)
        every = every[apart]
    if 0 < len(every) <= MOST_BUDGETS:
        return np.asarray(every)
    low, high = max(a.C.min(), b.C.min()), min(a.C.max(), b.C.max())
    if low >= high:  # no common compute
        low, high = min(a.C.min(), b.C.min()), max(a.C.max(), b.C.max())
    return np.geomspace(low, high, SPREAD)


def _backtest(a: pd.DataFrame, b: pd.DataFrame, by_cell: bool, law: Law, whole: Shifted) -> Backtest | None:
    """Fitted to the runs below a cut of the compute, asked about those above; None where either side has too few."""
    cut = max(a.C.max(), b.C.max()) / 10**CUT
    below, above = [t[cut > t.C] for t in (a, b)], [t[cut <= t.C] for t in (a, b)]
    if min(map(len, below)) < LEAST_RUNS or not min(map(len, above)):
        return None
    shared = pairs(*below)
    if by_cell and len(shared.a) < LEAST:
        return None
    found = _fit_below(below, shared if by_cell else None, law, whole)
    if found is None:
        return None
    missed = np.concatenate([_misses(found, t, shifted) for t, shifted in zip(above, (False, True), strict=True)])
    free = None if law is laws.CHINCHILLA else _fit_below(below, shared if by_cell else None, laws.CHINCHILLA, whole)
    at = pairs(*above)
    differences = _difference_misses(found, at) if len(at.a) else np.array([np.nan])
    unfixed = [] if free is None else [_misses(free, t, s) for t, s in zip(above, (False, True), strict=True)]
    return Backtest(
        cut=float(cut),
        runs=sum(map(len, above)),
        difference=float(np.sqrt((differences**2).mean())),
        loss=float(np.median(np.abs(missed))),
        free=float(np.median(np.abs(np.concatenate(unfixed)))) if unfixed else float("nan"),
    )


def _fit_below(below: list[pd.DataFrame], shared: Pairs | None, law: Law, whole: Shifted) -> Shifted | None:
    try:
        return multiplier.fit(below[0], below[1], shared, law, whole)
    except UsageError:  # too few runs below the cut
        return None


def _misses(found: Shifted, table: pd.DataFrame, shifted: bool) -> Array:
    """Measured - predicted ln L of runs by the law."""
    return np.asarray(np.log(table.loss.to_numpy(float)) - found.predict(table, shifted=shifted))


def _difference_misses(found: Shifted, cells: Pairs) -> Array:
    measured = (cells.b.ln_loss - cells.a.ln_loss).to_numpy(float)
    return np.asarray(measured - found.predict(cells.b, shifted=True) + found.predict(cells.a, shifted=False))
