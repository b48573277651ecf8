"""A model's weights in the standard parametrisation: the multipliers of another (``model.mup``) go into the weights."""

from __future__ import annotations

from torch import Tensor

from gpt3core.model.gpt_spec import GPTSpec


def folded(weights: dict[str, Tensor], spec: GPTSpec) -> dict[str, Tensor]:
    """Weights that compute, without multipliers, what a model computes with them.

    What the head reads is scaled by the last norm's weight and bias, the queries by their rows (H, 3, K) of qkv.
    """
    factors, found = spec.factors, dict(weights)
    if factors.readout != 1:
        found |= {name: weights[name] * factors.readout for name in ("norm.weight", "norm.bias")}
    if factors.queries != 1:
        for name in (n for n in weights if n.endswith(("qkv.weight", "qkv.bias"))):
            rows = weights[name].reshape(spec.n_head, 3, spec.d_head, -1).clone()
            rows[:, 0] *= factors.queries
            found[name] = rows.view_as(weights[name])
    return found
