"""Causal attention, and the one place that picks how it is computed; a layer costs about what its pattern lets it see.

Shapes: B sequences, H heads, T positions, K head width; N = B H. No backend holds a mask of T x T.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3core.model import blocks
from gpt3core.model.documents import block_mask, flash, hidden
from gpt3core.model.patterns import Pattern

SDPA_BLOCK = 64  # queries that share a run of keys, at least, where SDPA computes a band
FLEX_WIDTH = 16  # of a head, at least, for FlexAttention's kernels


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    n_ctx: int,
    window: int,
    kernel: str,
    sparse: Pattern | None = None,
    documents: Tensor | None = None,
    mask: Any = None,
) -> Tensor:
    """Attention over (B, H, T, K) tensors, T up to ``n_ctx``, each query seeing the last ``window`` keys.

    Args:
        kernel: "softmax" (matrix products and a softmax with a backward pass of our own, in the input's precision; on
            some CPUs SDPA's in bf16 is several times slower), "native" or "wide" (the same with functions in C), or
            "sdpa": torch's SDPA, and FlexAttention for what is not dense on a GPU (it has no backward pass on CPUs).
        sparse: a strided or fixed pattern in place of the window; on CPUs it has one way to be computed.
        documents: where each position's document begins (B, T): no query sees a key before it (``documents.py``).
        mask: FlexAttention's of T = n_ctx (``flex_mask``), where it is made beforehand.
    """
    t = q.size(2)
    if sparse is not None and t <= sparse.size:
        sparse, window = None, n_ctx  # all inside the first block
    whole = window >= min(t, n_ctx) and sparse is None
    if kernel == "sdpa" and whole and documents is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    pattern = sparse or (Pattern(kind="dense") if whole else Pattern(kind="banded", size=window))
    if kernel == "sdpa" and q.is_cuda:
        return flex(q, k, v, pattern, documents, mask if t == n_ctx else None)
    if pattern.kind == "strided":
        return _strided(q, k, v, pattern.size, documents)
    if pattern.kind == "fixed":
        return _fixed(q, k, v, pattern, documents)
    if kernel == "sdpa":
        return flash(q, k, v, documents, pattern) if documents is not None else _banded_sdpa(q, k, v, window)
    return (
        blocks.dense(q, k, v, documents, kernel=kernel)
        if whole
        else blocks.banded(q, k, v, window, documents, kernel=kernel)
    )


# ---------------------------------------------------------------------------------------------------------------- GPU


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    documents: Tensor | None = None,
    mask: Any = None,
    *,
    query: int = 0,
    key: int = 0,
) -> Tensor:
    """FlexAttention (arXiv 2412.05496), which skips the blocks that no query sees; compiled on a GPU.

    Args:
        documents: of whole sequences.
        query, key: the positions of the first ones, of sequences that are not here whole.
    """
    from torch.nn.attention.flex_attention import flex_attention

    inside = torch.compiler.is_compiling()  # of what is compiled already, as whose part it will be
    attention = flex_attention if inside or not q.is_cuda else _compiled_flex(torch.is_grad_enabled())
    mask = flex_mask(pattern, q.size(2), q.device, query, key, k.size(2)) if mask is None else mask
    if documents is not None:
        mask = block_mask(pattern, documents, mask, query, key)
    width = q.size(-1)
    if width < FLEX_WIDTH:  # zeros add nothing to a score, and of what they mix nothing is kept
        q, k, v = (F.pad(x, (0, FLEX_WIDTH - width)) for x in (q, k, v))
    found: Tensor = attention(q, k, v, block_mask=mask, scale=1 / math.sqrt(width))
    return found[..., :width]


@functools.cache
def _compiled_flex(training: bool) -> Any:
    """Uncompiled it computes all pairs. How training's is compiled must not depend on the lengths of an evaluation."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(_training_flex, dynamic=False) if training else torch.compile(flex_attention)


def _training_flex(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Any:
    """A function of its own, for what is compiled belongs to a function."""
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, **how)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a mask first made while evaluating must serve a backward pass too
def flex_mask(
    pattern: Pattern, t: int, device: torch.device, query: int = 0, key: int = 0, keys: int | None = None
) -> Any:
    """Which blocks of keys each block of queries needs, a bit for every 128 x 128 pairs; shared by all layers.

    Args:
        t: queries, and so many keys unless ``keys`` says otherwise; see ``flex``.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Any:
        return pattern.sees(q + query, k + key)

    return create_block_mask(sees, None, None, t, keys or t, device=str(device))


# ---------------------------------------------------------------------------------------------------------------- CPU


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a mask first made while evaluating must serve a backward pass too
def additive(query: range, key: range, pattern: Pattern, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where a query (row) may see a key (column; none before position 0), -inf elsewhere: (queries, keys)."""
    rows = torch.arange(query.start, query.stop, query.step)[:, None]
    columns = torch.arange(key.start, key.stop, key.step)[None]
    allowed = pattern.sees(rows, columns) & (columns >= 0)
    return torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf).to(device, dtype)


