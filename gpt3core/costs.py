"""Parameters, FLOPs and memory of a model, each by a named convention. No torch.

Conventions:
    params total            every trained number; the head is tied to the token embedding and counted once
    params non-embedding    total without token and position embeddings (Kaplan et al. 2020)
    flops 6ND               6 x parameters x tokens, of the parameters that the caller names
    flops model ("exact")   3 x forward; forward = 2 FLOPs per multiply-add of every matrix product: linear layers,
                            head, and the query-key pairs that causal and banded masks leave; embeddings, softmax and
                            norms not
"""

from __future__ import annotations

from dataclasses import dataclass

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


# ------------------------------------------------------------------------------------------- memory of one device

STATE_BYTES = 6.0  # bf16 weight + fp32 gradient, on every data-parallel replica
OPTIMIZER_BYTES = 12.0  # fp32 master weight and two moments, sharded over the data-parallel ranks


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the fullest device (the first pipeline stage)."""

    weights_and_gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights_and_gradients + self.optimizer + self.activations


def memory_per_device(
    model: ModelSpec,
    *,
    data: int,
    tensor: int,
    pipeline: int,
    micro_batch: int = 1,
    recompute: str = "selective",
) -> Memory:
    """Bytes per device for mixed-precision AdamW with a distributed optimizer.

    States: 6 + 12/d bytes a parameter (bf16 weights, fp32 gradients; Megatron-LM's distributed optimizer).
    Activations: the architecture's bytes a token and layer, sequence parallel with the tensor degree; 1F1B keeps p
    micro-batches of L/p layers on the first stage, so the pipeline degree does not divide them. The fp32 logits
    (s b V / t) sit on the last stage and are counted where there is one stage only.
    """
    if recompute not in ("selective", "full"):
        raise ValueError(f"recompute={recompute!r}: allowed are selective, full")
    counts, architecture = params(model), registry.of(model)
    n_layer, tokens = architecture.n_layer(model), model.n_ctx * micro_batch
    layers = -(-n_layer // pipeline)
    on_device = (architecture.layer_params(model) * layers + counts.total - counts.nonembedding) / tensor
    activations = tokens * n_layer * architecture.activation_bytes(model, recompute) / tensor
    if pipeline == 1:
        activations += 4.0 * 2 * tokens * model.vocab_size / tensor  # logits and their gradient
    return Memory(
        weights_and_gradients=STATE_BYTES * on_device,
        optimizer=OPTIMIZER_BYTES * on_device / data,
        activations=activations,
    )


def run_costs(spec: RunSpec) -> dict[str, float]:
    """The cost columns of the tidy table for a run: parameters, FLOPs by both conventions, PF-days."""
    counts = params(spec.model)
    exact = train_flops(spec.model, spec.tokens)
    return {
        "params_total": counts.total,
        "params_nonembedding": counts.nonembedding,
        "flops_6nd": six_nd(counts.nonembedding, spec.tokens),
        "flops_model": exact,
        "pf_days": exact / PF_DAY,
    }
