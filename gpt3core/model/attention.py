"""Causal attention, dense or locally banded, by one of two kernels that agree to rounding.

Shapes: B sequences, H heads, T positions, K head width. A band of w lets query q see keys q-w+1 ... q (Child et al.
2019, the ``local`` attention of openai/sparse_attention).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # a mask first made while evaluating must serve a backward pass too
def band_mask(
    n_ctx: int, window: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """Additive mask (T, T): 0 where query (row) may see key (column), -inf elsewhere; shared by all layers."""
    query, key = torch.arange(n_ctx)[:, None], torch.arange(n_ctx)[None, :]
    allowed = (key <= query) & (key > query - window)
    return torch.zeros(n_ctx, n_ctx).masked_fill(~allowed, -math.inf).to(device, dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, *, n_ctx: int, window: int, kernel: str) -> Tensor:
    """Attention over (B, H, T, K) tensors, T up to ``n_ctx``, each query seeing ``window`` keys.

    Args:
        kernel: "softmax" (matrix products and a softmax, in the input's precision; on some CPUs its bf16 backward is
            several times faster than SDPA's) or "sdpa".
    """
    t = q.size(2)
    if kernel == "sdpa" and window >= n_ctx:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = band_mask(n_ctx, window, q.dtype, q.device)[:t, :t]
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * (1 / math.sqrt(q.size(-1)))) @ k.transpose(-2, -1) + mask  # (B, H, T, T)
    # under autocast softmax would run in fp32 and return fp32: keep the activations' type, as SDPA does
    return torch.softmax(scores, dim=-1, dtype=q.dtype) @ v
