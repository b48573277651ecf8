"""Causal and banded attention in blocks of queries, with the backward pass written down (it beats autograd's on CPUs).

A dense layer computes the lower triangle of blocks, a band of w the block and the w - 1 keys before it. Probabilities
are kept for the backward pass, in the input's precision. Shapes: B sequences, H heads, T positions, K head width, N =
B H, c queries a block, n blocks of a sequence, w - 1 = halo.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt3core.model import native
from gpt3core.model.documents import earliest, hide_

DENSE_BLOCK = 64  # less computes fewer pairs that no one sees, in products too small for the processor
WIDE_BLOCK = 128  # the same of bf16 with functions in C, whose products are the faster part
BAND_BLOCK = 16  # or half of the window, if that is more
NEIGHBOURS = 16  # keys up to which one at a time beats products of blocks


def dense(q: Tensor, k: Tensor, v: Tensor, documents: Tensor | None = None, *, kernel: str = "softmax") -> Tensor:
    """Causal attention: (B, H, T, K) three times to (B, H, T, K).

    Args:
        documents: where each position's document begins (B, T); no key before it is seen.
        kernel: some have functions of native.c, for some kinds of tensors.
    """
    found: Tensor = _Dense.apply(q, k, v, documents, native.knows(kernel, q))  # type: ignore[no-untyped-call]
    return found


def banded(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None = None, *, kernel: str = "softmax"
) -> Tensor:
    """Attention to the last ``window`` keys, the query's own included: (B, H, T, K) three times to (B, H, T, K).

    Args:
        documents: where each position's document begins (B, T); no key before it is seen.
        kernel: some have functions of native.c, which are used where they win.
    """
    if window <= NEIGHBOURS and native.knows(kernel, q):
        near: Tensor = _Neighbours.apply(q, k, v, window, documents)  # type: ignore[no-untyped-call]
        return near
    found: Tensor = _Banded.apply(q, k, v, window, documents, _wide(q, native.knows(kernel, q)))  # type: ignore[no-untyped-call]
    return found


def split_heads(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (B, T, H, 3, K) as views (B, H, T, K), whose gradient is put together in one pass."""
    found: tuple[Tensor, Tensor, Tensor] = _Split.apply(qkv)  # type: ignore[no-untyped-call]
    return found


