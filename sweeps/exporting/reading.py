"""What an export says of a run: its curve, its configuration, its scores and its tags, as the store has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt3core import costs
from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir

BESIDE = ("step", "attempt")  # columns of a curve that are no metrics
FINAL = ("loss", "loss_se", "bits_per_byte")  # of the held-out text
LATEST = 1e11  # seconds since the epoch; a log that says more is damaged
FACTS = ("tokens_per_second", "flops_per_second", "mfu", "devices", "epochs", "skipped_tokens", "noise_scale")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One run, ready to be written."""

    run_id: str
    sweep: str
    label: str
    status: str  # running | done | diverged | stopped early
    started: float  # seconds since the epoch; a step has no time of its own in the store
    config: dict[str, Any]  # dotted names of the specification's fields
    steps: list[int]
    curve: dict[str, list[float]]  # train/loss, train/lr, ... a value a step, NaN where a step has none
    final: dict[str, float] = field(default_factory=dict)  # final/loss, score/TASK/SHOTS, ...
    rollbacks: int = 0  # times the run went back, which changed steps that had been there

    @property
    def tags(self) -> dict[str, str]:
        """What tools find a run by."""
        return {"sweep": self.sweep, "label": self.label, "run_id": self.run_id, "status": self.status}

    @property
    def extent(self) -> list[Any]:
        """What changes when there is more to write."""
        return [len(self.steps), self.status, len(self.final), self.rollbacks]

    def row(self, index: int) -> dict[str, float]:
        """The metrics of a step that are numbers."""
        return {name: values[index] for name, values in self.curve.items() if math.isfinite(values[index])}


class Writer(Protocol):
    """Writes runs into a folder as one tool has them."""

    def write(self, run: Exported, *, anew: bool) -> None:
        """Write what is not there yet; ``anew`` where what is there holds no longer. Doing it twice changes nothing."""

    def close(self) -> None:
        """No more runs."""


def read(sweep: SweepDir, run_id: str, evals: EvalSpec) -> Exported | None:
    """A run as the store has it now, or None while it has not begun.

    Raises:
        StoreError: when its specification, result or evaluation is unreadable.
    """
    folder = RunDir(sweep.root, run_id)
    spec = folder.spec()
    result, attempts = folder.sound_result(), folder.attempts()
    curve = folder.curve()
    if result is None and not len(curve):
        return None
    first = [event.get("time") for attempt in attempts[:1] for event in files.read_lines(attempt / "events.jsonl")[:1]]
    times = [moment for moment in first if isinstance(moment, int | float) and 0 <= moment < LATEST]
    config = dict(_flat(specs.as_dict(spec)))
    config |= {"n_params": costs.params(spec.model).nonembedding, "flops": costs.train_flops(spec.model, spec.tokens)}
    measured = _final(folder, result, evals)
    return Exported(
        run_id=run_id,
        sweep=sweep.name,
        label=run_id.rpartition("-")[0],
        status="running" if result is None or not folder.complete(result, evals.eval_id) else str(result["status"]),
        started=float(times[0]) if times else 0.0,
        config=config,
        steps=[int(step) for step in curve["step"]],
        curve={f"train/{name}": [float(v) for v in curve[name]] for name in curve.columns if name not in BESIDE},
        final=measured,
        rollbacks=sum(len(list(attempt.glob("rolled-back-*.parquet"))) for attempt in attempts),
    )


def _final(folder: RunDir, result: Mapping[str, Any] | None, evals: EvalSpec) -> dict[str, float]:
    """What was measured at the end of a run, by names that tools sort by."""
    if result is None:
        return {}
    found = {f"final/{name}": float(result[name]) for name in FACTS if isinstance(result.get(name), int | float)}
    table = folder.evaluation(evals.eval_id)
    for row in [] if table is None else table.to_dict("records"):
        if row["task"] == HELD_OUT:
            found |= {f"final/{name}": float(row[name]) for name in FINAL if name in row}
        elif row["accuracy"] is not None:
            found[f"score/{row['task']}/{row['shots']}"] = float(row["accuracy"])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names of plain data; a list is a value, in words."""
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in _flat(inner, f"{prefix}.{name}" if prefix else name)]
    return [(prefix, value if isinstance(value, int | float | str | bool) or value is None else str(value))]


def runs(sweep: SweepDir) -> tuple[tuple[str, ...], EvalSpec]:
    """The runs of a sweep, and how it measures them.

    Raises:
        StoreError: when it has no record.
    """
    record = sweep.record()
    if record is None:
        raise StoreError(f"the sweep {sweep.name} in {sweep.root} has no record: it was never driven")
    return record.runs, record.evals
