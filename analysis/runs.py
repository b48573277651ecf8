"""One tidy table of runs with their evaluations and curves: a sweep of a store, or anybody's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import tables
from analysis.curves import LEAST_POINTS, Curve, forecast
from gpt3core import costs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.schedule import learning_rate
from gpt3core.store import sweepdir
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir

BUCKETS = 24  # of a curve: between the end of the warm-up and the end of the run

# name -> type; the first block is DESIGN's tidy table, the second what a reader of it asks next
COLUMNS = {
    "run_id": "string",
    "sweep": "string",
    "status": "string",
    "n_layer": "int64",
    "d_model": "int64",
    "n_head": "int64",
    "d_head": "int64",
    "n_ctx": "int64",
    "attention": "string",
    "vocab": "int64",
    "params_total": "int64",
    "params_nonembedding": "int64",
    "tokens": "int64",
    "flops_6nd": "float64",
    "flops_model": "float64",
    "pf_days": "float64",
    "batch_tokens": "int64",
    "lr": "float64",
    "seed": "int64",
    "schedule": "string",
    "parent": "string",
    "loss": "float64",
    "loss_se": "float64",
    "bits_per_byte": "float64",
    "gpu_hours": "float64",
    "cost": "float64",
    "tokens_per_second": "float64",
    "mfu": "float64",
    "attempts": "int64",
    "size": "string",
    "budget_flops": "float64",
    "epochs": "float64",
    "precision": "string",
    "kernel": "string",
    "corpus_sha256": "string",
}


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs: ``table`` one row a run, ``evals`` one row a run, task and number of examples."""

    source: Path  # the store's root, or the table's file
    name: str  # of the sweep, or of the file
    store: bool
    table: pd.DataFrame
    evals: pd.DataFrame = field(default_factory=pd.DataFrame)
    missing: list[str] = field(default_factory=list)  # runs of the sweep without a result
    min_tokens: float = 0.0  # the recipe's floor for a run to count

    def curve(self, run_id: str) -> pd.DataFrame:
        """The loss curve of a run: step, tokens, loss, lr, grad_norm."""
        return RunDir(self.source, run_id).curve()


def read_table(path: Path, columns: Mapping[str, str], exclude: Sequence[str] = ()) -> Runs:
    """Anybody's CSV, Parquet or JSON lines; see analysis.tables.

    Raises:
        UsageError: when no law could be fitted to it, with the reason and the row.
    """
    table = tables.check_runs(tables.read(path, columns), path, exclude)
    return Runs(source=path, name=path.name.split(".")[0], store=False, table=table)


def load(root: Path, sweep: str | None = None) -> Runs:
    """Read a sweep's finished runs, sorted by run_id.

    Args:
        sweep: its name; by default the one last driven.

    Raises:
        StoreError: when there is no store, no such sweep, or no finished run in it.
    """
    open_root(root, create=False)
    known = sweepdir.names(root)
    if not known:
        raise StoreError(f"{root} holds no sweep yet: run python sweeps/sizes.py first")
    if sweep is not None and sweep not in known:
        raise StoreError(f"{root} holds no sweep {sweep!r}; there are {', '.join(known)}")
    name = sweep or known[0]
    rows, evals, missing = [], [], []
    record = SweepDir(root, name).record()
    assert record is not None, "listed by its record"
    for run_id in record.runs:
        run = RunDir(root, run_id)
        measured = run.evaluation(record.evals.eval_id)
        row = _row(run, name, measured)
        if row is None:
            if run_id not in record.not_taken:
                missing.append(run_id)
            continue
        rows.append(row)
        if measured is not None:
            evals.append(measured[measured.task != HELD_OUT].assign(run_id=run_id))
    if not rows:
        raise StoreError(f"the sweep {name} in {root} has no finished run yet ({len(missing)} are missing)")
    return Runs(
        source=root,
        name=name,
        store=True,
        table=tidy(pd.DataFrame(rows)),
        evals=pd.concat(evals, ignore_index=True) if evals else pd.DataFrame(),
        missing=missing,
        min_tokens=record.min_tokens,
    )


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order and types, sorted by run_id."""
    typed = table.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    return typed.sort_values("run_id", ignore_index=True)


def unfinished(runs: Runs) -> pd.DataFrame:
    """Forecasts of the final training loss of runs without a result: run_id, done (share), loss, low, high, method."""
    if not runs.missing:
        return pd.DataFrame()
    curves = {run_id: _curve(RunDir(runs.source, run_id)) for run_id in [*runs.missing, *runs.table.run_id]}
    finished = [(c, float(c.loss[-1])) for run_id, c in curves.items() if c is not None and run_id not in runs.missing]
    rows = []
    for run_id in runs.missing:
        curve = curves[run_id]
        if curve is None or len(curve.steps) < LEAST_POINTS:
            continue
        found = forecast(curve, finished)
        done = float(curve.steps[-1] / len(curve.lr))
        low, high = found.interval
        rows.append(
            {"run_id": run_id, "done": done, "loss": found.loss, "low": low, "high": high, "method": found.method}
        )
    return pd.DataFrame(rows)


def _curve(run: RunDir) -> Curve | None:
    """A run's training loss after the warm-up, mean over buckets of equal width in ln(step)."""
    rows = run.curve()
    if rows.empty:
        return None
    spec = run.spec()
    lr = np.array([learning_rate(spec.optim, step * spec.optim.batch_tokens) for step in range(spec.steps)])
    rows = rows[rows.step > int(lr.argmax())]
    if rows.empty:
        return None
    edges = np.geomspace(max(1, int(lr.argmax())), spec.steps, BUCKETS)
    means = rows.groupby(np.searchsorted(edges, rows.step.to_numpy(float))).agg(
        step=("step", "max"), loss=("loss", "mean")
    )
    return Curve(
        steps=means.step.to_numpy(float),
        loss=means.loss.to_numpy(float),
        lr=lr,
        cost=costs.run_costs(spec)["flops_model"],
    )


def _row(run: RunDir, sweep: str, measured: pd.DataFrame | None) -> dict[str, Any] | None:
    """A finished run's row; None for one that is not trained, or not measured yet."""
    result = run.result()
    if result is None or (measured is None and result["status"] == "done"):
        return None
    held_out: Any = {} if measured is None else measured[measured.task == HELD_OUT].iloc[0]
    spec = run.spec()
    return {
        "run_id": run.run_id,
        "sweep": sweep,
        **{name: getattr(spec.model, name, None) for name in _FROM_MODEL},
        "vocab": spec.model.vocab_size,
        "tokens": spec.tokens,
        "batch_tokens": spec.optim.batch_tokens,
        "lr": spec.optim.lr,
        "seed": spec.seed,
        "schedule": spec.optim.schedule,
        "parent": None if spec.parent is None else f"{spec.parent.run_id}@{spec.parent.step}",
        "size": spec.label,
        "budget_flops": spec.budget_flops,
        "corpus_sha256": spec.data.corpus_sha256,
        **costs.run_costs(spec),
        **{name: result.get(name) for name in _FROM_RESULT},
        **{name: held_out.get(name) for name in ("loss", "loss_se", "bits_per_byte")},
    }


_FROM_MODEL = ("n_layer", "d_model", "n_head", "d_head", "n_ctx", "attention")
_FROM_RESULT = (
    *("status", "gpu_hours", "cost", "tokens_per_second", "mfu"),
    *("attempts", "epochs", "precision", "kernel"),
)
