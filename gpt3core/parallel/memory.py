"""Bytes on the fullest device of a layout: of what is built here, not of what could be. No torch.

A parameter is 16 bytes: the fp32 weight, its gradient and AdamW's two moments, divided by ``shard``. Beside them lie
what torch makes of the weights for a pass: in bf16 the copies that autocast casts, or, with a sharded state, the blocks
that FSDP2 gathers. A save copies weights and moments to the host's memory (``snapshot_bytes``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from gpt3core.costs import params
from gpt3core.model import registry
from gpt3core.model.architecture import BlockBytes, ModelSpec, head_rows
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout

WEIGHT, GRADIENT, MOMENTS = 4.0, 4.0, 8.0  # fp32, a parameter
GATHERED_BLOCKS = 2  # FSDP2 holds the block at work and gathers the next
BUCKET = 1 << 24  # gradients that are averaged at a time, or one tensor
MLP_SHARE = 2 / 3  # of what a block keeps beside its entry and the attention's inside
MATRIX_SHARE = 1 / 3  # of a block's parameters that are its largest matrix
USABLE = 0.9  # of a device's memory: the rest is fragmentation, buffers of libraries and the context
MICRO_BATCH_TOKENS = 16_384  # of a replica at most: more is no faster, and smaller batches are not padded to it
LOSS_BYTES = 12.0  # a logit in fp32: log-softmax kept; its gradient and the logit's, made when the loss goes back


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the fullest device."""

    weights: float  # fp32, this device's share
    gradients: float
    optimizer: float
    copies: float  # of weights and gradients, made for a pass
    activations: float  # kept for the backward pass
    arriving: float  # a pipeline's buffers for what other stages send
    loss: float  # logits and what is made of them; zero where another stage has the head

    @property
    def state(self) -> float:
        """What stays between steps."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.copies + self.activations + self.arriving + self.loss

    def describe(self) -> str:
        """The parts in GB, the largest first."""
        parts = sorted(vars(self).items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts if size >= 5e7)


def memory(model: ModelSpec, layout: Layout, *, sequences: int, numerics: Numerics) -> Memory:
    """Bytes on the fullest device of a layout.

    Args:
        sequences: of the global batch.
    """
    held = [
        stage_memory(model, layout, stage, sequences=sequences, numerics=numerics)
        for stage in sorted({0, min(1, layout.pipeline - 1), layout.pipeline - 1})
    ]
    return max(held, key=lambda m: m.total)


def snapshot_bytes(model: ModelSpec, layout: Layout) -> float:
    """Bytes that the fullest rank holds of the host's memory for a checkpoint on its way to disk, on CPUs as on GPUs.

    Weights and moments once more, from its first save on. Of ranks that hold the same, one does.
    """
    held = max(stage_params(model, layout, place) for place in {0, layout.pipeline - 1})
    return (WEIGHT + MOMENTS) * held / layout.shard


def most_sequences(model: ModelSpec) -> int:
    """Sequences of the largest micro-batch."""
    return max(1, MICRO_BATCH_TOKENS // model.n_ctx)


def micro_batch(
    model: ModelSpec, layout: Layout, *, sequences: int, numerics: Numerics, memory_bytes: float | None
) -> int:
    """Sequences of a micro-batch: as many as 16,384 tokens hold, and where memory is known as fit and divide the rows.

    Args:
        layout: its own micro-batch is not read.
        memory_bytes: of one device; None on CPUs, where it is the host's affair.

    Raises:
        ValueError: when not even one sequence fits, with what it takes.
    """
    most = most_sequences(model)
    if memory_bytes is None:
        return most
    rows = max(1, sequences // layout.data)
    for size in (k for k in range(min(most, rows), 0, -1) if rows % k == 0):
        needed = memory(model, replace(layout, micro_batch=size), sequences=sequences, numerics=numerics)
        if needed.total <= USABLE * memory_bytes:
            return size
    raise _too_small(layout, needed, memory_bytes)


def require_room(model: ModelSpec, layout: Layout, *, sequences: int, numerics: Numerics, memory_bytes: float) -> None:
    """Refuse a device that does not hold its part of a layout.

    Args:
        sequences: of the global batch.
        memory_bytes: of the device that is there.

    Raises:
        ValueError: with what it takes.
    """
    needed = memory(model, layout, sequences=sequences, numerics=numerics)
    if needed.total > USABLE * memory_bytes:
        raise _too_small(layout, needed, memory_bytes)


def _too_small(layout: Layout, needed: Memory, memory_bytes: float) -> ValueError:
    return ValueError(
        f"{layout.describe()}: {needed.total / 1e9:.0f} GB a device are needed at least ({needed.describe()}) and "
        f"{USABLE * memory_bytes / 1e9:.0f} of its {memory_bytes / 1e9:.0f} GB are usable; give a smaller model, a "
        "larger device, or more of them that share the model"
    )


def stage_params(model: ModelSpec, layout: Layout, place: int) -> float:
    """Parameters on one device before the state is sharded, at a place of the pipeline.

    A pipeline's last place has the head, which is the token embedding once more.
    """
    return _held(model, layout.pipeline, place) / layout.tensor


@lru_cache(maxsize=1024)
def _held(model: ModelSpec, pipeline: int, place: int) -> float:
    architecture, counts = registry.of(model), params(model)
    blocks = architecture.layer_params(model) * architecture.n_layer(model)
    embedding, first, last = model.vocab_size * architecture.width(model), place == 0, place == pipeline - 1
    held = blocks / pipeline
    if first or last:
        held += embedding
    if first:
        held += counts.total - counts.nonembedding - embedding  # positions
    if last:
        held += counts.nonembedding - blocks  # the last norm
    return held


def stage_memory(model: ModelSpec, layout: Layout, place: int, *, sequences: int, numerics: Numerics) -> Memory:
    """Bytes at one place of a layout's pipeline: the larger of forward pass's end and backward pass's start."""
    held = stage_params(model, layout, place)
    e = numerics.element_bytes
    tokens = layout.micro_batch * model.n_ctx / layout.context
    kept, again = _blocks(model, layout, place, sequences, numerics)
    copies = _copies(model, layout, held, e)
    cast, left = _casts(model, layout, place, numerics)
    head = _head(model, layout, place, tokens, numerics)
    # a matrix's gradient, cast to fp32 and not yet added to what is there
    block = registry.of(model).layer_params(model) / layout.tensor
    block_peak = tokens * again + _fresh(e) * MATRIX_SHARE * block + head.held
    forward = copies + cast + tokens * kept + head.forward
    backward = copies + left + tokens * kept + head.kept + max(head.backward, block_peak)
    early = max(0.0, forward - backward)  # of the casts that go, then of the loss
    early_casts = min(early, cast - left)
    return Memory(
        weights=WEIGHT * held / layout.shard,
        gradients=GRADIENT * held / layout.shard,
        optimizer=MOMENTS * held / layout.shard,
        copies=copies + left + early_casts,
        loss=head.kept + head.backward + early - early_casts,
        activations=tokens * kept + max(0.0, block_peak - head.backward),
        arriving=tokens * _arriving(model, layout, place, sequences),
    )


