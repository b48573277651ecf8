"""Dropout: its random words against published ones, and the same masks however a run is cut or interrupted."""

from dataclasses import replace

import pytest
import torch

from gpt3core.model import dropout, philox
from gpt3core.model.patterns import Pattern
from gpt3core.numerics import BUILT
from gpt3core.options import Options
from gpt3core.parallel.layout import Layout
from gpt3core.store.rundir import RunDir
from tests.conftest import make_run, write_corpus
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, run, stopped
from tests.gpt3core.test_layouts import assert_equal, cut, make_spec, train

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

BOTH = Options(dropout=0.1, attention_dropout=0.1)


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("rounds", "counter", "key", "words"),
    [  # Random123 (D. E. Shaw Research), kat_vectors
        (7, (0, 0), 0, (0x257A3673, 0xCD26BE2A)),
        (7, (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0xAB302C4D, 0x3DC9D239)),
        (7, (0x243F6A88, 0x85A308D3), 0x13198A2E, (0xBEDBBE6B, 0xE4C770B3)),
        (10, (0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)),
        (10, (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        (10, (0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_has_the_published_words(rounds, counter, key, words):
    first, second, key = (torch.tensor([word] * 9) for word in (*counter, key))  # nine: vectors and what is left
    found = philox.words(first, second, key, rounds)
    assert tuple(int(word.unique()) for word in found) == words


def draw(rows=range(6), positions=range(5), columns=range(64), *, seed=0, name="0.down", p=0.1):
    stream = [dropout._stream(seed, name)]
    return dropout.kept(p, stream, rows, torch.tensor(positions), columns, width=64, device=torch.device("cpu"))[:, 0]


def test_a_part_of_a_mask_is_drawn_as_the_whole_has_it():
    whole = draw()
    assert torch.equal(draw(range(1, 6, 2)), whole[1::2])
    assert torch.equal(draw(positions=range(2, 4)), whole[:, 2:4])
    assert torch.equal(draw(columns=range(3, 38)), whole[..., 3:38])


def test_masks_are_even_and_no_two_of_them_alike():
    n = 200 * 64 * 64
    for p in (0.1, 0.5):
        dropped = 1 - draw(range(200), range(64), p=p).double().mean().item()
        assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)
    base = draw(range(200), range(64)).double() - 0.9
    for other in (
        draw(range(200), range(64), seed=1),
        draw(range(200), range(64), name="1.down"),
        draw(range(200, 400), range(64)),
        draw(range(200), range(64, 128)),
        draw(range(200), range(64)).roll(1, -1),
    ):
        correlation = (base * (other.double() - 0.9)).mean().item() / 0.09
        assert abs(correlation) < 5 / n**0.5


# ----------------------------------------------------------------------------------------------------------- attention


PATTERNS = [
    Pattern(kind="banded", size=200),  # dense
    Pattern(kind="banded", size=5),
    Pattern(kind="strided", size=7),
    Pattern(kind="fixed", size=8, summary=2),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("first", [0, 30])
def test_attention_that_drops_is_the_masked_product_by_autograd(pattern, first):
    torch.manual_seed(0)
    b, h, t, width = 2, 3, 70, 8
    q, k, v = (torch.randn(b, h, n, width, requires_grad=True) for n in (t, first + t, first + t))
    streams = [dropout._stream(0, str(head)) for head in range(h)]

    def draw(queries, keys):
        return dropout.kept(0.3, streams, range(b), torch.tensor(queries), keys, width=128, device=q.device)

    found = dropout._Attention.apply(q, k, v, pattern, first, draw, dropout.scale(0.3))
    rows, columns = torch.arange(first, first + t)[:, None], torch.arange(first + t)[None]
    scores = (q @ k.transpose(-2, -1) / width**0.5).masked_fill(~pattern.sees(rows, columns), float("-inf"))
    keep = draw(range(first, first + t), range(first + t)) * dropout.scale(0.3)
    expected = (scores.softmax(-1) * keep) @ v
    torch.testing.assert_close(found, expected)
    probe = torch.randn(found.shape)
    for ours, theirs in zip(
        *(torch.autograd.grad((x * probe).sum(), (q, k, v)) for x in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def dropping(tales):
    return replace(make_run(tales, steps=12), options=BOTH)


@pytest.mark.parametrize(
    "kernel", [pytest.param("softmax", marks=pytest.mark.soak), pytest.param("sdpa", marks=pytest.mark.soak), "auto"]
)
def test_a_run_resumes_to_the_bit_and_its_micro_batches_are_one_batch(dropping, isolated, kernel, monkeypatch):
    spec = replace(dropping, kernel=kernel)
    run(spec, isolated / "whole")
    for after in (3, 5):
        stopped(spec, isolated / "parts", after)
    result = run(spec, isolated / "parts")
    assert outcome(isolated / "parts", spec) == outcome(isolated / "whole", spec)
    assert result["kernel"] not in BUILT, "its attention drops nothing"
    monkeypatch.setattr("gpt3core.train.resume.micro_batch", lambda *_, **__: 1)
    run(spec, isolated / "ones")
    losses = [RunDir(isolated / name, spec.run_id).curve().loss.to_numpy() for name in ("whole", "ones")]
    assert losses[1] == pytest.approx(losses[0], abs=2e-5)


def test_only_training_drops(dropping, tales, isolated):
    """Before any step the evaluation is that of the run without; its training loss is another."""
    from gpt3core.train import loop

    plain, here = (
        loop.Trainer(spec, isolated)
        for spec in (make_run(tales, steps=12), dropping)
        if RunDir(isolated, spec.run_id).create(spec) is None
    )
    ids = torch.from_numpy(here.loader.batch(0, 4).tokens)
    with torch.no_grad():
        assert torch.equal(plain.model(ids[:, :-1]), here.model(ids[:, :-1]))
    assert here._update(0.01)[0] != plain._update(0.01)[0]


@pytest.mark.parametrize("options", [Options(attention_dropout=0.1), BOTH])
def test_the_native_kernel_is_refused_where_attention_drops(tales, options):
    with pytest.raises(ValueError, match=r"kernel=native, options.attention_dropout=0.1"):
        replace(make_run(tales), kernel="native", options=options)
    assert replace(make_run(tales), kernel="native", options=Options(dropout=0.1)).run_id


LAYOUTS = [
    Layout(tensor=2, micro_batch=2, recompute="selective"),
    Layout(pipeline=2, micro_batch=1, recompute="full"),
    Layout(data=2, shard=2, recompute="full"),
    Layout(context=2, micro_batch=4, recompute="selective"),
    Layout(pipeline=2, virtual=2, zero_bubble=True, recompute="full"),
]
MORE = [
    Layout(data=2),
    Layout(tensor=2, pipeline=2, data=2, micro_batch=1),
    Layout(tensor=2, context=2, recompute="full"),
    Layout(pipeline=2, virtual=2),
]


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUTS[0],
        *(pytest.param(layout, marks=pytest.mark.soak) for layout in LAYOUTS[1:]),
        *(pytest.param(layout, marks=pytest.mark.long) for layout in MORE),
    ],
    ids=str,
)
def test_a_layout_draws_the_masks_of_one_process(layout, one, tmp_path):
    spec, place = one
    cut(tmp_path, spec, layout)
    assert_equal(tmp_path, place, spec)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run that drops, smooths and has noise in its rate, and the store in which one process trained it."""
    place = tmp_path_factory.mktemp("one")
    spec = make_spec(write_corpus(place / "text"), steps=3)
    spec = replace(spec, options=replace(BOTH, label_smoothing=0.1, lr_noise=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(place / "cache"))
        ranks.run(train, 1, str(place), spec)
    return spec, place
