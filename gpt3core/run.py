"""One run from specification to result: train, then evaluate. The only file that knows train and evals both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gpt3core import costs
from gpt3core.errors import BusyError, StoreError
from gpt3core.evals import runner
from gpt3core.evals.spec import EvalSpec
from gpt3core.parallel.mesh import Group
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import timing
from gpt3core.train.loop import Trainer


def run(
    spec: RunSpec,
    evals: EvalSpec,
    root: Path,
    *,
    group: Group | None = None,
    peak_flops: float | None = None,
    usd_per_hour: float = 0.0,
    **options: Any,
) -> dict[str, Any] | None:
    """Train one run, once, and evaluate it; returns its result on rank 0, None on the others.

    A run that is trained already is only evaluated, and only where this evaluation was not made.

    Args:
        peak_flops, usd_per_hour: of one device, for the result's mfu and cost; on CPUs there is no peak to speak of.
        options: see ``Trainer``.

    Raises:
        BusyError: when another live process has the run.
        StoppedError: when asked to stop.
    """
    if group is not None and group.rank > 0:
        Trainer(spec, root, group=group, **options).train()
        return None
    folder = RunDir(root, spec.run_id)
    folder.create(spec)
    with files.locked(folder.path / "lock") as mine:
        if not mine:
            raise BusyError(
                f"run {spec.run_id} is being trained by another process ({(folder.path / 'lock').read_text().strip()})"
            )
        result = folder.result()
        if result is not None and (result["status"] != "done" or folder.evaluation_path(evals.eval_id).exists()):
            return result
        here = Trainer(spec, root, group=group, **options)
        if result is not None and here.step < spec.steps:
            raise StoreError(
                f"run {spec.run_id} is trained, but its last checkpoint is gone, so nothing more can be measured of "
                f"it: bring {folder.checkpoints} back, or move {folder.path} away to train it anew"
            )
        status = here.train()
        if result is None:
            result = _result(here, status, peak_flops, usd_per_hour)
        if status == "done":
            _evaluate(here, evals)
        folder.finish(result)
        return result


def _evaluate(here: Trainer, evals: EvalSpec) -> None:
    """Measure the trained model and write the table, unless it is there."""
    if here.dir.evaluation_path(evals.eval_id).exists():
        return
    here.progress("evaluating", None)
    known = here.dir.measurements()
    table = runner.evaluate(here.model, here.spec, evals, here.data, here.numerics, here.device, known)
    here.dir.write_evaluation(evals.eval_id, table)


def _result(here: Trainer, status: str, peak_flops: float | None, usd_per_hour: float) -> dict[str, Any]:
    """What result.json says of a training that ended."""
    spec, seconds = here.spec, max(here.train_seconds, 1e-9)
    tokens = here.step * spec.optim.batch_tokens
    speed = costs.train_flops(spec.model, tokens) / seconds
    device_hours = here.group.size * here.train_seconds / 3600
    assert here.attempt is not None
    return {
        "status": status,
        "run_id": spec.run_id,
        "steps": here.step,
        "tokens": tokens,
        "epochs": here.loader.epochs(tokens),
        **vars(here.numerics),
        "attempt": here.attempt.name,
        "attempts": len(here.dir.attempts()),
        "train_seconds": round(here.train_seconds, 3),
        "devices": here.group.size,
        "device": timing.machine(here.device),
        "gpu_hours": device_hours if here.device == "cuda" else 0.0,
        "cost": device_hours * usd_per_hour,
        "mfu": speed / (here.group.size * peak_flops) if peak_flops else None,
        "tokens_per_second": round(tokens / seconds, 1),
        "flops_per_second": round(speed),
        "torch": torch.__version__,
        "damage": here.dir.damage(),
    }
