"""Evaluation: formats against GPT-3's paper and files, scores against a model whose answers are known."""

import math
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch

from gpt3core.data import shards, tokenizer
from gpt3core.evals import held_out, prompts, runner, tasks
from gpt3core.evals.baselines import baselines
from gpt3core.evals.item import Item
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.evals.tasks.generated import Generated
from gpt3core.evals.tasks.task import Task
from gpt3core.model import registry
from gpt3core.numerics import Numerics
from gpt3core.store.rundir import RunDir
from tests.conftest import make_run

FP32 = Numerics(precision="fp32", kernel="softmax")


@pytest.fixture
def data(tales):
    return shards.prepare(make_run(tales).data)


def made(task, data, count=200):
    return tasks.items(task, count, data, "gpt2:300").queries


@pytest.mark.parametrize("task", ["addition_2", "subtraction_3", "multiplication_2", "addition_5"])
def test_arithmetic_is_right_and_in_the_papers_format(task, data):
    signs = {"plus": "+", "minus": "-", "times": "*"}
    digits = int(task[-1])
    for item in made(task, data):
        a, word, b = re.fullmatch(r"Q: What is (\d+) (plus|minus|times) (\d+)\?\n\nA:", item.context).groups()
        assert item.answer == f" {eval(f'{a} {signs[word]} {b}')}"  # noqa: S307
        assert max(int(a), int(b)) < 10**digits


def test_three_operations_put_the_first_two_in_parentheses(data):
    for item in made("three_operations", data):
        (expression,) = re.fullmatch(r"Q: What is (\(\d [-+*] \d\) [-+*] \d)\?\n\nA:", item.context).groups()
        assert item.answer == f" {eval(expression)}"  # noqa: S307


@pytest.mark.parametrize("task", ["cycle_letters", "anagrams_1", "anagrams_2", "random_insertion", "reversed_words"])
def test_words_are_scrambled_as_the_paper_says(task, data):
    for item in made(task, data):
        scrambled, word = item.context[:-2], item.answer[1:]
        assert item.context == f"{scrambled} ="
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


def asked(name, shots, split, draw=0, n_ctx=2048, tokens="gpt2:300"):
    """The prompts of a task, as a model reads them."""
    encode = tokenizer.load(tokens).encode_ordinary
    return prompts.asked(name, tasks.named(name), split, shots, encode, n_ctx, draw)


def test_items_are_the_same_for_every_run_and_examples_do_not_leak(data):
    split = tasks.items("addition_2", 50, data, "gpt2:300")
    tasks.items.cache_clear()
    assert tasks.items("addition_2", 50) == split, "they depend on no corpus"
    shown = asked("addition_2", 4, split)[0]
    assert shown.text.count("Q:") == 5
    assert shown.text.endswith(split.queries[0].context)
    assert asked("addition_2", 4, split)[0] == shown
    assert asked("addition_2", 4, split, draw=1)[0] != shown


def test_more_examples_than_items_are_refused():
    with pytest.raises(ValueError, match="K=2 examples are asked for, and there are 1 items"):
        prompts.examples(random.Random(0), Item(context="a", answer=" b"), 2, [Item(context="c", answer=" d")])


@pytest.mark.soak
def test_induction_shows_the_pair_k_times(data):
    split = tasks.items("induction", 5, data, "gpt2")
    for k in (0, 1, 4):
        text = asked("induction", k, split)[0].text
        assert text.count(f"{split.queries[0].context}{split.queries[0].answer} ") == k
        assert text.endswith(split.queries[0].context)


@pytest.fixture
def model(tiny_run):
    made = registry.of(tiny_run.model).build(tiny_run.model, kernel="softmax")
    made.init_weights(0)
    return made


