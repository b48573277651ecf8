"""Training in one process, stopped where a test wants, and what of a run must not depend on that."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from gpt3core import run as runs
from gpt3core.errors import StoppedError
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from tests.conftest import EVALS

RESULT = ("status", "steps", "tokens", "epochs", "precision", "kernel", "threads")


def run(spec: RunSpec, root: Path, **options: Any) -> dict[str, Any] | None:
    """Train and evaluate as the tests do."""
    return runs.run(spec, EVALS, root, **options)


def stopped(spec: RunSpec, root: Path, after: int, **options: Any) -> RunDir:
    """Train ``after`` steps and stop."""
    count = itertools.count(1)
    with pytest.raises(StoppedError):
        run(spec, root, stop=lambda: next(count) >= after, **options)
    return RunDir(root, spec.run_id)


def weights(root: Path, spec: RunSpec) -> dict[str, bytes]:
    """The final weights, by name."""
    folder = RunDir(root, spec.run_id).checkpoint(spec.steps)
    return {name: p.numpy().tobytes() for name, p in load_file(folder / "model-00000.safetensors").items()}


def outcome(root: Path, spec: RunSpec) -> tuple[Any, ...]:
    """Everything of a finished run that must be the same, to the bit."""
    folder = RunDir(root, spec.run_id)
    result = folder.result()
    assert result is not None
    evals = folder.evaluation_path(EVALS.eval_id).read_bytes()
    curve = folder.curve().drop(columns="attempt").to_csv()
    return tuple(result[name] for name in RESULT), weights(root, spec), evals, curve


def trained_to(spec: RunSpec, root: Path, step: int, train: Callable[[int], Any]) -> None:
    """Train until a stop, and check that the checkpoint of that step is there."""
    train(step)
    assert RunDir(root, spec.run_id).checkpoint_steps()[-1] == step
