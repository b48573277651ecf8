"""Evaluation: formats against GPT-3's paper and files, scores against a model whose answers are known."""

import math
import re
from types import SimpleNamespace

import pytest
import torch

from gpt3core.data import shards, tokenizer
from gpt3core.evals import runner, tasks
from gpt3core.evals.synthetic import MAKERS
from gpt3core.numerics import Numerics
from tests.conftest import make_run

FP32 = Numerics(precision="fp32", kernel="softmax")


@pytest.fixture
def data(tales):
    return shards.prepare(make_run(tales).data)


def made(task, data, count=200):
    return tasks.items(task, count, data, "gpt2:300")[0]


@pytest.mark.parametrize("task", ["addition_2", "subtraction_3", "multiplication_2", "addition_5"])
def test_arithmetic_is_right_and_in_the_papers_format(task, data):
    signs = {"plus": "+", "minus": "-", "times": "*"}
    digits = int(task[-1])
    for item in made(task, data):
        a, word, b = re.fullmatch(r"\n\nQ: What is (\d+) (plus|minus|times) (\d+)\?\n\nA:", item.context).groups()
        assert item.answer == f" {eval(f'{a} {signs[word]} {b}')}"  # noqa: S307
        assert max(int(a), int(b)) < 10**digits


def test_three_operations_put_the_first_two_in_parentheses(data):
    for item in made("three_operations", data):
        (expression,) = re.fullmatch(r"\n\nQ: What is (\(\d [-+*] \d\) [-+*] \d)\?\n\nA:", item.context).groups()
        assert item.answer == f" {eval(expression)}"  # noqa: S307


@pytest.mark.parametrize("task", ["cycle_letters", "anagrams_1", "anagrams_2", "random_insertion", "reversed_words"])
def test_words_are_scrambled_as_the_paper_says(task, data):
    for item in made(task, data):
        scrambled, word = item.context[1:-2], item.answer[1:]
        assert item.context == f"\n{scrambled} ="
        if task == "cycle_letters":
            assert scrambled in {word[k:] + word[:k] for k in range(1, len(word))}
        elif task == "anagrams_1":
            assert (scrambled[0], scrambled[-1], sorted(scrambled)) == (word[0], word[-1], sorted(word))
        elif task == "anagrams_2":
            assert (scrambled[:2], scrambled[-2:], sorted(scrambled)) == (word[:2], word[-2:], sorted(word))
        elif task == "random_insertion":
            assert scrambled[::2] == word
            assert set(scrambled[1::2]) <= set(" ./!")
        else:
            assert scrambled == word[::-1]


def test_items_are_the_same_for_every_run_and_examples_do_not_leak(data):
    queries, pool = tasks.items("addition_2", 50, data, "gpt2:300")
    tasks.items.cache_clear()
    assert tasks.items("addition_2", 50, data, "gpt2:300")[0] == queries
    shown = tasks.prompt("addition_2", queries[0], 4, pool, 0)
    assert shown.text.count("Q:") == 5
    assert shown.text.endswith(queries[0].context)
    assert tasks.prompt("addition_2", queries[0], 4, pool, 0) == shown


def test_induction_shows_the_pair_k_times(data):
    words = [f"w{i}" for i in range(60)]
    import random

    item = MAKERS["induction"](random.Random(0), words)
    for k in (0, 1, 4):
        text = tasks.prompt("induction", item, k, [], 0).text
        assert text.count(f"{item.context}{item.answer} ") == k
        assert text.endswith(item.context)


class Oracle(torch.nn.Module):
    """A model that gives the next token of known texts a probability of 0.9 and spreads the rest."""

    def __init__(self, texts, vocab):
        super().__init__()
        self.texts, self.vocab = texts, vocab
        self.spec = SimpleNamespace(n_ctx=128)

    def hidden(self, ids):
        out = torch.full((*ids.shape, self.vocab), math.log(0.1 / (self.vocab - 1)))
        for row, line in enumerate(ids.tolist()):
            for known in self.texts:
                for t in range(len(line)):
                    if t + 1 < len(known) and line[: t + 1] == known[: t + 1]:
                        out[row, t, known[t + 1]] = math.log(0.9)
        return out

    def head(self, hidden):
        return hidden


