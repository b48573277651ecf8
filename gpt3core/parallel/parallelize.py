"""A model cut by a layout, from outside and in a fixed order, and the gradients of what a rank holds of it.

Pipeline stages first, then what is cut in them: context, tensor, recompute, compile, and sharding over data-parallel
ranks last, around all. A model is built without memory, and each rank gives memory to its own part only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gpt3core import pulse
from gpt3core.labelled import LabelledSpec
from gpt3core.model import classifier, registry
from gpt3core.model.architecture import Cuts, ModelSpec
from gpt3core.model.dropout import Dropout, install
from gpt3core.model.parameters import tie
from gpt3core.numerics import COMPILED
from gpt3core.options import Options
from gpt3core.parallel.mesh import Mesh, passing
from gpt3core.parallel.positions import runs
from gpt3core.parallel.replicas import Averaging
from gpt3core.train.objective import Examples, Loss, loss_sum, model_loss_sum, smoothed

if TYPE_CHECKING:
    from gpt3core.parallel.pipeline import Pipeline

PLAIN = Options()

# the techniques are imported where one is used: DTensor and pipelining take seconds, and most runs use none


@dataclass(frozen=True, kw_only=True)
class Held:
    """What this rank holds of a model."""

    model: nn.Module  # with all parameters that are here, by their names in the whole
    stages: tuple[nn.Module, ...]  # of the pipeline, in their order; the model itself where there is one
    pipeline: Pipeline | None
    autocast: Callable[[], AbstractContextManager[Any]]  # what a forward pass runs in
    loss: Loss | None  # summed over the targets that count, from cut logits
    around: Callable[[], AbstractContextManager[Any]]  # what a whole forward and backward pass runs in
    gathers_in: torch.dtype | None = None  # the type of a sharded state's blocks in training, where it is another
    dropout: Dropout | None = None  # told by ``backward`` whose sequences pass
    averaging: Averaging | None = None  # of replicas that each hold a whole model

    def backward(self, examples: list[Examples], share: float, *, average: bool = True) -> Tensor:
        """Add the gradients of micro-batches, each loss times ``share``; the losses' sum, on the last stage.

        Args:
            average: over whole replicas at once (``averaged``), where this can be.

        Raises:
            PeerError: when a rank that takes part is gone.
        """
        with passing(), self.around():
            if self.pipeline is not None:
                from_logits = self.loss or loss_sum
                return self.pipeline.backward(examples, lambda logits, some: from_logits(logits, some) * share)
            total = torch.zeros((), device=examples[0].inputs.device)
            for number, some in enumerate(examples):
                self._begin(last=number == len(examples) - 1, average=average)
                found = self._loss_sum(some) * share
                torch.autograd.backward(found)
                total += found.detach()
                pulse.beat()
            if self.averaging is not None:
                self.averaging.end()
            return total

    @property
    def averaged(self) -> bool:
        """Whether the last ``backward`` has averaged gradients over replicas."""
        return self.averaging is not None and self.averaging.done

    def _begin(self, *, last: bool, average: bool) -> None:
        """Tell what sums over ranks whether this is the step's last backward pass: it does so once."""
        if self.averaging is not None:
            self.averaging.begin(last=last and average)
        if callable(tell := getattr(self.model, "set_requires_all_reduce", None)):  # copies of a sharded state
            tell(last)

    def reshard(self) -> None:
        """Give back what passes without a backward pass have left gathered: parameters are this rank's parts again."""
        for stage in self.stages:
            for module in stage.modules():
                if callable(give_back := getattr(module, "reshard", None)):
                    give_back()
        self.gather_in(self.gathers_in)

    def gather_in(self, kind: torch.dtype | None) -> None:
        """Have a sharded state's blocks gathered in a type from here on, where there are two; None for their own."""
        if self.gathers_in is not None:
            from gpt3core.parallel import fsdp

            for stage in self.stages:
                fsdp.gather_in(stage, kind)

    def _loss_sum(self, examples: Examples) -> Tensor:
        """Of a model in one stage."""
        drops = nullcontext() if self.dropout is None else self.dropout.at(examples.rows)
        with self.autocast(), drops:
            if self.loss is None:
                return model_loss_sum(self.model, examples)
            logits = self.model(examples.inputs, documents=examples.documents)
        return self.loss(logits, examples)


def parallelize(
    spec: ModelSpec,
    mesh: Mesh,
    *,
    kernel: str,
    device: str,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    compiled: str = "none",
    options: Options = PLAIN,
    seed: int = 0,
    labelled: LabelledSpec | None = None,
) -> Held:
    """Build what a rank holds of a model, its weights not yet drawn.

    Args:
        kernel: of the attention.
        autocast: what a forward pass runs in.
        compiled: "none", or which of COMPILED.
        options, seed: what is added to GPT-3's training, and what it draws by.
        labelled: what a classifier is put on the model for, if anything.
    """
    layout, cuts = mesh.layout, registry.of(spec).cuts
    model, stages = _stages(spec, mesh, kernel)
    _classify(spec, mesh, model, labelled, seed)
    if layout.context > 1:
        from gpt3core.parallel import context

        context.share(model, cuts, mesh)
    if layout.tensor > 1:
        from gpt3core.parallel import tensor

        tensor.cut(model, cuts, mesh.axes("tensor"))
    tie(model)
    dropout = _dropout(model, cuts, mesh, options, seed)
    if layout.recompute != "none":
        from gpt3core.parallel import recompute

        recompute.wrap(model, cuts, layout.recompute, dropout)
    _compile(model, cuts, device, compiled, n_ctx=spec.n_ctx, parted=layout.parted or labelled is not None)
    if layout.shard > 1:
        from gpt3core.parallel import fsdp

        for stage in stages:
            fsdp.shard(stage, cuts, mesh, _kind(autocast, device))
    _give_memory(model, cuts, device, compiled)
    return _held(spec, mesh, model, stages, autocast, options, dropout)


