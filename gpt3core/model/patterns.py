"""Which keys a query may see: dense, a local band, and the Sparse Transformer's two factorisations. No torch.

Child et al. 2019 (arXiv 1904.10509), section 4.2, in the form of one merged head: the union of the two sets that they
give. The band is the ``local`` attention of openai/sparse_attention: exactly ``size`` keys, the query's own included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KINDS = ("dense", "banded", "strided", "fixed")
ALTERNATING = ("banded", "dense")  # GPT-3's (Brown et al. 2020, section 2.1)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The keys of one layer's queries, always causal."""

    kind: str  # of KINDS
    size: int = 0  # keys of a band, or the stride
    summary: int = 0  # of a fixed pattern: the last keys of every block, which all later blocks see

    def sees(self, query: Any, key: Any) -> Any:
        """Whether a query sees a key, by their positions: numbers, arrays or tensors."""
        causal = key <= query
        if self.kind == "banded":
            return causal & (query - key < self.size)
        if self.kind == "strided":  # the last ``size`` keys, and every size-th before
            return causal & ((query - key < self.size) | ((query - key) % self.size == 0))
        if self.kind == "fixed":  # the query's own block, and the summaries of the blocks before
            return causal & ((query // self.size == key // self.size) | (key % self.size >= self.size - self.summary))
        return causal

    def mean_keys(self, n_ctx: int) -> float:
        """Keys that a query attends to, averaged over a sequence."""
        size = min(self.size, n_ctx)
        if self.kind == "dense":
            return (n_ctx + 1) / 2
        band = size * (size + 1) // 2 + (n_ctx - size) * size
        blocks, rest = divmod(n_ctx, size)
        before = size * blocks * (blocks - 1) // 2 + rest * blocks  # whole blocks before each query's, summed
        if self.kind == "banded":
            pairs = band
        elif self.kind == "strided":
            pairs = band + before
        else:
            pairs = blocks * size * (size + 1) // 2 + rest * (rest + 1) // 2 + self.summary * before
        return pairs / n_ctx


def layers(attention: str) -> tuple[str, ...]:
    """The kinds of consecutive layers, over and over: of "alternating", one kind, or kinds with commas between.

    Raises:
        ValueError: for anything else.
    """
    kinds = ALTERNATING if attention == "alternating" else tuple(attention.split(","))
    if not set(kinds) <= set(KINDS):
        raise ValueError(
            f"model.attention={attention!r}: allowed are dense, alternating (banded,dense), banded, strided, fixed, or "
            "a layer after another, like strided,dense,dense"
        )
    return kinds
