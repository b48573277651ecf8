"""Dropout that does not depend on how a run is cut: each mask is a function of the seed and of what it is a mask of.

GPT-2's places (Radford et al. 2019; GPT-3 has none): the embedding, what attention and MLP add to the stream, and the
attention probabilities. A value's mask is drawn for its sequence (by its number in the run), its position, its layer
and its place in it, so micro-batches, ranks and stages draw their own parts of the same masks, a resumed run the ones
it would have had, and the backward pass draws again what the forward pass drew, in place of keeping it. Shapes: B
sequences, H heads, T positions, D width.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt3core.model import philox
from gpt3core.model.architecture import Cuts
from gpt3core.model.attention import additive
from gpt3core.model.patterns import Pattern

LEVELS = 1 << 16  # a probability is so many-th
FOUR = 4  # values from the two words of a counter
HALVES = 0x8000800080008000 - (1 << 64)  # the highest bit of four levels, as an int64
QUERIES = 64  # of attention at a time

Gather = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Runs = Callable[[int], list[range]]
Draw = Callable[..., Tensor]


def _all(t: int) -> list[range]:
    return [range(t)]


def _arange(places: range, device: torch.device) -> Tensor:
    return torch.arange(places.start, places.stop, device=device)


def threshold(probability: float) -> int:
    """Of the LEVELS, those that drop a value."""
    return round(probability * LEVELS)


def scale(probability: float) -> float:
    """What is left is multiplied by."""
    return LEVELS / (LEVELS - threshold(probability))


@functools.lru_cache(maxsize=4096)
def _stream(seed: int, name: str) -> tuple[int, int]:
    """The key of a stream of masks, and what its sequences are counted from."""
    digest = hashlib.sha256(f"{seed}:dropout:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@functools.lru_cache(maxsize=4096)
@torch.inference_mode(False)  # what is first made while evaluating must serve training too
def _keys(streams: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Keys and starts of streams: (streams, 1, 1) each. Kept, for a copy to a GPU makes the host wait."""
    key, start = torch.tensor(streams, dtype=torch.int64, device=device)[:, :, None, None].unbind(1)
    return key, start


