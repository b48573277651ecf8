"""The layout of Hugging Face's ``GPT2LMHeadModel``: names, shapes and configuration. Dense attention only.

Its linear layers (``Conv1D``) keep their weights as (in, out), and the rows of q, k and v one after the other; ours are
(out, in), and (H, 3, K). Shape legend: D d_model, H heads, K d_head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt3core.model.gpt_spec import GELU, GPTSpec

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"
EPSILON = 1e-5  # of a LayerNorm: torch's default, which our module has
# what transformers calls the form of GELU that our module computes; the first name is the one that is written
ACTIVATIONS = {"none": ("gelu", "gelu_python"), "tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")}[GELU]

Weights = dict[str, Tensor]

OUTSIDE = {"tokens.weight": "wte.weight", "positions.weight": "wpe.weight"}
NORMS = {"norm": "ln_f"}
BLOCK_NORMS = {"norm1": "ln_1", "norm2": "ln_2"}
LINEAR = {"attention.out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
BOTH = ("weight", "bias")


def config(spec: GPTSpec, end: int) -> dict[str, Any]:
    """What config.json says of a model; ``end`` is its end of text."""
    return {
        "n_positions": spec.n_ctx,
        "n_embd": spec.d_model,
        "n_layer": spec.n_layer,
        "n_head": spec.n_head,
        "n_inner": None,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        **common(spec, end, MODEL_TYPE, ARCHITECTURE),
    }


def common(spec: GPTSpec, end: int, model_type: str, architecture: str) -> dict[str, Any]:
    """What both layouts call alike."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "activation_function": ACTIVATIONS[0],
        "layer_norm_epsilon": EPSILON,
        "initializer_range": spec.init_std,
        "resid_pdrop": 0.0,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def spec(config: dict[str, Any]) -> GPTSpec:
    """The shape that a config.json says.

    Raises:
        ValueError: for what our model does not compute.
    """
    d_model, n_head = whole(config, "n_embd"), whole(config, "n_head")
    for name, allowed in (
        ("n_inner", (None, 4 * d_model)),
        ("scale_attn_weights", (True,)),
        ("scale_attn_by_inverse_layer_idx", (False,)),
        ("add_cross_attention", (False,)),
    ):
        require(config, name, *allowed)
    check_common(config)
    return GPTSpec(
        n_ctx=whole(config, "n_positions"),
        vocab_size=whole(config, "vocab_size"),
        n_layer=whole(config, "n_layer"),
        d_model=d_model,
        n_head=n_head,
        d_head=divided(d_model, n_head),
        attention="dense",
        init_std=float(config.get("initializer_range", 0.02)),
    )


def whole(config: dict[str, Any], name: str) -> int:
    """A count that a config.json must have.

    Raises:
        ValueError: when it lacks it, or has something else there.
    """
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json has {name}={value!r:.40}: a whole number of 1 or more is needed")
    return value


def divided(d_model: int, n_head: int) -> int:
    """The width of a head.

    Raises:
        ValueError: when the heads do not divide the model's width.
    """
    if d_model % n_head:
        raise ValueError(f"config.json has a width of {d_model} and {n_head} heads, which do not divide it")
    return d_model // n_head


def require(config: dict[str, Any], name: str, *allowed: Any) -> None:
    """Refuse a setting with another value than our model's; one that is not there has the first.

    Raises:
        ValueError: naming both.
    """
    if config.get(name, allowed[0]) not in allowed:
        raise ValueError(
            f"config.json has {name}={config[name]!r:.60}, and this model is computed with "
            f"{' or '.join(repr(value) for value in allowed)}: its logits would differ"
        )


def check_common(config: dict[str, Any]) -> None:
    """Refuse what neither layout may say differently.

    Raises:
        ValueError: in one sentence.
    """
    require({"activation_function": "gelu_new", **config}, "activation_function", *ACTIVATIONS)
    require(config, "layer_norm_epsilon", EPSILON)
    require(config, "tie_word_embeddings", True)


# ------------------------------------------------------------------------------------------------------------- weights