def _fresh(e: float) -> float:
    """Bytes of an element of a gradient that is made in numbers of ``e`` bytes and cast to fp32."""
    return GRADIENT + (e if e < WEIGHT else 0)


@dataclass(frozen=True, kw_only=True)
class _Head:
    """Bytes of the last norm, the head and the loss; none where another stage has them."""

    kept: float = 0.0  # until the blocks go back
    forward: float = 0.0  # at the most of its forward pass, what is kept included
    backward: float = 0.0  # beside what is kept, while it goes back
    held: float = 0.0  # beside what is kept, until the blocks have gone back


def _head(model: ModelSpec, layout: Layout, place: int, tokens: float, numerics: Numerics) -> _Head:
    """Of a micro-batch of so many positions here."""
    if place != layout.pipeline - 1:
        return _Head()
    e, width, tensor = numerics.element_bytes, registry.of(model).width(model), layout.tensor
    norm, ids = (4 * width + 8) / tensor, 16
    if _chunked(layout):
        return _chunked_head(model, tokens, norm + ids, e)
    logit = model.vocab_size / tensor
    kept, logits = tokens * (norm + e * width + ids), tokens * e * logit
    made = tokens * (e + LOSS_BYTES) * logit
    # the head's gradient comes when the logits' is there
    back = max(made, 2 * logits + _fresh(e) * logit * width)
    return _Head(kept=kept, forward=kept + logits, backward=back, held=logits)  # the schedule holds the logits


def _chunked(layout: Layout) -> bool:
    """Whether the head and the loss are one (``losses.py``)."""
    return layout.tensor == layout.pipeline == 1


def _chunked_head(model: ModelSpec, tokens: float, kept: float, e: float) -> _Head:
    """The head and the loss in one, which make both gradients in the forward pass, some positions at a time."""
    width, vocabulary = registry.of(model).width(model), model.vocab_size
    rows, weight = min(tokens, head_rows(vocabulary, "cuda")), vocabulary * width
    cast = e if e < WEIGHT else 0.0
    of_weight = (e if rows == tokens else GRADIENT) * weight
    gradients = tokens * e * width + of_weight
    stream = tokens * (WEIGHT + cast) * width  # the norm's output
    softmax = rows * vocabulary * (2 * WEIGHT + cast)
    product = rows * vocabulary * (WEIGHT + e) + (cast * weight if rows < tokens else 0.0)
    scaled = tokens * (e + (WEIGHT if cast else 0.0)) * width  # by the loss's own gradient, and to fp32
    scaled += of_weight + (GRADIENT * weight if of_weight < GRADIENT * weight else 0.0)
    return _Head(
        kept=tokens * kept,
        forward=tokens * kept + stream + gradients + cast * weight + max(softmax, product),
        backward=gradients + scaled,
        held=GRADIENT * weight,  # the gradient of a tied head waits for the embedding's
    )