def rows(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_fewer_examples_are_shown_where_the_context_is_full_and_said(model, tiny_run, data):
    asked = EvalSpec(tasks=("addition_2",), shots=(0, 16), items=8, validation_tokens=2048)
    held_out, zero_shot, many_shot = rows(runner.evaluate(model, tiny_run, asked, data, FP32))
    assert (held_out["task"], held_out["items"]) == (HELD_OUT, 2048)
    assert (zero_shot["fits"], zero_shot["accuracy"]) == (True, 0.0)
    assert zero_shot["shots_shown"] == 0
    assert (many_shot["fits"], many_shot["accuracy"]) == (False, 0.0)
    assert 0 <= many_shot["shots_shown"] < 2


class Counting:
    """A model that notes the sequences it is asked about."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def hidden(self, ids):
        self.asked.append(tuple(ids.shape))
        return self.model.hidden(ids)

    def head(self, hidden):
        return self.model.head(hidden)


def test_adding_a_task_asks_only_that_task(model, tiny_run, data, tmp_path):
    few = EvalSpec(tasks=("addition_2",), shots=(0, 1), items=8, validation_tokens=2048)
    more = EvalSpec(tasks=("addition_2", "reversed_words"), shots=(0, 1), items=8, validation_tokens=2048)
    only = EvalSpec(tasks=("reversed_words",), shots=(0, 1), items=8, validation_tokens=2048)

    def asked(spec, known=()):
        counting = Counting(model)
        return runner.evaluate(counting, tiny_run, spec, data, FP32, known=known), counting.asked

    first, _ = asked(few)
    everything, _ = asked(more)
    folder = RunDir(tmp_path / "root", tiny_run.run_id)
    folder.create(tiny_run)
    folder.write_evaluation(few.eval_id, first)
    added, calls = asked(more, known=folder.measurements())
    _, of_the_task = asked(only, known=[row for row in rows(first) if row["task"] == HELD_OUT])
    assert added == everything
    assert calls == of_the_task
    assert len(calls) > 0
    assert asked(more, known=rows(everything)) == (everything, []), "what is known is not asked again"


def test_a_task_is_added_by_an_entry(model, tiny_run, data, monkeypatch):
    digit = Generated(make=lambda rng, _: Item(context=f"{rng.randrange(10_000)}", answer=f" {rng.randrange(10)}"))
    parrot = Task(kind="generate", source=digit, delimiter="\n")
    monkeypatch.setitem(tasks.TASKS, "parrot", parrot)
    assert "parrot" in tasks.names()
    asked = EvalSpec(tasks=("parrot",), shots=(0, 2), items=8, validation_tokens=2048)
    _, zero_shot, two_shot = rows(runner.evaluate(model, tiny_run, asked, data, FP32))
    assert (zero_shot["metric"], two_shot["fits"]) == ("exact", True)
    assert zero_shot["prior_logprob"] == pytest.approx(math.log(1 / 10), abs=0.2)


def test_known_rows_of_another_question_are_not_answers(model, tiny_run, data):
    few = EvalSpec(tasks=("addition_2",), shots=(0,), items=8, validation_tokens=2048)
    known = rows(runner.evaluate(model, tiny_run, few, data, FP32))
    for change in ({"items": 9}, {"shots": 1}, {"version": 0}):
        counting = Counting(model)
        runner.evaluate(counting, tiny_run, few, data, FP32, known=[{**row, **change} for row in known])
        assert counting.asked


def test_the_evaluation_names_no_architecture_and_no_trainer():
    code = "import sys; from gpt3core.evals import runner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "gpt3core.evals.scoring" in loaded
    assert not {"gpt3core.model.gpt", "gpt3core.model.attention"} & set(loaded)
    assert not [name for name in loaded if name.startswith("gpt3core.train")]


# ------------------------------------------------------------------------------------------------------------ cloze


def test_a_cloze_asks_for_words_of_held_out_text(data):
    encoding = tokenizer.load("gpt2")
    texts = [document["text"] for document in data.validation_documents]
    split = tasks.items("cloze_tales", 40, data, "gpt2")
    assert len(split.queries) == 40
    assert len(split.pool) >= 32
    for item in split.queries:
        assert len(item.choices) == len(set(item.choices)) == 4
        assert item.answer in item.choices
        assert all(len(encoding.encode_ordinary(choice)) == 1 for choice in item.choices)
        assert any(item.context + item.answer + " " in text for text in texts)


@pytest.mark.parametrize(
    ("task", "count", "sentence"),
    [
        ("cloze_news", 40, "task cloze_news: no held-out text of that domain; there are tales"),
        ("cloze_tales", 5000, r"task cloze_tales: the held-out text gives \d+ items, 5032 are needed"),
        ("cloze_tales", 40, r"task cloze_tales: the held-out text has \d different words of one token, 8 are needed"),
        (
            "addition_9",
            40,
            r"unknown task 'addition_9', did you mean addition_\d\?; .* and there is cloze_<domain of the corpus>",
        ),
    ],
)
def test_what_a_text_does_not_give_is_one_sentence(data, task, count, sentence):
    with pytest.raises(ValueError, match=sentence):
        tasks.items(task, count, data, "gpt2:300")


def test_baselines_come_from_the_answers_of_other_items():
    pool = [Item(context="", answer=" a", choices=())] * 8 + [Item(context="", answer=" b", choices=())] * 2
    queries = [
        Item(context="Q", answer=" a", choices=(" a", " b")),
        Item(context="Q", answer=" b", choices=(" a", " b")),
    ]
    found = baselines(queries, pool)
    assert found["chance"] == 0.5
    assert found["prior_accuracy"] == 0.5  # it always says a
    assert found["prior_logprob"] == pytest.approx((math.log(9 / 13) + math.log(3 / 13)) / 2)


@pytest.mark.parametrize("answers", [3, 30])
@pytest.mark.parametrize("chosen", [True, False])
def test_of_a_pool_with_the_question_in_it_only_the_others_answer(answers, chosen):
    rng = random.Random(answers)
    said = [f" {rng.randrange(answers)}" for _ in range(12)]
    pool = [Item(context=f"{min(n, 9)}", answer=a, choices=(a, " x") if chosen else ()) for n, a in enumerate(said)]
    accuracy, logprobs = [], []
    for query in pool:
        others = Counter(item.answer for item in pool if item.context != query.context)
        seen = query.choices or tuple(others)
        likeliest = [answer for answer in seen if others[answer] == max(others[one] for one in seen)]
        of_all = [(query.answer == one) / len(likeliest) for one in likeliest]
        accuracy.append(sum(of_all) if chosen else [query.answer == one for one in likeliest])
        logprobs.append(math.log((others[query.answer] + 1) / (others.total() + len(others) + 1)))
    found = baselines(pool, pool)
    assert found["prior_logprob"] == pytest.approx(sum(logprobs) / len(pool))
    if chosen:
        assert found["prior_accuracy"] == pytest.approx(sum(accuracy) / len(pool))
    else:  # of answers that are as common as one another any may be given
        least, most = (sum(map(some, accuracy)) / len(pool) for some in (all, any))
        assert least <= found["prior_accuracy"] <= most


def test_an_answer_that_nobody_else_gives_is_not_known_before():
    free = [Item(context=f"{n}", answer=f" {n}") for n in range(9)]
    assert baselines(free, free)["prior_accuracy"] == 0.0
    assert baselines(free[:1], free[:1])["prior_accuracy"] == 0.0, "there is no other item"
    of_four = [
        Item(context=f"{n}", answer=f" {n}", choices=tuple(f" {n + k}" for k in (0, 20, 40, 60))) for n in range(9)
    ]
    assert baselines(of_four, of_four)["prior_accuracy"] == 0.25


def test_prompts_are_kept_for_the_next_run_as_far_as_there_is_room(tiny_run, data, monkeypatch):
    def cell(items):
        return runner._cell("addition_2", 0, items, tiny_run.model.n_ctx, "gpt2:300", data, 0, ((), ""))

    cells = [cell(40 + n) for n in range(4)]
    assert cell(40) is cells[0]
    monkeypatch.setattr(runner, "KEPT_TOKENS", cells[0].tokens + cells[3].tokens)
    assert cell(43) is cells[3]
    assert list(runner._kept.values()) == [cells[0], cells[3]], "those that were used last"
    assert cell(41) == cells[1]
    assert sum(one.tokens for one in runner._kept.values()) <= runner.KEPT_TOKENS


def test_held_out_loss_is_the_mean_over_all_held_out_windows(model, tiny_run, data):
    found = held_out.measure(model, data, 32, 2048)
    ids = torch.tensor(data.validation[0].pieces[0][: 64 * 32 + 1].astype("int64"))
    with torch.no_grad():
        logits = model(ids[:-1].view(64, 32)).double()
    losses = -torch.log_softmax(logits, -1).gather(-1, ids[1:].view(64, 32, 1)).squeeze(-1)
    assert found["loss"] == pytest.approx(losses.mean().item(), abs=1e-6)
    assert found["loss_se"] == pytest.approx(losses.mean(1).std().item() / 8, rel=1e-4)
    per_byte = data.total("tokens")["validation"] / data.total("bytes")["validation"]
    assert found["bits_per_byte"] == pytest.approx(losses.mean().item() * per_byte / math.log(2), rel=1e-6)


def test_too_little_held_out_text_is_known_before_the_training(tiny_run, data):
    with pytest.raises(ValueError, match="2 windows of 32 are needed: give more text or more tokens"):
        runner.check(tiny_run, EvalSpec(validation_tokens=63), data)
    runner.check(tiny_run, EvalSpec(tasks=("addition_2",), validation_tokens=64, shots=(0,)), data)
