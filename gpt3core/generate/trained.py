"""The model of a trained run, to be used rather than trained: found, read, checked; nothing of the run is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core.data import tokenizer
from gpt3core.errors import StoreError, UsageError
from gpt3core.model import registry
from gpt3core.spec import TRAINER_VERSION, RunSpec
from gpt3core.store import finding
from gpt3core.store.rundir import RunDir, default_root

if TYPE_CHECKING:
    import tiktoken

LAST = "last"
KERNEL = "sdpa"  # of prompts; no run's arithmetic is repeated here


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's model with its weights of a step, in fp32 on the device, and the tokenizer of its text."""

    run: RunDir
    spec: RunSpec
    step: int
    model: Any
    encoding: tiktoken.Encoding


def open_run(
    name: str, *, root: Path | None = None, step: str | None = None, device: str = "cpu", kernel: str = KERNEL
) -> Trained:
    """The model of a run, by its id, label, or the beginning of its id.

    Args:
        root: the store; by default the one that ``ISOFLOP_ROOT`` names.
        step: a checkpoint's step or "last"; without it the run must be finished, and its last weights are meant.
        kernel: of the model, which differs in the last bits alone.

    Raises:
        UsageError: for a run or step that there is not, or a run that is not finished, or diverged.
        StoreError: when the store or the checkpoint is damaged.
    """
    run = finding.find(root or default_root(), name)
    spec = run.spec()
    if spec.trainer_version != TRAINER_VERSION:
        raise StoreError(
            f"run {run.run_id} was trained by trainer version {spec.trainer_version}, and this is version "
            f"{TRAINER_VERSION}, whose model may compute something else: use the isoflop that trained it"
        )
    chosen = _step(run, spec, step)
    return Trained(
        run=run,
        spec=spec,
        step=chosen,
        model=_read(run, spec, chosen, kernel).to(device),
        encoding=tokenizer.load(spec.data.tokenizer),
    )


def _step(run: RunDir, spec: RunSpec, asked: str | None) -> int:
    """Which of a run's checkpoints is meant."""
    kept = run.checkpoint_steps()
    there = f"its checkpoints are of step {', '.join(map(str, kept))}" if kept else "it has no checkpoint"
    if asked is not None:
        if not kept or (asked != LAST and not asked.isdecimal()) or (asked != LAST and int(asked) not in kept):
            raise UsageError(f"step={asked} of run {run.run_id}: {there}; give one of these, or {LAST}")
        return kept[-1] if asked == LAST else int(asked)
    result = run.sound_result()
    if result is None:
        reached = f"it is at step {kept[-1]} of {spec.steps} at least" if kept else "it has no checkpoint yet"
        advice = f"step={LAST} takes the checkpoint that it has" if kept else "wait for it, or train it"
        raise UsageError(f"run {run.run_id} is not finished ({reached}): {advice}")
    if result["status"] == "diverged":
        advice = f"{there}, which step=N takes, from before if it is sound" if kept else there
        raise UsageError(f"run {run.run_id} diverged, so its last weights are no model: {advice}")
    last = int(result.get("steps", spec.steps))  # fewer than asked for where it stopped early
    if last not in kept:
        raise StoreError(
            f"run {run.run_id} is trained, but the checkpoint of its last step {last} is gone: bring it back to "
            f"{run.checkpoints}, or take another one (step=N); {there}"
        )
    return last


def _read(run: RunDir, spec: RunSpec, step: int, kernel: str) -> Any:
    """The module with the weights of a checkpoint."""
    import torch

    from gpt3core.model.parameters import named, whole
    from gpt3core.train import checkpoint

    model = registry.of(spec.model).build(spec.model, kernel=kernel)
    try:
        contents = checkpoint.read(run.fetch_checkpoint(step), run.run_id)
        for name, parameter in named(model):
            parameter.detach().copy_(contents.part(name, whole(parameter)))
    except checkpoint.DamageError as error:
        others = [str(s) for s in run.checkpoint_steps() if s != step]
        advice = f"step={others[-1]} takes the one before, or bring" if others else "bring"
        raise StoreError(
            f"the checkpoint of step {step} of run {run.run_id} is damaged ({error}): {advice} it back from a copy"
        ) from error
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise StoreError(
            f"run {run.run_id} has weights at step {step} that are not finite: it diverged; take another step or run"
        )
    return model.eval()
