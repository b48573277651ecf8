"""Causal attention, dense or locally banded, by one of two kernels that agree to rounding.

Shapes: B sequences, H heads, T positions, K head width. A band of w lets query q see keys q-w+1 ... q (Child et al.
2019, the ``local`` attention of openai/sparse_attention).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def band_mask(n_ctx: int, window: int) -> Tensor:
    """Additive mask (T, T): 0 where query (row) may see key (column), -inf elsewhere."""
    query, key = torch.arange(n_ctx)[:, None], torch.arange(n_ctx)[None, :]
    allowed = (key <= query) & (key > query - window)
    return torch.zeros(n_ctx, n_ctx).masked_fill(~allowed, -math.inf)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, dense: bool, kernel: str) -> Tensor:
    """Attention over (B, H, T, K) tensors with an additive (T, T) mask.

    Args:
        dense: the mask is plainly causal, so that SDPA may use its causal path.
        kernel: "softmax" (matrix products and a softmax, in the input's precision; on some CPUs its bf16 backward is
            several times faster than SDPA's) or "sdpa".
    """
    if kernel == "sdpa":
        if dense:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
    scores = (q * (1 / math.sqrt(q.size(-1)))) @ k.transpose(-2, -1) + mask.to(q.dtype)  # (B, H, T, T)
    # under autocast softmax would run in fp32 and return fp32: keep the activations' type, as SDPA does
    return torch.softmax(scores, dim=-1, dtype=q.dtype) @ v
