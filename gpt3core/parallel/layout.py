"""How one run is cut over devices, as plain data, and whether a model and its batch can be cut so. No torch.

Axes, outermost first: pipeline, data, context, tensor. ``shard`` does not multiply: it says how many of the data ranks
share one copy of weights, gradients and moments (1: each has its own; data: fully sharded; between: hybrid, HSDP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.numerics import COMPILED

# selective: only what is inside the attention (scores, softmax) is computed again (Korthikanti et al. 2022, section 5);
# full: a block's whole forward pass from its input
RECOMPUTE = ("none", "selective", "full")
DEGREES = ("data", "shard", "tensor", "pipeline", "context", "virtual")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Degrees of parallelism, the micro-batch and what is recomputed. One device alone by default."""

    data: int = 1  # replicas of the model, each with rows of its own
    shard: int = 1  # of these, neighbours that hold one copy of the state between them (FSDP)
    tensor: int = 1  # devices that share every matrix, inside one node; sequence parallel with it
    pipeline: int = 1  # devices that share the blocks, each with ``virtual`` runs of neighbours
    context: int = 1  # devices that share a sequence's positions
    virtual: int = 1  # stages a pipeline device holds: 1 is 1F1B, more is interleaved
    zero_bubble: bool = False  # the weights' part of the backward pass fills the bubble
    micro_batch: int = 1  # sequences of one forward and backward pass of a replica
    recompute: str = "none"  # none | selective | full

    def __post_init__(self) -> None:
        for name in (*DEGREES, "micro_batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value}: a whole number of 1 or more is needed")
        if self.recompute not in RECOMPUTE:
            raise ValueError(f"recompute={self.recompute!r}: allowed are {', '.join(RECOMPUTE)}")
        if self.data % self.shard:
            raise ValueError(f"shard={self.shard} does not divide data={self.data}: give one of {_divisors(self.data)}")
        if self.pipeline == 1 and (self.virtual > 1 or self.zero_bubble):
            key = "zero_bubble=True" if self.zero_bubble else f"virtual={self.virtual}"
            raise ValueError(f"{key} without a pipeline: leave it out, or give a pipeline of 2 or more")
        if self.zero_bubble and self.shard > 1:
            raise ValueError(
                f"zero_bubble=True with shard={self.shard}: torch's zero-bubble schedule loses gradients of sharded "
                "weights; give shard=1, or leave zero_bubble out"
            )

    @property
    def world_size(self) -> int:
        """Devices in all."""
        return self.data * self.context * self.tensor * self.pipeline

    @property
    def whole_replicas(self) -> bool:
        """Whether there are several devices, each with a whole model and its whole state."""
        return self.data > 1 and self.shard == self.model_parallel == 1

    @property
    def model_parallel(self) -> int:
        """Devices that hold one replica between them."""
        return self.context * self.tensor * self.pipeline

    @property
    def grain(self) -> int:
        """What the positions of a sequence divide by: a device of context has two runs, each of tensor the same of it.

        Between blocks the devices of tensor share positions too.
        """
        return self.context * (self.tensor if self.context == 1 else math.lcm(2, self.tensor))

    @property
    def stages(self) -> int:
        """Stages of the pipeline, virtual ones counted."""
        return self.pipeline * self.virtual

    @property
    def parted(self) -> bool:
        """Whether something is done between the blocks of a model: shards are gathered, or activations made again."""
        return self.shard > 1 or self.recompute != "none"

    def compiles(self, asked: str) -> str:
        """What is compiled of what is asked for (``numerics.COMPILES``).

        Devices that share positions gather keys inside of a block, a zero-bubble schedule takes its backward pass
        apart, and logits that are cut, or of a pipeline's last stage, have a loss of their own.
        """
        if self.context > 1 or self.zero_bubble:
            return "none"
        return "blocks" if asked == "all" and self.tensor * self.pipeline > 1 else asked

    def micro_batches(self, sequences: int) -> int:
        """Micro-batches that one replica takes of a global batch of so many sequences."""
        return sequences // (self.data * self.micro_batch)

    def bubble(self, sequences: int) -> float:
        """Time that a device waits in the pipeline over the time that it works.

        (p - 1) / (v m) (Narayanan et al. 2021, arXiv 2104.04473, section 2.2), of 1F1B too where zero_bubble has less.
        """
        return (self.pipeline - 1) / (self.virtual * self.micro_batches(sequences))

    def describe(self) -> str:
        """The degrees above one in words, like ``data 16 x tensor 8 x pipeline 8``."""
        named = (("data", self.data), ("context", self.context), ("tensor", self.tensor), ("pipeline", self.pipeline))
        words = " x ".join(f"{name} {degree}" for name, degree in named if degree > 1) or "one device"
        shared = f", state over {self.shard} of them" if self.shard > 1 else ""
        virtual = f", {self.virtual} stages a device" if self.virtual > 1 else ""
        virtual += ", zero bubble" if self.zero_bubble else ""
        again = f", {self.recompute} recompute" if self.recompute != "none" else ""
        return f"{words}{shared}{virtual}, micro-batch {self.micro_batch}{again}"


