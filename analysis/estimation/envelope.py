"""The envelope of training curves (Hoffmann et al. 2022, approach 1): which size is best at every compute.

Points are moments of runs: final results, and whatever checkpoints a table lists as rows. Moments in the middle of a
schedule that decays with the run's end lie above what a run planned to stop there would reach, and bias the envelope
towards sizes whose runs end there; with final results alone there is no such bias, and fewer points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVELS = 1500  # of compute, log-spaced (Hoffmann et al. 2022, section 3.1)
LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """N*(C) = k C^a and D*(C) ~ C^b along the envelope."""

    points: pd.DataFrame  # run_id, N, D, C, loss of the moments on the envelope
    a: float = float("nan")
    b: float = float("nan")
    k: float = float("nan")
    reason: str = ""  # why there is no law


def best_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that no row with less of a column beats in loss, by that column."""
    ordered = table.sort_values([column, "loss"])
    return ordered[ordered.loss < ordered.loss.cummin().shift(fill_value=np.inf)].reset_index(drop=True)


def envelope(points: pd.DataFrame) -> Envelope:
    """Fit N* and D* through the points that no cheaper point beats.

    Args:
        points: columns run_id, N, D, C, loss; one row a moment.
    """
    kept = best_by(points, "C")[["run_id", "N", "D", "C", "loss"]]
    if kept.N.nunique() < LEAST:
        return Envelope(points=kept, reason=f"{kept.N.nunique()} sizes on the envelope, {LEAST} are needed")
    levels = np.geomspace(kept.C.min(), kept.C.max(), LEVELS)
    at = np.searchsorted(kept.C.to_numpy(), levels * (1 + 1e-12), side="right") - 1
    ln_c = np.log(levels)
    n = np.polyfit(ln_c, np.log(kept.N.to_numpy())[at], 1)
    d = np.polyfit(ln_c, np.log(kept.D.to_numpy())[at], 1)
    return Envelope(points=kept, a=float(n[0]), b=float(d[0]), k=float(np.exp(n[1])))
