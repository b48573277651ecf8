"""GPT-3 (Brown et al. 2020, section 2.1): pre-LayerNorm, learned positions, GELU, tied head, alternating attention.

Shape legend: B sequences, T positions, D d_model, H heads, K d_head, V vocabulary. The modules can be cut from outside
(``gpt_spec.ENTRY.cuts``): a layer cut by heads holds fewer of them, and a stage of a pipeline lacks some parts.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.model import native, products
from gpt3core.model.attention import attend, flex_mask
from gpt3core.model.blocks import split_heads
from gpt3core.model.documents import begins
from gpt3core.model.gelu import gelu
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.losses import cross_entropy_sum
from gpt3core.model.parameters import PartOf, draw_, named, whole
from gpt3core.model.past import Past, Seen
from gpt3core.numerics import BUILT, WIDE


def _linear(kernel: str) -> type[nn.Linear]:
    """The layers of a kernel."""
    return products.Linear if kernel == WIDE else nn.Linear


class Attention(nn.Module):
    """Multi-head causal attention of one layer."""

    attend = staticmethod(attend)  # replaced from outside where positions are shared, or computed again
    mask: Any = None  # made beforehand

    def __init__(self, spec: GPTSpec, layer: int, kernel: str) -> None:
        super().__init__()
        self.n_ctx, self.window, self.d_head, self.kernel = spec.n_ctx, spec.window(layer), spec.d_head, kernel
        self.pattern = pattern = spec.pattern(layer)
        self.sparse = pattern if pattern.kind in ("strided", "fixed") else None
        self.sharpness = spec.factors.queries  # of scores, beside 1 / sqrt(K)
        inner = spec.n_head * spec.d_head
        # rows (H, 3, K): a cut of them is whole heads, and one product is faster than three at small widths
        self.qkv = _linear(kernel)(spec.d_model, 3 * inner)
        self.out = _linear(kernel)(inner, spec.d_model)

    def prepare(self, device: torch.device) -> None:
        """Make what compiled code only reads: as part of it, every pass would make it anew, all pairs and sorts."""
        if self.kernel == "sdpa" and self.pattern.kind != "dense":
            self.mask = flex_mask(self.pattern, self.n_ctx, device)

    def forward(self, x: Tensor, past: Seen | None = None, documents: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), with where each position's document begins (B, T), if documents are masked."""
        qkv = self.qkv(x)
        b, t, _ = qkv.shape  # from outside x may hold some of the positions only
        q, k, v = split_heads(qkv.view(b, t, -1, 3, self.d_head))  # (B, the heads here, T, K) each
        if self.sharpness != 1:
            q = q * self.sharpness
        seen = None if past is None else past.read(k, v)
        if seen is None:
            mixed = self.attend(
                *(q, k, v),
                n_ctx=self.n_ctx,
                window=self.window,
                kernel=self.kernel,
                sparse=self.sparse,
                documents=documents,
                mask=self.mask,
            )
        else:
            mixed = F.scaled_dot_product_attention(q, *seen)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, -1))
        return projected