def _in_blocks(x: Tensor, size: int) -> Tensor:
    """(B, H, T, K) to (N, blocks, size, K), the last block filled up with zeros."""
    b, h, t, width = x.shape
    return F.pad(x, (0, 0, 0, -t % size)).reshape(b * h, -1, size, width)


def _in_rows(documents: Tensor, size: int) -> Tensor:
    """(B, T) to (B, blocks, size)."""
    return F.pad(documents, (0, -documents.size(1) % size)).view(len(documents), -1, size)


def _places(n: int, size: int, device: torch.device) -> Tensor:
    """The positions of n blocks: (n, size)."""
    return torch.arange(n * size, device=device).view(n, size)


def _with_previous(x: Tensor, size: int) -> Tensor:
    """Each block after the last ``size`` positions of the one before: (N, blocks, c, K) to (N, blocks, size + c, K)."""
    before = F.pad(x[:, :-1, x.size(2) - size :], (0, 0, 0, 0, 1, 0))
    return torch.cat([before, x], dim=2)


def _run_masks(n: int, size: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive masks of a band for blocks and the keys before them: (n, size, window - 1 + size)."""
    halo, band = window - 1, Pattern(kind="banded", size=window)
    first, other = (
        additive(range(start, start + size), range(start - halo, start + size), band, dtype, device)
        for start in (0, size * window)
    )
    return torch.stack([first, *[other] * (n - 1)])  # only the first block lacks the one before it


def _banded_sdpa(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    size = max(SDPA_BLOCK, window)
    queries = _in_blocks(q, size)
    keys, values = (_with_previous(_in_blocks(x, size), window - 1) for x in (k, v))
    mask = _run_masks(queries.size(1), size, window, q.dtype, q.device)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[None])
    return mixed.flatten(1, 2)[:, : q.size(2)].view_as(q)


def _joint(scores: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """One softmax over several pieces of each query's scores."""
    # under autocast softmax would run in fp32 and return fp32: keep the activations' type, as SDPA does
    shares = torch.softmax(torch.cat(scores, dim=-1), dim=-1, dtype=dtype)
    return list(torch.split(shares, [s.size(-1) for s in scores], dim=-1))


def _strided(q: Tensor, k: Tensor, v: Tensor, stride: int, documents: Tensor | None) -> Tensor:
    """The last ``stride`` keys by blocks, and every stride-th before as dense attention along columns of blocks."""
    queries, keys, values = (_in_blocks(x, stride) for x in (q * (1 / math.sqrt(q.size(-1))), k, v))  # (N, n, l, K)
    n = queries.size(1)
    near_keys, near_values = _with_previous(keys, stride - 1), _with_previous(values, stride - 1)
    columns = [x.transpose(1, 2) for x in (queries, keys, values)]  # (N, l, n, K)
    near = queries @ near_keys.transpose(-2, -1)  # (N, n, l, stride - 1 + l)
    near = near + _run_masks(n, stride, stride, q.dtype, q.device)
    earlier = additive(range(n), range(1, n + 1), Pattern(kind="dense"), q.dtype, q.device)  # its own is in the band
    far = (columns[0] @ columns[1].transpose(-2, -1) + earlier).transpose(1, 2)  # (N, n, l, n)
    if documents is not None:
        begun, place = _in_rows(documents, stride), _places(n, stride, q.device)
        near = hidden(near, begun, torch.arange(1 - stride, stride, device=q.device) + place[:, :1])
        far = hidden(far[..., None, :], begun[..., None], place.t()).squeeze(-2)  # one query's keys are its column's
    near, far = _joint([near, far], q.dtype)
    mixed = near @ near_values + (far.transpose(1, 2) @ columns[2]).transpose(1, 2)
    return mixed.flatten(1, 2)[:, : q.size(2)].view_as(q)


def _fixed(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, documents: Tensor | None) -> Tensor:
    """Each query's own block, and the last ``summary`` keys of every block before."""
    size, summary = pattern.size, pattern.summary
    queries, keys, values = (_in_blocks(x, size) for x in (q * (1 / math.sqrt(q.size(-1))), k, v))  # (N, n, l, K)
    n = queries.size(1)
    last_keys, last_values = (
        x[:, :, size - summary :].flatten(1, 2)[:, None] for x in (keys, values)
    )  # (N, 1, n c, K)
    causal, block = Pattern(kind="dense"), range(size)
    own = queries @ keys.transpose(-2, -1) + additive(block, block, causal, q.dtype, q.device)  # (N, n, l, l)
    earlier = additive(range(n), range(1, n + 1), causal, q.dtype, q.device).repeat_interleave(summary, dim=1)
    far = queries @ last_keys.transpose(-2, -1) + earlier[:, None]  # (N, n, l, n c)
    if documents is not None:
        begun, place = _in_rows(documents, size), _places(n, size, q.device)
        own, far = hidden(own, begun, place), hidden(far, begun, place[:, size - summary :].flatten())
    own, far = _joint([own, far], q.dtype)
    mixed = own @ values + far @ last_values
    return mixed.flatten(1, 2)[:, : q.size(2)].view_as(q)
