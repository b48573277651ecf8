"""Products by oneDNN against double precision, and where they are left to torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gpt3core.model import products

pytestmark = pytest.mark.skipif(not products._there(), reason="this torch has no oneDNN")


@pytest.fixture
def called(monkeypatch):
    """As on a processor of AMD with AVX-512; how often oneDNN was asked."""
    monkeypatch.setattr(products, "_taken_for_less", lambda: True)
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