class Block(nn.Module):
    """Attention and MLP, each on the normalised residual stream."""

    def __init__(self, spec: GPTSpec, layer: int, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm1 = nn.LayerNorm(spec.d_model)
        self.attention = Attention(spec, layer, kernel)
        self.norm2 = nn.LayerNorm(spec.d_model)
        self.up = _linear(kernel)(spec.d_model, 4 * spec.d_model)
        self.down = _linear(kernel)(4 * spec.d_model, spec.d_model)

    def forward(self, x: Tensor, past: Seen | None = None, documents: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); documents as in ``Attention``."""
        x = x + self.attention(self.norm1(x), past, documents)
        added: Tensor = self.down(gelu(self.up(self.norm2(x)), self.kernel))
        return x + added


class Head(nn.Module):
    """Logits from the token embedding's own weight (V, D)."""

    # set from outside
    smoothing = 0.0  # of labels in training (``losses``)
    compiled = False  # whether what the loss does to logits is, in training

    def __init__(self, weight: Tensor, kernel: str) -> None:
        super().__init__()
        assert isinstance(weight, nn.Parameter)
        self.weight, self.kernel = weight, kernel

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of any positions: (..., D) to (..., V)."""
        return (products.learnt if self.kernel == WIDE else F.linear)(hidden, self.weight)

    def loss_sum(self, hidden: Tensor, targets: Tensor, counts: Tensor | None) -> Tensor:
        """The summed loss in nats and fp32: (B, T, D), targets (B, T), and how much each counts, if not all one."""
        counts = None if counts is None else counts.flatten()
        return cross_entropy_sum(
            *(hidden.flatten(0, 1), self.weight, targets.flatten(), counts),
            kernel=self.kernel,
            compiled=self.compiled,
            smoothing=self.smoothing,
        )


class GPT(nn.Module):
    """Token ids (B, T) to logits (B, T, V); as a pipeline's stage, from or to the residual stream (B, T, D).

    A stage is made by setting ``tokens`` and ``positions`` (not the first), ``norm`` and ``head`` (not the last) to
    None and deleting the blocks of other stages; what is left keeps its names.
    """

    tied: ClassVar[dict[str, str]] = {"head.weight": "tokens.weight"}

    def __init__(self, spec: GPTSpec, *, kernel: str = "sdpa") -> None:
        super().__init__()
        if kernel in BUILT:
            native.require(kernel)
        if kernel == WIDE:
            products.require()
        self.spec = spec
        embedding = nn.Embedding(spec.vocab_size, spec.d_model)
        self.tokens: nn.Embedding | None = embedding
        self.positions: nn.Embedding | None = nn.Embedding(spec.n_ctx, spec.d_model)
        self.blocks = nn.ModuleDict({str(layer): Block(spec, layer, kernel) for layer in range(spec.n_layer)})
        self.norm: nn.LayerNorm | None = nn.LayerNorm(spec.d_model)
        self.head: Head | None = Head(embedding.weight, kernel)

    def hidden(self, x: Tensor, past: Past | None = None, documents: Tensor | None = None) -> Tensor:
        """What the head reads, in an earlier stage the residual stream: (B, T) or (B, T, D) to (B, T, D).

        Args:
            past: what was read before; it takes in what is read now.
            documents: where each position's document begins (B, T), if they are masked; from all tokens it is known.
        """
        if documents is None and self.spec.document_end is not None:
            assert not x.is_floating_point(), "a stage that sees no tokens must be told"
            documents = begins(x, self.spec.document_end)
        if self.tokens is not None and self.positions is not None:
            places = torch.arange(x.size(1), device=x.device) if past is None else past.places(x.size(1))
            x = self.tokens(x) + self.positions(places)  # (B, T, D)
        for layer, block in self.blocks.items():
            x = block(x, None if past is None else past.layers[layer], documents)
        if self.norm is None:
            return x
        x, readout = self.norm(x), self.spec.factors.readout
        return x if readout == 1 else x * readout

    def forward(
        self,
        x: Tensor,
        targets: Tensor | None = None,
        counts: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Token ids (B, T) to logits (B, T, V), or with targets (B, T) to their summed loss, each times its count."""
        hidden = self.hidden(x, documents=documents)
        if self.head is None:
            return hidden
        return self.head(hidden) if targets is None else self.head.loss_sum(hidden, targets, counts)

    @torch.no_grad()
    def init_weights(self, seed: int, part_of: PartOf = whole) -> None:
        """GPT-2's initialisation, a parameter at a time, keyed by seed and name.

        N(0, init_std) for matrices and embeddings (positions half of it), zero biases, residual projections scaled by
        1/sqrt(2 n_layer); all times the factors of the parametrisation.

        Args:
            part_of: what this device holds of a parameter, and all that is drawn.
        """
        if self.tokens is not None and self.head is not None:
            self.head.weight = cast(
                "nn.Parameter", self.tokens.weight
            )  # a model that was built without memory comes out untied
        residual = self.spec.init_std / math.sqrt(2 * self.spec.n_layer)
        for name, parameter in named(self):
            part = part_of(parameter)
            if "norm" in name:
                part.values.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                part.values.zero_()
            else:
                std = residual if name.endswith(("out.weight", "down.weight")) else self.spec.init_std
                std *= self.spec.factors.init(name)
                draw_(part, seed, name, std / 2 if name == "positions.weight" else std)
