"""One run from specification to result: train, then evaluate. The only file that knows train and evals both."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gpt3core import costs, pulse
from gpt3core.data import episodes, formats
from gpt3core.data.labelled_loader import LabelledLoader
from gpt3core.data.shards import Shards
from gpt3core.errors import StoppedError, StoreError
from gpt3core.evals import examples, held_out, runner
from gpt3core.evals.spec import EvalSpec
from gpt3core.parallel import layout
from gpt3core.parallel.mesh import Mesh, require_same
from gpt3core.spec import TRAINER_VERSION, RunSpec, as_dict
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import timing
from gpt3core.train.loop import Trainer
from gpt3core.train.spent import Devices


def run(
    spec: RunSpec,
    evals: EvalSpec,
    root: Path,
    *,
    mesh: Mesh | None = None,
    peak_flops: float | None = None,
    usd_per_hour: float = 0.0,
    share: float = 1.0,
    in_parts: bool = False,
    **options: Any,
) -> dict[str, Any] | None:
    """Train one run, once, and evaluate it; returns its result on rank 0, None on the others.

    A run that is trained already is only evaluated, where this evaluation was not made. Every rank goes through the
    same steps; what fails on one fails on all.

    Args:
        mesh: this process's place among the ranks.
        peak_flops, usd_per_hour, share: of one device, and what a rank has of it; on CPUs there is no peak to speak of.
        in_parts: write the evaluation task by task too: a stop or a death in between costs one task.
        options: see ``Trainer``.

    Raises:
        ValueError: when ranks were given different specifications, or a layout that cannot cut the run.
        BusyError, StoppedError: when another live process has the run, or took it over (LostError); when asked to stop.
    """
    mesh, folder = mesh or Mesh(), RunDir(root, spec.run_id)
    devices = Devices(count=mesh.world_size * share, usd_per_hour=usd_per_hour, peak_flops=peak_flops)
    _agree(mesh, spec, evals)
    with contextlib.ExitStack() as held:
        result, damage = mesh.first(lambda: _take_up(folder, spec, held))
        if mesh.first(lambda: _finished(folder, result, evals)):
            return result if mesh.rank == 0 else None
        _require_version(spec)
        if spec.labelled is not None:
            options["deal"] = _labelled
        here = Trainer(spec, root, mesh=mesh, damage=damage, folder=folder, devices=devices, **options)
        if result is not None and here.step < int(result.get("steps", spec.steps)):
            raise StoreError(
                f"run {spec.run_id} is trained, but its last checkpoint is gone, so nothing more can be measured of "
                f"it: bring {folder.checkpoints} back, or move {folder.path} away to train it anew"
            )
        status = here.train(lambda: _held_out(here))
        if status != "diverged":
            status = _measure(here, [*(evals.parts if in_parts else ()), evals], status)
        if result is None:
            result = mesh.first(lambda: _result(here, status))
            mesh.first(lambda: folder.finish(result))
        return result if mesh.rank == 0 else None


def _labelled(spec: RunSpec, data: Shards) -> LabelledLoader:
    """The loader of a run that is fine-tuned."""
    wanted = spec.labelled
    assert wanted is not None
    filled = formats.filled(examples.trained_on(spec, data), spec.data.tokenizer, wanted.ways, wanted.length)
    return LabelledLoader(filled, lm_weight=wanted.lm_weight, seed=spec.seed)


def _agree(mesh: Mesh, spec: RunSpec, evals: EvalSpec) -> None:
    """Refuse to start where ranks were given different work, or would do it by different code, or cannot be cut so."""
    mine = {**as_dict(spec), "run_id": spec.run_id, "evals": evals.eval_id, "torch": torch.__version__}
    require_same(mesh, "specification", {**mine, "trainer": TRAINER_VERSION})
    if mesh.planned:
        layout.check(mesh.layout, spec.model, spec.optim.ramp.start // spec.unit_tokens)  # later batches are multiples
    if spec.labelled is not None and (problem := _uncut(mesh, spec)):
        raise ValueError(problem)
    sequences = spec.optim.batch_tokens // spec.unit_tokens
    if spec.noise_scale_every and (problem := layout.noise_scale_problem(mesh.layout, sequences)):
        raise ValueError(f"noise_scale_every={spec.noise_scale_every}: {problem}")


def _uncut(mesh: Mesh, spec: RunSpec) -> str:
    """Why a run cannot be fine-tuned under a layout; empty where it can."""
    if mesh.layout.model_parallel > 1:
        return (
            f"layout {mesh.layout.describe()}: fine-tuning reads whole sequences of a whole model; give data-parallel "
            "workers only (no placement.tensor, pipeline or context)"
        )
    if spec.options.drops and mesh.data_size > 1:
        return (
            f"options.dropout={spec.options.dropout:g} on {mesh.data_size} data-parallel workers: an example's "
            "sequences are not counted through there; fine-tune a parent with dropout on one worker"
        )
    return ""


def _require_version(spec: RunSpec) -> None:
    if spec.trainer_version != TRAINER_VERSION:
        raise StoreError(
            f"run {spec.run_id} was specified for trainer version {spec.trainer_version}, this is version "
            f"{TRAINER_VERSION}, which would train it to other weights and measure other losses of them: leave it out "
            "(replace=true), or train and evaluate it with the isoflop that specified it"
        )


@pulse.busy("claiming the run")  # a holder that has gone silent is waited for
def _take_up(folder: RunDir, spec: RunSpec, held: contextlib.ExitStack) -> tuple[dict[str, Any] | None, list[str]]:
    """Claim a run as long as ``held`` is open; its result, if any, and what was found damaged.

    Raises:
        BusyError: when another live process has the run.
    """
    held.enter_context(folder.claimed(spec))
    try:
        return folder.sound_result(), []
    except StoreError as error:
        aside = files.set_aside(folder.path / "result.json")
        return None, [
            f"run {spec.run_id}: its result is damaged ({error}); it was set aside as {aside} and made again from the "
            "last checkpoint, but check that disk"
        ]


def _finished(folder: RunDir, result: dict[str, Any] | None, evals: EvalSpec) -> bool:
    """Whether nothing is left to train or to measure."""
    return result is not None and folder.complete(result, evals.eval_id)


def _held_out(here: Trainer) -> float:
    """The validation loss of a run that may stop early, on every rank."""
    tokens = here.spec.options.stop_validation_tokens
    where = here.spec.model.n_ctx, tokens, here.device
    return held_out.measure(here.answers, here.data, *where, mesh=here.mesh)["loss"]


def _measure(here: Trainer, evaluations: Sequence[EvalSpec], status: str) -> str:
    """One evaluation after another; raises StoppedError in between when asked to stop."""
    for i, evals in enumerate(evaluations):
        if i and here.mesh.agree(here.stop()):
            raise StoppedError
        status = _evaluate(here, evals, status)
    return status


def _evaluate(here: Trainer, evals: EvalSpec, status: str) -> str:
    """Measure the trained model, and write the table unless it is there; the status as it was, or "diverged".

    Replicas share text and questions out.
    """
    run, mesh = here.dir, here.mesh
    if mesh.first(lambda: run.evaluated(evals.eval_id)):
        return status
    here.progress("evaluating", None)
    known = mesh.first(lambda: [{name: _plain(value) for name, value in row.items()} for row in run.measurements()])
    asked = here.answers, here.spec, evals, here.data
    table = runner.evaluate(*asked, here.numerics, here.device, known, mesh)
    losses = [loss for loss in table["loss"] if loss is not None]
    if mesh.agree(not all(map(math.isfinite, losses))):
        here.event("diverged", step=here.step, reason="the held-out loss is not finite")
        return "diverged"
    mesh.first(lambda: run.write_evaluation(evals.eval_id, table))
    return status


def _text(here: Trainer, tokens: int) -> dict[str, Any]:
    """What the run has seen of its text: epochs are of the source that was repeated most, but for generated ones."""
    seen = here.loader.seen((tokens + here.guard.passed_tokens) // here.spec.unit_tokens)
    return {
        "epochs": max(source.epochs for name, source in seen.items() if name != episodes.NAME),
        "unique_tokens": sum(source.unique_tokens for source in seen.values()),
        "sources": {name: vars(source) for name, source in seen.items()},
    }


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _result(here: Trainer, status: str) -> dict[str, Any]:
    """What result.json says of a training that ended."""
    spec, spent, seconds = here.spec, here.spent, max(here.train_seconds, 1e-9)
    tokens = spec.tokens_at(here.step)
    trained = tokens - spec.tokens_at(here.first_step)
    flops = costs.train_flops(spec.model, trained)
    return {
        "status": status,
        "run_id": spec.run_id,
        "steps": here.step,
        "tokens": tokens,
        **_text(here, tokens),
        **here.guard.counts,
        **vars(here.numerics),
        "threads": here.threads,
        "compile": here.compile,
        "micro_batch": here.micro_batch,
        "trunk": here.trunk,
        "attempt": here.attempt_name,
        "attempts": len(here.dir.attempts()),
        "train_seconds": round(here.train_seconds, 3),
        "devices": here.mesh.world_size,
        "device_seconds": round(spent.device_seconds, 3),
        "device": timing.machine(here.device),
        "gpu_hours": spent.device_seconds / 3600 if here.device == "cuda" else 0.0,
        "cost": spent.usd,
        "mfu": flops / spent.possible_flops if spent.possible_flops else None,
        "tokens_per_second": round(trained / seconds, 1),
        "flops_per_second": round(flops / seconds),
        "torch": torch.__version__,
        "noise_scale": here.noise.value,
        "batch_beyond_noise_scale": here.noise.beyond,
        "damage": here.dir.damage(),
    }
