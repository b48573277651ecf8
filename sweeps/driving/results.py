"""What the store says of a run: whether it is done for this sweep, and whether its result can be read."""

from __future__ import annotations

import importlib
import math
import threading
from dataclasses import dataclass
from typing import Any

from gpt3core import anomaly, costs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store import files, metrics
from gpt3core.store.rundir import STOPPED_EARLY, RunDir
from gpt3core.words import count
from sweeps.driving.progress import DONE


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a run's folder."""

    result: dict[str, Any] | None = None
    complete: bool = False  # nothing is left to do: trained, and evaluated where there is something to evaluate
    damage: str = ""  # what was found damaged and set aside, in a sentence


def look(run: RunDir, evals: EvalSpec) -> Look:
    """Read a run's result; an unreadable one is set aside, and the run is finished again from its last checkpoint."""
    try:
        result = run.sound_result()
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            return Look()  # the disk does not answer now: not seen yet
        aside = files.set_aside(run.path / "result.json")
        return Look(
            damage=f"run {run.run_id}: its result was damaged ({error}) and set aside as {aside}; the run is finished "
            "again from its last checkpoint"
        )
    if result is None:
        return Look()
    complete, table = run.complete(result, evals.eval_id), run.evaluation_path(evals.eval_id)
    if not complete and table.exists():
        aside = files.set_aside(table)
        said = f"run {run.run_id}: its evaluation was damaged and set aside as {aside}; it is measured again"
        return Look(result=result, damage=said)
    return Look(result=result, complete=complete)


def preload() -> None:
    """Import what reads evaluations while runs start: a quarter of a second that the first end would wait for."""
    threading.Thread(target=importlib.import_module, args=("pyarrow.parquet",), daemon=True).start()


def held_out_loss(run: RunDir, evals: EvalSpec) -> tuple[float, float] | None:
    """Loss on held-out text and its standard error (nats per token), None where they were not measured."""
    try:
        rows = metrics.rows(run.evaluation_path(evals.eval_id), ["task", "loss", "loss_se"])
    except (StoreError, FileNotFoundError):
        return None
    row = next((row for row in rows if row["task"] == HELD_OUT), None)
    if row is None or row["loss"] is None or not math.isfinite(row["loss"]):
        return None
    return float(row["loss"]), math.nan if row["loss_se"] is None else float(row["loss_se"])


def summary(run: RunSpec, folder: RunDir, evals: EvalSpec, result: dict[str, Any]) -> str:
    """A finished run in a line."""
    n = costs.params(run.model).nonembedding
    early = result["status"] == STOPPED_EARLY
    tokens = int(result.get("tokens", run.tokens)) if early else run.tokens
    flops = costs.train_flops(run.model, tokens)
    head = f"{DONE}{run.run_id:17}  N {count(n):5}  D {count(tokens):5}  C {flops:.3g}".replace("e+", "e")
    if result["status"] == "diverged":
        return f"{head}  DIVERGED"
    parts = [head, f"STOPPED EARLY of {run.tokens / 1e6:.2f}M tokens: no point on a law"] if early else [head]
    if (measured := held_out_loss(folder, evals)) is not None:
        parts.append(f"loss {measured[0]:.4f} +- {measured[1]:.4f}")
    if run.labelled is not None and run.parent is not None:
        parts.append(f"{_answers(folder, evals)} after {run.labelled.count:,} examples on {run.parent.run_id}")
    if result.get("tokens_per_second"):
        parts.append(f"{result['tokens_per_second'] / 1000:.0f}k tok/s")
    if met := anomaly.told(result):
        parts.append(met)
    if result.get("epochs", 0.0) > 1:
        parts.append(f"{result['epochs']:.2f} epochs")
    if (scale := result.get("noise_scale")) is not None:
        since = result.get("batch_beyond_noise_scale")
        beyond = f", batches beyond it since step {since:,}" if since is not None else ""
        parts.append(f"gradient noise scale {scale:,.0f} tokens{beyond}")
    return "  ".join(parts)


def _answers(folder: RunDir, evals: EvalSpec) -> str:
    """The accuracy of a run that was fine-tuned."""
    table = folder.evaluation(evals.eval_id)
    rows = [] if table is None else list(table[table.metric == "classifier"].itertuples())
    return ", ".join(f"{row.task} {row.accuracy:.3f} +- {row.accuracy_se:.3f}" for row in rows)
