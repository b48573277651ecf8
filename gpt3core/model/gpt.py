"""GPT-3 (Brown et al. 2020, section 2.1): pre-LayerNorm, learned positions, GELU, tied head, alternating attention.

Shape legend: B sequences, T positions, D d_model, H heads, K d_head, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.model.attention import attend, band_mask
from gpt3core.model.gpt_spec import GPTSpec


class Attention(nn.Module):
    """Multi-head causal attention of one layer."""

    def __init__(self, spec: GPTSpec, layer: int, kernel: str) -> None:
        super().__init__()
        self.n_head, self.d_head, self.kernel = spec.n_head, spec.d_head, kernel
        self.dense = spec.window(layer) == spec.n_ctx
        inner = spec.n_head * spec.d_head
        self.qkv = nn.Linear(spec.d_model, 3 * inner)
        self.out = nn.Linear(inner, spec.d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and an additive (T, T) mask to (B, T, D)."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n_head, self.d_head).permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, K)
        mixed = attend(q, k, v, mask, dense=self.dense, kernel=self.kernel)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, self.n_head * self.d_head))
        return projected


class Block(nn.Module):
    """Attention and MLP, each on the normalised residual stream."""

    def __init__(self, spec: GPTSpec, layer: int, kernel: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.d_model)
        self.attention = Attention(spec, layer, kernel)
        self.norm2 = nn.LayerNorm(spec.d_model)
        self.up = nn.Linear(spec.d_model, 4 * spec.d_model)
        self.down = nn.Linear(4 * spec.d_model, spec.d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and an additive (T, T) mask to (B, T, D)."""
        x = x + self.attention(self.norm1(x), mask)
        added: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + added


class GPT(nn.Module):
    """The whole model: token ids (B, T) to logits (B, T, V)."""

    def __init__(self, spec: GPTSpec, *, kernel: str = "sdpa") -> None:
        super().__init__()
        self.spec = spec
        self.tokens = nn.Embedding(spec.vocab_size, spec.d_model)
        self.positions = nn.Embedding(spec.n_ctx, spec.d_model)
        self.blocks = nn.ModuleList(Block(spec, layer, kernel) for layer in range(spec.n_layer))
        self.norm = nn.LayerNorm(spec.d_model)
        for window in {spec.window(layer) for layer in range(spec.n_layer)}:
            self.register_buffer(f"mask_{window}", band_mask(spec.n_ctx, window), persistent=False)

    def hidden(self, ids: Tensor) -> Tensor:
        """Normalised residual stream before the head: (B, T) to (B, T, D)."""
        t = ids.size(1)
        x = self.tokens(ids) + self.positions.weight[:t]  # (B, T, D)
        for layer, block in enumerate(self.blocks):
            mask = getattr(self, f"mask_{self.spec.window(layer)}")[:t, :t]
            x = block(x, mask)
        normed: Tensor = self.norm(x)
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of any positions: (..., D) to (..., V)."""
        return F.linear(hidden, self.tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V)."""
        return self.head(self.hidden(ids))

    def init_weights(self, seed: int) -> None:
        """GPT-2's initialisation: N(0, init_std) for matrices and embeddings (positions half of it), zero biases,
        residual projections scaled by 1/sqrt(2 n_layer). Drawn on the CPU in a fixed order: the seed decides.
        """
        generator = torch.Generator().manual_seed(seed)
        residual = self.spec.init_std / math.sqrt(2 * self.spec.n_layer)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if "norm" in name:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    std = residual if name.endswith(("out.weight", "down.weight")) else self.spec.init_std
                    std = std / 2 if name == "positions.weight" else std
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