def gathered(model: ModelSpec, layout: Layout, held: float, e: float, blocks: float = math.inf) -> float:
    """Bytes of what FSDP2 gathers of ``held`` weights, so many blocks at once, whose matrices are as products are."""
    architecture = registry.of(model)
    each, here = architecture.layer_params(model) / layout.tensor, architecture.n_layer(model) / layout.pipeline
    return e * min(blocks, here) * each + WEIGHT * (held - here * each)


def _copies(model: ModelSpec, layout: Layout, held: float, e: float) -> float:
    """Bytes of weights and gradients beside the state: gathered by FSDP2, or in one piece to be averaged."""
    architecture = registry.of(model)
    if layout.shard == 1:
        largest = model.vocab_size * architecture.width(model) / layout.tensor
        beside = BUCKET if layout.whole_replicas else 0  # another is under way (``replicas``)
        return GRADIENT * min(held, max(BUCKET, largest) + beside) if layout.data * layout.context > 1 else 0.0
    # in a pipeline for all micro-batches, and gradients are summed over these; otherwise embeddings and last norm stay
    blocks = GATHERED_BLOCKS if layout.pipeline == 1 else math.inf
    return gathered(model, layout, held, e, blocks) + gathered(model, layout, held, GRADIENT, blocks)


def _casts(model: ModelSpec, layout: Layout, place: int, numerics: Numerics) -> tuple[float, float]:
    """Bytes of the weights that autocast casts, at the end of the forward pass and in the backward pass.

    All micro-batches of a pipeline share them (``Pipeline.backward``). Outside of one, a block that is computed again
    casts its own again. Blocks of a sharded state are gathered as they would be cast (``fsdp``).
    """
    e, architecture = numerics.element_bytes, registry.of(model)
    if e == WEIGHT:
        return 0.0, 0.0
    block = e * architecture.layer_params(model) / layout.tensor if layout.shard == 1 else 0.0
    has_head = place == layout.pipeline - 1 and not _chunked(layout)  # which casts its weight itself
    head = e * model.vocab_size * architecture.width(model) / layout.tensor if has_head else 0.0
    every = block * architecture.n_layer(model) / layout.pipeline + head
    return every, block + head if layout.recompute == "full" and layout.pipeline == 1 else every


def _blocks(model: ModelSpec, layout: Layout, place: int, sequences: int, numerics: Numerics) -> tuple[float, float]:
    """Bytes a token: kept by the blocks, and at most on top of it while one that is computed again goes back."""
    architecture, e, tensor = registry.of(model), numerics.element_bytes, layout.tensor
    width, n_layer = architecture.width(model), architecture.n_layer(model)
    block: BlockBytes = architecture.activation_bytes(model, numerics, tensor, layout.context)
    kept = {"none": block.all, "selective": block.entry + block.rest, "full": block.entry}[layout.recompute]
    stages = _in_flight(layout, place, layout.micro_batches(sequences))
    blocks = kept * stages * n_layer / layout.stages
    if layout.pipeline > 1:
        blocks += 4 * width / tensor * stages  # what each stage gave, held until its gradient comes
    return blocks, _going_back(block, layout.recompute, e * width / tensor)


def _arriving(model: ModelSpec, layout: Layout, place: int, sequences: int) -> float:
    """Bytes a token of a micro-batch: torch's stages have a buffer for each one of a step, there and back.

    Streams under way lie in theirs, and are counted where they enter a block.
    """
    if layout.pipeline == 1:
        return 0.0
    count, first, last = layout.micro_batches(sequences), place == 0, place == layout.pipeline - 1
    streams = (layout.virtual - first) * count - _in_flight(layout, place, count) * (1 - first / layout.virtual)
    gradients = (layout.virtual - last) * count
    return 4 * registry.of(model).width(model) / layout.tensor * (max(0.0, streams) + gradients)


def _going_back(block: BlockBytes, recompute: str, width: float) -> float:
    """Bytes a token that a block holds on top of what all of them keep, when it holds most.

    That is when its MLP goes back (with gradients of 4 widths), or, where it is computed again, its attention, when the
    MLP's part is gone.
    """
    mlp, gradients = MLP_SHARE * block.rest, 4 * width + block.entry
    attention = 3 * block.inside - mlp  # probabilities, their gradient and that of the scores
    if recompute == "full":
        return block.rest + max(block.inside + gradients, attention)
    return gradients if recompute == "none" else max(gradients, attention)


def _in_flight(layout: Layout, place: int, micro_batches: int) -> int:
    """Stages (virtual ones of one micro-batch) that a device keeps at once at most, from forward to backward.

    1F1B: p - place. Interleaved: 2 (p - place - 1) + (v - 1) p + 1 (Narayanan et al. 2021); over the blocks of the
    first device this is the factor 1 + (p - 1)/(p v) of Korthikanti et al. 2022, section 4.2.3.
    """
    p, v = layout.pipeline, layout.virtual
    most = p - place if v == 1 else 2 * (p - place - 1) + (v - 1) * p + 1
    return min(most, v * micro_batches)
