"""Which of Hoffmann et al.'s three approaches to trust for N* ~ C^a: the one that foresaw the highest budgets best.

Each is fitted to the budgets below a cut and asked for the size that is best at the budgets above it, which their own
minima tell. Without budgets enough for that, the first approach that the runs determine is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import solve, training_curves
from analysis.estimation.choices import Choice, columns, covered, run_weights
from analysis.estimation.envelope import Envelope, envelope
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.isoflop import Minima
from analysis.estimation.solve import FitStatus
from analysis.estimation.training_curves import CurveEnvelope
from analysis.laws import Array
from analysis.runs.curves import TrainingCurves

CURVES, ENVELOPE = "1, training curves", "1, envelope"
PARABOLAS, PARAMETRIC = "2, IsoFLOP parabolas", "3, parametric"
BY = {  # what each reads the best sizes off
    CURVES: "the lowest training curve at each compute (Chinchilla's approach 1)",
    ENVELOPE: "the best run at each compute (final results alone, Chinchilla's approach 1)",
    PARABOLAS: "the lowest loss at each budget (IsoFLOP parabolas, Chinchilla's approach 2)",
    PARAMETRIC: "the fit of L(N,D) to all runs (Chinchilla's approach 3)",
}
LEAST_BELOW = 2  # budgets that a power law of N* is drawn through
LEAST_TESTS = 2  # budgets foreseen
SAME = 1.1  # runs up to this factor above a budget are of it or below it


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The approach to use, and why."""

    approach: str = ""  # empty where none is determined
    a: float = float("nan")
    reason: str = ""
    misses: dict[str, float] = field(default_factory=dict)  # mean |ln N*| of the budgets foreseen, by approach


def advise(
    table: pd.DataFrame,
    minima: Minima,
    found: Envelope,
    joint: FittedLaw | None,
    curves: TrainingCurves | None = None,
    lowest: CurveEnvelope | None = None,
) -> Advice:
    """Say which exponent to use.

    Args:
        table: runs: run_id, N, D, C, loss.
        minima, found, joint: what the approaches found in them.
        curves, lowest: of the runs, and what approach 1 found in them, where they are of a store.
    """
    exponents = {
        PARABOLAS: minima.exponent,
        PARAMETRIC: float("nan") if joint is None else joint.a_and_b[0],
        CURVES: float("nan") if lowest is None else lowest.a,
        ENVELOPE: found.a,
    }
    exponents = {name: a for name, a in exponents.items() if np.isfinite(a)}
    tests = _tests(table, minima, joint, curves)
    misses = {n: float(np.mean(m)) for n, m in tests.items() if n in exponents and len(m) and np.isfinite(m).all()}
    if misses and min(len(tests[name]) for name in misses) >= LEAST_TESTS:
        best = min(misses, key=lambda name: misses[name])
        count = len(tests[best])
        others = ", ".join(f"{n} by {np.expm1(m):.0%}" for n, m in sorted(misses.items()) if n != best)
        missed = f"N* of {count} budgets foreseen from lower ones it missed by {np.expm1(misses[best]):.0%} in the mean"
        reason = f"{missed}{f' ({others})' if others else ''}"
        return Advice(approach=best, a=exponents[best], reason=reason, misses=misses)
    untested = f"fewer than {LEAST_TESTS} budgets can be foreseen from lower ones, so that none is tested"
    if minima.trusted:
        return Advice(approach=PARABOLAS, a=minima.exponent, reason=f"{untested}; its minima stand when redrawn")
    if PARAMETRIC in exponents and joint is not None and joint.fit.status is FitStatus.OK:
        return Advice(approach=PARAMETRIC, a=exponents[PARAMETRIC], reason=f"{untested}; its parameters are determined")
    return Advice(reason=f"{untested}, and the runs determine neither the minima nor the parameters")


def _tests(
    table: pd.DataFrame, minima: Minima, joint: FittedLaw | None, curves: TrainingCurves | None
) -> dict[str, Array]:
    """|ln N* foreseen - ln N* measured| of every budget above every cut, by approach."""
    used = sorted(minima.used, key=lambda p: p.budget)
    cuts = range(LEAST_BELOW, len(used))
    ln_c, ln_n = np.log([p.budget for p in used]), np.log([p.n_star for p in used])
    below = [np.asarray(table.C.to_numpy(float) <= used[k - 1].budget * SAME, float) for k in cuts]
    laws_below = _refitted(table, below, joint)
    missed: dict[str, list[float]] = {CURVES: [], ENVELOPE: [], PARABOLAS: [], PARAMETRIC: []}
    for cut, rows, theta in zip(cuts, below, laws_below, strict=True):
        next_c, truth = ln_c[cut], ln_n[cut]  # the next budget above: farther ones are tested by the cuts to come
        missed[PARABOLAS].append(float(np.polyval(np.polyfit(ln_c[:cut], ln_n[:cut], 1), next_c) - truth))
        along = envelope(table[rows > 0])
        missed[ENVELOPE].append(float(np.log(along.k) + along.a * next_c - truth))
        if curves is not None:
            lower = training_curves.below(curves, used[cut - 1].budget * SAME)
            missed[CURVES].append(float(np.log(training_curves.foreseen(lower, float(np.exp(next_c)))) - truth))
        if theta is not None and joint is not None:
            with np.errstate(all="ignore"):
                n, _ = laws.allocation(joint.fit.law.describe(theta), np.exp(np.array(next_c)))
            missed[PARAMETRIC].append(float(np.log(n) - truth) if n > 0 else float("nan"))
    return {name: np.abs(np.array(values)) for name, values in missed.items()}


def _refitted(table: pd.DataFrame, below: Sequence[Array], joint: FittedLaw | None) -> list[Array | None]:
    """L(N, D) fitted to the runs below each cut; None where there is no such law."""
    if joint is None or joint.fit.theta is None or not below:
        return [None] * len(below)
    speaks = covered(joint.fit.law, table)
    weights = run_weights(Choice(law=joint.fit.law, rho=joint.fit.rho), table)
    counts = np.array(below) * speaks * (1.0 if weights is None else weights)
    theta = solve.refit(joint.fit, columns(table), np.log(table.loss.to_numpy(float)), weights=counts)
    enough = [rows.sum() > joint.fit.law.dimension for rows in counts > 0]
    return [row if ok else None for row, ok in zip(theta, enough, strict=True)]
