"""How long a step of a layout takes: matrix products, memory traffic, messages, recomputation, the bubble. No torch.

A device works at a share of its peak in matrix products, moves what the other operations read and write at its memory's
speed, and sends what tensor and data parallelism need over links inside a node and a network between nodes. The
constants are fitted to published runs (``tests/benchmarks/plan_published.py``); the formulas are those of Narayanan
et al. 2021 (arXiv 2104.04473) and Korthikanti et al. 2022 (arXiv 2205.05198).
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt3core import costs
from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.memory import LOSS_BYTES, gathered, stage_params

TRAFFIC = 3.0  # bytes read and written a byte that is kept for the backward pass
LINK = 0.7  # of a link's or network's data-sheet speed
BLOCK_SECONDS = 60e-6  # of a block's forward pass at least: a dozen kernels of 5 microseconds
OPTIMIZER_BYTES = 28.0  # a parameter: weight, gradient and moments read, all but the gradient written


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU by its maker's data sheet, and the node that it sits in."""

    peak_flops: float  # dense, 16 bits
    matmul: float  # share of it that training reaches in large matrix products
    memory_bytes: float
    memory_speed: float  # bytes a second
    link_speed: float  # bytes a second to the others of a node, one way
    network_speed: float  # bytes a second to other nodes, one way, a GPU
    node: int = 8  # GPUs of a node


@dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one optimizer step, by what they go to."""

    model: float  # matrix products that the model asks for, and what comes with them
    recompute: float
    tensor: float  # messages between devices that share matrices or positions
    bubble: float
    data: float  # messages between replicas that are not hidden, and the optimizer
    flops: float  # of the model, on all devices together
    again: float  # FLOPs of what is computed again

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.model + self.recompute + self.tensor + self.bubble + self.data

    def mfu(self, devices: int, peak: float) -> float:
        """The model's FLOPs over what the devices could have done."""
        return self.flops / (self.seconds * devices * peak)

    def hfu(self, devices: int, peak: float) -> float:
        """The same with what was computed again counted as work, as Narayanan et al. 2021 count."""
        return (self.flops + self.again) / (self.seconds * devices * peak)


def step(
    model: ModelSpec,
    layout: Layout,
    *,
    sequences: int,
    device: Device,
    numerics: Numerics,
    utilisation: float | None = None,
) -> Step:
    """The time of a step of so many sequences.

    Args:
        utilisation: measured: the share of its peak that a device reaches while it works, recomputation counted as
            work; in place of what products, memory and links inside a node say.
    """
    micro = layout.micro_batches(sequences)
    tokens = layout.micro_batch * model.n_ctx / layout.context  # of a micro-batch, on a device
    n_layer = registry.of(model).n_layer(model)
    here = n_layer / layout.pipeline
    head, block, inside = _flops(model)
    once = {"none": 0.0, "selective": inside, "full": block}[layout.recompute]  # FLOPs a token computed again
    if utilisation is not None:
        rate = device.peak_flops * utilisation * layout.tensor
        forward, again, message = block / rate, once / rate, 0.0
        last = head / rate
    else:
        forward, again, last = _seconds(model, layout, device, numerics)
        message = _tensor_message(model, layout, device) + _context_message(model, layout, device, numerics)
    floor = BLOCK_SECONDS / tokens
    passes = 3 * max(forward, floor) * here  # the backward pass costs twice the forward pass
    fullest = passes + 3 * last  # the last stage has the head too, and the others wait for it
    resent = 3 if layout.recompute == "full" else 2
    model_s, again_s = micro * tokens * fullest, micro * tokens * again * here
    tensor_s = micro * tokens * message * resent * here
    bubble = layout.bubble(sequences) * (model_s + again_s + tensor_s) + _between_stages(model, layout, micro, device)
    all_tokens = sequences * model.n_ctx
    return Step(
        model=model_s,
        recompute=again_s,
        tensor=tensor_s,
        bubble=bubble,
        data=_between_replicas(model, layout, micro, device, numerics, (model_s + again_s) / micro),
        flops=costs.train_flops(model, all_tokens),
        again=all_tokens * n_layer * once,
    )


