"""The model against a plain re-implementation from the paper's description, and its parts against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from gpt3core.model import parameters, registry
from gpt3core.model.gpt import GPT
from gpt3core.sizes import nano
from gpt3core.train.objective import loss_per_token


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(model: GPT, ids: list[int]) -> np.ndarray:
    """GPT-3's forward pass in numpy float64, a position after another; with muP's multipliers where there is a base."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    spec = model.spec
    sharp = math.sqrt(spec.mup_base_d_head or spec.d_head) / spec.d_head  # Yang et al. 2022, definition 4.1
    readout = (spec.mup_base_width or spec.d_model) / spec.d_model  # their table 8

    def norm(x, name):
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    xs = [w["tokens.weight"][token] + w["positions.weight"][t] for t, token in enumerate(ids)]
    for layer in range(spec.n_layer):
        block = f"blocks.{layer}"
        normed = [norm(x, f"{block}.norm1") for x in xs]
        heads = [linear(x, f"{block}.attention.qkv").reshape(spec.n_head, 3, spec.d_head) for x in normed]
        q, k, v = ([x[:, kind] for x in heads] for kind in range(3))
        for t in range(len(xs)):
            seen = range(max(0, t - spec.window(layer) + 1), t + 1)
            mixed = []
            for h in range(spec.n_head):
                scores = np.array([q[t][h] @ k[s][h] * sharp for s in seen])
                mixed.append(softmax(scores) @ np.array([v[s][h] for s in seen]))
            xs[t] = xs[t] + linear(np.concatenate(mixed), f"{block}.attention.out")
        for t, x in enumerate(xs):
            h = linear(norm(x, f"{block}.norm2"), f"{block}.up")
            gelu = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))  # Hendrycks and Gimpel 2016
            xs[t] = x + linear(gelu, f"{block}.down")
    return np.stack([w["tokens.weight"] @ norm(x, "norm") * readout for x in xs])