def kept(
    probability: float,
    streams: Sequence[tuple[int, int]],
    rows: range,
    positions: Tensor,
    columns: range,
    *,
    width: int,
    device: torch.device,
) -> Tensor:
    """Which values stay, of sequences, positions (T) and columns (of ``width``): bool (B, streams, T, columns)."""
    first, last = columns.start // FOUR, -(-columns.stop // FOUR)
    ints: dict[str, Any] = {"dtype": torch.int64, "device": device}
    key, start = _keys(tuple(streams), device)
    sequence = torch.arange(rows.start, rows.stop, rows.step, **ints)[:, None, None, None]
    place = positions[:, None] * -(-width // FOUR)
    place = (place + torch.arange(first, last, **ints)) & philox.WORD  # (T, groups)
    a, b = philox.words(place, (sequence + start) & philox.WORD, key)
    # four levels a counter, read where they lie; less half of LEVELS, for the type has a sign
    levels = (b << 32).bitwise_or_(a).bitwise_xor_(HALVES).view(torch.int16)
    levels = levels[..., columns.start - FOUR * first : columns.stop - FOUR * first]
    return levels >= threshold(probability) - LEVELS // 2


class _At(contextlib.AbstractContextManager[None]):
    """May be entered again: a zero-bubble pipeline repeats a forward pass for each half of its backward pass."""

    def __init__(self, dropout: Dropout, rows: range | None) -> None:
        self._dropout, self._rows = dropout, rows

    def __enter__(self) -> None:
        self._before, self._dropout.rows = self._dropout.rows, self._rows

    def __exit__(self, *_: object) -> None:
        self._dropout.rows = self._before


class Dropout:
    """What a rank's modules drop; nothing outside of ``at``, as in an evaluation."""

    def __init__(
        self, seed: int, stream: float, attention: float, *, runs: Runs = _all, tensor: int = 0, cut: int = 1
    ) -> None:
        """Drop shares of the residual stream and of attention probabilities.

        Args:
            runs: the runs of positions that are here, by how many these are.
            tensor: this rank's place among those that share matrices.
            cut: ranks that share matrices, which share the stream's positions too.
        """
        self.seed, self.stream, self.attention = seed, stream, attention
        self.runs, self.tensor, self.cut = runs, tensor, cut
        self.rows: range | None = None

    def at(self, rows: range | None) -> contextlib.AbstractContextManager[None]:
        """Drop in the block what belongs to these sequences of the run."""
        return _At(self, rows)

    def contexts(self) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        """Of a forward pass, and of its repetitions: for the sequences of now (``torch.utils.checkpoint``)."""
        return contextlib.nullcontext(), self.at(self.rows)

    def drop(self, x: Tensor, name: str) -> Tensor:
        """Values of the stream's positions that are here (B, T here, D), some of them zero."""
        if self.rows is None or not self.stream:
            return x
        rows, (b, t, width) = self.rows, x.shape
        assert len(rows) == b, f"masks of {len(rows)} sequences, and there are {b}"
        streams, first = [_stream(self.seed, name)], self.tensor * t

        def draw() -> Tensor:
            places = torch.cat([_arange(run, x.device) for run in self.runs(t * self.cut)])[first : first + t]
            return kept(self.stream, streams, rows, places, range(width), width=width, device=x.device)[:, 0]

        found: Tensor = _Drop.apply(x, draw, scale(self.stream))  # type: ignore[no-untyped-call]
        return found

    def attending(self, base: Callable[..., Tensor], layer: str, gather: Gather | None) -> Callable[..., Tensor]:
        """Attention of a layer that drops probabilities; as ``model.attention.attend``, whatever the kernel.

        Args:
            base: what it is where nothing is dropped.
            gather: keys and values of all positions, where these are shared.
        """

        def attend(q: Tensor, k: Tensor, v: Tensor, **words: Any) -> Tensor:
            if self.rows is None:
                return base(q, k, v, **words)
            rows, (_, heads, t, _) = self.rows, q.shape
            n_ctx, width = words["n_ctx"], words["window"]
            pattern = words.get("sparse") or Pattern(kind="banded", size=width)
            keys, values = (k, v) if gather is None else gather(k, v)
            mine = range(self.tensor * heads, (self.tensor + 1) * heads)
            streams = [_stream(self.seed, f"{layer}.attention.{head}") for head in mine]

            def draw(queries: range, columns: range) -> Tensor:
                places = _arange(queries, q.device)
                return kept(self.attention, streams, rows, places, columns, width=n_ctx, device=q.device)

            here, runs = scale(self.attention), self.runs(t)
            return torch.cat(
                [
                    _Attention.apply(queries, keys, values, pattern, run.start, draw, here)  # type: ignore[no-untyped-call]
                    for queries, run in zip(q.chunk(len(runs), dim=2), runs, strict=True)
                ],
                dim=2,
            )

        return attend


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, draw: Draw, scale: float) -> Tensor:
        ctx.draw, ctx.scale = draw, scale
        return (x * scale).masked_fill_(~draw(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient * ctx.scale).masked_fill_(~ctx.draw(), 0.0), None, None


class _Attention(torch.autograd.Function):
    """(B, H, T, K) from position ``first`` on, and keys and values (B, H, S, K) from the first of all."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, first: int, draw: Draw, scale: float
    ) -> Tensor:
        queries = q * (1 / math.sqrt(q.size(-1)))
        blocks, mixed = _blocks(q.size(2), k.size(2), pattern, first), []
        shares = []
        for some, seen, keys in blocks:
            scores = queries[:, :, some] @ k[:, :, keys].transpose(-2, -1)
            scores = scores + additive(seen, range(keys.start, keys.stop), pattern, q.dtype, q.device)
            shares.append(torch.softmax(scores, dim=-1, dtype=q.dtype))
            left = (shares[-1] * scale).masked_fill_(~draw(seen, range(keys.start, keys.stop)), 0.0)
            mixed.append(left @ v[:, :, keys])
        ctx.save_for_backward(queries, k, v, *shares)
        ctx.blocks, ctx.draw, ctx.scale = blocks, draw, scale
        return torch.cat(mixed, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, k, v, *shares = ctx.saved_tensors
        arriving = gradient.to(queries.dtype)
        dq, dk, dv = torch.empty_like(queries), torch.zeros_like(k), torch.zeros_like(v)
        for (some, seen, keys), share in zip(ctx.blocks, shares, strict=True):
            gone, here = ~ctx.draw(seen, range(keys.start, keys.stop)), arriving[:, :, some]
            left = (share * ctx.scale).masked_fill_(gone, 0.0)
            dv[:, :, keys] += left.transpose(-2, -1) @ here
            slope = (here @ v[:, :, keys].transpose(-2, -1) * ctx.scale).masked_fill_(gone, 0.0)
            slope = torch.ops.aten._softmax_backward_data(slope, share, -1, share.dtype)
            dq[:, :, some] = slope @ k[:, :, keys]
            dk[:, :, keys] += slope.transpose(-2, -1) @ queries[:, :, some]
        return dq * (1 / math.sqrt(dq.size(-1))), dk, dv, None, None, None, None


def _blocks(t: int, keys: int, pattern: Pattern, first: int) -> list[tuple[slice, range, slice]]:
    """Queries a block: where they are here, their positions, and the keys that any of them may see."""
    found = []
    for start in range(0, t, QUERIES):
        stop = min(start + QUERIES, t)
        seen = range(first + start, first + stop)
        begin = max(0, seen.start - pattern.size + 1) if pattern.kind == "banded" else 0
        found.append((slice(start, stop), seen, slice(begin, min(keys, seen.stop))))
    return found


def install(model: nn.Module, cuts: Cuts, dropout: Dropout, gather: Gather | None) -> None:
    """Make a model's parts drop what ``dropout`` says, from outside; the embedding's sum where the first block is."""
    blocks = getattr(model, cuts.layers)
    for layer, block in blocks.items():
        if dropout.stream:
            for name in cuts.rows:  # what a block adds to the stream
                block.get_submodule(name).register_forward_hook(_hook(dropout, f"{layer}.{name}"))
        if dropout.attention:
            attention = block.get_submodule(cuts.attention)
            attention.attend = dropout.attending(attention.attend, layer, gather)
    if dropout.stream and "0" in blocks:
        blocks["0"].register_forward_pre_hook(lambda _, inputs: (dropout.drop(inputs[0], "embedding"), *inputs[1:]))


def _hook(dropout: Dropout, name: str) -> Callable[..., Tensor]:
    return lambda _, __, output: dropout.drop(output, name)
