"""The training curves of a store's finished runs, reduced to what approach 1 reads of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws import Array
from analysis.runs import store

FROM = 0.3  # of a run's tokens: where its curve begins to be read, after any sensible warm-up
BINS = 24  # of a curve, of equal width in the logarithm of the tokens
LEAST_BINS = 6  # with steps in them
PROGRESS = np.linspace(FROM, 1.0, 71)  # where the schedule is read


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """One finished run and the later part of its training curve."""

    run_id: str
    n: float
    d: float
    c: float
    loss: float  # held-out, at the end
    progress: Array  # (m,) share of the tokens at which the loss below was taken, rising
    ln_loss: Array  # (m,) of the training batches, means over bins
    steps: Array  # (m,) behind each of them
    rate: Array  # (71,) learning rate at PROGRESS, relative to the run's highest


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """The curves of a sweep's runs, and why those of others are not among them."""

    found: list[TrainingCurve]
    repeated: list[str]  # runs that saw text more than once: their training loss is no longer that of new text
    without: list[str]  # runs whose curve is missing, too short or damaged


def read(root: Path, table: pd.DataFrame) -> TrainingCurves:
    """The curves of runs.

    Args:
        table: finished runs of the store as points: run_id, N, D, C, loss, epochs.
    """
    found, repeated, without = [], [], []
    for row in table.sort_values("run_id").to_dict("records"):
        run_id = str(row["run_id"])
        if row["epochs"] > 1.0:
            repeated.append(run_id)
        elif (curve := _curve(root, run_id, row)) is None:
            without.append(run_id)
        else:
            found.append(curve)
    return TrainingCurves(found=found, repeated=repeated, without=without)


def _curve(root: Path, run_id: str, row: Mapping[Hashable, Any]) -> TrainingCurve | None:
    """One run's, or None where there is not enough of it."""
    rows = store.readable_curve(root, run_id, ("step", "tokens", "loss"))
    if rows is None or rows.empty:
        return None
    total, rate = store.rates(root, run_id, PROGRESS)
    progress, loss = rows.tokens.to_numpy(float) / total, rows.loss.to_numpy(float)
    kept = (progress >= FROM) & (progress <= 1.0) & (loss > 0) & np.isfinite(loss)
    ln_progress, ln_loss = np.log(progress[kept]), np.log(loss[kept])
    at = np.clip((BINS * (1 - ln_progress / np.log(FROM))).astype(int), 0, BINS - 1)
    count = np.bincount(at, minlength=BINS)
    full = count > 0
    if full.sum() < LEAST_BINS or not full[-1]:
        return None

    def mean(values: Array) -> Array:
        return np.asarray(np.bincount(at, values, BINS)[full] / count[full])

    return TrainingCurve(
        run_id=run_id,
        n=float(row["N"]),
        d=float(row["D"]),
        c=float(row["C"]),
        loss=float(row["loss"]),
        progress=np.exp(mean(ln_progress)),
        ln_loss=mean(ln_loss),
        steps=count[full].astype(float),
        rate=rate,
    )
