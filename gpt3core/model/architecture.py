"""What isoflop must know of an architecture without torch: shape, parameters, FLOPs, and how it can be cut."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpt3core.checks import require_positive
from gpt3core.model.mup import STANDARD, Factors
from gpt3core.numerics import Numerics

ADDED = {"added": True}  # metadata of a field that came later: not hashed while it has its default, so old ids stay
# of the head's fp32 logits at a time (``losses.py``): what a processor's last cache holds; a GPU's holds no useful part
# of them, and the weight and its gradient are read and written once a chunk
CHUNK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 30}
CHUNK_ROWS = 256  # but no fewer rows


def head_rows(vocab_size: int, device: str) -> int:
    """Positions whose logits are made at a time where the head and the loss are one, on a kind of device."""
    return max(CHUNK_ROWS, CHUNK_BYTES.get(device, CHUNK_BYTES["cpu"]) // (4 * vocab_size))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What every architecture's specification has; each adds the fields of its shape."""

    architecture: str  # its name in the registry
    n_ctx: int
    vocab_size: int
    # the token that ends a document: later ones do not see what lies before; none is told apart where there is none
    document_end: int | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        require_positive(self, "n_ctx", "vocab_size", where="model.")
        if self.document_end is not None and not 0 <= self.document_end < self.vocab_size:
            raise ValueError(f"model.document_end={self.document_end}: a token, from 0 to {self.vocab_size - 1}")

    @property
    def factors(self) -> Factors:
        """What its parametrisation multiplies initial values and the optimizer's settings by."""
        return STANDARD


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameter counts of a model."""

    total: int
    nonembedding: int
    kaplan: int  # the blocks' matrices alone: 2 d n_layer (2 d_attn + d_ff) (Kaplan et al. 2020, table 1)


@dataclass(frozen=True, kw_only=True)
class BlockBytes:
    """What one block keeps of one token for its backward pass, in bytes on one device."""

    entry: float  # the residual stream that goes in: all that full recomputation keeps
    inside: float  # the attention's scores and what only they need: what selective recomputation does not keep
    rest: float

    @property
    def all(self) -> float:
        """Without recomputation."""
        return self.entry + self.inside + self.rest


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """How a module's parts may be cut over devices, by the names of its modules.

    ``columns`` are cut along their outputs and ``rows`` along their inputs (Shoeybi et al. 2019, section 3); what
    ``norms`` do is the same at every position, so devices that share the matrices share the positions there
    (Korthikanti et al. 2022, section 4.2.2). These are names in a block; ``layers`` names the list of blocks, which a
    pipeline deals out. ``attention`` names the module of a block whose ``attend`` mixes positions.

    Around the blocks: ``tokens`` and ``head`` (maybe tied) have a row a token of the vocabulary, ``positions`` maps
    places in a sequence to vectors, and ``norm`` comes before the head.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    norms: tuple[str, ...]
    layers: str
    attention: str
    tokens: str
    positions: str
    norm: str
    head: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An entry of the registry."""

    name: str
    spec: type[ModelSpec]
    module: str  # "module:class", imported when a model is built; called with (spec, kernel=...)
    params: Callable[[Any], Params]
    forward_flops_per_token: Callable[[Any], float]  # matrix products of a full sequence, per token
    n_layer: Callable[[Any], int]  # equal blocks, which a pipeline may deal out
    shortened: Callable[[Any], Any]  # the specification with as few blocks as have one of every kind
    width: Callable[[Any], int]  # of the residual stream
    layer_params: Callable[[Any], float]  # of one block
    activation_bytes: Callable[[Any, Numerics, int, int], BlockBytes]  # of a block cut over tensor, context devices
    shared_widths: Callable[[Any], dict[str, int]]  # by key: what devices that share every matrix must divide
    cuts: Cuts

    def build(self, spec: ModelSpec, *, kernel: str) -> Any:
        """The torch module of a specification, its weights not yet drawn."""
        file, _, name = self.module.partition(":")
        return getattr(importlib.import_module(file), name)(spec, kernel=kernel)
