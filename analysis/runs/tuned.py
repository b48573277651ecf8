"""Runs that differ in how they were tuned: trials of a search beside the runs of a law."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SAME_D = 1.05  # ratio of the tokens of one pair: trials of other batches differ by whole batches
SETTINGS = ("lr", "batch_tokens", "warmup_fraction", "final_fraction")
DIGITS = 6  # by which settings differ


def pairs(table: pd.DataFrame) -> pd.Series:
    """A name for the pair of N and D that each row is of."""
    n, d = table.N.to_numpy(float), table.D.to_numpy(float)
    found = np.full(len(table), "", object)
    begun: tuple[float, float] = (0.0, 0.0)
    for row in np.lexsort((d, n)):
        if n[row] != begun[0] or d[row] > begun[1] * SAME_D:
            begun = float(n[row]), float(d[row])
        found[row] = f"{begun[0]:020.0f}/{begun[1]:020.0f}"
    return pd.Series(found, index=table.index)


def worse(table: pd.DataFrame, counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which runs (n,) have worse settings than others of their N, D and epochs; seeds of the best all stay.

    Args:
        counted: (n,) runs that may be the best, each with a loss.
    """
    known = [name for name in SETTINGS if name in table and table[name].notna().any()]
    if not known:
        return np.zeros(len(table), bool)
    settings = table[known].map(lambda value: f"{value:.{DIGITS}g}").agg("/".join, axis=1)
    pair, epochs = pairs(table), table.epochs.clip(lower=1.0)
    again = epochs.groupby(pair).transform("max") > SAME_D * epochs.groupby(pair).transform("min")
    whole = pd.DataFrame({"pair": pair + (epochs.round(1).astype(str)).where(again, ""), "settings": settings})
    loss = table.loss[counted].astype(float).groupby([whole.pair[counted], whole.settings[counted]]).mean()
    best = loss.groupby("pair").transform("min")
    lowest = dict(loss.index[loss.to_numpy() == best.to_numpy()].tolist())
    chosen = whole.pair.map(lowest)
    return np.asarray(chosen.notna() & (chosen != settings), bool)
