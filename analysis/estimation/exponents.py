"""The exponents of N*(C) and L*(C) under every convention of N and C that the runs know.

An exponent without its convention says little: Kaplan et al.'s 0.73 and Hoffmann et al.'s 0.50 differ mostly by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis import laws
from analysis.estimation import isoflop
from analysis.estimation.fitted_laws import FittedLaw, Request, fit_once
from analysis.estimation.isoflop import Minima
from analysis.runs import conventions, rules
from analysis.runs.conventions import Convention


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """Of one convention; nan where the runs do not give one."""

    convention: Convention
    chosen: bool  # whether the laws are fitted under it
    isoflop: float  # a of N* ~ C^a by approach 2
    parametric: float  # the same by approach 3
    alpha_c: float  # of L*(C)


def by_convention(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    chosen: Convention,
    minima: Minima,
    fitted: Mapping[str, FittedLaw],
    request: Request,
) -> list[Exponents]:
    """One entry a convention, all by the same fits: those of the chosen one are the very ones given.

    Args:
        runs: all runs, as they were read.
        table: those that passed the rules, under the chosen convention.
        minima, fitted: of ``table``.
    """
    found = []
    for convention in conventions.available(runs):
        if convention == chosen:
            points, here, known = table, minima, dict(fitted)
        else:
            points = conventions.points(runs, convention)
            points = rules.exempt(points[points.run_id.isin(table.run_id)].reset_index(drop=True), request.rules_off)
            here, known = _minima(points, request), {}
        if points.empty:
            continue
        joint, frontier = (
            known.get(name) or fit_once(law, points, here, request.rho)
            for name, law in ((laws.CHINCHILLA.name, request.joint), (laws.LOSS_OF_C.name, laws.LOSS_OF_C))
        )
        found.append(
            Exponents(
                convention=convention,
                chosen=convention == chosen,
                isoflop=here.exponent,
                parametric=joint.a_and_b[0],
                alpha_c=frontier.fit.params.get("alpha_C", float("nan")),
            )
        )
    return found


def _minima(points: pd.DataFrame, request: Request) -> Minima:
    return isoflop.analyse(points, draws=request.bootstrap, seed=request.seed, a=request.fixed_a)
