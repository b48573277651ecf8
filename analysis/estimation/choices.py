"""One defensible way to fit: law, robust function, weighting, count of parameters and rules; and its fits.

Most choices are fitted to the runs that passed the rules, under the convention asked for. Where the runs know another
count of parameters too, and where rules of judgement took runs out, each law is fitted in these other ways as well:
what a convention or a rule is worth then shows in the spread of a prediction, and its backtests weigh it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import laws
from analysis.estimation import envelope, isoflop, solve, uncertainty
from analysis.estimation.backtest import Predictor
from analysis.estimation.robust import LEAST_SQUARES, Rho
from analysis.estimation.solve import Fit
from analysis.laws import Array, Data, Law
from analysis.runs import rules
from analysis.runs.conventions import OTHER_N
from analysis.runs.ratio import Ratio
from analysis.runs.rules import RULED_OUT

WIDE_HUBER = Rho(delta=1e-2)  # between absolute deviations and least squares
RECENCY = 0.1  # weight of a run grows with this power of its compute, where high-compute runs weigh more
FRONTIERS = ("compute_frontier", "compute_frontier_irreducible", "broken")  # laws of the budgets' minima
BY_BEST = {"kaplan_n": "N", "kaplan_d": "D", "kaplan_c_min": "C_min"}  # laws of what the runs are then best by
REPEATED_RUNS = 5  # runs of more than one epoch from which on the law of repeated data takes part
HELD_WEIGHT = 3.0  # of the law with held exponents before any backtest; the others have one each
LEAST_APART = 0.05  # spread of ln(N_other/N) below which another count is the same law with another coefficient


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to fit."""

    law: Law
    rho: Rho
    recent: bool = False  # high-compute runs weigh more
    frontier: bool = False  # of compute alone: through the minima of the budgets
    count: Ratio | None = None  # of the other count of parameters to N, where the law is one of that count
    lenient: bool = False  # fitted to the runs, too, that rules of judgement took out

    @property
    def name(self) -> str:
        """For people and for fit.json."""
        rho = f"{self.rho.name} {self.rho.delta:g}" if self.rho.name != "least_squares" else "least squares"
        ways = {
            "high-compute runs weigh more": self.recent,
            "the other count of N": self.count is not None,
            "with the runs that rules took out": self.lenient,
        }
        law = "chinchilla with exponents of 0.35" if self.law == laws.HELD else self.law.name
        return ", ".join([law, rho, *(way for way, taken in ways.items() if taken)])

    @property
    def weight(self) -> float:
        """Before any backtest, relative to the others'."""
        return HELD_WEIGHT if self.law == laws.HELD else 1.0

    def columns(self, table: pd.DataFrame | Data) -> Data:
        """What the law reads of runs or points."""
        found = dict(columns(table))
        if self.count is not None:
            ln_n = np.log(found["N"])
            found["N"] = np.exp(ln_n + self.count.ln(ln_n))
            if OTHER_N in table:
                known = np.asarray(table[OTHER_N], float)
                found["N"] = np.where(np.isfinite(known), known, found["N"])
        return found

    def takes(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which runs it is fitted to, (n,)."""
        taken = covered(self.law, table) & (self.lenient | ~ruled_out(table))
        if self.law.name in BY_BEST:
            best = envelope.best_by(table[taken].reset_index(drop=True), BY_BEST[self.law.name])
            taken &= table.run_id.isin(best.run_id).to_numpy(bool)
        return taken


def ruled_out(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which runs did not pass the rules, and stand there for lenient choices alone, (n,)."""
    return table[RULED_OUT].to_numpy(bool) if RULED_OUT in table else np.zeros(len(table), bool)


def choices(table: pd.DataFrame, *, law: str, rho: Rho, frontier: bool, joint: Law = laws.CHINCHILLA) -> list[Choice]:
    """The choices that take part; one alone where a law was asked for.

    Args:
        rho: the robust function asked for; beside it a Huber ten times as wide takes part.
        frontier: whether there are budgets: laws of C alone take part too, for compute-optimal points.
        joint: of N and D: with fixed exponents it stands alone, for the others would not keep them.
    """
    if law != "all":
        frontal = law in FRONTIERS
        form = joint if law == laws.CHINCHILLA.name else laws.LAWS[law]
        one = Choice(law=form, rho=LEAST_SQUARES if frontal else rho, frontier=frontal)  # minima are smoothed already
        return [one] if (frontier or not one.frontier) and set(one.law.needs) <= {"N", "D", "U", "C"} else []
    forms: list[Law] = [joint] if joint is not laws.CHINCHILLA else [laws.CHINCHILLA, laws.OVER_TRAINING]
    if joint is laws.CHINCHILLA and repeats(table):
        forms.append(laws.DATA_CONSTRAINED)
    functions = (rho, WIDE_HUBER) if rho != WIDE_HUBER else (rho,)
    found = [Choice(law=f, rho=function, recent=r) for f in forms for function in functions for r in (False, True)]
    if joint is laws.CHINCHILLA:
        found.append(Choice(law=laws.HELD, rho=WIDE_HUBER))
    if (count := _other_count(table)) is not None:
        found += [Choice(law=f, rho=rho, count=count) for f in forms]
    if ruled_out(table).any():
        found += [Choice(law=f, rho=rho, lenient=True) for f in forms]
    if frontier:
        found += [Choice(law=laws.LAWS[name], rho=LEAST_SQUARES, frontier=True) for name in FRONTIERS[:2]]
    return found


def repeats(table: pd.DataFrame) -> bool:
    """Whether runs enough saw their text more than once for the law of repeated data."""
    return bool((table.D > laws.FRESH * table.U).sum() >= REPEATED_RUNS)


def _other_count(table: pd.DataFrame) -> Ratio | None:
    """The ratio of the count that was not asked for, where the runs know one that makes another law."""
    if OTHER_N not in table or table[OTHER_N].isna().any():
        return None
    ln_n, other = np.log(table.N.to_numpy(float)), np.log(table[OTHER_N].to_numpy(float))
    return Ratio.of(ln_n, other - ln_n) if np.ptp(other - ln_n) > LEAST_APART else None


def columns(table: pd.DataFrame | Data) -> Data:
    """What the laws read of a table of runs or points."""
    return {name: np.asarray(table[name], float) for name in ("N", "D", "C", "U", "C_min", "S_min") if name in table}


def fit_choices(choices: Sequence[Choice], table: pd.DataFrame) -> list[Fit]:
    """Fit choices to a table of runs (run_id, N, D, C, U, loss), those of one law and the same runs at once."""
    return _each(choices, table, solve.fit_each)


def optima(choices: Sequence[Choice], table: pd.DataFrame) -> list[Array | None]:
    """The parameters of the same fits alone, (k,) each, in half the time; None where a choice has no fit.

    A backtest's fits start where any fit does: started from the fit to all runs they would end near it where the runs
    below the cut do not tell, and know what they are asked.
    """
    return _each(choices, table, solve.optima)


T = TypeVar("T")


def _each(
    choices: Sequence[Choice], table: pd.DataFrame, solved: Callable[[Law, Data, Array, solve.Asked], list[T]]
) -> list[T]:
    """What is solved for each choice."""
    found: dict[int, T] = {}
    minima = isoflop.parabolas(table[~ruled_out(table)]) if any(choice.frontier for choice in choices) else []
    for here in _alike(choices):
        first = choices[here[0]]
        if first.frontier:
            data: Data = {"C": np.array([p.budget for p in minima if p.ok])}
            loss = np.array([p.loss_star for p in minima if p.ok])
            asked: list[tuple[Rho, Array | None]] = [(choices[i].rho, None) for i in here]
        else:
            rows = table[first.takes(table)]
            data, loss = first.columns(rows), rows.loss.to_numpy(float)
            asked = [(choices[i].rho, run_weights(choices[i], rows)) for i in here]
        found |= zip(here, solved(first.law, data, loss, asked), strict=True)
    return [found[i] for i in range(len(choices))]


def _alike(choices: Sequence[Choice]) -> list[list[int]]:
    """The places of choices of one law that are fitted to the same runs."""
    found: dict[tuple[str, bool, bool], list[int]] = {}
    for i, choice in enumerate(choices):
        found.setdefault((choice.law.name, choice.count is None, choice.lenient), []).append(i)
    return list(found.values())


def refitted(
    choices: Sequence[Choice], fits: Sequence[Fit], table: pd.DataFrame, counts: Array, ln_loss: Array | None = None
) -> dict[int, Array]:
    """Parameters of choices with each run counted so often, (P, k) by their places; laws of the minima stay out.

    Args:
        fits: of the choices to the table.
        counts: (P, n).
        ln_loss: (P, n) in place of the table's.
    """
    found: dict[int, Array] = {}
    for here in _alike(choices):
        first = choices[here[0]]
        if first.frontier:
            continue
        taken = first.takes(table)
        rows, counted = table[taken], counts[:, taken]
        observed = np.log(rows.loss.to_numpy(float)) if ln_loss is None else ln_loss[:, taken]
        weights = [run_weights(choices[i], rows) for i in here]
        drawn = [counted if of is None else counted * of for of in weights]
        ended = solve.refit_each([fits[i] for i in here], first.columns(rows), observed, drawn)
        found |= zip(here, ended, strict=True)
    return found


def covered(law: Law, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows a law speaks of, (n,): one without repetition does not speak of many epochs."""
    most = rules.WORTHLESS_EPOCHS if "U" in law.needs else rules.MAX_EPOCHS
    if "U" not in table:
        return np.ones(len(table), bool)
    return ~(most * 1.001 * table.U.to_numpy() < table.D.to_numpy()) | rules.exempted(table, "repeated-data")


def run_weights(choice: Choice, table: pd.DataFrame) -> Array | None:
    """Of the runs, (n,), by their standard errors and how recent they are; None where all weigh the same."""
    found = uncertainty.measured(table)
    if choice.recent:
        found = found * (table.C / table.C.max()).to_numpy(float) ** RECENCY
    return None if np.all(found == found[:1]) else found / found.mean()


def predictor(choices: Sequence[Choice], thetas: Sequence[Array | None]) -> Predictor:
    """ln L of every choice at points, (n, choices); nan where a fit failed or a law does not speak of a point."""

    def predict(points: pd.DataFrame) -> Array:
        found = np.full((len(points), len(choices)), np.nan)
        for here in _alike(choices):
            fitted = {j: theta for j in here if (theta := thetas[j]) is not None}
            if fitted:
                found[:, list(fitted)] = choice_ln_loss(choices[here[0]], np.stack([*fitted.values()]), points).T
        return found

    return predict


def choice_ln_loss(choice: Choice, theta: Array, points: pd.DataFrame) -> Array:
    """ln L of one choice under many parameters, (P, n); nan at points that it does not speak of.

    Args:
        points: N, D, C, U, and ``optimal``: whether a point is compute-optimal; without the column none is.
    """
    with np.errstate(all="ignore"):
        values = choice.law.on(choice.columns(points))(theta)[0]
    speaks = covered(choice.law, points)
    if choice.frontier:
        speaks = speaks & optimal(points)
    return np.where(np.isfinite(values) & speaks, values, np.nan)


def optimal(points: pd.DataFrame) -> NDArray[np.bool_]:
    """Which points are compute-optimal ones, (n,)."""
    return points.optimal.to_numpy(bool) if "optimal" in points else np.zeros(len(points), bool)
