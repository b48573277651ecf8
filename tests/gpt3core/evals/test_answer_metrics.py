"""What answers are worth, against SQuAD's definitions worked out by hand and sacrebleu."""

import math

import numpy as np
import pytest

from gpt3core.evals import metrics


@pytest.mark.parametrize(
    ("metric", "text", "right", "value"),
    [
        ("exact", " 143", "143 ", 1.0),
        ("exact", "The cat", "the cat", 0.0),
        ("match", "The  cat.", "a cat", 1.0),
        ("match", "cats", "cat", 0.0),
        ("match", "theory", "ory", 0.0),  # an article is a word
        ("f1", "Denver Broncos", "the Broncos", 2 * 0.5 * 1 / 1.5),
        ("f1", "to be or not to be", "to be to be to be", 2 * (4 / 6) * (4 / 6) / (4 / 3)),  # a word as often as both
        ("f1", "the", "an", 1.0),  # nothing is left of either
        ("f1", "", "x", 0.0),
        ("number", "48/2 = 24, so 1,072.50 in all", "#### 1072.5", 1.0),
        ("number", "it is -3", "3", 0.0),
        ("number", "none", "3", 0.0),
    ],
)
def test_an_answer_is_worth(metric, text, right, value):
    assert metrics.METRICS[metric](text, right) == pytest.approx(value)


def test_of_several_right_answers_the_best_counts():
    assert metrics.mean("f1", ["red car", "x"], [["green", "car"], ["y"]])[0] == pytest.approx((2 / 3) / 2)


def test_errors_are_those_of_a_share_and_of_a_mean():
    assert metrics.share([1.0, 0.0, 0.0]) == pytest.approx((1 / 3, math.sqrt(0.4 * 0.6 / 3)))
    values = [metrics.f1(t, "a b c d") for t in ("a b", "c", "x")]
    found = metrics.mean("f1", ["a b", "c", "x"], [["a b c d"]] * 3)
    assert found == pytest.approx((np.mean(values), np.std(values, ddof=1) / math.sqrt(3)))


def test_bleu_is_sacrebleus_and_its_error_is_that_of_the_sample():
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(6)]
    right = [" ".join(rng.choice(words, 12)) for _ in range(100)]
    texts = [" ".join(w if rng.random() < 0.8 else "w0" for w in text.split()) for text in right]
    score, error = metrics.mean("bleu", texts, [[text] for text in right])
    assert score == pytest.approx(sacrebleu.corpus_bleu(texts, [right]).score / 100)
    draws = [rng.integers(100, size=100) for _ in range(40)]
    resampled = [sacrebleu.corpus_bleu([texts[n] for n in d], [[right[n] for n in d]]).score / 100 for d in draws]
    assert error == pytest.approx(np.std(resampled, ddof=1), rel=0.5)
    assert metrics.mean("bleu", ["a b c d", "e f g h"], [["x", "a b c d"], ["e f g h"]])[0] == pytest.approx(1.0)


def test_bleu_without_sacrebleu_is_one_sentence(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"BLEU needs sacrebleu, .* pip install 'isoflop\[bleu\]'"):
        metrics.mean("bleu", ["a"], [["a"]])
