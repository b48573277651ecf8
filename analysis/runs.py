"""One tidy table of runs, their evaluations and their curves, from a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gpt3core import costs
from gpt3core.store import files
from gpt3core.store.files import StoreError
from gpt3core.store.rundir import RunDir, open_root

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
    """The runs of a sweep: ``table`` one row a run, ``evals`` one row a run, task and number of examples."""

    root: Path
    sweep: str
    table: pd.DataFrame
    evals: pd.DataFrame
    missing: list[str]  # runs of the sweep without a result
    min_tokens: float  # the recipe's floor for a run to count

    def curve(self, run_id: str) -> pd.DataFrame:
        """The loss curve of a run: step, tokens, loss, lr, grad_norm."""
        return RunDir(self.root, run_id).curve()


def sweeps(root: Path) -> list[str]:
    """Names of the sweeps of a store, the one last driven first."""
    logs = {path.parent.name: path.parent / "events.jsonl" for path in (root / "sweeps").glob("*/sweep.json")}
    return sorted(logs, key=lambda name: (-_last_driven(logs[name]), name))


def _last_driven(log: Path) -> float:
    return max((event["time"] for event in files.read_lines(log)), default=0.0)


def load(root: Path, sweep: str | None = None) -> Runs:
    """Read a sweep's finished runs, sorted by run_id.

    Args:
        sweep: its name; by default the one last driven.

    Raises:
        StoreError: when there is no store, no such sweep, or no finished run in it.
    """
    open_root(root, create=False)
    known = sweeps(root)
    if not known:
        raise StoreError(f"{root} holds no sweep yet: run python sweeps/sizes.py first")
    if sweep is not None and sweep not in known:
        raise StoreError(f"{root} holds no sweep {sweep!r}; there are {', '.join(known)}")
    name = sweep or known[0]
    folder = root / "sweeps" / name
    rows, evals, missing = [], [], []
    for run_id in files.read_json(folder / "sweep.json")["runs"]:
        row = _row(RunDir(root, run_id), name)
        if row is None:
            missing.append(run_id)
            continue
        rows.append(row)
        table = root / "runs" / run_id / row.pop("attempt") / "evals" / "few_shot.parquet"
        if table.exists():
            evals.append(pd.read_parquet(table).assign(run_id=run_id))
    if not rows:
        raise StoreError(f"the sweep {name} in {root} has no finished run yet ({len(missing)} are missing)")
    return Runs(
        root=root,
        sweep=name,
        table=tidy(pd.DataFrame(rows)),
        evals=pd.concat(evals, ignore_index=True) if evals else pd.DataFrame(),
        missing=missing,
        min_tokens=_min_tokens(folder / "recipe.yaml"),
    )


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order and types, sorted by run_id."""
    typed = table.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    return typed.sort_values("run_id", ignore_index=True)


def _row(run: RunDir, sweep: str) -> dict[str, Any] | None:
    result = run.result()
    if result is None:
        return None
    spec = run.spec()
    return {
        "run_id": run.run_id,
        "sweep": sweep,
        "n_layer": spec.model.n_layer,
        "d_model": spec.model.d_model,
        "n_head": spec.model.n_head,
        "d_head": spec.model.d_head,
        "n_ctx": spec.model.n_ctx,
        "attention": spec.model.attention,
        "vocab": spec.model.vocab_size,
        "tokens": spec.tokens,
        "batch_tokens": spec.optim.batch_tokens,
        "lr": spec.optim.lr,
        "seed": spec.seed,
        "schedule": spec.optim.schedule,
        "parent": None,
        "size": spec.size,
        "budget_flops": spec.budget_flops,
        "corpus_sha256": spec.data.corpus_sha256,
        **costs.run_costs(spec),
        **{name: result.get(name) for name in _FROM_RESULT},
    }


_FROM_RESULT = (
    *("status", "loss", "loss_se", "bits_per_byte", "gpu_hours", "cost", "tokens_per_second", "mfu"),
    *("attempts", "attempt", "epochs", "precision", "kernel"),
)


def _min_tokens(recipe: Path) -> float:
    from omegaconf import OmegaConf

    if not recipe.exists():
        return 0.0
    return float(OmegaConf.select(OmegaConf.load(recipe), "min_tokens", default=0.0))