def check(layout: Layout, model: ModelSpec, sequences: int) -> None:
    """Refuse a layout that a model and a global batch of so many sequences cannot be cut by.

    Raises:
        ValueError: what does not divide, what would, and what to do, in one sentence.
    """
    _check_tensor(layout, model)
    _check_pipeline(layout, model, sequences)
    if model.n_ctx % layout.grain:
        raise ValueError(
            f"context={layout.context} x tensor={layout.tensor} devices share the positions of a sequence (two runs a "
            f"device of context), and model.n_ctx={model.n_ctx} does not divide by {layout.grain}: give other degrees"
        )


def _check_tensor(layout: Layout, model: ModelSpec) -> None:
    tensor = layout.tensor
    for name, size in registry.of(model).shared_widths(model).items():
        if size % tensor:
            raise ValueError(f"tensor={tensor} does not divide {name}={size}: allowed are {_divisors(size, most=64)}")
    if -(-model.vocab_size // tensor) * (tensor - 1) >= model.vocab_size:  # as torch cuts rows
        raise ValueError(
            f"tensor={tensor}: a vocabulary of {model.vocab_size} leaves a device without rows of the embedding; give "
            "a smaller tensor degree"
        )


def _check_pipeline(layout: Layout, model: ModelSpec, sequences: int) -> None:
    n_layer = registry.of(model).n_layer(model)
    if n_layer % layout.stages:
        raise ValueError(
            f"pipeline={layout.pipeline} x virtual={layout.virtual} stages do not share n_layer={n_layer} blocks "
            f"evenly: give a product among {_divisors(n_layer)}"
        )
    if sequences % (layout.data * layout.micro_batch):
        raise ValueError(
            f"data={layout.data} x micro_batch={layout.micro_batch}: a batch of {sequences} sequences does not divide "
            "over them; give a product that divides it, or another batch"
        )
    count = layout.micro_batches(sequences)
    if count < layout.pipeline:
        raise ValueError(
            f"pipeline={layout.pipeline}: a replica has {count} micro-batch{'es' * (count > 1)} a step, and a pipeline "
            "needs one a stage at least; give a smaller pipeline, data or micro_batch"
        )
    if (layout.virtual > 1 or layout.zero_bubble) and count % layout.pipeline:
        key = f"virtual={layout.virtual}" if layout.virtual > 1 else "zero_bubble=True"
        raise ValueError(
            f"{key}: its stages take micro-batches by rounds of pipeline={layout.pipeline}, and there are {count} a "
            "step; leave it out, or give degrees by which they divide"
        )


def compile_problem(layout: Layout, asked: str) -> str:
    """Why a run is not compiled as it asks for; "" where it is."""
    if asked not in COMPILED or (allowed := layout.compiles(asked)) == asked:
        return ""
    return f"compile={asked}: not of a run over {layout.describe()}; leave compile at auto, or give compile={allowed}"


def noise_scale_problem(layout: Layout, sequences: int) -> str:
    """Why the gradient noise scale cannot be measured of batches of so many sequences; "" where it can."""
    if layout.world_size == 1:
        return "" if sequences > 1 else "a batch of one sequence has no smaller ones: give a larger batch"
    if layout.data > 1 and layout.shard == 1 and layout.context == 1:
        return ""
    return (
        f"it needs replicas that each hold their own gradients, or one process, and this run is cut into "
        f"{layout.describe()}: leave it out, or pin degrees (placement.tensor, placement.pipeline) that leave replicas "
        "of unsharded state"
    )


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is no more than ``most``, one at least."""
    return next((k for k in range(most, 1, -1) if n % k == 0), 1)


def halved(micro_batch: int, times: int) -> int:
    """A micro-batch cut in half so often, in whole sequences that divide it; one is the least."""
    for _ in range(times):
        micro_batch = largest_divisor(micro_batch, micro_batch // 2)
    return micro_batch


def _divisors(n: int, most: int = 0) -> str:
    return ", ".join(str(k) for k in range(1, (most or n) + 1) if n % k == 0)
