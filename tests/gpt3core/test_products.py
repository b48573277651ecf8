"""Products by oneDNN against double precision, where they are left to torch, and the kernel that trains by them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gpt3core.model import products, registry
from gpt3core.numerics import CANDIDATES, Numerics
from gpt3core.options import Options
from gpt3core.train import timing
from tests.gpt3core.conftest import built, onednn

pytestmark = [onednn, pytest.mark.usefixtures("library")]
FP32 = Numerics(precision="fp32", kernel="wide")


@pytest.fixture
def called(monkeypatch):
    """As on a processor of AMD with AVX-512; how often oneDNN was asked."""
    monkeypatch.setattr(products, "taken_for_less", lambda: True)
    asked, own = [], products.linear
    monkeypatch.setattr(products, "linear", lambda *given: asked.append(given) or own(*given))
    return asked


def test_products_are_as_exact_as_torchs_own(called):
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 64), torch.randn(48)
    flat, deep = torch.randn(64, 40).t(), torch.randn(3, 7, 64)  # the first is not contiguous
    with torch.inference_mode(), products.whole_width("cpu"):
        found = [(x, b, F.linear(x, weight, b)) for x in (flat, deep) for b in (bias, None)]
    assert len(called) == 4
    for x, b, product in found:
        exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
        torch.testing.assert_close(product.double(), exact, atol=5e-5, rtol=0)


def test_what_is_learnt_from_or_is_not_fp32_or_has_few_rows_is_torchs(called):
    weight, x = torch.randn(48, 64, requires_grad=True), torch.randn(40, 64)
    with products.whole_width("cpu"):
        F.linear(x, weight).sum().backward()
        assert weight.grad is not None
        with torch.inference_mode():
            F.linear(x[:7], weight)
            F.linear(x.double(), weight.double())
            with torch.autocast("cpu"):
                assert F.linear(x, weight).dtype == torch.bfloat16
    with torch.inference_mode():
        F.linear(x, weight)
    with torch.inference_mode(), products.whole_width("cuda"):
        F.linear(x, weight)
    assert not called


# -------------------------------------------------------------------------------------------------------- kernel=wide


@pytest.mark.parametrize(("outputs", "width", "asked"), [(96, 40, 3), (40, 96, 3), (16, 40, 0), (40, 16, 0)])
@pytest.mark.parametrize("biased", [False, True])
def test_what_is_learnt_is_as_exact_as_by_torch(called, outputs, width, asked, biased):
    """Products of double precision; both ways by oneDNN but for narrow matrices."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(n, generator=generator) for n in ((3, 50, width), (outputs, width), (outputs,))][: 2 + biased]
    upstream = torch.randn(50, 3, outputs, generator=generator).transpose(0, 1)  # does not lie as the output does

    def found(function, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in given]
        value = function(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves, upstream.to(dtype))]

    exact, torchs = found(F.linear, torch.float64), found(F.linear, torch.float32)
    own = found(products.learnt, torch.float32)
    assert len(called) == asked
    for value, theirs, ours in zip(exact, torchs, own, strict=True):
        assert (ours - value).abs().max() <= 2 * (theirs - value).abs().max()
        assert ours.is_contiguous()


@built
@pytest.mark.parametrize("wins", [True, False])
def test_it_is_chosen_where_it_can_win_and_a_run_keeps_it_elsewhere(wins, tiny_run, isolated, monkeypatch):
    monkeypatch.setattr(products, "taken_for_less", lambda: wins)
    monkeypatch.setattr(timing, "step_seconds", lambda _, asked, __: {c: float(c.kernel != "wide") for c in asked})
    assert timing.possible(FP32, "cpu"), "what a sweep has settled holds on all of its nodes"
    assert not timing.possible(FP32, "cuda")
    assert timing.choose(tiny_run.model, "fp32") == (FP32 if wins else Numerics(precision="fp32", kernel="softmax"))
    assert timing.choose(tiny_run.model, "bf16").kernel == "wide", "whose products are oneDNN's everywhere"
    assert registry.of(tiny_run.model).build(tiny_run.model, kernel="wide")


@built
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("wide", [0.94, 0.96])  # of native's time: either side of what decides between others
def test_chance_does_not_choose_between_it_and_native(precision, wide, tiny_run, isolated, monkeypatch):
    monkeypatch.setattr(products, "taken_for_less", lambda: True)
    times = {"softmax": 1.5, "sdpa": 1.5, "native": 1.0, "wide": wide}
    monkeypatch.setattr(timing, "step_seconds", lambda _, asked, __: {c: times[c.kernel] for c in asked})
    assert timing.choose(tiny_run.model, precision).kernel == "wide"
    assert timing.choose(tiny_run.model, precision, "native").kernel == "native", "who asks for it has it"


def test_without_onednn_it_is_one_sentence(tiny_run, monkeypatch):
    monkeypatch.setattr(products, "there", lambda: False)
    with pytest.raises(ValueError, match=r"kernel=wide needs a torch .* with oneDNN.*a run keeps its kernel"):
        products.require()


def test_what_it_does_not_do_is_refused(tiny_run):
    assert [c.precision for c in CANDIDATES if c.kernel == "wide"] == ["fp32", "bf16"]
    for asked, words in (
        ({"precision": "fp16"}, "kernel=wide with precision=fp16: it knows fp32 and bf16"),
        ({"compile": "blocks"}, "kernel='wide' is compiled already"),
        ({"options": Options(attention_dropout=0.1)}, "kernel=wide, options.attention_dropout=0.1"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(tiny_run, kernel="wide", **asked)