def _flops(model: ModelSpec) -> tuple[float, float, float]:
    """Forward FLOPs a token of the head, of a block, and of the inside of its attention."""
    architecture = registry.of(model)
    head = 2.0 * architecture.width(model) * model.vocab_size
    block = (costs.forward_flops_per_token(model) - head) / architecture.n_layer(model)
    return head, block, block - 2.0 * architecture.layer_params(model)


def _seconds(model: ModelSpec, layout: Layout, device: Device, numerics: Numerics) -> tuple[float, float, float]:
    """Seconds a token of a block's forward pass, of what of it is done again, and of the head's forward pass."""
    head, block, inside = _flops(model)
    kept = registry.of(model).activation_bytes(model, numerics, layout.tensor, layout.context)
    rate, speed = device.peak_flops * device.matmul * layout.tensor, device.memory_speed / TRAFFIC
    forward = block / rate + kept.all / speed
    again = {"none": 0.0, "selective": inside / rate + kept.inside / speed, "full": forward}[layout.recompute]
    logits = model.vocab_size / layout.tensor * (numerics.element_bytes + LOSS_BYTES)
    return forward, again, head / rate + logits / (3 * speed)  # what the loss moves is of all three passes


def _speed(device: Device, neighbours: int) -> float:
    """Bytes a second between so many neighbouring ranks: by the links of a node that has them all, else its network."""
    return LINK * (device.link_speed if neighbours <= device.node else device.network_speed)


def _tensor_message(model: ModelSpec, layout: Layout, device: Device) -> float:
    """Seconds a token and block of one pass's messages: two sums over the tensor group of 16-bit vectors (ring)."""
    if layout.tensor == 1:
        return 0.0
    ring = 2 * (layout.tensor - 1) / layout.tensor
    return 2 * ring * 2 * registry.of(model).width(model) / (LINK * device.link_speed)


def _context_message(model: ModelSpec, layout: Layout, device: Device, numerics: Numerics) -> float:
    """Seconds a token and block of one pass's messages: keys and values of other positions, about a stream wide."""
    if layout.context == 1:
        return 0.0
    size = 2 * numerics.element_bytes * registry.of(model).width(model) / layout.tensor * (layout.context - 1)
    return size / _speed(device, layout.tensor * layout.context)


def _between_stages(model: ModelSpec, layout: Layout, micro: int, device: Device) -> float:
    """Seconds a step that a stage sends and waits for the residual stream, in fp32, there and back."""
    if layout.pipeline == 1:
        return 0.0
    tokens = layout.micro_batch * model.n_ctx / layout.context
    size = 4 * registry.of(model).width(model) / layout.tensor * tokens
    return 2 * layout.virtual * micro * size / (LINK * device.network_speed)


def _between_replicas(
    model: ModelSpec, layout: Layout, micro: int, device: Device, numerics: Numerics, work: float
) -> float:
    """Seconds a step of sharing gradients and weights that are not hidden by ``work`` (of a micro-batch), and of AdamW.

    Replicas sum fp32 gradients once a step (ring), whole ones during its last backward pass. A sharded state is
    gathered once a micro-batch, its blocks twice, and its gradients are shared as often, while blocks compute; in a
    pipeline once a step, at its first and last micro-batch.
    """
    held = max(stage_params(model, layout, place) for place in {0, layout.pipeline - 1})
    optimizer = OPTIMIZER_BYTES * held / layout.shard / device.memory_speed
    across, beside = layout.data // layout.shard, layout.tensor * layout.context
    sums = 2 * (across - 1) / across * 4 * held / layout.shard / _speed(device, beside * layout.data)
    if layout.shard == 1:
        hidden = work * 2 / 3 if layout.whole_replicas else 0.0
        return max(0.0, sums - hidden) + optimizer
    share = (layout.shard - 1) / layout.shard / _speed(device, beside * layout.shard)
    once = gathered(model, layout, held, numerics.element_bytes)
    if layout.pipeline > 1:
        return sums + max(0.0, (once + 4 * held) * share - work) + optimizer
    twice = 2 * once - gathered(model, layout, held, numerics.element_bytes, blocks=0)
    return sums + micro * max(0.0, (twice + 4 * held) * share - work) + optimizer
