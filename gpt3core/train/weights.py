"""The weights that fine-tuning begins from: the parent's, by name; what the parent has not stays as it was drawn."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from gpt3core.errors import StoreError
from gpt3core.model import classifier, registry
from gpt3core.model.parameters import Part, named
from gpt3core.parallel.parts import part_of
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint


def take(run: RunDir, spec: RunSpec, model: nn.Module) -> None:
    """Put the parent's weights into a model that has more tokens than it, and a classifier.

    Raises:
        StoreError: when the parent's checkpoint is missing, damaged or of another shape.
    """
    assert spec.parent is not None
    parent, step = RunDir(run.root, spec.parent.run_id), spec.parent.step
    parent.refresh()
    if not parent.path.exists():
        raise StoreError(
            f"run {run.run_id} fine-tunes {parent.run_id}, which {run.root} does not hold: train it first, or name "
            "another parent"
        )
    there = parent.spec()
    if (found := replace(spec.model, vocab_size=there.model.vocab_size)) != there.model or (
        there.data.tokenizer != spec.data.tokenizer
    ):
        raise StoreError(
            f"run {run.run_id} is to fine-tune {parent.run_id}, which is another model ({there.model}, with "
            f"{there.data.tokenizer}) than its own ({found}, with {spec.data.tokenizer}): name another parent"
        )
    folder = parent.fetch_checkpoint(step)
    if not folder.exists():
        kept = ", ".join(map(str, parent.checkpoint_steps())) or "none"
        raise StoreError(
            f"run {run.run_id} fine-tunes step {step} of {parent.run_id}, and {folder} is not there (checkpoints of "
            f"it: {kept}): train the parent to that step first, or name one of these steps"
        )
    cuts = registry.of(spec.model).cuts
    try:
        contents = checkpoint.read(folder, parent.run_id, model)
        for name, parameter in named(model):
            part = part_of(parameter)
            if name == f"{cuts.tokens}.weight":
                part = _known(part, there.model.vocab_size)
            if not name.startswith(f"{classifier.NAME}.") and part.values.numel():
                part.values.copy_(contents.part(name, part))
    except checkpoint.DamageError as error:
        raise StoreError(
            f"run {run.run_id} cannot fine-tune step {step} of {parent.run_id}: {error}; restore {folder} from a copy, "
            "or name another step"
        ) from error


def _known(part: Part, vocab_size: int) -> Part:
    """The rows of an embedding that a smaller vocabulary has."""
    rows = max(0, vocab_size - part.start[0])
    return Part(values=part.values[:rows], shape=(vocab_size, *part.shape[1:]), start=part.start)
