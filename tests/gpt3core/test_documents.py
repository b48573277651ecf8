"""Documents that do not see each other: every backend against a boolean mask, and each document alone in its row."""

import shutil

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gpt3core.model import documents, native, registry
from gpt3core.model.attention import _block_mask, attend, flex
from gpt3core.model.patterns import Pattern
from gpt3core.sizes import nano
from tests.gpt3core.test_attention import BANDS, DENSE, SPARSE, Largest, drawn, with_gradients

END = 9
PATTERNS = [DENSE, *BANDS, *SPARSE]
built = pytest.mark.skipif(not any(map(shutil.which, native.COMPILERS)), reason="no C compiler")
KERNELS = ["softmax", "sdpa", pytest.param("native", marks=built)]


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory):
    """Built once for these tests, which have a cache of their own each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ISOFLOP_CACHE", str(tmp_path_factory.mktemp("built")))
    native.library.cache_clear()
    native.library()
    patch.undo()


def packed(b, t, mean=20.0, seed=0):
    """Tokens (B, T) with ends about every ``mean``: the first row has none, others two in a row, first and last."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(END, (b, t), generator=generator)
    tokens[torch.rand(b, t, generator=generator) < 1 / mean] = END
    tokens[0] = tokens[0].clamp(max=END - 1)
    tokens[-1, [0, t // 2, min(t // 2 + 1, t - 1), t - 1]] = END
    return tokens


def numbers(tokens):
    """Which document of its row each position belongs to, counted one by one."""
    found = []
    for row in tokens.tolist():
        number, line = 0, []
        for token in row:
            line.append(number)
            number += token == END
        found.append(line)
    return torch.tensor(found)


def oracle(tokens, pattern):
    """(B, 1, T, T): the pattern, within documents."""
    place, number = torch.arange(tokens.size(1)), numbers(tokens)
    return (pattern.sees(place[:, None], place[None]) & (number[:, :, None] == number[:, None]))[:, None]


def computed(q, k, v, tokens, pattern, kernel):
    t = q.size(2)
    window = pattern.size if pattern.kind == "banded" else t
    sparse = pattern if pattern.kind in ("strided", "fixed") else None
    begun = documents.begins(tokens, END)
    return attend(q, k, v, n_ctx=t, window=window, kernel=kernel, sparse=sparse, documents=begun)


def test_a_document_begins_after_the_end_of_the_one_before():
    tokens = torch.tensor([[1, END, 2, 3, END, END, 4], [END, 1, 1, 1, 1, 1, END], [1] * 7])
    expected = [[0, 0, 2, 2, 2, 5, 6], [0, 1, 1, 1, 1, 1, 1], [0] * 7]
    assert documents.begins(tokens, END).tolist() == expected


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_every_backend_is_the_mask_with_its_gradients(pattern, kernel):
    for t in (1, 5, 64, 70, 300):
        tokens = packed(3, t, seed=t)
        *inputs, gradient = drawn(3, 2, t, 8, seed=t)
        mask = oracle(tokens, pattern)
        expected = with_gradients(
            lambda q, k, v, m=mask: F.scaled_dot_product_attention(q, k, v, attn_mask=m), inputs, gradient
        )
        found = with_gradients(lambda q, k, v, x=tokens: computed(q, k, v, x, pattern, kernel), inputs, gradient)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
