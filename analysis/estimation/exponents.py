"""The exponents of N*(C) and L*(C) under every convention of N and C that the runs know.

An exponent without its convention says little: Kaplan et al.'s 0.73 and Hoffmann et al.'s 0.50 differ mostly by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis import laws
from analysis.estimation import isoflop
from analysis.estimation.fitted_laws import FittedLaw, Request, fit_once, observe
from analysis.estimation.isoflop import Minima
from analysis.runs import conventions, rules
from analysis.runs.conventions import Convention, Parameters


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """Of one convention; nan where the runs do not give one."""

    convention: Convention
    chosen: bool  # whether the laws are fitted under it
    isoflop: float  # a of N* ~ C^a by approach 2
    parametric: float  # the same by approach 3
    alpha_c: float  # of L*(C)
    used: list[bool]  # which budgets of the chosen convention have a minimum under this one
    best: list[str]  # the runs behind alpha_c where it is no law of these minima


def by_convention(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    chosen: Convention,
    minima: Minima,
    fitted: Mapping[str, FittedLaw],
    request: Request,
) -> list[Exponents]:
    """One entry a convention, all by the same fits: those of the chosen one are the very ones given.

    Budgets are the chosen convention's in all of them: runs of one compute are not of one under another count.

    Args:
        runs: all runs, as they were read.
        table: those that passed the rules, under the chosen convention.
        minima, fitted: of ``table``.
    """
    found = []
    joint: dict[Parameters, FittedLaw] = {}  # L(N, D) does not read C: one for each count of N
    if laws.CHINCHILLA.name in fitted:
        joint[chosen.n] = fitted[laws.CHINCHILLA.name]
    budgets = [[*p.run_ids, *p.far] for p in minima.parabolas]
    for convention in conventions.available(runs):
        if convention == chosen:
            points, here, frontier = table, minima, fitted.get(laws.LOSS_OF_C.name)
        else:
            points = conventions.points(runs, convention)
            points = rules.exempt(points[points.run_id.isin(table.run_id)].reset_index(drop=True), request.rules_off)
            here, frontier = _minima(points, request, budgets), None
        if points.empty:
            continue
        if convention.n not in joint:
            joint[convention.n] = fit_once(request.joint, points, here, request.rho)
        frontier = frontier or fit_once(laws.LOSS_OF_C, points, here, request.rho)
        seen = observe(laws.LOSS_OF_C, points, here, request.rho)
        best = [] if isinstance(seen, str) or seen.runs is None else list(map(str, seen.runs.run_id))
        found.append(
            Exponents(
                convention=convention,
                chosen=convention == chosen,
                isoflop=here.exponent,
                parametric=joint[convention.n].a_and_b[0],
                alpha_c=frontier.fit.params.get("alpha_C", float("nan")),
                used=[p.ok for p in here.parabolas],
                best=best,
            )
        )
    return found


def _minima(points: pd.DataFrame, request: Request, budgets: list[list[str]]) -> Minima:
    return isoflop.analyse(points, draws=0, seed=request.seed, a=request.fixed_a, budgets=budgets)
