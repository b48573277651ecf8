"""Kaplan's critical batch beside the best batch: B_crit(L) = B_star / L^(1/alpha_B) (Kaplan et al. 2020, eq. 1.4).

The constants are the paper's, of its text and tokens. Where runs measured their gradient noise scale
(``train.noise_scale_every``), which estimates B_crit, the two are fitted to these instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import kaplan
from analysis.laws.base import Array

LEAST_RUNS = 5
LEAST_SPREAD = 1.1  # of the losses: a power of less is not told from a constant


@dataclass(frozen=True, kw_only=True)
class Critical:
    """B_crit(L), its constants and where they are from."""

    star: float = kaplan.B_STAR  # tokens
    alpha: float = kaplan.ALPHA_B
    runs: int = 0  # that it was fitted to; none for the paper's
    spread: float = float("nan")  # standard deviation of ln B about it

    def at(self, loss: Array | float) -> Array:
        """Tokens, at a loss in nats per token."""
        return np.asarray(self.star / np.asarray(loss) ** (1 / self.alpha))

    @property
    def words(self) -> str:
        """In a sentence."""
        source = f"fitted to {self.runs} measured noise scales" if self.runs else "Kaplan et al. 2020"
        return f"B_crit(L) = {self.star:.3g} / L^{1 / self.alpha:.3g} tokens ({source})"


def fit(table: pd.DataFrame) -> Critical | None:
    """B_crit(L) of runs that measured their noise scale; None where too few did, or their losses are too alike.

    Theil-Sen's line through the logs: a noise scale of a short run may be off by a factor.
    """
    if "noise_scale" not in table:
        return None
    known = table[table.noise_scale.astype(float) > 0]
    if len(known) < LEAST_RUNS or known.loss.max() < LEAST_SPREAD * known.loss.min():
        return None
    from scipy.stats import theilslopes

    x, y = np.log(known.loss.to_numpy(float)), np.log(known.noise_scale.to_numpy(float))
    slope, level, *_ = theilslopes(y, x)
    if slope >= 0:  # it grows as the loss falls, or these runs do not show it
        return None
    rest = y - (level + slope * x)
    return Critical(star=float(np.exp(level)), alpha=float(-1 / slope), runs=len(known), spread=float(rest.std(ddof=2)))
