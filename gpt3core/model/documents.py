"""Documents that are packed into one sequence and do not see each other: attention stops where a document begins.

GPT-3 does not do this: its sequences are "not masked in any special way", end-of-text alone tells documents apart
(Brown et al. 2020, appendix B). As an option (``ModelSpec.document_end``), as Llama 3 has it (arXiv 2407.21783, section
3.2), a query sees keys of its own document only. The token that ends a document belongs to it. Positions stay places in
the context, as in GPT-3's packing: they are learned, and counted anew only long documents would train the last ones.

``documents`` (B, T) has for every position the place where its document begins. From it each backend makes a mask for
the keys it has at hand, and drops it: probabilities that are zero need no mask in the backward pass. Shapes: B
sequences, H heads, T positions, K head width, c queries of a block.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt3core.model.patterns import Pattern

FLASH_BLOCK = 256  # queries at a time where SDPA computes: what they leave out against what a call costs
BAND_BLOCK = 64  # of a band, or its window, if that is more


def begins(tokens: Tensor, end: int) -> Tensor:
    """Where the document of each position begins, the context's first place at least: (B, T) to (B, T).

    Args:
        end: the token that ends a document.
    """
    first = F.pad(tokens[:, :-1] == end, (1, 0))  # the first position of a document
    places = torch.arange(tokens.size(1), device=tokens.device)
    return torch.where(first, places, 0).cummax(dim=1).values


def earliest(documents: Tensor, block: int) -> list[int]:
    """Per block of queries the first key that any of them sees in any sequence."""
    if documents.device.type != "cpu" or torch.compiler.is_compiling():
        return [0] * -(-documents.size(1) // block)  # to know it a GPU would have to wait
    found: list[int] = documents[:, ::block].amin(0).tolist()
    return found


def other(documents: Tensor, keys: Tensor) -> Tensor:
    """Whether a key lies before its query's document: (B, ..., c) and keys (..., any) to (B, 1, ..., c, any).

    Args:
        keys: their places, the same for all sequences.
    """
    return (keys[..., None, :] < documents[..., None])[:, None]


def hide_(scores: Tensor, documents: Tensor, keys: Tensor) -> None:
    """Add -inf to the scores (B H, ..., c, any) of other documents' keys; see ``other``."""
    mask = additive(other(documents, keys), scores.dtype)
    _by_sequence(scores, documents).add_(mask)  # on CPUs half the time of filling scores under a boolean mask


def hidden(scores: Tensor, documents: Tensor, keys: Tensor) -> Tensor:
    """The same out of place; autograd keeps no mask of it."""
    mask = additive(other(documents, keys), scores.dtype)
    return (_by_sequence(scores, documents) + mask).flatten(0, 1)


def _by_sequence(scores: Tensor, documents: Tensor) -> Tensor:
    """(B H, ...) to (B, H, ...)."""
    return scores.view(len(documents), -1, *scores.shape[1:])


def additive(away: Tensor, dtype: torch.dtype) -> Tensor:
    """-inf where a key is not to be seen, 0 elsewhere."""
    return torch.where(away, -math.inf, 0.0).to(dtype)


# ---------------------------------------------------------------------------------------------------------- SDPA, a CPU


def flash(q: Tensor, k: Tensor, v: Tensor, documents: Tensor, pattern: Pattern, query: int = 0, key: int = 0) -> Tensor:
    """SDPA's flash kernel for CPUs, a block of queries at a time, whose mask is made again in the backward pass.

    Args:
        q: queries (B, H, T, K), the first of them at position ``query``; ``documents`` (B, T) are theirs.
        k, v: keys and values (B, H, S, K), the first of them at position ``key``, the last at the last query's.
    """
    found: Tensor = _Flash.apply(q, k, v, documents, pattern, query, key)  # type: ignore[no-untyped-call]
    return found


Block = tuple[slice, slice, Tensor]  # queries, the keys that they may see, and 0 or -inf for each pair (B, 1, c, keys)


