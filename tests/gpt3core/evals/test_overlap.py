"""Accuracy on questions that are in the training text and on the others: the halves of Table C.1."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gpt3core.data import corpus, shards, tokenizer
from gpt3core.evals import runner, scoring
from gpt3core.evals.item import Prompt
from gpt3core.evals.overlap import Overlap
from gpt3core.evals.spec import OVERLAP, EvalSpec
from gpt3core.evals.tasks.files import fingerprint
from gpt3core.evals.tasks.task import Task
from gpt3core.model import registry
from gpt3core.numerics import Numerics
from gpt3core.store.rundir import RunDir
from tests.conftest import make_run
from tests.gpt3core import corpora

FP32 = Numerics(precision="fp32", kernel="softmax")
ITEMS, PLANTED = 40, (3, 7, 8, 21, 39)


class Certain(torch.nn.Module):
    """A model that thinks one token the likeliest after anything."""

    def __init__(self, encoding, text):
        super().__init__()
        logits = torch.zeros(encoding.n_vocab)
        logits[encoding.encode_ordinary(text)] = 5.0
        self.logits = torch.nn.Parameter(logits)
        self.spec = SimpleNamespace(n_ctx=64, vocab_size=encoding.n_vocab)

    def hidden(self, ids):
        return self.logits.expand(*ids.shape, -1)

    def head(self, hidden):
        return hidden


def words(rng, n):
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=4)) for _ in range(n))


@pytest.fixture
def prepared(tmp_path):
    """A folder prepared from text in which some of the questions lie, and the file of them, compressed."""
    rng = random.Random(0)
    asked = [{"context": words(rng, 18), "completion": " a", "choices": [" a", " b"]} for _ in range(ITEMS)]
    lines = "".join(json.dumps(one) + "\n" for one in asked)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "asked.jsonl").write_text(lines)
    (tmp_path / "again.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    texts = [words(rng, 60) for _ in range(60)]
    texts += [f"{words(rng, 30)} {asked[n]['context']} {words(rng, 30)}" for n in PLANTED for _ in range(3)]
    (tmp_path / "text.jsonl").write_text(corpora.lines(texts))
    path = tmp_path / "recipe.yaml"
    recipe = {"tokenizer": "gpt2:300", "sources": {"text": {"path": [str(tmp_path / "text.jsonl")]}}}
    path.write_text(json.dumps(recipe))
    against = f"decontaminate.against=[{tmp_path / 'sets'}]"
    common = "decontaminate.common=0"  # every collision is in more documents: nothing is cut out, and all is said
    corpora.prepare(path, tmp_path / "out", "dedup.rule=none", against, common)
    return shards.prepare(corpus.prepared(str(tmp_path / "out"))), tmp_path / "again.jsonl.gz"


def test_a_run_says_how_it_answers_what_is_in_its_training_text(prepared, tmp_path):
    data, path = prepared
    spec = make_run(tmp_path / "out")
    spec = replace(spec, model=replace(spec.model, n_ctx=128))
    model = registry.of(spec.model).build(spec.model, kernel="softmax")
    model.init_weights(0)
    contents = {"copy": fingerprint([str(path)])}
    evals = EvalSpec(
        tasks=("copy", "addition_2"),
        shots=(0,),
        items=ITEMS,
        validation_tokens=256,
        files={"copy": [str(path)]},
        contents=contents,
    )
    table = runner.evaluate(model, spec, evals, data, FP32)
    _, asked, generated = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    assert (asked["gram"], asked["dirty"]) == (13, len(PLANTED))
    right = asked["dirty"] * asked["accuracy_dirty"] + (ITEMS - asked["dirty"]) * asked["accuracy_clean"]
    assert right == pytest.approx(ITEMS * asked["accuracy"])
    assert [generated[name] for name in OVERLAP] == [None] * len(OVERLAP)
    run = RunDir(tmp_path / "root", spec.run_id)
    run.create(spec)
    run.write_evaluation(evals.eval_id, table)
    assert runner.evaluate(None, spec, evals, data, FP32, known=run.measurements()) == table


ENCODING = tokenizer.load("gpt2:300")
PROMPTS = [Prompt(text="Q", answer=right, choices=("a", "b")) for right in "abbab"]


@pytest.mark.parametrize(
    "task",
    [
        Task(kind="multiple_choice", source=None, metric="choice"),
        Task(kind="cloze", source=None, stop=""),
        Task(kind="generate", source=None, metric="match", answer_tokens=1),
    ],
)
def test_each_half_has_the_accuracy_of_its_own_questions(task):
    prompts = PROMPTS if task.kind == "multiple_choice" else [Prompt(text=p.text, answer=p.answer) for p in PROMPTS]

    def score(dirty):
        cases = [scoring.case(task, prompt, ENCODING) for prompt in prompts]
        flags = Overlap(gram=8, dirty=tuple(n in dirty for n in range(5)))
        return scoring.score(Certain(ENCODING, "a"), task, cases, ENCODING, FP32, overlap_of=flags)

    found = score({0, 1, 3})
    assert [found[name] for name in OVERLAP] == [8, 3, pytest.approx(2 / 3), 0.0]
    assert found["accuracy"] == pytest.approx(2 / 5)
    none = score(())
    assert [none[name] for name in OVERLAP] == [8, 0, None, pytest.approx(2 / 5)]
