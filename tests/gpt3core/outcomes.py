"""What of a run must not depend on how often it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from tests.conftest import EVALS

RESULT = ("status", "steps", "tokens", "epochs", "precision", "kernel", "threads")


def weights(root: Path, spec: RunSpec) -> dict[str, bytes]:
    """The final weights, by name."""
    folder = RunDir(root, spec.run_id).checkpoint(spec.steps)
    return {name: p.numpy().tobytes() for name, p in load_file(folder / "model-00000.safetensors").items()}


def outcome(root: Path, spec: RunSpec) -> tuple[Any, ...]:
    """Everything of a finished run that must be the same, to the bit."""
    run = RunDir(root, spec.run_id)
    result = run.result()
    assert result is not None
    evals = run.evaluation_path(EVALS.eval_id).read_bytes()
    curve = run.curve().drop(columns="attempt").to_csv()
    return tuple(result[name] for name in RESULT), weights(root, spec), evals, curve


def trained_to(spec: RunSpec, root: Path, step: int, train: Callable[[int], Any]) -> None:
    """Train until a stop, and check that the checkpoint of that step is there."""
    train(step)
    assert RunDir(root, spec.run_id).checkpoint_steps()[-1] == step
