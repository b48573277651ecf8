"""The layout of Hugging Face's ``GPTNeoForCausalLM``, whose local layers are our banded ones; exact, biases and all.

GPT-Neo's attention divides its scores by nothing and has no biases on q, k and v, where ours has both. Both go into
other weights without changing what is computed. The factor 1/sqrt(K) goes into q's rows. For the biases, what a
LayerNorm gives before its own weight and bias, n (D), sums to zero. So its weight g and bias h go into the matrix,
W (g n + h) + b = (W diag(g)) n + (W h + b), the norm is left with weight 1 and bias 1, and as the entries of n + 1 then
always sum to D, the mean of a row of the matrix adds just a constant to its output: let it be (W h + b) / D.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt3core.interop import gpt2
from gpt3core.interop.gpt2 import BLOCK_NORMS, BOTH, Weights, whole
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.patterns import ALTERNATING

MODEL_TYPE = "gpt_neo"
ARCHITECTURE = "GPTNeoForCausalLM"
KINDS = {"local": "banded", "global": "dense"}  # of layers, theirs and ours
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
LINEAR = {"attention.out": "attn.attention.out_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}


def config(spec: GPTSpec, end: int) -> dict[str, Any]:
    """What config.json says of a model; ``end`` is its end of text."""
    names = {ours: theirs for theirs, ours in KINDS.items()}
    layers = [names[spec.pattern(layer).kind] for layer in range(spec.n_layer)]
    return {
        "max_position_embeddings": spec.n_ctx,
        "hidden_size": spec.d_model,
        "num_layers": spec.n_layer,
        "num_heads": spec.n_head,
        "intermediate_size": None,
        "attention_types": [[layers, 1]],
        "attention_layers": layers,
        "window_size": spec.band,
        "attention_dropout": 0.0,
        "embed_dropout": 0.0,
        **gpt2.common(spec, end, MODEL_TYPE, ARCHITECTURE),
    }


def spec(config: dict[str, Any]) -> GPTSpec:
    """The shape that a config.json says.

    Raises:
        ValueError: for what our model does not compute.
    """
    d_model, n_head = whole(config, "hidden_size"), whole(config, "num_heads")
    gpt2.require(config, "intermediate_size", None, 4 * d_model)
    gpt2.check_common(config)
    n_layer = whole(config, "num_layers")
    layers = _layers(config.get("attention_types"))
    if len(layers) != n_layer:
        raise ValueError(f"config.json has {n_layer} layers and attention_types of {len(layers)}")
    return GPTSpec(
        n_ctx=whole(config, "max_position_embeddings"),
        vocab_size=whole(config, "vocab_size"),
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        d_head=gpt2.divided(d_model, n_head),
        attention=_attention([KINDS[kind] for kind in layers]),
        band=whole(config, "window_size"),
        init_std=float(config.get("initializer_range", 0.02)),
    )


def _layers(types: Any) -> list[str]:
    """The kind of every layer.

    Raises:
        ValueError: for what is no list of [[kinds], times].
    """
    try:
        found = [str(kind) for kinds, times in types for _ in range(times) for kind in kinds]
    except (TypeError, ValueError):
        found = ["?"]
    if not set(found) <= set(KINDS):
        raise ValueError(
            f"config.json has attention_types={types!r:.60}: a list of [[kinds], times] is needed, kinds of "
            f"{' and '.join(KINDS)}"
        )
    return found


def _attention(kinds: list[str]) -> str:
    """Our name for the kinds of all layers: the shortest that repeats."""
    shortest = next(n for n in range(1, len(kinds) + 1) if all(k == kinds[i % n] for i, k in enumerate(kinds)))
    name = ",".join(kinds[:shortest])
    return "alternating" if name == ",".join(ALTERNATING) else name


# ------------------------------------------------------------------------------------------------------------- weights


def shapes(spec: GPTSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of the layout and its shape."""
    d, found = spec.d_model, gpt2.common_shapes(spec)
    for layer in range(spec.n_layer):
        block = f"h.{layer}."
        found |= {f"{block}attn.attention.{name}.weight": (d, d) for name in PROJECTIONS}
        wide = {"attn.attention.out_proj": (d, d), "mlp.c_fc": (4 * d, d), "mlp.c_proj": (d, 4 * d)}
        found |= {f"{block}{name}.weight": shape for name, shape in wide.items()}
        found |= {f"{block}{name}.bias": shape[:1] for name, shape in wide.items()}
    return found


def to_layout(weights: Weights, spec: GPTSpec) -> Weights:
    """Our weights, by name, in the layout's names and shapes."""
    found = gpt2.outside(weights)
    for layer in range(spec.n_layer):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        for a, b in LINEAR.items():
            found |= {f"{theirs}{b}.{kind}": weights[f"{ours}{a}.{kind}"] for kind in BOTH}
        found |= {f"{theirs}ln_2.{kind}": weights[f"{ours}norm2.{kind}"] for kind in BOTH}
        found |= {f"{theirs}ln_1.{kind}": torch.ones(spec.d_model) for kind in BOTH}
        for name, rows in zip(PROJECTIONS, _without_biases(weights, ours, spec.d_head), strict=True):
            found[f"{theirs}attn.attention.{name}.weight"] = rows
    return found


def _without_biases(weights: Weights, block: str, d_head: int) -> Tensor:
    """q, k and v (3, D, D) of a layer for the normalised stream plus 1, computed in float64."""
    rows = gpt2.by_kind(weights[f"{block}attention.qkv.weight"].double(), d_head)  # (3, D, D)
    biases = gpt2.by_kind(weights[f"{block}attention.qkv.bias"].double(), d_head)  # (3, D)
    biases = biases + rows @ weights[f"{block}norm1.bias"].double()
    rows = rows * weights[f"{block}norm1.weight"].double()
    rows = rows - rows.mean(-1, keepdim=True) + biases[..., None] / rows.size(-1)
    rows[0] /= math.sqrt(d_head)
    return rows


def from_layout(tensors: Weights, spec: GPTSpec) -> Weights:
    """The layout's tensors in our names and shapes."""
    found = gpt2.inside(tensors)
    for layer in range(spec.n_layer):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        for a, b in (BLOCK_NORMS | LINEAR).items():
            found |= {f"{ours}{a}.{kind}": tensors[f"{theirs}{b}.{kind}"] for kind in BOTH}
        rows = torch.stack([tensors[f"{theirs}attn.attention.{name}.weight"].double() for name in PROJECTIONS])
        rows[0] *= math.sqrt(spec.d_head)
        found[f"{ours}attention.qkv.weight"] = gpt2.by_head(rows, spec.d_head)
        found[f"{ours}attention.qkv.bias"] = torch.zeros(3 * spec.d_model)
    return found
