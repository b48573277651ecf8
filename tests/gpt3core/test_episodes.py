"""Generated episodes: what is asked was never trained on, examples tell the answer, the loss is of text alone."""

import collections
import random
from dataclasses import replace

import numpy as np
import pytest

from gpt3core.data import episodes, shards
from gpt3core.data.loader import Loader
from gpt3core.data.tokenizer import load
from gpt3core.evals import prompts, tasks
from tests.conftest import make_run

TOKENIZER = "gpt2:1024"
TASKS = [f"episodes_{kind}" for kind in episodes.KINDS]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(episodes, "TOKENS", 100_000)


@pytest.mark.soak
def test_what_is_asked_is_never_trained_on(few):
    trained = "".join(episodes.documents(TOKENIZER)).split()
    kept = {symbol.strip() for symbol in episodes.symbols(TOKENIZER, held_out=True)}
    assert len(kept) > 30
    assert not kept & set(trained)
    queries = tasks.items("episodes_sorting", 200, None, TOKENIZER).queries
    asked = {frozenset(query.context[:-2].split()) for query in queries}
    seen = _sorted_sets(trained)
    assert len(seen) > 100
    assert not asked & seen


def _sorted_sets(words):
    """The letters of the lines that sort: three letters, an equals sign, three letters."""
    return {
        frozenset(words[i - 3 : i])
        for i, word in enumerate(words)
        if word == "="
        and i >= 3
        and all(len(w) == 1 and w.isalpha() for w in words[i - 3 : i] + words[i + 1 : i + 4])
        and sorted(words[i - 3 : i]) == words[i + 1 : i + 4]
    }


@pytest.mark.parametrize("task", ["episodes_mapping", "episodes_cipher"])
def test_a_reader_of_the_examples_knows_each_mapping_that_they_show(task):
    shown = collections.Counter()
    for query in tasks.items(task, 100, None, TOKENIZER).queries:
        told = dict(line.split(" =") for line in query.own[:16])
        question = query.context[:-2]
        shown[question in told] += 1
        assert told.get(question, query.answer) == query.answer
        assert query.answer in query.choices
        assert len(set(query.choices)) == 4
    assert shown[True] > 90  # 1 - (3/4)^16 of them


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("episodes_copying", lambda question, told: question),
        ("episodes_sorting", lambda question, told: "".join(f" {c}" for c in sorted(question.split()))),
        ("episodes_shifting", lambda question, told: f" {int(question) + told}"),
    ],
)
def test_the_rule_of_an_episode_is_that_of_its_lines(task, answers):
    for query in tasks.items(task, 50, None, TOKENIZER).queries:
        lines = [line.split(" =") for line in (*query.own, query.context + query.answer)]
        told = int(lines[0][1]) - int(lines[0][0]) if task == "episodes_shifting" else 0
        assert all(answer == answers(question, told) for question, answer in lines)
        assert len(set(query.choices)) == len(query.choices) == 4


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_lines_of_the_question_s_own_episode(task):
    split = tasks.items(task, 3, None, TOKENIZER)
    text = prompts.asked(task, tasks.named(task), split, 4, load(TOKENIZER).encode_ordinary, 128)[0].text
    *lines, question = text.split("\n")[1:]
    assert question == split.queries[0].context
    assert len(lines) == 4
    assert set(lines) <= set(split.queries[0].own)
    with pytest.raises(ValueError, match="K=65 examples are asked for, and a question has 64"):
        prompts.examples(random.Random(0), split.queries[0], 65, split.pool)


def test_a_share_of_the_sequences_is_generated_and_the_held_out_text_stays(few, tales):
    plain = make_run(tales).data
    mixed = replace(plain, episodes=0.4, tokenizer=TOKENIZER)
    plain = replace(plain, tokenizer=TOKENIZER)
    text, both = shards.prepare(plain), shards.prepare(mixed)
    loader = Loader(both.train, n_ctx=32, seed=0)
    seen = loader.seen(1000)
    assert seen[episodes.NAME].tokens == 400 * 32
    assert sum(source.tokens for source in seen.values()) == 1000 * 32
    rows = loader.batch(0, 1000).tokens
    generated = {tuple(row) for row in _windows(both.train[-1].pieces[0], 32)}
    assert sum(tuple(row) in generated for row in rows.tolist()) == 400
    for ours, theirs in zip(both.validation, text.validation, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours.pieces, theirs.pieces, strict=True))
    assert both.words == text.words


def _windows(tokens, n_ctx):
    return [tokens[start : start + n_ctx + 1].tolist() for start in range(0, len(tokens) - n_ctx, n_ctx)]


def test_a_share_changes_the_run_and_none_does_not(tales):
    run = make_run(tales)
    none, some = (replace(run, data=replace(run.data, episodes=share)) for share in (0.0, 0.4))
    assert none.run_id == run.run_id != some.run_id
    with pytest.raises(ValueError, match=r"data.episodes=1.0: the share that is generated lies from 0 to below 1"):
        replace(run.data, episodes=1.0)


def test_a_tokenizer_of_few_words_is_refused():
    with pytest.raises(ValueError, match=r"data.tokenizer=gpt2:300 has . words of one token, episodes need 64"):
        episodes.symbols("gpt2:300", held_out=False)
