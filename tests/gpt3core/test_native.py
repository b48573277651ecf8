"""The functions in C and the fused head against torch's own, and what happens without a C compiler."""

import functools
import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gpt3core.model import losses, native, registry
from gpt3core.model.attention import attend
from gpt3core.model.gelu import gelu
from gpt3core.numerics import BUILT, Numerics
from gpt3core.sizes import nano
from gpt3core.train import objective, timing
from gpt3core.train.objective import loss_per_token, loss_sum
from tests.conftest import make_run
from tests.gpt3core.conftest import built, onednn
from tests.gpt3core.outcomes import outcome, run, stopped

pytestmark = pytest.mark.usefixtures("library")
BOTH = ["softmax", pytest.param("native", marks=built)]
WIDE = pytest.param("wide", marks=[built, onednn])
BF16 = [*BOTH, WIDE]  # wide's functions read and write it


@pytest.mark.parametrize("how", BOTH)
def test_gelu_is_gpt2s_with_its_gradient(how):
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -1e15, 1e15, 1e-30])]).requires_grad_()
    exact = x.detach().double().requires_grad_()
    F.gelu(exact, approximate="tanh").sum().backward()
    gelu(x, how).sum().backward()
    torch.testing.assert_close(gelu(x, how).double(), F.gelu(exact, approximate="tanh"), atol=2e-7, rtol=2e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, atol=2e-6, rtol=2e-6)
    assert gelu(torch.tensor([math.nan, 1.0]), how).isnan().tolist() == [True, False]


@pytest.mark.parametrize("how", BF16)
def test_gelu_in_bf16_is_fp32s_rounded_once(how):
    x = torch.linspace(-8, 8, 999).bfloat16().requires_grad_()
    exact = x.detach().double().requires_grad_()
    F.gelu(exact, approximate="tanh").sum().backward()
    found = gelu(x, how)
    found.sum().backward()
    assert found.dtype == x.grad.dtype == torch.bfloat16
    for a, b in ((found, F.gelu(exact, approximate="tanh")), (x.grad, exact.grad)):
        torch.testing.assert_close(a.double(), b, atol=2e-7, rtol=2**-8)