def band_block(window: int) -> int:
    """Queries a block: each computes ``window - 1`` and so many scores."""
    return max(BAND_BLOCK, window // 2)


def _wide(q: Tensor, built: bool) -> bool:
    """Whether products are in bf16 and the rest in C, which is kernel=wide."""
    return built and q.dtype == torch.bfloat16


def _across(x: Tensor, wide: bool) -> Tensor:
    """(N, rows, K) to (N, K, rows). In bf16 a product copies what has gaps, and that takes longer once it is across."""
    return (x.contiguous() if wide else x).transpose(1, 2)


def _slope(gradient: Tensor, shares: Tensor) -> Tensor:
    """The gradient of scores from that of their softmax."""
    return torch.ops.aten._softmax_backward_data(gradient, shares, -1, shares.dtype)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a mask first made while evaluating must serve a backward pass too
def _mask(rows: int, halo: int, causal: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where a query (row) may see a key (column, from ``halo`` before the first query), -inf elsewhere."""
    query, key = torch.arange(rows)[:, None], torch.arange(-halo, rows)[None]
    allowed = key <= query
    if not causal:
        allowed &= query - key <= halo
    return torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf).to(device, dtype)


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind()
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        b, h, t, width = gradients[0].shape
        found = gradients[0].new_empty(b, t, h, 3, width)
        for part, gradient in zip(found.unbind(3), gradients, strict=True):
            part.copy_(gradient.transpose(1, 2))
        return found


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents: Tensor | None, built: bool) -> Tensor:
        b, h, t, width = q.shape
        scale = 1 / math.sqrt(width)
        queries, keys, values = ((x.reshape(b * h, t, width)) for x in (q * scale, k, v))
        wide = _wide(q, built)
        shares, mixed, block = [], [], WIDE_BLOCK if wide else DENSE_BLOCK
        starts = [0] * -(-t // block) if documents is None else earliest(documents, block)
        for first, start in zip(range(0, t, block), starts, strict=True):
            last = min(first + block, t)
            scores = torch.bmm(queries[:, first:last], _across(keys[:, start:last], wide))  # (N, c, last - start)
            begun = None if documents is None else documents[:, first:last] - start
            if built:
                shares.append(native.causal_softmax_(scores, first - start, begun))
            else:
                scores[:, :, first - start :] += _mask(last - first, 0, True, q.dtype, q.device)
                if begun is not None:
                    hide_(scores, begun, torch.arange(last - start, device=q.device))
                shares.append(torch.softmax(scores, dim=-1, dtype=q.dtype))
            mixed.append(torch.bmm(shares[-1], values[:, start:last]))
        ctx.save_for_backward(queries, keys, values, *shares)
        ctx.scale, ctx.built, ctx.wide, ctx.starts, ctx.block = scale, built, wide, starts, block
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)).view(b, h, t, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        queries, keys, values, *shares = ctx.saved_tensors
        t = queries.size(1)
        arriving = gradient.reshape(queries.shape).to(queries.dtype)
        dq, dk, dv = torch.empty_like(queries), keys, values
        for number in reversed(range(len(shares))):  # the last block sees all keys, and the others add to what it gives
            first, start, share = number * ctx.block, ctx.starts[number], shares[number]
            last = min(first + ctx.block, t)
            here = arriving[:, first:last]
            slope = torch.bmm(here, _across(values[:, start:last], ctx.wide))
            slope = native.causal_slope_(slope, share, first - start) if ctx.built else _slope(slope, share)
            dq[:, first:last] = torch.bmm(slope, keys[:, start:last])
            to_keys = torch.bmm(slope.transpose(1, 2), queries[:, first:last])
            to_values = torch.bmm(share.transpose(1, 2), here)
            if last == t:
                dk, dv = (F.pad(x, (0, 0, start, 0)) if start else x for x in (to_keys, to_values))
            else:
                dk[:, start:last] += to_keys
                dv[:, start:last] += to_values
        return dq.mul_(ctx.scale).view_as(gradient), dk.view_as(gradient), dv.view_as(gradient), None, None


class _Neighbours(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None) -> Tensor:
        mixed, shares = native.band_forward(q.float(), k.float(), v.float(), window, documents)
        ctx.save_for_backward(q, k, v, shares)
        return mixed.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, shares = ctx.saved_tensors
        return *native.band_backward(q.float(), k.float(), v.float(), shares, gradient.float()), None, None


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None, wide: bool) -> Tensor:
        b, h, t, width = q.shape
        size, scale = band_block(window), 1 / math.sqrt(width)
        halo = window if wide else window - 1  # products of 192 columns take less than those of 191
        tail = -t % size
        n = (t + tail) // size
        queries = F.pad(q * scale, (0, 0, 0, tail)).reshape(b * h * n, size, width)
        keys, values = (_runs(F.pad(x, (0, 0, 0, tail)).reshape(-1, width), size, halo) for x in (k, v))
        scores = torch.bmm(queries, _across(keys, wide))  # (N n, c, halo + c)
        if wide:
            first = _first_columns(n, size, window, documents)
            share = native.causal_softmax_(scores, halo, first.expand(b, h, n, size).reshape(-1, size))
        else:
            share = _band_softmax(scores, n, halo, b, documents)
        ctx.save_for_backward(queries, keys, values, share)
        ctx.halo, ctx.scale, ctx.tail, ctx.wide = halo, scale, tail, wide
        return torch.bmm(share, values).view(b, h, n * size, width)[:, :, :t]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        queries, keys, values, share = ctx.saved_tensors
        b, h, t, width = gradient.shape
        arriving = F.pad(gradient, (0, 0, 0, ctx.tail)).reshape(queries.shape).to(queries.dtype)
        slope = _slope(torch.bmm(arriving, _across(values, ctx.wide)), share)
        dq = torch.bmm(slope, keys).mul_(ctx.scale)
        dk = _sum_runs(torch.bmm(slope.transpose(1, 2), queries), ctx.halo)
        dv = _sum_runs(torch.bmm(share.transpose(1, 2), arriving), ctx.halo)
        dq, dk, dv = (x.view(b, h, t + ctx.tail, width)[:, :, :t] for x in (dq, dk, dv))
        return dq, dk, dv, None, None, None


def _band_softmax(scores: Tensor, n: int, halo: int, b: int, documents: Tensor | None) -> Tensor:
    """Shares (N n, c, halo + c) of scores, which are hidden in place."""
    size = scores.size(1)
    scores += _mask(size, halo, False, scores.dtype, scores.device)
    of_sequence = scores.view(-1, n, size, halo + size)
    for block in range(min(n, -(-halo // size))):  # the run reaches into the sequence before
        of_sequence[:, block, :, : halo - block * size] = -math.inf
    if documents is not None:
        begun = F.pad(documents, (0, n * size - documents.size(1))).view(b, n, size)
        places = torch.arange(-halo, size, device=scores.device)
        hide_(of_sequence, begun, places + size * torch.arange(n, device=scores.device)[:, None])
    return torch.softmax(scores, dim=-1, dtype=scores.dtype)


def _first_columns(n: int, size: int, window: int, documents: Tensor | None) -> Tensor:
    """The first column that a query sees of its run, which begins ``window`` before the block: (B or 1, 1, n, c)."""
    seen = torch.arange(1 - window, n * size + 1 - window).clamp_(min=0)[None]  # (1, T) positions
    if documents is not None:
        seen = torch.maximum(seen, F.pad(documents, (0, n * size - documents.size(1))))
    return seen.view(-1, 1, n, size) + (window - size * torch.arange(n))[:, None]


def _runs(x: Tensor, size: int, halo: int) -> Tensor:
    """Each block with the rows before it, as a view: (rows, K) to (blocks, halo + size, K)."""
    x = F.pad(x, (0, 0, halo, 0))
    return x.as_strided(((x.size(0) - halo) // size, halo + size, x.size(1)), (size * x.size(1), x.size(1), 1))


def _sum_runs(runs: Tensor, halo: int) -> Tensor:
    """What all runs say of a row, summed: (blocks, halo + size, K) to (blocks, size, K)."""
    size = runs.size(1) - halo
    found = runs[:, halo:].contiguous()
    for back in range(1, -(-halo // size) + 1):  # rows of the block ``back`` before, whose last ones a run has
        stop = halo - (back - 1) * size
        start = max(0, stop - size)
        found[:-back, size - (stop - start) :] += runs[back:, start:stop]
    return found
