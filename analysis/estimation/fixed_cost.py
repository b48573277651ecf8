"""What it costs to hold exponents fixed: the misses of the law of N and D in backtests, with them and without."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.estimation import backtest
from analysis.estimation.choices import Choice, optima, predictor
from analysis.estimation.robust import Rho
from analysis.laws import CHINCHILLA, Law


@dataclass(frozen=True, kw_only=True)
class FixedCost:
    """Mean absolute misses of ln L over the same backtests; nan where there are none."""

    fixed: float
    free: float
    cuts: int


def fixed_cost(table: pd.DataFrame, joint: Law, rho: Rho) -> FixedCost | None:
    """Both fitted below every cut and asked about the runs above; None where nothing is fixed.

    Args:
        table: runs: run_id, N, D, C, U, loss.
    """
    if joint is CHINCHILLA or table.empty:
        return None
    both = [Choice(law=joint, rho=rho), Choice(law=CHINCHILLA, rho=rho)]
    done = backtest.run(table, lambda below: predictor(both, optima(both, below)))
    if not done.cuts:
        return FixedCost(fixed=float("nan"), free=float("nan"), cuts=0)
    fixed, free = done.errors()
    return FixedCost(fixed=float(fixed), free=float(free), cuts=done.cuts)
