"""Documents that do not see each other: every backend against a boolean mask, and each document alone in its row."""

import itertools
import json
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gpt3core import costs
from gpt3core.generate.reader import Reader
from gpt3core.model import documents, registry
from gpt3core.model.attention import attend, flex, flex_mask
from gpt3core.model.patterns import Pattern
from gpt3core.parallel.layout import Layout
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train.objective import model_loss_sum, next_token, told_apart
from tests.conftest import make_run, sentence
from tests.gpt3core import outcomes, ranks, test_layouts
from tests.gpt3core.conftest import built, onednn
from tests.gpt3core.test_attention import BANDS, DENSE, SPARSE, Largest, drawn, with_gradients

END = 9
PATTERNS = [DENSE, *BANDS, *SPARSE]
pytestmark = pytest.mark.usefixtures("library")
KERNELS = ["softmax", "sdpa", pytest.param("native", marks=built)]
MODELS = [*KERNELS, pytest.param("wide", marks=[built, onednn])]  # of its own are only products outside attention


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
    for t in (1, 70, 300):
        tokens = packed(3, t, seed=t)
        *inputs, gradient = drawn(3, 2, t, 8, seed=t)
        mask = oracle(tokens, pattern)
        expected = with_gradients(
            lambda q, k, v, m=mask: F.scaled_dot_product_attention(q, k, v, attn_mask=m), inputs, gradient
        )
        found = with_gradients(lambda q, k, v, x=tokens: computed(q, k, v, x, pattern, kernel), inputs, gradient)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_in_bf16_a_backend_is_the_mask_to_bf16s_digits():
    tokens = packed(2, 70)
    *inputs, gradient = drawn(2, 2, 70, 8, dtype=torch.bfloat16)
    for pattern in (DENSE, BANDS[2], SPARSE[1], SPARSE[4]):
        mask = oracle(tokens, pattern)
        exact = with_gradients(
            lambda q, k, v, m=mask: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
            [x.double() for x in inputs],
            gradient.double(),
        )
        for kernel in ("softmax", "sdpa"):
            found = with_gradients(
                lambda q, k, v, p=pattern, how=kernel: computed(q, k, v, tokens, p, how), inputs, gradient
            )
            for a, b in zip(found, exact, strict=True):
                assert a.dtype == torch.bfloat16
                torch.testing.assert_close(a.double(), b, atol=0.06, rtol=0.06)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("pattern", [DENSE, BANDS[3], SPARSE[2], SPARSE[4]], ids=str)
