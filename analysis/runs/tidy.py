"""The tidy table of runs that everything here is made from: its columns, and the value that carries it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.note import Note

# name -> type, of a store's runs
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
    "unique_tokens": "float64",
    "precision": "string",
    "kernel": "string",
    "corpus": "string",
    "corpus_sha256": "string",
    "held_out": "string",
    "mixture": "string",
    "episodes": "float64",
    "noise_scale": "float64",
    "mup_base_width": "float64",
    "device_seconds": "float64",
}


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs: ``table`` one row a run, ``evals`` one row a run, task and number of examples shown.

    Runs that were fine-tuned are no rows of ``table``: only of ``evals``, where ``parent`` is the run of ``table`` that
    one went on from and ``trained_on`` the number of its labelled examples (``finetuned``).
    """

    source: Path  # the store's root, or the table's file
    name: str  # of the sweep, or of the file
    store: bool
    table: pd.DataFrame
    evals: pd.DataFrame = field(default_factory=pd.DataFrame)
    prompts: pd.DataFrame = field(default_factory=pd.DataFrame)  # all that prompts asked; evals has the most of a task
    domain: str | None = None  # of held-out text, of which the losses are; else they are of all of it
    missing: list[str] = field(default_factory=list)  # runs of the sweep without a result
    pruned: list[str] = field(default_factory=list)  # runs that the sweep stopped, their value for the law being nil
    unmeasured: list[str] = field(default_factory=list)  # runs that lack some of the scores asked for now
    min_tokens: float = 0.0  # the recipe's floor for a run to count
    notes: list[Note] = field(default_factory=list)  # what reading them left open


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order and types, then those of single domains of held-out text; sorted by run_id."""
    more = dict.fromkeys((str(name) for name in table if "." in str(name)), "float64")
    typed = table.reindex(columns=[*COLUMNS, *more]).astype(COLUMNS | more)
    return typed.sort_values("run_id", ignore_index=True)