def test_scores_of_a_model_that_knows_the_answers(data):
    encoding = tokenizer.load("gpt2:300")
    queries, _ = tasks.items("addition_2", 6, data, "gpt2:300")
    texts = [
        [encoding.eot_token, *encoding.encode_ordinary(q.context), *encoding.encode_ordinary(q.answer + "\n")]
        for q in queries
    ]
    answers = [len(encoding.encode_ordinary(q.answer)) for q in queries]
    encoded, _ = runner._cell("addition_2", 0, 6, 128, "gpt2:300", data)
    score = runner._score(Oracle(texts, 300), encoded, FP32, "cpu")
    assert score["accuracy"] == 1.0
    assert score["logprob"] == pytest.approx(math.log(0.9) * sum(answers) / 6, rel=1e-5)
    # a model that knows the answers but not where they end is not right
    unended = [text[:-1] for text in texts]
    assert runner._score(Oracle(unended, 300), encoded, FP32, "cpu")["accuracy"] == 0.0


def test_choices_are_scored_per_token_and_chance_is_chance():
    model = Oracle([], 300)
    items = [runner.Encoded((1, 2, 3), ((5,), (6,), (7,), (8,))) for _ in range(4)]
    flat = runner._score(model, items, FP32, "cpu")
    assert flat["accuracy"] == 0.0, "a tie is not a right answer"
    assert flat["logprob"] == pytest.approx(-math.log(300), rel=1e-5)
    knows = runner._score(Oracle([[1, 2, 3, 5]], 300), items, FP32, "cpu")
    assert knows["accuracy"] == 1.0
    long = [runner.Encoded((1, 2, 3), ((5, 9), (6, 9, 9)))]
    assert runner._score(Oracle([[1, 2, 3, 5, 9]], 300), long, FP32, "cpu")["accuracy"] == 1.0


def test_prompts_that_do_not_fit_are_not_measured(tiny_run, data):
    from gpt3core.model.gpt import GPT

    model = GPT(tiny_run.model)
    model.init_weights(0)
    table = runner.few_shot(model, make_run(data_path(tiny_run), shots=(0, 16)), data, FP32)
    by_shots = dict(zip(table["shots"], table["fits"], strict=True))
    assert by_shots[16] is False
    assert table["accuracy"][table["shots"].index(16)] is None


def data_path(run):
    from pathlib import Path

    return Path(run.data.corpus)


def test_baselines_come_from_the_answers_of_other_items():
    pool = [tasks.Item(context="", answer=" a", choices=())] * 8 + [tasks.Item(context="", answer=" b", choices=())] * 2
    queries = [
        tasks.Item(context="", answer=" a", choices=(" a", " b")),
        tasks.Item(context="", answer=" b", choices=(" a", " b")),
    ]
    found = runner._baselines(queries, pool)
    assert found["chance"] == 0.5
    assert found["prior_accuracy"] == 0.5  # it always says a
    assert found["prior_logprob"] == pytest.approx((math.log(9 / 13) + math.log(3 / 13)) / 2)


def test_validation_loss_is_the_mean_over_all_held_out_windows(tiny_run, data):
    from gpt3core.model.gpt import GPT

    model = GPT(tiny_run.model)
    model.init_weights(0)
    found = runner.validation_loss(model, tiny_run, data)
    ids = torch.tensor(data.validation[: 64 * 32 + 1].astype("int64"))
    with torch.no_grad():
        logits = model(ids[:-1].view(64, 32)).double()
    exact = -torch.log_softmax(logits, -1).gather(-1, ids[1:].view(64, 32, 1)).mean().item()
    assert found["loss"] == pytest.approx(exact, abs=1e-6)
    per_byte = data.meta["tokens"]["validation"] / data.meta["bytes"]["validation"]
    assert found["bits_per_byte"] == pytest.approx(exact * per_byte / math.log(2), rel=1e-6)
