"""Whether the laws say anything of the losses that one number would not: an F test of their fit against a constant.

Where losses depend on neither N nor D, laws of five parameters still follow their noise a little, a constant among them
backtests as well as a law of scale does, and every interval of a new run holds. None of it is a law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.estimation.ensemble import FREEDOM_USED, Ensemble
from analysis.laws import Array

SURE = 0.01  # of the test: flat losses pass for scaling in one table of a hundred
FAR = 4.0  # scatters around the laws, beyond which a run is left out of it: a diverged one hides no law
EXACT = 1e-12  # of ln L: scatter below is rounding


@dataclass(frozen=True, kw_only=True)
class Explained:
    """How the losses of the runs differ, and what is left of it around the laws."""

    spread: float  # robust standard deviation of ln L
    left: float  # the same around the laws
    chance: float  # that losses which depend on nothing are followed as closely; nan where too few runs are left over

    @property
    def told(self) -> bool:
        """Whether the laws explain something beyond the noise."""
        return not self.chance > SURE


def explained(table: pd.DataFrame, ensemble: Ensemble) -> Explained | None:
    """Of the runs that the laws speak of; None where they speak of none.

    Args:
        table: the runs that passed the rules.
    """
    ln_loss = np.log(table.loss.to_numpy(float))
    residual = ln_loss - ensemble.ln_loss(table)[0]
    there = np.isfinite(residual)  # a law of compute alone speaks of no run
    if not there.any():
        return None
    residual, ln_loss = residual[there], ln_loss[there]
    return Explained(spread=_scale(ln_loss), left=_scale(residual), chance=chance(ln_loss, residual))


def chance(ln_loss: Array, residual: Array) -> float:
    """How likely it is by noise alone that laws follow losses as closely; nan where no run is left over.

    Args:
        ln_loss: (n,) of the runs.
        residual: (n,) ln L from the laws.
    """
    off, terms = np.abs(residual - np.median(residual)), FREEDOM_USED - 1
    widened = np.sqrt(len(residual) / max(1, len(residual) - FREEDOM_USED))
    near = off <= FAR * max(_scale(residual) * widened, EXACT)
    freedom = int(near.sum()) - FREEDOM_USED
    if freedom < 1:
        return float("nan")
    lawful = float((residual[near] ** 2).sum())
    gained = max(float(((ln_loss[near] - ln_loss[near].mean()) ** 2).sum()) - lawful, 0.0)
    return float(special.fdtrc(terms, freedom, gained / terms / max(lawful / freedom, EXACT**2)))


def _scale(values: Array) -> float:
    """Robust standard deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