@pytest.mark.parametrize("base", [{}, {"mup_base_width": 24, "mup_base_d_head": 12}], ids=["standard", "muP"])
@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
def test_logits_are_the_papers(kernel, base):
    shape = nano(64, n_layer=3, n_ctx=12, vocab_size=50, attention="alternating", band=3)
    model = GPT(replace(shape, **base), kernel=kernel)
    model.init_weights(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    ids = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(model(ids)[0].detach().numpy(), by_hand(model, ids[0].tolist()), atol=2e-4)


def test_initialisation_is_gpt2s():
    model = GPT(nano(256, n_layer=2, n_ctx=64, vocab_size=1000, attention="dense", band=4))
    model.init_weights(0)
    std = {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
    assert std["tokens.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["positions.weight"] == pytest.approx(0.01, rel=0.05)
    assert std["blocks.0.up.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["blocks.1.down.weight"] == pytest.approx(0.02 / 2, rel=0.02)  # 1/sqrt(2 n_layer) = 1/2
    with torch.no_grad():
        loss = loss_per_token(model(torch.arange(64)[None]), torch.arange(500, 564)[None]).mean().item()
    assert loss == pytest.approx(math.log(1000), rel=0.02)


def test_the_loss_is_computed_in_fp32():
    """bf16 logits: torch's own bf16 cross-entropy is off in the second or third digit."""
    logits = torch.randn(4, 32, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.randint(1024, (4, 32), generator=torch.Generator().manual_seed(1))
    exact = -torch.log_softmax(logits.double(), -1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(loss_per_token(logits, targets).double(), exact, atol=1e-5, rtol=1e-6)


# ----------------------------------------------------------------------------------------------------- initial weights


def test_draws_are_independent_standard_normals():
    drawn = parameters.normal(7, "blocks.0.up.weight", 403, range(500), range(403))
    assert drawn.dtype == np.float32
    flat = drawn.ravel().astype(float)
    n = len(flat)
    assert abs(flat.mean()) < 4 / math.sqrt(n)
    assert abs(flat.std() - 1) < 4 / math.sqrt(2 * n)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(stats.skew(flat)) < 4 * math.sqrt(6 / n)
    assert abs(stats.kurtosis(flat)) < 4 * math.sqrt(24 / n)
    for lag in (1, 4, 8, 403):  # neighbours, the two of a pair, the next counter, the next row
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4 / math.sqrt(n), lag
    assert len(np.unique(flat)) > 0.99 * n


@pytest.mark.parametrize("width", [1, 7, 8, 64, 403])
def test_a_part_has_the_bits_that_the_whole_has_there(width):
    whole = parameters.normal(3, "w", width, range(50), range(width))
    for rows in (range(0, 50), range(0, 1), range(13, 37), range(49, 50)):
        for columns in (range(width), range(width // 2), range(width // 3, width), range(width - 1, width)):
            part = parameters.normal(3, "w", width, rows, columns)
            np.testing.assert_array_equal(part, whole[rows.start : rows.stop, columns.start : columns.stop])


def test_draws_depend_on_seed_and_name():
    def drawn(seed, name):
        return parameters.normal(seed, name, 16, range(2000), range(16)).ravel()

    first = drawn(0, "a")
    np.testing.assert_array_equal(first, drawn(0, "a"))
    for other in (drawn(1, "a"), drawn(0, "b")):
        assert abs(np.corrcoef(first, other)[0, 1]) < 4 / math.sqrt(len(first))


def weights(n_layer, vocab_size=50, seed=0):
    model = GPT(nano(16, n_layer=n_layer, n_ctx=8, vocab_size=vocab_size, attention="dense", band=4))
    model.init_weights(seed)
    return {name: p.detach() for name, p in parameters.named(model)}


def test_one_more_layer_leaves_the_other_draws_alone():
    shallow, deep = weights(2), weights(3)
    for name, values in shallow.items():
        scale = math.sqrt(2 / 3) if name.endswith(("out.weight", "down.weight")) else 1  # 1/sqrt(2 n_layer)
        torch.testing.assert_close(deep[name], values * scale, rtol=1e-6, atol=0)
    wider = weights(2, vocab_size=60)
    assert torch.equal(wider["tokens.weight"][:50], shallow["tokens.weight"])


# ------------------------------------------------------------------------------------------------------------- cutting


def test_the_head_is_the_token_embedding_and_is_kept_once():
    model = GPT(nano(16, n_layer=1, n_ctx=8, vocab_size=50, attention="dense", band=4))
    assert model.head.weight is model.tokens.weight
    names = [name for name, _ in parameters.named(model)]
    assert "tokens.weight" in names
    assert "head.weight" not in names


def test_two_stages_of_a_pipeline_give_the_models_logits():
    spec = nano(16, n_layer=3, n_ctx=8, vocab_size=50, attention="alternating", band=3)
    model, first, last = (GPT(spec) for _ in range(3))
    first.norm = first.head = None
    last.tokens = last.positions = None
    del first.blocks["1"], first.blocks["2"], last.blocks["0"]
    for part in (model, first, last):
        part.init_weights(5)
    ids = torch.randint(50, (2, 8), generator=torch.Generator().manual_seed(0))
    assert torch.equal(last(first(ids)), model(ids)), "weights are drawn by name, windows by layer"
    assert {name for part in (first, last) for name, _ in parameters.named(part)} == {
        name for name, _ in parameters.named(model)
    }


def test_a_model_built_without_memory_comes_out_with_its_head_tied():
    shape = nano(16, n_layer=2, n_ctx=8, vocab_size=40, attention="dense", band=4)
    with torch.device("meta"):
        empty = registry.of(shape).build(shape, kernel="softmax")
    empty = empty.to_empty(device="cpu")
    whole = registry.of(shape).build(shape, kernel="softmax")
    for model in (empty, whole):
        model.init_weights(0)
    assert empty.head.weight is empty.tokens.weight
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(parameters.named(empty), parameters.named(whole), strict=True)
    )


def test_torchs_wrappers_around_a_block_change_neither_names_nor_draws():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    shape = nano(16, n_layer=2, n_ctx=8, vocab_size=40, attention="dense", band=4)
    plain, wrapped = (registry.of(shape).build(shape, kernel="softmax") for _ in range(2))
    wrapped.blocks["1"] = checkpoint_wrapper(wrapped.blocks["1"])
    for model in (plain, wrapped):
        model.init_weights(3)
    drawn = dict(parameters.named(wrapped))
    assert all(torch.equal(p, drawn[name]) for name, p in parameters.named(plain))
