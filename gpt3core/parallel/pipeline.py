"""Pipeline parallelism: runs of neighbouring blocks on different devices, micro-batches in flight between them.

One stage a device is 1F1B (Narayanan et al. 2019, PipeDream-flush), several are interleaved (Narayanan et al. 2021,
arXiv 2104.04473, section 2.2), and the weights' part of the backward pass may fill the bubble (zero bubble: Qi et al.
2023, arXiv 2401.10241). The schedules are torch's. A weight that the first and the last stage share (tied embedding and
head) is held by both, and its gradients are summed (``gradients``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from gpt3core import pulse
from gpt3core.model import registry
from gpt3core.model.architecture import Cuts, ModelSpec
from gpt3core.model.dropout import Dropout
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.mesh import Mesh
from gpt3core.train.objective import Examples, Loss


def numbers(layout: Layout, place: int) -> list[int]:
    """The stages that the device at a place of the pipeline holds, looped: every ``pipeline``-th."""
    return list(range(place, layout.stages, layout.pipeline))


def split(build: Callable[[], nn.Module], cuts: Cuts, layout: Layout, place: int) -> tuple[nn.Module, list[nn.Module]]:
    """What a device holds of a model, as one module with all its parameters, and its stages, which share them.

    Args:
        build: makes the model without memory; it is called once a stage.
    """
    held = numbers(layout, place)
    stages = [_reduced(build(), cuts, layout, [number]) for number in held]
    if len(stages) == 1:
        return stages[0], stages
    model = _reduced(build(), cuts, layout, held)
    for stage in stages:
        for name, module in stage.named_children():
            if name != cuts.layers:
                setattr(model, name, module)
        getattr(model, cuts.layers).update(getattr(stage, cuts.layers))
    return model, stages


def _reduced(model: nn.Module, cuts: Cuts, layout: Layout, held: Sequence[int]) -> nn.Module:
    """A model less what other stages hold; names stay."""
    blocks = getattr(model, cuts.layers)
    each = len(blocks) // layout.stages
    for position, name in enumerate(list(blocks)):
        if position // each not in held:
            del blocks[name]
    others = [] if 0 in held else [cuts.tokens, cuts.positions]
    others += [] if layout.stages - 1 in held else [cuts.norm, cuts.head]
    for name in others:
        setattr(model, name, None)
    return model


class Pipeline:
    """The stages of a device and the schedules that run them."""

    def __init__(
        self,
        stages: list[nn.Module],
        mesh: Mesh,
        *,
        spec: ModelSpec,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
        dropout: Dropout | None = None,
    ) -> None:
        """Prepare stages, whose forward passes run in ``autocast``, for the batches that come.

        Args:
            dropout: is told whose micro-batch passes through a stage.
        """
        self._mesh, self._device, self._modules = mesh, device, stages
        self._width, self._vocabulary = registry.of(spec).width(spec), spec.vocab_size
        self._schedules: dict[tuple[int, ...], Any] = {}
        self._examples: list[Examples] = []
        self._loss: Loss | None = None
        self._dropout = dropout
        self._passed = [0] * len(stages)  # micro-batches of this step, by stage; each takes them in their order
        for number, stage in enumerate(stages):
            stage.forward = _within(functools.partial(self._pass, number, autocast), stage.forward)

    def backward(self, examples: list[Examples], loss: Loss) -> Tensor:
        """The gradients of all micro-batches, added where they belong; their losses' sum, on the last stage's device.

        Raises:
            RuntimeError: when another stage's rank is gone; ``Held.backward`` says what that means.
        """
        count, mesh = len(examples), self._mesh
        self._examples, self._loss, self._passed = examples, loss, [0] * len(self._modules)
        shape = count, *examples[0].inputs.shape
        if shape not in self._schedules:
            self._schedules.clear()  # each has buffers for what arrives of every micro-batch (``memory``)
            self._schedules[shape] = self._schedule(count, examples[0])
        inputs = [torch.cat([e.inputs for e in examples])] if mesh.first_stage else []
        words: dict[str, Any] = {"return_outputs": False}
        if examples[0].documents is not None:  # dealt out to the micro-batches, of every stage
            words["documents"] = torch.cat([e.documents for e in examples if e.documents is not None])
        losses: list[Tensor] = []
        if mesh.last_stage:
            words |= {"target": torch.arange(count), "losses": losses}
        # casts of the weights are kept until the outermost context ends: all micro-batches share them
        with torch.autocast(self._device.type, enabled=False):
            self._schedules[shape].step(*inputs, **words)
        return (
            torch.stack([found.detach() for found in losses]).sum() if losses else torch.zeros((), device=self._device)
        )

    @contextlib.contextmanager
    def _pass(self, stage: int, autocast: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Around the forward pass of a stage's next micro-batch."""
        number, self._passed[stage] = self._passed[stage], self._passed[stage] + 1
        drops = contextlib.nullcontext() if self._dropout is None else self._dropout.at(self._examples[number].rows)
        with autocast(), drops:
            yield
        pulse.beat()

    def _of(self, output: Tensor, number: Tensor) -> Tensor:
        """The loss of a micro-batch by its number."""
        assert self._loss is not None
        return self._loss(output, self._examples[int(number)])

    def _schedule(self, count: int, example: Examples) -> Any:
        layout = self._mesh.layout
        held = zip(numbers(layout, self._mesh.place("pipeline")), self._modules, strict=True)
        stages = [self._stage(number, module, example) for number, module in held]
        kind: Any = ScheduleInterleavedZeroBubble if layout.zero_bubble else ScheduleInterleaved1F1B
        if layout.virtual == 1 and not layout.zero_bubble:
            return Schedule1F1B(stages[0], count, loss_fn=self._of, scale_grads=False)
        return kind(stages, count, loss_fn=self._of, scale_grads=False)

    def _stage(self, number: int, module: nn.Module, example: Examples) -> PipelineStage:
        """A stage with the shapes that it takes and gives, so that none has to be told between ranks."""
        layout, (rows, positions) = self._mesh.layout, example.inputs.shape
        last = layout.stages - 1
        stream = torch.empty(rows, positions // layout.tensor, self._width, device="meta", requires_grad=True)
        logits = torch.empty(rows, positions, self._vocabulary, device="meta", requires_grad=True)
        return PipelineStage(
            module,
            number,
            last + 1,
            self._device,
            input_args=example.inputs.to("meta") if number == 0 else stream,
            output_args=logits if number == last else stream,
            group=self._mesh.group("pipeline"),
        )


def _within(context: Callable[[], AbstractContextManager[Any]], forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Tensor, **words: Any) -> Any:
        with context():
            return forward(x, **words)

    return run