def _kind(autocast: Callable[[], AbstractContextManager[Any]], device: str) -> torch.dtype | None:
    """What type products are of in a context, where it is another than the weights'."""
    with autocast():
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _compile(model: nn.Module, cuts: Cuts, device: str, what: str, *, n_ctx: int, parted: bool) -> None:
    """Have a model's blocks compiled, if they are to be; a GPU compiles attention in any case."""
    if what in COMPILED or device == "cuda":
        from gpt3core.parallel import compiled as compiling

        if what in COMPILED:
            compiling.compile_blocks(model, cuts, device, n_ctx=n_ctx, loss=what == "all", parted=parted)
        else:
            compiling.begin()


def _give_memory(model: nn.Module, cuts: Cuts, device: str, compiled: str) -> None:
    """Put a model that was built without memory on a device, with what compiled code only reads there."""
    model.to_empty(device=device)
    tie(model)
    if compiled in COMPILED and device == "cuda":
        for block in getattr(model, cuts.layers).values():
            block.get_submodule(cuts.attention).prepare(torch.device(device))


def _classify(spec: ModelSpec, mesh: Mesh, model: nn.Module, labelled: LabelledSpec | None, seed: int) -> None:
    """Put a classifier on a model that is fine-tuned."""
    if labelled is not None:
        assert mesh.layout.model_parallel == 1, "a classifier reads whole sequences of a whole model"
        with torch.device("meta"):
            classifier.attach(model, registry.of(spec).width(spec), labelled, seed)


def _held(
    spec: ModelSpec,
    mesh: Mesh,
    model: nn.Module,
    stages: list[nn.Module],
    autocast: Callable[[], AbstractContextManager[Any]],
    options: Options,
    dropout: Dropout | None,
) -> Held:
    """What was cut, with the loss and the schedule that fit the cut."""
    loss: Loss | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    pipeline, device = None, next(model.parameters()).device
    if mesh.layout.shard == 1 and mesh.layout.recompute != "full":
        # all micro-batches share the casts of the weights, which are kept until the outermost context ends
        around = functools.partial(torch.autocast, device.type, enabled=False)
    if mesh.layout.tensor > 1:
        from torch.distributed.tensor.parallel import loss_parallel

        from gpt3core.parallel import tensor

        loss, around = tensor.vocabulary_parallel(mesh, spec.vocab_size), loss_parallel
    if options.label_smoothing:
        loss = _smoothed(spec, mesh, model, loss, options.label_smoothing)
    if mesh.layout.pipeline > 1:
        from gpt3core.parallel.pipeline import Pipeline

        pipeline = Pipeline(stages, mesh, spec=spec, device=device, autocast=autocast, dropout=dropout)
    return Held(
        model=model,
        stages=tuple(stages),
        pipeline=pipeline,
        autocast=autocast,
        loss=loss,
        around=around,
        gathers_in=_kind(autocast, device.type) if mesh.layout.shard > 1 else None,
        dropout=dropout,
        averaging=Averaging(model, mesh) if mesh.layout.whole_replicas else None,
    )


def _dropout(model: nn.Module, cuts: Cuts, mesh: Mesh, options: Options, seed: int) -> Dropout | None:
    """What the parts here drop, if anything; by the places of this rank among those that share positions or heads."""
    if not options.dropout and not options.attention_dropout:
        return None
    place, degree = mesh.place("context"), mesh.degree("context")
    found = Dropout(
        seed,
        options.dropout,
        options.attention_dropout,
        runs=lambda here: runs(degree * here, place, degree),
        tensor=mesh.place("tensor"),
        cut=mesh.degree("tensor"),
    )
    gather = None
    if degree > 1:
        from gpt3core.parallel import context

        gather = context.gather_over(mesh.group("context"), degree)
    install(model, cuts, found, gather)
    return found


def _smoothed(spec: ModelSpec, mesh: Mesh, model: nn.Module, loss: Loss | None, smoothing: float) -> Loss | None:
    """The loss with smoothed labels; of a whole head in one stage the head's own, which is told so."""
    if mesh.layout.pipeline == mesh.layout.tensor == 1:
        model.get_submodule(registry.of(spec).cuts.head).smoothing = smoothing  # type: ignore[assignment]
        return loss
    each = -(-spec.vocab_size // mesh.layout.tensor)  # as torch.chunk cuts
    return smoothed(loss or loss_sum, smoothing, spec.vocab_size, first=mesh.place("tensor") * each)


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
