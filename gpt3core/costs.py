"""Parameters and FLOPs of a model, each by a named convention. No torch.

Conventions:
    params total            every trained number; the head is tied to the token embedding and counted once
    params non-embedding    total without token and position embeddings
    params kaplan           the matrices of the blocks: 2 d n_layer (2 d_attn + d_ff) (Kaplan et al. 2020, table 1)
    flops 6ND               6 x parameters x tokens, of the parameters that the caller names
    flops model ("exact")   3 x forward; forward = 2 FLOPs per multiply-add of every matrix product: linear layers,
                            head, and the query-key pairs that causal and banded masks leave; embeddings, softmax and
                            norms not. Masked documents are counted as if they saw each other, as published counts do
"""

from __future__ import annotations

from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec, Params
from gpt3core.spec import RunSpec

PF_DAY = 1e15 * 86_400  # FLOPs in one petaflop/s-day
FORWARD_AND_BACKWARD = 3  # the backward pass costs twice the forward pass


def params(model: ModelSpec) -> Params:
    """Exact parameter counts of a model."""
    return registry.of(model).params(model)


def forward_flops_per_token(model: ModelSpec) -> float:
    """Matrix-product FLOPs of a forward pass, per token of a full sequence."""
    return registry.of(model).forward_flops_per_token(model)


def train_flops(model: ModelSpec, tokens: float) -> float:
    """Exact training FLOPs of ``tokens`` tokens."""
    return FORWARD_AND_BACKWARD * forward_flops_per_token(model) * tokens


def six_nd(n_params: float, tokens: float) -> float:
    """The 6ND approximation (Kaplan et al. 2020, section 2.1; Brown et al. 2020, appendix D)."""
    return 6.0 * n_params * tokens


def tokens_for(model: ModelSpec, flops: float) -> float:
    """Tokens that a compute budget buys."""
    return flops / train_flops(model, 1)


def run_costs(spec: RunSpec, tokens: int | None = None) -> dict[str, float]:
    """The cost columns of the tidy table for a run: parameters, FLOPs by both conventions, PF-days.

    Args:
        tokens: that it trained on, where these are not all that it was specified for.
    """
    tokens = spec.tokens if tokens is None else tokens
    counts = params(spec.model)
    exact = train_flops(spec.model, tokens)
    return {
        "params_total": counts.total,
        "params_nonembedding": counts.nonembedding,
        "flops_6nd": six_nd(counts.nonembedding, tokens),
        "flops_model": exact,
        "pf_days": exact / PF_DAY,
    }
