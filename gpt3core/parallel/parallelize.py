"""A model cut by a layout, from outside and in a fixed order, and the gradients of what a rank holds of it.

Pipeline stages first, then what is cut in them: context, tensor, recompute, compile, and sharding over data-parallel
ranks last, around all. A model is built without memory, and each rank gives memory to its own part only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.model.parameters import tie
from gpt3core.parallel.mesh import Mesh, explained
from gpt3core.train.objective import Examples, loss_sum, model_loss_sum

if TYPE_CHECKING:
    from gpt3core.parallel.pipeline import Pipeline

# the techniques are imported where one is used: DTensor and pipelining take seconds, and most runs use none


@dataclass(frozen=True, kw_only=True)
class Held:
    """What this rank holds of a model."""

    model: nn.Module  # with all parameters that are here, by their names in the whole
    stages: tuple[nn.Module, ...]  # of the pipeline, in their order; the model itself where there is one
    pipeline: Pipeline | None
    autocast: Callable[[], AbstractContextManager[Any]]  # what a forward pass runs in
    loss: Callable[[Tensor, Examples], Tensor] | None  # summed over the targets that count, from cut logits
    around: Callable[[], AbstractContextManager[Any]]  # what a whole forward and backward pass runs in

    def backward(self, examples: list[Examples], share: float) -> Tensor:
        """Add the gradients of micro-batches, each loss times ``share``; the losses' sum, on the last stage.

        Raises:
            PeerError: when a rank that takes part is gone.
        """

        with explained(all_of_them=False), self.around():
            if self.pipeline is not None:
                from_logits = self.loss or loss_sum
                return self.pipeline.backward(examples, lambda logits, some: from_logits(logits, some) * share)
            total = torch.zeros((), device=examples[0].inputs.device)
            for number, some in enumerate(examples):
                _last(self.model, number == len(examples) - 1)
                found = self._loss_sum(some) * share
                torch.autograd.backward(found)
                total += found.detach()
            return total

    def _loss_sum(self, examples: Examples) -> Tensor:
        """Of a model in one stage."""
        with self.autocast():
            if self.loss is None:
                return model_loss_sum(self.model, examples)
            logits = self.model(examples.inputs, documents=examples.documents)
        return self.loss(logits, examples)


def _last(model: nn.Module, last: bool) -> None:
    """Tell a sharded model whether this is the step's last backward pass: copies of the state are summed once."""
    if callable(tell := getattr(model, "set_requires_all_reduce", None)):
        tell(last)


def parallelize(
    spec: ModelSpec,
    mesh: Mesh,
    *,
    kernel: str,
    device: str,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    compiled: bool = False,
) -> Held:
    """Build what a rank holds of a model, its weights not yet drawn.

    Args:
        kernel: of the attention.
        autocast: what a forward pass runs in.
        compiled: whether blocks are compiled.
    """
    layout, cuts = mesh.layout, registry.of(spec).cuts
    model, stages = _stages(spec, mesh, kernel)
    if layout.context > 1:
        from gpt3core.parallel import context

        context.share(model, cuts, mesh)
    if layout.tensor > 1:
        from gpt3core.parallel import tensor

        tensor.cut(model, cuts, mesh.axes("tensor"))
    tie(model)
    if layout.recompute != "none":
        from gpt3core.parallel import recompute

        recompute.wrap(model, cuts, layout.recompute)
    if compiled:
        from gpt3core.parallel import compiled as compiling

        compiling.compile_blocks(model, cuts)
    if layout.shard > 1:
        from gpt3core.parallel import fsdp

        for stage in stages:
            fsdp.shard(stage, cuts, mesh)
    model.to_empty(device=device)
    tie(model)
    return _held(spec, mesh, model, stages, autocast)


def _held(
    spec: ModelSpec,
    mesh: Mesh,
    model: nn.Module,
    stages: list[nn.Module],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Held:
    """What was cut, with the loss and the schedule that fit the cut."""
    loss: Callable[[Tensor, Examples], Tensor] | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    pipeline = None
    if mesh.layout.tensor > 1:
        from torch.distributed.tensor.parallel import loss_parallel

        from gpt3core.parallel import tensor

        loss, around = tensor.vocabulary_parallel(mesh, spec.vocab_size), loss_parallel
    if mesh.layout.pipeline > 1:
        from gpt3core.parallel.pipeline import Pipeline

        pipeline = Pipeline(stages, mesh, spec=spec, device=next(model.parameters()).device, autocast=autocast)
    return Held(model=model, stages=tuple(stages), pipeline=pipeline, autocast=autocast, loss=loss, around=around)


def _stages(spec: ModelSpec, mesh: Mesh, kernel: str) -> tuple[nn.Module, list[nn.Module]]:
    """The model without memory, and its stages here."""
    architecture = registry.of(spec)

    def build() -> nn.Module:
        with torch.device("meta"):
            model: nn.Module = architecture.build(spec, kernel=kernel)
        return model

    if mesh.layout.pipeline == 1:
        model = build()
        return model, [model]
    from gpt3core.parallel import pipeline

    return pipeline.split(build, architecture.cuts, mesh.layout, mesh.place("pipeline"))