def shapes(spec: GPTSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of the layout and its shape."""
    d, found = spec.d_model, common_shapes(spec)
    for layer in range(spec.n_layer):
        block = f"h.{layer}."
        wide = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
        found |= {f"{block}{name}.weight": shape for name, shape in wide.items()}
        found |= {f"{block}{name}.bias": shape[1:] for name, shape in wide.items()}
    return found


def to_layout(weights: Weights, spec: GPTSpec) -> Weights:
    """Our weights, by name, in the layout's names and shapes."""
    found = outside(weights)
    for layer in range(spec.n_layer):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        for a, b in BLOCK_NORMS.items():
            found |= {f"{theirs}{b}.{kind}": weights[f"{ours}{a}.{kind}"] for kind in BOTH}
        for a, b in LINEAR.items():
            found[f"{theirs}{b}.weight"] = weights[f"{ours}{a}.weight"].T
            found[f"{theirs}{b}.bias"] = weights[f"{ours}{a}.bias"]
        rows = {kind: by_kind(weights[f"{ours}attention.qkv.{kind}"], spec.d_head) for kind in BOTH}
        found[f"{theirs}attn.c_attn.weight"] = rows["weight"].flatten(0, 1).T
        found[f"{theirs}attn.c_attn.bias"] = rows["bias"].flatten()
    return found


def from_layout(tensors: Weights, spec: GPTSpec) -> Weights:
    """The layout's tensors in our names and shapes."""
    found = inside(tensors)
    for layer in range(spec.n_layer):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        for a, b in BLOCK_NORMS.items():
            found |= {f"{ours}{a}.{kind}": tensors[f"{theirs}{b}.{kind}"] for kind in BOTH}
        for a, b in LINEAR.items():
            found[f"{ours}{a}.weight"] = tensors[f"{theirs}{b}.weight"].T
            found[f"{ours}{a}.bias"] = tensors[f"{theirs}{b}.bias"]
        rows = tensors[f"{theirs}attn.c_attn.weight"].T.reshape(3, spec.d_model, spec.d_model)
        found[f"{ours}attention.qkv.weight"] = by_head(rows, spec.d_head)
        biases = tensors[f"{theirs}attn.c_attn.bias"].reshape(3, spec.d_model)
        found[f"{ours}attention.qkv.bias"] = by_head(biases, spec.d_head)
    return found


def common_shapes(spec: GPTSpec) -> dict[str, tuple[int, ...]]:
    """The tensors that both layouts have, embeddings and norms, and their shapes."""
    d = spec.d_model
    found = {"wte.weight": (spec.vocab_size, d), "wpe.weight": (spec.n_ctx, d)}
    norms = [*NORMS.values(), *(f"h.{layer}.{norm}" for layer in range(spec.n_layer) for norm in BLOCK_NORMS.values())]
    return found | {f"{norm}.{kind}": (d,) for norm in norms for kind in BOTH}


def outside(weights: Weights) -> Weights:
    """What lies outside the blocks, in the names of both layouts."""
    found = {theirs: weights[ours] for ours, theirs in OUTSIDE.items()}
    return found | {f"{b}.{kind}": weights[f"{a}.{kind}"] for a, b in NORMS.items() for kind in BOTH}


def inside(tensors: Weights) -> Weights:
    """The same from a layout in our names."""
    found = {ours: tensors[theirs] for ours, theirs in OUTSIDE.items()}
    return found | {f"{a}.{kind}": tensors[f"{b}.{kind}"] for a, b in NORMS.items() for kind in BOTH}


def by_kind(rows: Tensor, d_head: int) -> Tensor:
    """Our rows (H 3 K, ...) of q, k and v as (3, H K, ...)."""
    return rows.reshape(-1, 3, d_head, *rows.shape[1:]).transpose(0, 1).flatten(1, 2)


def by_head(rows: Tensor, d_head: int) -> Tensor:
    """The reverse: (3, H K, ...) to (H 3 K, ...)."""
    return rows.reshape(3, -1, d_head, *rows.shape[2:]).transpose(0, 1).flatten(0, 2)


def contiguous(tensors: Weights) -> Weights:
    """The same as files hold them: fp32, contiguous, each with memory of its own."""
    return {name: tensor.detach().to("cpu", torch.float32).clone().contiguous() for name, tensor in tensors.items()}
