"""Beam search against all texts that there are, and against the greedy choice."""

import itertools

import pytest
import torch

from gpt3core.generate.beam import beam_search
from gpt3core.generate.choices import Sampling, Search
from gpt3core.generate.decode import CONTEXT, END, LENGTH, complete
from gpt3core.generate.sampling import Sampler
from gpt3core.model.gpt import GPT
from gpt3core.sizes import nano

V, END_ID, DEPTH = 4, 3, 4


def make(seed: int, n_ctx: int = 12, vocab: int = V) -> GPT:
    model = GPT(nano(16, n_layer=2, n_ctx=n_ctx, vocab_size=vocab, attention="alternating", band=3))
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model.eval()


def by_enumeration(model: GPT, prompt: list[int], penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every text of up to DEPTH tokens with its score, the best first; by the model's own forward pass."""
    everything = list(itertools.product(range(V), repeat=DEPTH))
    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([[*prompt, *text[:-1]] for text in everything])).double(), -1)
    chosen = logp[:, len(prompt) - 1 :].gather(2, torch.tensor(everything)[..., None])[..., 0]  # (all, DEPTH)
    found = {}
    for text, nats in zip(everything, chosen.tolist(), strict=True):
        length = text.index(END_ID) + 1 if END_ID in text else DEPTH
        found[text[:length]] = sum(nats[:length]) / length**penalty
    found = [(score, text[:-1] if text[-1] == END_ID else text) for text, score in found.items()]
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("cached", [True, False])
def test_a_beam_that_holds_all_texts_finds_the_best_ones(seed, penalty, cached):
    model, prompt = make(seed), [0, 2]
    texts = by_enumeration(model, prompt, penalty)
    assert len(texts) == 1 + 3 + 9 + 27 + 81
    found = beam_search(
        model, prompt, tokens=DEPTH, end=END_ID, how=Search(beam=len(texts), length_penalty=penalty), cached=cached
    )
    assert len(found) == len(texts)
    for one, (score, text) in zip(found[:20], texts, strict=False):
        assert one.tokens == text
        assert one.score == pytest.approx(score, abs=1e-5)
        assert one.ended == (END if len(text) < DEPTH else LENGTH)


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_the_greedy_choice(seed):
    model = make(seed)
    for prompt in ([0], [1, 2, 0]):
        (found,) = beam_search(model, prompt, tokens=8, end=END_ID, how=Search(beam=1))
        (greedy,) = complete(model, [prompt], tokens=8, choose=Sampler(Sampling(temperature=0)), end=END_ID)
        assert (list(found.tokens), found.ended) == (greedy.tokens, greedy.ended)


def test_more_beams_find_texts_that_greed_misses():
    better = 0
    for seed in range(8):
        model = make(seed, vocab=12)
        one, four = (
            beam_search(model, [1], tokens=6, how=Search(beam=n, length_penalty=0.0))[0].logprob for n in (1, 4)
        )
        better += four > one + 1e-3
    assert better >= 2


def test_a_search_ends_with_the_context():
    found = beam_search(make(0, n_ctx=6), [0, 1, 2], tokens=50)
    assert {(len(one.tokens), one.ended) for one in found} == {(4, CONTEXT)}  # positions 3 to 5, and what follows them
    assert beam_search(make(0), [0], tokens=0) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"beam": 0}, "beam=0: 1 or more"),
        ({"length_penalty": -1.0}, "length_penalty=-1"),
        ({"length_penalty": float("nan")}, "nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Search(**wrong)