@pytest.mark.parametrize("how", [*BOTH, WIDE, "compiled"])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("width", [12, 40])
def test_the_fused_head_has_the_loss_and_gradients_of_torch(how, counted, width, monkeypatch):
    monkeypatch.setattr(losses, "head_rows", lambda *_: 7)  # several chunks, the last of them short
    monkeypatch.setattr(losses, "_compiled_rows", lambda: losses._rows)  # compiled: the benchmark of a GPU
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, width, generator=generator) for n in (20, 33))
    weight *= math.sqrt(12 / width)  # scores of one size
    targets = torch.randint(33, (20,), generator=generator)
    counts = torch.rand(20, generator=generator).round(decimals=1) if counted else None
    x, w = hidden.double().requires_grad_(), weight.double().requires_grad_()
    each = F.cross_entropy(F.linear(x, w), targets, reduction="none")
    expected = (each if counts is None else each * counts).sum()
    (expected / 3).backward()
    a, b = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    found = losses.cross_entropy_sum(
        a, b, targets, counts, kernel="softmax" if how == "compiled" else how, compiled=how == "compiled"
    )
    (found / 3).backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(a.grad.double(), x.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(b.grad.double(), w.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", BF16)
def test_the_fused_loss_is_fp32_under_autocast(how):
    """bf16 products, but logarithm and sum in fp32: torch's own bf16 cross-entropy is off in the third digit."""
    hidden, weight = torch.randn(64, 32), 0.02 * torch.randn(500, 32)
    targets = torch.randint(500, (64,))
    exact = F.cross_entropy(F.linear(hidden.bfloat16(), weight.bfloat16()).double(), targets, reduction="sum")
    w = weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.cross_entropy_sum(hidden, w, targets, None, kernel=how)
    found.backward()
    assert found.dtype == w.grad.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.soak  # the C++ compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_compiled_rows_are_the_others(kind):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(64, 500, generator=generator).to(kind), torch.randint(500, (64,))
    counts = torch.rand(64, generator=generator)
    losses_, gradient = losses._compiled_rows()(logits, targets, counts)
    expected, slope = losses._rows_(logits.float(), targets, counts, "softmax")
    torch.testing.assert_close(losses_, expected, rtol=1e-6, atol=1e-6)
    assert (losses_.dtype, gradient.dtype) == (torch.float32, kind)
    torch.testing.assert_close(gradient.float(), slope, rtol=2**-8 if kind == torch.bfloat16 else 1e-5, atol=1e-7)


@pytest.mark.parametrize("how", BOTH)
def test_scores_that_are_extreme_or_no_numbers(how):
    weight = torch.eye(4)
    far = losses.cross_entropy_sum(
        torch.tensor([[300.0, -300.0, 0.0, 0.0]]), weight, torch.tensor([1]), None, kernel=how
    )
    assert far.item() == pytest.approx(600.0)
    for bad in (math.nan, math.inf):
        hidden = torch.tensor([[bad, 0.0, 0.0, 0.0]])
        assert not math.isfinite(losses.cross_entropy_sum(hidden, weight, torch.tensor([1]), None, kernel=how))


@built
@pytest.mark.parametrize("window", [1, 4, 16, 17, 200])
def test_native_attention_is_the_softmax_kernels(window):
    for t in (1, 3, 64, 130):
        qkv, gradient = torch.randn(2, t, 3, 3, 8), torch.randn(2, 3, t, 8)
        found = []
        for kernel in ("softmax", "native"):
            leaf = qkv.clone().requires_grad_()
            q, k, v = leaf.permute(3, 0, 2, 1, 4)  # views, as a model has them
            out = attend(q, k, v, n_ctx=t, window=window, kernel=kernel)
            found.append([out.detach(), *torch.autograd.grad(out, leaf, gradient)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


@built
@onednn
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("window", [1, 4, 16, 17, 41, 200])
def test_wide_attention_in_bf16_is_no_further_from_the_exact_one(window, masked):
    """Than softmax's, by its norm: both round scores, shares and slopes to bf16."""
    for t in (1, 3, 64, 130):
        generator = torch.Generator().manual_seed(0)
        qkv = torch.randn(2, t, 3, 3, 8, generator=generator).bfloat16()
        gradient = torch.randn(2, 3, t, 8, generator=generator).bfloat16()
        documents = (torch.arange(t) // 50 * 50).expand(2, t) if masked else None
        found = []
        for kernel, kind in (("softmax", torch.float64), ("softmax", torch.bfloat16), ("wide", torch.bfloat16)):
            leaf = qkv.to(kind).requires_grad_()
            q, k, v = leaf.permute(3, 0, 2, 1, 4)  # views, as a model has them
            out = attend(q, k, v, n_ctx=t, window=window, kernel=kernel, documents=documents)
            assert out.dtype == kind
            found.append([out.detach(), *torch.autograd.grad(out, leaf, gradient.to(kind))])
        for exact, softmax, wide in zip(*found, strict=True):
            off = [(value.double() - exact).norm() / exact.norm() for value in (softmax, wide)]
            assert off[1] <= 1.1 * off[0] + 1e-12


@built
@onednn
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("rows", [7, 8, 64])
def test_the_wide_head_in_bf16_is_as_exact_as_torchs_own(rows, counted, monkeypatch):
    """Its products are rounded once, by autocast; several chunks in a group or one, and the last group short."""
    monkeypatch.setattr(losses, "head_rows", lambda *_: rows)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(61, 40, generator=generator), torch.randn(333, 40, generator=generator)
    targets = torch.randint(333, (61,), generator=generator)
    counts = torch.rand(61, generator=generator).round(decimals=1) if counted else None

    def torchs(x, w):
        logits = F.linear(x, w).to(torch.promote_types(x.dtype, torch.float32))
        each = F.cross_entropy(logits, targets, reduction="none")
        return (each if counts is None else each * counts).sum()

    exact = [x.bfloat16().double().requires_grad_() for x in (hidden, weight)]
    torchs(*exact).backward()
    found = []
    wide = functools.partial(losses.cross_entropy_sum, targets=targets, counts=counts, kernel="wide")
    for function in (torchs, wide):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            function(*leaves).backward()
        pairs = zip(leaves, exact, strict=True)
        found.append([((own.grad - true.grad).norm() / true.grad.norm()).item() for own, true in pairs])
    assert all(own <= 1.1 * theirs for theirs, own in zip(*found, strict=True))


@built
@onednn
def test_a_model_gives_the_same_loss_and_gradients_by_every_kernel():
    shape = nano(64, n_layer=2, n_ctx=32, vocab_size=300, attention="alternating", band=4)
    ids = torch.randint(300, (3, 33), generator=torch.Generator().manual_seed(0))
    found = {}
    for kernel in ("plain", "softmax", "sdpa", "native", "wide"):
        model = registry.of(shape).build(shape, kernel="softmax" if kernel == "plain" else kernel)
        model.init_weights(0)
        examples = objective.next_token(ids, None)
        plain = kernel == "plain"
        loss = loss_sum(model(examples.inputs), examples) if plain else objective.model_loss_sum(model, examples)
        loss.backward()
        found[kernel] = [loss.detach(), *(p.grad for p in model.parameters())]
    for kernel, values in found.items():
        for a, b in zip(values, found["plain"], strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=kernel)


def test_the_loss_of_a_model_is_that_of_its_logits_under_a_mask():
    shape = nano(16, n_layer=1, n_ctx=8, vocab_size=50, attention="dense", band=4)
    model = registry.of(shape).build(shape, kernel="softmax")
    model.init_weights(0)
    ids, mask = torch.randint(50, (2, 9)), torch.rand(2, 8).round()
    examples = objective.next_token(ids, mask)
    expected = (loss_per_token(model(ids[:, :-1]), ids[:, 1:]) * mask).sum()
    torch.testing.assert_close(objective.model_loss_sum(model, examples), expected)


# ------------------------------------------------------------------------------------------------- without a C compiler


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda _: None)
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def test_without_a_compiler_another_kernel_is_taken_and_native_is_one_sentence(no_compiler, tiny_run, isolated):
    assert timing.choose(tiny_run.model, "fp32").kernel in ("softmax", "sdpa")
    suggested = Numerics(precision="fp32", kernel="native")
    assert not timing.possible(suggested, "cpu")
    for kernel in BUILT:
        with pytest.raises(ValueError, match=rf"kernel={kernel} needs a C compiler .*a run keeps its kernel"):
            registry.of(tiny_run.model).build(tiny_run.model, kernel=kernel)


def test_a_compiler_that_fails_is_none(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(native.shutil, "which", lambda _: str(broken))
    native.library.cache_clear()
    assert native.library() is None
    native.library.cache_clear()


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        pytest.param("native", "fp32", marks=built),
        *(pytest.param("wide", precision, marks=[built, onednn]) for precision in ("fp32", "bf16")),
    ],
)
def test_a_run_by_functions_in_c_resumes_to_the_bit(kernel, precision, tales, isolated):
    spec = replace(make_run(tales, width=32), kernel=kernel, precision=precision)
    run(spec, isolated / "whole")
    stopped(spec, isolated / "killed", 13)
    run(spec, isolated / "killed")
    assert outcome(isolated / "killed", spec) == outcome(isolated / "whole", spec)
