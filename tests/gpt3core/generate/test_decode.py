"""Texts with a cache against texts without one, and draws against the distribution in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from gpt3core import pulse
from gpt3core.generate.cache import Cache, last_logits
from gpt3core.generate.choices import Sampling
from gpt3core.generate.decode import CONTEXT, END, LENGTH, complete, stream
from gpt3core.generate.reader import Reader
from gpt3core.generate.sampling import Sampler, probabilities
from gpt3core.model.gpt import GPT
from gpt3core.sizes import nano

GREEDY = Sampler(Sampling(temperature=0))
# lengths of a batch: one token, inside a band of 4, its last place, past it, and odd ones
LENGTHS = (1, 3, 4, 5, 11)


def make(attention: str = "dense", *, n_ctx: int = 24, vocab: int = 37, band: int = 4, seed: int = 0) -> GPT:
    """A model with weights large enough that no two tokens are alike."""
    spec = nano(32, n_layer=3, n_ctx=n_ctx, vocab_size=vocab, attention=attention, band=band)
    if "strided" in attention or "fixed" in attention:
        spec = replace(spec, stride=3, **({"summary": 2} if "fixed" in attention else {}))
    model = GPT(spec)
    model.init_weights(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.15 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model.eval()


def prompts(vocab: int = 37, lengths=LENGTHS) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(vocab, size=n).tolist() for n in lengths]


# --------------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize(
    ("attention", "band"),
    [("dense", 4), ("alternating", 4), ("alternating", 1), ("strided,dense", 4), ("fixed,banded,strided", 4)],
)
def test_logits_with_the_cache_are_those_of_the_whole_text(attention, band):
    model, texts = make(attention, band=band), prompts()
    reader = Reader(model, texts, tokens=10)
    for step in range(10):
        for row, text in enumerate(texts):  # each alone, unpadded, by the model's own forward pass
            with torch.no_grad():
                torch.testing.assert_close(reader.logits[row], model(torch.tensor([text]))[0, -1], atol=1e-5, rtol=1e-5)
        new = [(7 * step + row) % 37 for row in range(len(texts))]
        texts = [[*text, token] for text, token in zip(texts, new, strict=True)]
        reader.extend(range(len(texts)), new)


@pytest.mark.parametrize("attention", ["dense", "alternating", "strided,fixed"])
@pytest.mark.parametrize("how", [Sampling(temperature=0), Sampling(temperature=1.3, top_k=20, top_p=0.95, seed=3)])
@pytest.mark.parametrize("roll", [False, True])
def test_tokens_are_the_same_with_and_without_the_cache(attention, how, roll):
    model = make(attention)
    found = [
        complete(model, prompts(), tokens=40, choose=Sampler(how), end=36, cached=cached, roll=roll)
        for cached in (True, False)
    ]
    assert found[0] == found[1]
    assert any(len(set(one.tokens)) > 3 for one in found[0]), "no text of a single token"


@pytest.mark.parametrize("cached", [True, False])
def test_a_text_does_not_depend_on_the_others_of_its_batch(cached):
    model, how = make("alternating"), Sampling(temperature=1.2, seed=5)
    together = complete(model, prompts(), tokens=12, choose=Sampler(how), cached=cached)
    sampler = Sampler(how)
    for row, prompt in enumerate(prompts()):
        alone = complete(model, [prompt], tokens=12, choose=lambda logits, _, row=row: sampler(logits, [row]))
        assert alone == [together[row]]


def test_a_banded_layer_keeps_its_window_however_long_the_text():
    model = make("alternating", n_ctx=64)
    cache = Cache(model, 64)
    with torch.inference_mode():
        cache.read_prompts(model, prompts())
        for _ in range(40):
            cache.read_tokens(model, [1] * len(LENGTHS))
    token = 2 * len(LENGTHS) * 32 * 4  # keys and values of all sequences, width 32, fp32
    assert [layer.nbytes for layer in cache.layers.values()] == [4 * token, 64 * token, 4 * token]
    assert Cache(model, 64).nbytes == 0
    short = Cache(model, 12)
    with torch.inference_mode():
        short.read_prompts(model, prompts())
    assert short.layers["1"].nbytes == 12 * token, "no more than the text will have"


def test_sequences_are_dropped_reordered_and_copied():
    model, texts = make("alternating"), prompts()
    reader = Reader(model, texts, tokens=4)
    rows = [4, 0, 0, 2]
    reader.extend(rows, [1, 2, 3, 4])
    reader.extend([1, 2, 0], [5, 6, 7])
    texts = [[*texts[0], 2, 5], [*texts[0], 3, 6], [*texts[4], 1, 7]]
    assert reader.texts == texts
    with torch.inference_mode():
        torch.testing.assert_close(reader.logits, last_logits(model, texts), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ the ends


def test_a_text_ends_at_its_end_at_its_length_or_with_the_context():
    model = make(n_ctx=8)
    script = {0: [1, 2, 9, 3], 1: [4, 5, 6, 7], 2: [1, 1, 1, 1]}
    steps = {row: iter(tokens) for row, tokens in script.items()}
    found = complete(
        model,
        [[1], [2, 3], [1] * 6],
        tokens=4,
        choose=lambda logits, rows: [next(steps[row]) for row in rows],
        end=9,
    )
    assert [(one.tokens, one.ended) for one in found] == [
        ([1, 2], END),
        ([4, 5, 6, 7], LENGTH),
        ([1, 1, 1], CONTEXT),  # positions 6 and 7, and the token that follows a full context
    ]
    assert complete(model, [[1] * 8], tokens=1, choose=GREEDY)[0].ended == LENGTH
    assert complete(model, [[1]], tokens=0, choose=GREEDY)[0].tokens == []


def test_rolling_reads_the_newest_half_anew():
    model = make(n_ctx=8)
    reader = Reader(model, [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10]], tokens=20, roll=True)
    reader.extend([0, 1], [9, 11])
    assert reader.texts == [[6, 7, 8, 9], [9, 10, 11]]
    with torch.inference_mode():
        torch.testing.assert_close(reader.logits, last_logits(model, reader.texts))
    assert len(complete(model, [[1]], tokens=50, choose=GREEDY, roll=True)[0].tokens) == 50


def test_texts_come_token_by_token():
    lengths = [len(texts[0].tokens) for texts in stream(make(), [[1, 2]], tokens=5, choose=GREEDY)]
    assert lengths == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [([], "has 0 tokens: 1 to 24 fit"), ([1] * 25, "has 25 tokens: 1 to 24 fit"), ([40], "token 40: .* knows 0 to 36")],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt, sentence):
    with pytest.raises(ValueError, match=sentence):
        complete(make(), [[1], prompt], tokens=1, choose=GREEDY)


def test_a_model_that_diverged_is_refused():
    model = make()
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        complete(model, [[1]], tokens=1, choose=GREEDY)


def test_tokens_beyond_the_vocabulary_are_never_given():
    drawn = complete(make(), [[1]] * 40, tokens=3, choose=Sampler(Sampling(temperature=50.0)), vocab=5)
    assert {token for one in drawn for token in one.tokens} == set(range(5))


# ------------------------------------------------------------------------------------------------------------ sampling

WEIGHTS = np.array([0.35, 0.05, 0.25, 0.15, 0.12, 0.08])  # of tokens 0 to 5


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, WEIGHTS),
        ({"temperature": 0.5}, WEIGHTS**2),
        ({"temperature": 2.0}, WEIGHTS**0.5),
        ({"temperature": 1e-320}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 0}, [1, 0, 0, 0, 0, 0]),
        ({"top_k": 3}, [0.35, 0, 0.25, 0.15, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0, 0, 0]),
        ({"top_k": 60}, WEIGHTS),
        ({"top_p": 0.5}, [0.35, 0, 0.25, 0, 0, 0]),  # 0.35 does not reach 0.5, 0.60 does
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0, 0]),
        ({"top_p": 1.0}, WEIGHTS),
        ({"top_k": 4, "top_p": 0.7}, [0.35, 0, 0.25, 0.15, 0, 0]),  # of 0.87: 0.402, 0.690, then 0.862
        ({"top_k": 3, "temperature": 0.5}, [0.35**2, 0, 0.25**2, 0.15**2, 0, 0]),
    ],
)
def test_probabilities_are_those_of_the_definition(how, expected):
    found = probabilities(torch.tensor(np.log(WEIGHTS) + 3.0)[None], Sampling(**how))[0].numpy()
    np.testing.assert_allclose(found, np.array(expected) / np.sum(expected), atol=1e-12)


def test_of_equal_logits_exactly_k_are_kept():
    found = probabilities(torch.zeros(1, 6), Sampling(top_k=2))[0].tolist()
    assert found == [0.5, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize("how", [Sampling(seed=1), Sampling(temperature=0.7, top_k=5, top_p=0.9, seed=2)])
def test_draws_follow_the_probabilities(how):
    logits = torch.tensor(np.log(WEIGHTS))[None]
    expected = probabilities(logits, how)[0].numpy()
    rows = list(range(50))
    sampler = Sampler(how)
    draws = np.concatenate([sampler(logits.expand(50, -1), rows) for _ in range(80)])
    counts = np.bincount(draws, minlength=6)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] * counts.sum()).pvalue > 1e-3


def test_rows_and_seeds_draw_differently_and_a_seed_draws_again():
    logits = torch.zeros(2, 1000)
    first, again, other = Sampler(Sampling()), Sampler(Sampling()), Sampler(Sampling(seed=1))
    a = [first(logits, [0, 1]) for _ in range(20)]
    assert a == [again(logits, [0, 1]) for _ in range(20)]
    streams = [*zip(*a, strict=True), *zip(*(other(logits, [0, 1]) for _ in range(20)), strict=True)]
    assert all(sum(x == y for x, y in zip(s, t, strict=True)) < 4 for s in streams for t in streams if s is not t)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: zero"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0: 1 or more"),
        ({"top_p": 0.0}, "top_p=0.0: it must lie above 0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**wrong)


def test_prompts_that_are_read_are_a_sign_of_life_with_every_layer():
    model, before = make(), pulse.HERE.beats
    Reader(model, prompts(), tokens=1)
    assert pulse.HERE.beats >= before + model.spec.n_layer
