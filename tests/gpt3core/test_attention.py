"""Attention by every backend against a boolean mask, and the patterns against the sets of the paper."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gpt3core.model import blocks
from gpt3core.model.attention import attend, flex, flex_mask
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.patterns import Pattern

DENSE = Pattern(kind="dense")
BANDS = [Pattern(kind="banded", size=w) for w in (1, 2, 4, 17, 40)]
SPARSE = [
    *(Pattern(kind="strided", size=s) for s in (1, 4, 16)),
    *(Pattern(kind="fixed", size=s, summary=c) for s, c in ((4, 1), (16, 3), (5, 5))),
]


def mask(pattern, t):
    place = torch.arange(t)
    return pattern.sees(place[:, None], place[None])


def drawn(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]


def by_mask(q, k, v, pattern):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask(pattern, q.size(2)))


def computed(q, k, v, pattern, kernel, n_ctx=None):
    t = n_ctx or q.size(2)
    window = pattern.size if pattern.kind == "banded" else t
    sparse = pattern if pattern.kind in ("strided", "fixed") else None
    return attend(q, k, v, n_ctx=t, window=window, kernel=kernel, sparse=sparse)


def with_gradients(function, inputs, gradient):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(gradient)
    return [out.detach(), *(x.grad for x in leaves)]


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize("pattern", [DENSE, *BANDS, *SPARSE], ids=str)
def test_every_backend_is_the_mask_with_its_gradients(pattern, kernel):
    for t in (1, 5, 64, 70, 130):
        *inputs, gradient = drawn(2, 3, t, 8, seed=t)
        expected = with_gradients(lambda q, k, v: by_mask(q, k, v, pattern), inputs, gradient)
        found = with_gradients(lambda q, k, v: computed(q, k, v, pattern, kernel), inputs, gradient)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", [DENSE, BANDS[2], SPARSE[1]], ids=str)
def test_in_bf16_a_backend_is_the_mask_to_bf16s_digits(pattern):
    *inputs, gradient = drawn(2, 2, 70, 8, dtype=torch.bfloat16)
    exact = with_gradients(lambda q, k, v: by_mask(q, k, v, pattern), [x.double() for x in inputs], gradient.double())
    for kernel in ("softmax", "sdpa"):
        found = with_gradients(lambda q, k, v, how=kernel: computed(q, k, v, pattern, how), inputs, gradient)
        for a, b in zip(found, exact, strict=True):
            assert a.dtype == torch.bfloat16
            torch.testing.assert_close(a.double(), b, atol=0.06, rtol=0.06)


def test_heads_are_split_as_a_permutation_with_its_gradient():
    qkv = torch.randn(2, 5, 3, 3, 4, requires_grad=True)
    parts, expected = blocks.split_heads(qkv), qkv.permute(3, 0, 2, 1, 4)
    gradients = torch.randn(3, 2, 3, 5, 4)
    assert all(torch.equal(a, b) for a, b in zip(parts, expected, strict=True))
    (found,) = torch.autograd.grad(parts, qkv, list(gradients))
    assert torch.equal(found, torch.autograd.grad(expected, qkv, gradients)[0])


# ------------------------------------------------------------------------------------------------------------- patterns


def seen(pattern, t, query):
    return {key for key in range(t) if pattern.sees(query, key)}


def test_patterns_are_the_sets_of_child_et_al():
    """Child et al. 2019, section 4.2, both sets of a factorisation in one head; a band is l keys, as their code has."""
    t, stride, summary = 23, 5, 2
    for i in range(t):
        assert seen(DENSE, t, i) == set(range(i + 1))
        assert seen(Pattern(kind="banded", size=stride), t, i) == set(range(max(0, i - stride + 1), i + 1))
        far = {j for j in range(i + 1) if (i - j) % stride == 0}
        assert seen(Pattern(kind="strided", size=stride), t, i) == far | set(range(max(0, i - stride + 1), i + 1))
        block = {j for j in range(i + 1) if j // stride == i // stride}
        ends = {j for j in range(i + 1) if j % stride in range(stride - summary, stride)}
        assert seen(Pattern(kind="fixed", size=stride, summary=summary), t, i) == block | ends


@pytest.mark.parametrize("n_ctx", [1, 8, 23])
@pytest.mark.parametrize("pattern", [DENSE, *BANDS, *SPARSE], ids=str)
def test_keys_are_what_the_mask_leaves(pattern, n_ctx):
    if pattern.kind == "fixed":  # a query may see its own block's summary twice by the formula, once by the mask
        pattern = replace(pattern, size=min(pattern.size, n_ctx), summary=min(pattern.summary, n_ctx))
    assert pattern.mean_keys(n_ctx) * n_ctx == pytest.approx(mask(pattern, n_ctx).sum().item())


def spec(**fields):
    shape = {"n_layer": 5, "d_model": 8, "n_head": 1, "d_head": 8, "n_ctx": 64, "vocab_size": 10, "band": 4}
    return GPTSpec(**{**shape, **fields})


def test_layers_take_their_kinds_in_turn():
    kinds = [spec().pattern(layer).kind for layer in range(5)]
    assert kinds == ["banded", "dense", "banded", "dense", "banded"]
    mixed = spec(attention="strided,dense,fixed", stride=16, summary=2)
    assert [mixed.pattern(layer).kind for layer in range(5)] == ["strided", "dense", "fixed", "strided", "dense"]
    assert [mixed.window(layer) for layer in range(5)] == [64] * 5
    assert spec(band=64).pattern(0) == DENSE


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"attention": "sparse"}, "allowed are dense, alternating"),
        ({"stride": 16}, "model.stride=16: no layer of model.attention='alternating' has it"),
        ({"attention": "strided", "summary": 4}, "model.summary=4: no layer"),
        ({"attention": "fixed", "stride": 4}, "model.summary=8: at most model.stride=4"),
        ({"attention": "fixed", "stride": 0}, "model.stride=0"),
    ],
)
def test_impossible_patterns_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        spec(**fields)


# ----------------------------------------------------------------------------------------------------------------- cost


class Largest(TorchDispatchMode):
    """The largest tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize(
    "pattern", [BANDS[2], Pattern(kind="strided", size=32), Pattern(kind="fixed", size=32, summary=2)], ids=str
)
def test_a_layer_costs_what_its_pattern_lets_it_see(pattern, kernel):
    """FLOPs and memory of a pass there and back, and no T x T tensor."""
    t, width = 2048, 8
    *inputs, gradient = drawn(1, 1, t, width)
    with Largest() as largest, FlopCounterMode(display=False) as counter:
        with_gradients(lambda q, k, v: computed(q, k, v, pattern, kernel), inputs, gradient)
    assert largest.numel <= 0.08 * t * t
    assert counter.get_total_flops() <= 0.12 * 7 * 2 * t * t * width  # SDPA's backward pass has five products