def test_flex_attention_is_the_mask_and_skips_blocks(pattern):
    """Forward, uncompiled and on the CPU: its backward pass and its kernel exist on GPUs only."""
    t = 500
    tokens = packed(3, t, mean=120.0)
    q, k, v, _ = drawn(3, 2, t, 8)
    begun, mask = documents.begins(tokens, END), oracle(tokens, pattern)
    with torch.no_grad():
        found = flex(q, k, v, pattern, begun)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-5, rtol=1e-5)
    whole = flex_mask(pattern, t, q.device)
    blocks = documents.block_mask(pattern, begun, whole)
    assert documents.block_mask(pattern, begun, whole) is blocks, "one for all layers"
    n = -(-t // 128)
    needed = F.pad(mask, (0, -t % 128, 0, -t % 128)).view(3, 1, n, 128, n, 128).any(dim=5).any(dim=3)
    computed_blocks = blocks.to_dense().bool()
    assert (computed_blocks | ~needed).all()
    if pattern.kind != "banded":  # a band has few to leave out
        assert computed_blocks[1:].sum() < 0.8 * 2 * whole.to_dense().sum(), "documents leave blocks out"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pattern", [DENSE, BANDS[3], SPARSE[2]], ids=str)
def test_flex_attention_of_some_positions_is_that_of_the_whole(pattern, masked):
    """As devices have them that share a sequence's positions: queries of some, keys from the first that they see."""
    t, place, parts = 520, 2, 4
    tokens = packed(3, t, mean=90.0)
    q, k, v, _ = drawn(3, 2, t, 8)
    begun = documents.begins(tokens, END) if masked else None
    here = slice(place * t // parts, (place + 1) * t // parts)
    first = max(0, here.start - pattern.size + 1) if pattern.kind == "banded" else 0
    some = q[:, :, here], k[:, :, first : here.stop], v[:, :, first : here.stop]
    with torch.no_grad():
        whole = flex(q, k, v, pattern, begun)
        found = flex(*some, pattern, begun, query=here.start, key=first)
    torch.testing.assert_close(found, whole[:, :, here], atol=1e-5, rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- cost


class Kept:
    """What is kept for the backward pass, in bytes."""

    def __enter__(self):
        self.found = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda x: x)
        self.hooks.__enter__()
        return self

    def _keep(self, x):
        self.found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    def __exit__(self, *what):
        self.hooks.__exit__(*what)

    @property
    def bytes(self):
        return sum(self.found.values())


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize(
    "pattern", [BANDS[2], Pattern(kind="strided", size=32), Pattern(kind="fixed", size=32, summary=2)], ids=str
)
def test_masking_costs_what_the_blocks_cost(pattern, kernel):
    """FLOPs and memory of a pass there and back, and no T x T tensor, as without it."""
    t, width = 2048, 8
    tokens = packed(1, t, mean=100.0)
    tokens[0, ::97] = END
    *inputs, gradient = drawn(1, 1, t, width)
    with Largest() as largest, FlopCounterMode(display=False) as counter:
        with_gradients(lambda q, k, v: computed(q, k, v, tokens, pattern, kernel), inputs, gradient)
    assert largest.numel <= 0.08 * t * t
    assert counter.get_total_flops() <= 0.12 * 7 * 2 * t * t * width  # SDPA's backward pass has five products


def test_a_dense_layer_computes_the_blocks_between_a_document_and_its_queries():
    t, width = 2048, 8
    tokens = torch.zeros(2, t, dtype=torch.long)
    tokens[:, 511::512] = END  # four documents
    *inputs, gradient = drawn(2, 1, t, width)
    flops = {}
    for kernel in ("softmax", "sdpa"):
        with FlopCounterMode(display=False) as counter, Kept() as kept:
            with_gradients(lambda q, k, v, how=kernel: computed(q, k, v, tokens, DENSE, how), inputs, gradient)
        flops[kernel] = counter.get_total_flops()
        if kernel == "sdpa":
            assert kept.bytes <= 10 * inputs[0].nbytes, "neither a mask nor probabilities are kept"
    pairs = 4 * sum(64 * last for last in range(64, 513, 64))  # of each document, in blocks of 64 queries
    assert flops["softmax"] == 2 * 6 * 2 * width * pairs
    assert flops["sdpa"] <= 2 * 7 * 2 * width * 4 * (256 * 256 + 256 * 512)


# ---------------------------------------------------------------------------------------------------------------- model


def make(attention="alternating", kernel="softmax", **fields):
    shape = nano(32, n_layer=4, n_head=2, n_ctx=48, vocab_size=END + 1, attention=attention, band=6, **fields)
    shape = replace(shape, document_end=END)
    model = registry.of(shape).build(shape, kernel=kernel)
    model.init_weights(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


def spans(row):
    """First and last position of a row's documents."""
    ends = [place + 1 for place, token in enumerate(row.tolist()) if token == END]
    cuts = sorted({0, *ends, len(row)})
    return list(itertools.pairwise(cuts))


@pytest.mark.parametrize("kernel", MODELS)
@pytest.mark.parametrize("fields", [{}, {"attention": "dense"}, {"attention": "strided,banded", "stride": 5}], ids=str)
def test_a_packed_row_trains_as_each_document_in_a_row_of_its_own(fields, kernel):
    """Loss and gradients; alone a document lies at the first places, so it is given the positions that it had."""
    model = make(kernel=kernel, **fields)
    ids = packed(3, 49, mean=12.0)
    loss = model_loss_sum(model, told_apart(next_token(ids, None), END))
    found = torch.autograd.grad(loss, list(model.parameters()))
    unmasked = registry.of(model.spec).build(replace(model.spec, document_end=None), kernel=kernel)
    parameters = dict(model.named_parameters())
    alone = []
    for row in ids:
        for first, last in spans(row[:-1]):
            moved = {**parameters, "positions.weight": parameters["positions.weight"].roll(-first, 0)}
            arguments = row[None, first:last], row[None, first + 1 : last + 1]
            alone.append(torch.func.functional_call(unmasked, moved, arguments))
    assert len(alone) > 9
    expected = torch.stack(alone).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for a, b in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_another_document_says_changes_no_bit():
    ids = packed(2, 48)
    ids[:, 20] = END
    changed = ids.clone()
    changed[:, :20] = (ids[:, :20] + 1) % END
    for kernel in ("softmax", "sdpa"):
        model = make("fixed,dense,banded,strided", kernel=kernel, stride=7, summary=2)
        with torch.no_grad():
            before, after = model(ids), model(changed)
        assert torch.equal(before[:, 21:], after[:, 21:])
        assert not torch.allclose(before[:, 20], after[:, 20]), "the end belongs to the document that it ends"


def test_text_that_grows_with_a_cache_sees_its_own_document():
    model = make("banded,dense,strided,fixed", stride=5, summary=2).eval()
    texts = [[END], [1, 2, END, 3], [4, 5, 6], [END, 7, 8, END], [1, END, 2, 3, 4, 5, 6, 7, 8, 1]]
    reader = Reader(model, texts, tokens=20)
    for step in range(20):
        for row, text in enumerate(texts):  # each alone, by the model's own forward pass
            with torch.no_grad():
                torch.testing.assert_close(reader.logits[row], model(torch.tensor([text]))[0, -1], atol=1e-5, rtol=1e-5)
        new = [END if (step + row) % 7 == 0 else (3 * step + row) % END for row in range(len(texts))]
        rows = [4, 1, 2, 3, 0] if step == 9 else range(len(texts))
        texts = [[*texts[row], token] for row, token in zip(rows, new, strict=True)]
        reader.extend(rows, new)


# ----------------------------------------------------------------------------------------------------------------- runs


def make_spec(folder, *, steps=3, n_layer=4):
    """A run of GPT-3's shape whose documents are shorter than its context."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": sentence(rng)[: rng.randrange(3, 60)]}) + "\n" for _ in range(2000))
    (folder / "short.jsonl").write_text("".join(lines))
    run = make_run(folder / "short.jsonl", steps=steps)
    shape = nano(
        32, n_layer=n_layer, n_head=2, n_ctx=32, vocab_size=301, attention="banded,dense,fixed,strided", band=6
    )
    shape = replace(shape, stride=8, summary=2, document_end=300)
    return replace(run, model=shape, data=replace(run.data, tokenizer="gpt2:301"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run by one process, and where it lies."""
    place, patch = tmp_path_factory.mktemp("one"), pytest.MonkeyPatch()
    patch.setenv("ISOFLOP_CACHE", str(place / "cache"))
    spec = make_spec(place / "text")
    ranks.run(test_layouts.train, 1, str(place), spec)
    patch.undo()
    return spec, place


MORE = [
    Layout(tensor=2, context=2, recompute="selective"),
    Layout(pipeline=2, virtual=2, micro_batch=1),
    Layout(context=2),
    Layout(context=4, micro_batch=1),
    Layout(tensor=2),
    Layout(pipeline=2),
    Layout(pipeline=2, context=2),
    Layout(data=2, shard=2, recompute="full"),
    Layout(tensor=2, pipeline=2, data=2, micro_batch=1),
]


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize(
    "layout",
    [
        Layout(pipeline=2, zero_bubble=True, micro_batch=1, recompute="full"),
        *(pytest.param(layout, marks=pytest.mark.long) for layout in MORE),
    ],
    ids=lambda layout: layout.describe(),
)
def test_a_cut_run_has_the_losses_of_one_process(one, isolated, layout):
    """Training and the held-out loss; later stages of a pipeline and parts of a context see no tokens, or not all."""
    spec, place = one
    result, *_ = test_layouts.cut(isolated, spec, layout)
    assert isinstance(result, dict), result
    test_layouts.assert_equal(isolated, place, spec)


@pytest.mark.xdist_group("ranks")
def test_context_parallel_by_sdpa_has_the_losses_of_one_process(one, isolated):
    spec, place = one
    other = replace(spec, kernel="sdpa")
    test_layouts.cut(isolated, other, Layout(context=2))
    for a, b in zip(test_layouts.curve(isolated, other)[0], test_layouts.curve(place, spec)[0], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_masked_run_resumes_to_the_bit_and_is_another_than_without(isolated):
    spec = make_spec(isolated / "text", steps=12, n_layer=2)
    outcomes.run(spec, isolated / "whole")
    outcomes.stopped(spec, isolated / "killed", 5)
    outcomes.run(spec, isolated / "killed")
    assert outcomes.outcome(isolated / "killed", spec) == outcomes.outcome(isolated / "whole", spec)
    unmasked = replace(spec, model=replace(spec.model, document_end=None))
    assert unmasked.run_id != spec.run_id
    assert costs.train_flops(unmasked.model, 1) == costs.train_flops(spec.model, 1), "C counts unmasked attention"
    outcomes.run(unmasked, isolated / "whole")
    masked, plain = (RunDir(isolated / "whole", s.run_id).curve()["loss"].tolist() for s in (spec, unmasked))
    assert masked[0] != plain[0]
    assert masked[0] == pytest.approx(plain[0], rel=0.01)


def test_an_end_that_is_not_the_tokenizers_is_refused(isolated):
    spec = make_spec(isolated / "text")
    with pytest.raises(ValueError, match=r"model.document_end=7: data.tokenizer=gpt2:301 ends documents with 300"):
        replace(spec, model=replace(spec.model, document_end=7))
    with pytest.raises(ValueError, match=r"model.document_end=301: a token, from 0 to 300"):
        replace(spec.model, document_end=301)
