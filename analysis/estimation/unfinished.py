"""Final training losses of a sweep's unfinished runs, forecast from their curves and those of the finished ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.estimation.curve_forecast import LEAST_POINTS, Curve, forecast_loss
from analysis.runs import store
from analysis.runs.tidy import Runs

BUCKETS = 24  # of a curve: between the end of the warm-up and the end of the run


def unfinished(runs: Runs) -> pd.DataFrame:
    """Forecasts of runs without a result: run_id, done (share), loss, low, high, method, beside (finished runs)."""
    begun = [(run_id, curve) for run_id in runs.missing if (curve := so_far(runs.source, run_id)) is not None]
    begun = [(run_id, curve) for run_id, curve in begun if len(curve.steps) >= LEAST_POINTS]
    if not begun:
        return pd.DataFrame()
    ended = {str(run_id): curve for run_id in runs.table.run_id if (curve := so_far(runs.source, run_id)) is not None}
    finished = [(curve, float(curve.loss[-1])) for curve in ended.values()]
    names, rows = list(ended), []
    sets: dict[tuple[int, ...], list[str]] = {}  # mostly the same ones
    for run_id, curve in begun:
        found = forecast_loss(curve, finished)
        done = float(curve.steps[-1] / len(curve.lr))
        low, high = found.interval
        beside = sets.setdefault(found.beside, [names[i] for i in found.beside])
        row = {"run_id": run_id, "done": done, "loss": found.loss, "low": low, "high": high}
        rows.append({**row, "method": found.method, "beside": beside})
    return pd.DataFrame(rows)


def so_far(root: Path, run_id: str) -> Curve | None:
    """A run's training loss after the warm-up, mean over buckets of equal width in ln(step); None without a curve."""
    rows = store.readable_curve(root, run_id, ("step", "loss"))
    if rows is None or rows.empty:
        return None
    lr, cost = store.schedule(root, run_id)
    rows = rows[rows.step > int(lr.argmax())]
    if rows.empty:
        return None
    edges = np.geomspace(max(1, int(lr.argmax())), len(lr), BUCKETS)
    bucket = np.searchsorted(edges, rows.step.to_numpy(float))
    steps, loss = rows.step.groupby(bucket).max(), rows.loss.groupby(bucket).mean()  # of columns: six times as fast
    return Curve(steps=steps.to_numpy(float), loss=loss.to_numpy(float), lr=lr, cost=cost)