def test_a_dense_layer_computes_little_more_than_the_pairs_that_are_seen():
    t, width = 512, 16
    *inputs, gradient = drawn(1, 2, t, width)
    with FlopCounterMode(display=False) as counter:
        with_gradients(blocks.dense, inputs, gradient)
    pairs = sum(blocks.DENSE_BLOCK * last for last in range(blocks.DENSE_BLOCK, t + 1, blocks.DENSE_BLOCK))
    assert counter.get_total_flops() == 2 * 6 * 2 * width * pairs
    assert pairs <= 1.13 * t * (t + 1) / 2


def test_a_mask_made_while_evaluating_serves_training():
    for kernel in ("softmax", "sdpa"):
        q = torch.randn(1, 1, 97, 4, requires_grad=True)
        with torch.inference_mode():
            attend(q, q, q, n_ctx=97, window=3, kernel=kernel)
        attend(q, q, q, n_ctx=97, window=3, kernel=kernel).sum().backward()
        assert q.grad is not None


# ------------------------------------------------------------------------------------------------------------------ GPU


def test_a_block_mask_made_while_evaluating_serves_training_too():
    """Autograd refuses to keep tensors of inference mode, and a warm worker trains after it evaluated."""
    with torch.inference_mode():
        made = flex_mask(Pattern(kind="banded", size=3), 256, torch.device("cpu"))
    kept = [x for x in made.as_tuple() if torch.is_tensor(x)]
    assert len(kept) > 3
    assert not any(x.is_inference() for x in kept)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("pattern", [DENSE, BANDS[3], *SPARSE[1:4]], ids=str)
def test_flex_attention_is_the_mask(pattern, width):
    """Forward, uncompiled and on the CPU: its backward pass and its kernel exist on GPUs only."""
    q, k, v, _ = drawn(1, 2, 130, width)
    with torch.no_grad():
        torch.testing.assert_close(flex(q, k, v, pattern), by_mask(q, k, v, pattern), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [2, 8, 16, 24])
def test_flex_attention_is_given_heads_as_wide_as_its_kernels_take(width, monkeypatch):
    """Inductor refuses to make a kernel for less than 16, which the nano ladder's heads are."""
    seen = []

    def refuses(q, k, v, **how):
        seen.append((q.size(-1), k.size(-1), v.size(-1), how["scale"]))
        return q

    monkeypatch.setattr(flex_attention, "flex_attention", refuses)
    q, k, v, _ = drawn(1, 2, 130, width)
    assert flex(q, k, v, BANDS[3]).shape == q.shape
    assert seen == [(*[max(16, width)] * 3, pytest.approx(width**-0.5))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("pattern", [DENSE, BANDS[3], *SPARSE[1:4]], ids=str)
def test_on_a_gpu_every_backend_is_the_mask(pattern):
    *inputs, gradient = (x.cuda() for x in drawn(2, 2, 256, 16))
    expected = with_gradients(lambda q, k, v: by_mask(q, k, v, pattern), inputs, gradient)
    for kernel in ("softmax", "sdpa"):
        found = with_gradients(lambda q, k, v, how=kernel: computed(q, k, v, pattern, how), inputs, gradient)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_queries_far_apart_in_scale_stay_finite():
    q, k, v, _ = drawn(1, 1, 40, 8)
    for pattern in (DENSE, BANDS[2], SPARSE[1]):
        found = computed(1e4 * q, 1e4 * k, v, pattern, "softmax")
        assert math.isfinite(found.abs().max())
