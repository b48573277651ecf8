"""GPT-3's architecture without torch (Brown et al. 2020, section 2.1): shape, parameters, FLOPs, cuts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from gpt3core.checks import as_floats, require_positive
from gpt3core.model import patterns
from gpt3core.model.architecture import ADDED, Architecture, BlockBytes, Cuts, ModelSpec, Params
from gpt3core.model.mup import STANDARD, Factors
from gpt3core.model.patterns import Pattern
from gpt3core.numerics import Numerics

# GPT-2's form, which GPT-3 keeps (see ``gelu.py``); torch's name of it
GELU = "tanh"


@dataclass(frozen=True, kw_only=True)
class GPTSpec(ModelSpec):
    """Shape of a GPT-3 decoder: pre-LayerNorm, learned positions, GELU, tied head."""

    architecture: str = "gpt"
    n_layer: int
    d_model: int
    n_head: int
    d_head: int
    attention: str = "alternating"  # layer 0 banded, layer 1 dense, ...; or other kinds (``patterns.layers``)
    band: int = 128  # keys that a banded layer sees, itself included (the paper does not print GPT-3's)
    init_std: float = 0.02  # GPT-2; residual projections get init_std / sqrt(2 n_layer)
    stride: int = field(default=128, metadata=ADDED)  # of strided and fixed layers (Child et al. 2019, section 4.2)
    summary: int = field(default=8, metadata=ADDED)  # keys at the end of a fixed layer's blocks that all later ones see
    mup_base_width: int = field(default=0, metadata=ADDED)  # d_model of the base of ``mup.py``; 0: standard
    mup_base_d_head: int = field(default=0, metadata=ADDED)  # the base's d_head

    def __post_init__(self) -> None:
        super().__post_init__()
        as_floats(self)
        require_positive(self, "n_layer", "d_model", "n_head", "d_head", "band", "init_std", where="model.")
        require_positive(self, "stride", "summary", where="model.")
        kinds = patterns.layers(self.attention)
        for name, users in (("stride", {"strided", "fixed"}), ("summary", {"fixed"})):
            value, default = getattr(self, name), GPTSpec.__dataclass_fields__[name].default
            if value != default and not users & set(kinds):
                raise ValueError(f"model.{name}={value}: no layer of model.attention={self.attention!r} has it")
        if "fixed" in kinds and self.summary > self.stride:
            raise ValueError(f"model.summary={self.summary}: at most model.stride={self.stride}")
        self._check_base()

    def _check_base(self) -> None:
        """Refuse half of a base, and heads for which a base does not say how wide its own are together."""
        width, d_head = self.mup_base_width, self.mup_base_d_head
        if min(width, d_head) < 0 or (width == 0) != (d_head == 0):
            raise ValueError(
                f"model.mup_base_width={width}, model.mup_base_d_head={d_head}: both of the base model, 1 or more, or "
                "both 0 for the standard parametrisation"
            )
        if width and self.n_head * self.d_head != self.d_model:
            raise ValueError(
                f"model.mup_base_width={width}: {self.n_head} heads of {self.d_head} do not make up "
                f"d_model={self.d_model}; give heads that do, or mup_base_width=0"
            )

    @property
    def factors(self) -> Factors:
        """Of the maximal-update parametrisation, where the model has a base."""
        if not self.mup_base_width:
            return STANDARD
        return Factors(width=self.d_model / self.mup_base_width, d_head=self.d_head / self.mup_base_d_head)

    def pattern(self, layer: int) -> Pattern:
        """Which keys the queries of a layer see."""
        kinds = patterns.layers(self.attention)
        kind = kinds[layer % len(kinds)]
        size = {"dense": 0, "banded": self.band}.get(kind, self.stride)
        if size >= self.n_ctx:
            kind, size = "dense", 0
        return Pattern(kind=kind, size=size, summary=self.summary if kind == "fixed" else 0)

    def window(self, layer: int) -> int:
        """How far back a query of this layer can see, in keys, itself included."""
        pattern = self.pattern(layer)
        return pattern.size if pattern.kind == "banded" else self.n_ctx


@lru_cache(maxsize=1024)  # a plan asks thousands of times
def params(model: GPTSpec) -> Params:
    """Exact counts: weights, biases, LayerNorms, embeddings; the head is the token embedding."""
    d, inner = model.d_model, model.n_head * model.d_head
    attention = d * 3 * inner + 3 * inner + inner * d + d
    mlp = d * 4 * d + 4 * d + 4 * d * d + d
    norms = 4 * d
    nonembedding = model.n_layer * (attention + mlp + norms) + 2 * d
    return Params(
        total=nonembedding + (model.vocab_size + model.n_ctx) * d,
        nonembedding=nonembedding,
        kaplan=model.n_layer * (4 * d * inner + 8 * d * d),
    )


@lru_cache(maxsize=1024)
def forward_flops_per_token(model: GPTSpec) -> float:
    """Matrix-product FLOPs of a forward pass, per token of a full sequence."""
    d, inner = model.d_model, model.n_head * model.d_head
    linear = model.n_layer * (d * 3 * inner + inner * d + 8 * d * d) + d * model.vocab_size
    pairs = sum(2 * inner * model.pattern(layer).mean_keys(model.n_ctx) for layer in range(model.n_layer))
    return 2 * (linear + pairs)


def activation_bytes(model: GPTSpec, numerics: Numerics, tensor: int, context: int = 1) -> BlockBytes:
    """What a block keeps of a token: Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1, for what is built here.

    Theirs is 34 h + 5 a s bytes with a stream of 16 bits and three dropout masks; here the stream is fp32 (2 x 2 h
    more), nothing is dropped (3 h and 3 a s less), and the softmax keeps its probabilities alone. A tensor-parallel
    layer keeps its gathered input whole: theirs keeps a shard and gathers again in the backward pass. Devices that
    share the positions each keep the keys and values of all of them, and what SDPA gives of their two runs apart.
    """
    d, inner, e = model.d_model, model.n_head * model.d_head, numerics.element_bytes
    norm = 4 * d + 8  # the norm's input, mean and inverse deviation, in fp32
    gathered = 2 * e * d  # what qkv and up read
    mixed = 3 * e * inner + e * inner  # queries, keys and values; what the attention gives and out reads
    mlp = 2 * 4 * e * d  # what the GELU reads, and what down reads
    # the probabilities of the softmax kernel; of the others the logarithm of each row's sum
    inside = e * model.n_head * model.n_ctx if numerics.kernel == "softmax" else 4 * model.n_head
    if model.factors.queries != 1:  # their product is kept beside qkv, or by the softmax kernel in its place
        mixed += e * inner
        inside -= e * inner if numerics.kernel == "softmax" else 0
    if context > 1:
        inside += 2 * e * inner * context + (0 if numerics.kernel == "softmax" else e * inner)
    return BlockBytes(
        entry=4 * d / tensor,
        inside=inside / tensor,
        rest=(norm + 8 + mixed + mlp) / tensor + gathered,
    )


ENTRY = Architecture(
    name="gpt",
    spec=GPTSpec,
    module="gpt3core.model.gpt:GPT",
    params=params,
    forward_flops_per_token=forward_flops_per_token,
    n_layer=lambda model: model.n_layer,
    shortened=lambda model: replace(model, n_layer=min(model.n_layer, len(patterns.layers(model.attention)))),
    width=lambda model: model.d_model,
    layer_params=lambda model: (params(model).nonembedding - 2 * model.d_model) / model.n_layer,  # less the last norm
    activation_bytes=activation_bytes,
    shared_widths=lambda model: {"model.n_head": model.n_head, "model.d_model": model.d_model},
    cuts=Cuts(
        columns=("attention.qkv", "up"),
        rows=("attention.out", "down"),
        norms=("norm1", "norm2"),
        layers="blocks",
        attention="attention",
        tokens="tokens",
        positions="positions",
        norm="norm",
        head="head",
    ),
)
