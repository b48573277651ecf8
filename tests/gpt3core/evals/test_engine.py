"""What the engine reads once against the model reading every continuation alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core.evals import engine
from gpt3core.evals.engine import Encoded, read
from gpt3core.numerics import Numerics
from tests.gpt3core.generate.test_decode import make

FP32, BF16 = (Numerics(precision=precision, kernel="sdpa") for precision in ("fp32", "bf16"))


def prompts() -> list[Encoded]:
    """Contexts of any length, within and past a band of 4; options of one token and more; contexts that begin alike."""
    rng = np.random.default_rng(0)

    def some(n):
        return tuple(rng.integers(37, size=n).tolist())

    shared = some(9)
    alone = ((1, (1, 2)), (2, (1, 1, 1)), (5, (3, 1, 4)), (11, (2,)), (12, (1, 1, 1, 1)), (19, (5, 2)))
    found = [Encoded(some(length), tuple(some(n) for n in options)) for length, options in alone]
    found += [Encoded(shared + some(n), tuple(some(m) for m in (1, 3, 2))) for n in (1, 3, 4, 9)]
    return [*found, Encoded(shared, ((1, 2),)), Encoded((*shared, 3), ((1, 2),)), Encoded((*shared, 3), ((4, 2), (5,)))]


def differences(found, other) -> float:
    return max(
        abs(x - y)
        for a, b in zip(found, other, strict=True)
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p.logprobs, q.logprobs, strict=True)
    )


@pytest.mark.parametrize("attention", ["dense", "alternating", "strided,dense", "fixed,banded,strided"])
@pytest.mark.parametrize("end", [None, 5])
@pytest.mark.parametrize("cached", [True, False])
def test_log_probabilities_are_those_of_each_continuation_alone(attention, end, cached, monkeypatch):
    monkeypatch.setattr(engine, "HEAD_PLACES", 7)
    monkeypatch.setattr(engine, "TREE_TOKENS", 8)
    monkeypatch.setattr(engine, "BATCH_TOKENS", 64)
    model = make(attention)
    model.spec = replace(model.spec, document_end=end)  # documents end at 5, within contexts and options too
    for prompt, readings in zip(prompts(), read(model, prompts(), FP32, cached=cached), strict=True):
        for option, reading in zip(prompt.options, readings, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([prompt.context + option]))[0, len(prompt.context) - 1 : -1]
            expected = torch.log_softmax(logits, -1)[range(len(option)), option]
            torch.testing.assert_close(torch.tensor(reading.logprobs), expected, atol=1e-5, rtol=1e-5)
            assert list(reading.likeliest) == [
                int(best) == t for best, t in zip(logits.argmax(-1), option, strict=True)
            ]


def test_in_bf16_the_cache_changes_no_more_than_rounding_does():
    model = make("alternating")
    exact, cached, whole = (
        read(model, prompts(), how, cached=keep) for how, keep in ((FP32, True), (BF16, True), (BF16, False))
    )
    rounding = differences(exact, whole)
    assert 0 < rounding < 0.5
    assert differences(exact, cached) < 2 * rounding


class Counting:
    """A model that notes how many tokens pass, and how many places go through the head at a time."""

    def __init__(self, model):
        self.model, self.spec, self.parameters = model, model.spec, model.parameters
        self.tokens, self.places = 0, []

    def hidden(self, ids, past=None):
        self.tokens += ids.numel()
        return self.model.hidden(ids, past)

    def head(self, hidden):
        self.places.append(len(hidden))
        return self.model.head(hidden)


def test_nothing_is_read_twice():
    examples = tuple(range(15))
    options = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (1, 2, 4))
    one = Counting(make())
    read(one, [Encoded(examples, options)], FP32)
    assert one.tokens == 15 + 4 * 2  # the context once, and of every option what the next token comes after
    many = Counting(make())
    read(many, [Encoded((*examples, n, n), options) for n in range(20, 30)], FP32)
    assert many.tokens == 15 + 10 * (2 + 4 * 2)  # what they begin with once
    single = Counting(make())
    read(single, [Encoded(examples, ((1,), (2,), (3,)))], FP32)
    assert single.tokens == 15


def test_the_head_sees_the_places_that_are_asked_for_and_a_bounded_number_at_once(monkeypatch):
    monkeypatch.setattr(engine, "HEAD_PLACES", 4)
    model = Counting(make())
    read(model, [Encoded(tuple(range(15)), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))], FP32)
    assert sum(model.places) == 1 + 3 * 2  # after the context, and after all but the last token of each option
    assert max(model.places) <= 4


def test_a_model_that_keeps_no_past_reads_everything_whole():
    model = make("alternating")

    class Parts:
        def hidden(self, ids):
            return model.hidden(ids)

        head = staticmethod(model.head)

    assert differences(read(Parts(), prompts(), FP32), read(model, prompts(), FP32)) < 1e-5