def _blocks(documents: Tensor, dtype: torch.dtype, pattern: Pattern, query: int, key: int) -> Iterator[Block]:
    t, banded = documents.size(1), pattern.kind == "banded"
    size = min(FLASH_BLOCK, max(BAND_BLOCK, pattern.size)) if banded else FLASH_BLOCK
    for number, low in enumerate(earliest(documents, size)):
        first, last = number * size, min((number + 1) * size, t)
        start = max(key, low, query + first - pattern.size + 1 if banded else 0)
        queries = torch.arange(query + first, query + last, device=documents.device)
        keys = torch.arange(start, query + last, device=documents.device)
        away = other(documents[:, first:last], keys) | ~pattern.sees(queries[:, None], keys)
        yield slice(first, last), slice(start - key, query + last - key), additive(away, dtype)


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents: Tensor, *where: Any) -> Tensor:
        mixed, sums = [], []
        for queries, keys, mask in _blocks(documents, q.dtype, *where):
            out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q[:, :, queries], k[:, :, keys], v[:, :, keys], attn_mask=mask
            )
            mixed.append(out)
            sums.append(total)
        found = torch.cat(mixed, dim=2)
        ctx.save_for_backward(q, k, v, documents, found, *sums)
        ctx.where = where
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, documents, found, *sums = ctx.saved_tensors
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        for (queries, keys, mask), total in zip(_blocks(documents, q.dtype, *ctx.where), sums, strict=True):
            to_queries, to_keys, to_values = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(gradient[:, :, queries], q[:, :, queries], k[:, :, keys], v[:, :, keys], found[:, :, queries], total),
                *(0.0, False),
                attn_mask=mask,
            )
            dq[:, :, queries] = to_queries
            dk[:, :, keys] += to_keys
            dv[:, :, keys] += to_values
        return dq, dk, dv, None, None, None, None


# ----------------------------------------------------------------------------------------------------------------- GPU


@functools.lru_cache(maxsize=16)  # by the tensor's identity: one mask a micro-batch and pattern, for all layers
def block_mask(pattern: Pattern, documents: Tensor, whole: Any, query: int = 0, key: int = 0) -> Any:
    """Which blocks of keys each block of queries needs, for FlexAttention; no table of T x T is made.

    Args:
        documents: of whole sequences.
        whole: the pattern's, of one document.
        query, key: the positions of its first ones.
    """
    from torch.nn.attention.flex_attention import BlockMask

    (t, keys), (size, _), device = whole.seq_lengths, whole.BLOCK_SIZE, documents.device
    documents = documents[:, query : query + t]  # of the queries here
    first_queries, first_keys = (torch.arange(0, n, size, device=device) for n in (t, keys))
    last_queries, last_keys = (first_queries + size - 1).clamp(max=t - 1), (first_keys + size - 1).clamp(max=keys - 1)
    full = _table(whole.full_kv_num_blocks, whole.full_kv_indices)  # (1, 1, blocks of queries, blocks of keys)
    some = _table(whole.kv_num_blocks, whole.kv_indices) | full
    # documents begin later the later a query is
    some = some & (key + last_keys >= documents[:, first_queries, None])[:, None]
    full = full & (key + first_keys >= documents[:, last_queries, None])[:, None]
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=whole.BLOCK_SIZE,
        mask_mod=lambda b, h, q, k: pattern.sees(q + query, k + key) & (k + key >= documents[b, q]),
        seq_lengths=(t, keys),
    )


def _table(counts: Tensor, indices: Tensor) -> Tensor:
    """(..., rows) counts and (..., rows, columns) indices, of which so many hold, to booleans (..., rows, columns)."""
    listed = torch.arange(indices.size(-1), device=indices.device) < counts[..., None]
    return torch.zeros_like(listed).scatter(-1, indices.long(), listed)


def _listed(table: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of ``_table``."""
    indices = torch.argsort(table.int(), dim=-1, descending=True, stable=True)
    return table.sum(-1, dtype=torch.int32), indices.to(torch.int32, memory_format=torch.contiguous_format)
