"""What a text or the context lacks for the tasks of a sweep is said by the plan, in the worker's own words."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from gpt3core import words
from gpt3core.data import shards, tokenizer
from gpt3core.data.facts import SourceFacts
from gpt3core.errors import UsageError
from gpt3core.evals import enough, runner
from gpt3core.evals.spec import EvalSpec
from sweeps import command
from sweeps.planning import recipe
from sweeps.planning.text import Text, refusal, repeated
from tests.conftest import make_run

SMALL = ("recipe=smoke", "data.tokenizer=gpt2:300", "evals.validation_tokens=4096")
LACKING = [
    (["evals.tasks=[cloze_tales]", "evals.items=5000"], r"task cloze_tales: the held-out text gives \d+ items, 5032"),
    (["evals.tasks=[cloze_kjv]"], "task cloze_kjv: no held-out text of that domain; there are tales"),
    (["evals.tasks=[induction]", "evals.shots=[65]"], "task induction: the corpus has 1 frequent words of one token"),
    (["evals.tasks=[reversed_words]", "evals.items=9001"], "9001 questions and 1000 examples are of a word each"),
    (["evals.tasks=[addition_2]", "evals.shots=[1001]"], "K=1001 examples are asked for, and there are 1000 items"),
]


@pytest.mark.parametrize(("words", "sentence"), LACKING)
def test_what_is_lacking_is_said_by_the_plan_and_before_a_cluster_starts(tales, capsys, words, sentence):
    asked = [*SMALL, f"data.corpus={tales}", *words]
    assert command.sweep([*asked, "--plan"], "") == 0
    planned = " ".join(capsys.readouterr().out.split())
    assert "only to plan, not to run as it stands" in planned and re.search(sentence, planned)
    with pytest.raises(UsageError, match=sentence):
        command.sweep(asked, "")


def test_examples_that_the_context_does_not_hold_are_said_by_the_plan(tales, capsys):
    asked = [*SMALL, f"data.corpus={tales}", "evals.tasks=[addition_2]", "evals.shots=[0,2,50]", "--plan"]
    assert command.sweep(asked, "") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out of fits, for a context of 128 tokens holds no more: addition_2 at 50 " in said


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({"tasks": ("cloze_tales",), "items": 96}, True),
        ({"tasks": ("cloze_tales",), "items": 95}, False),
        ({"tasks": ("addition_2",), "items": 8}, False),
        ({"tasks": ("three_operations",), "items": 8, "n_ctx": 16}, True),
    ],
)
def test_the_plan_refuses_what_a_worker_would(tales, asked, lacking, prepared):
    n_ctx = asked.get("n_ctx", 128)
    asked = {name: value for name, value in asked.items() if name != "n_ctx"}
    run = make_run(tales)
    run = replace(run, data=replace(run.data, tokenizer="gpt2"))
    spec = EvalSpec(**asked, shots=(0, 2))
    if prepared:
        shards.prepare(run.data)

    def said(check):
        try:
            check()
        except ValueError as error:
            return str(error)
        return ""

    run = replace(run, model=replace(run.model, n_ctx=n_ctx))
    planned = said(lambda: enough.check(spec, run.data, n_ctx))
    working = said(lambda: runner.check(run, spec, shards.prepare(run.data)))
    if asked["tasks"] == ("three_operations",):  # of generated questions the plan looks at a few
        planned, working = (re.sub(r"\d+", "N", sentence) for sentence in (planned, working))
    assert planned == working
    assert bool(planned) == lacking


def test_a_text_that_is_not_here_is_not_fetched_to_be_looked_at(monkeypatch):
    def fetched(*_):
        raise AssertionError

    monkeypatch.setattr(subprocess, "run", fetched)
    order = command.read(["recipe=laptop"])
    assert {"copy", "cloze_bible"} <= set(order.grid.evals.tasks)
    command.refuse(order)


def test_a_plan_without_tasks_loads_no_tokenizer(tales, monkeypatch):
    loaded = []
    load, data = tokenizer.load, make_run(tales).data
    monkeypatch.setattr(tokenizer, "load", lambda name: loaded.append(name) or load(name))
    enough.check(EvalSpec(tasks=()), data, 128)
    assert not loaded
    enough.check(EvalSpec(tasks=("addition_2",), items=8, shots=(0,)), data, 128)
    assert loaded


def test_programs_that_may_be_run_are_asked(tales, tmp_path):
    path = tmp_path / "items.jsonl"
    record = (
        '{"prompt": "def f():", "canonical_solution": "    return 1", "test": "def check(f): f()", "entry_point": "f"}'
    )
    path.write_text(f"{record}\n" * 40)
    words = ["evals.tasks=[humaneval_pass]", f"evals.files.humaneval_pass={path}", "evals.items=8", "evals.shots=[0]"]
    asked = [*SMALL, f"data.corpus={tales}", *words]
    command.refuse(command.read([*asked, "evals.run_programs=true"]))
    with pytest.raises(UsageError, match="humaneval_pass runs the programs that a model writes"):
        command.refuse(command.read(asked))


def test_a_question_that_a_classifier_answers_needs_no_room(tales):
    data = make_run(tales).data
    evals = EvalSpec(tasks=("three_operations",), items=8, shots=(0,))
    with pytest.raises(ValueError, match="three_operations"):
        enough.check(evals, data, 8)
    enough.check(evals, data, 8, answered={"three_operations"})
    with pytest.raises(ValueError, match="three_operations"):
        enough.check(replace(evals, shots=(0, 1)), data, 8, answered={"three_operations"})


def test_epochs_are_those_of_the_source_that_is_repeated_most(tales):
    run = make_run(tales)
    sources = {
        "large": SourceFacts(weight=0.5, train_tokens=100 * run.tokens, validation_tokens=9),
        "small": SourceFacts(weight=0.5, train_tokens=run.tokens // 20, validation_tokens=9),
    }
    counted = {"documents": 2, "validation_tokens": 18, "measured_tokens": 18, "resolution": 0.1, "exact": True}
    text = Text(sources=sources, train_tokens=101 * run.tokens, **counted)
    assert text.epochs(run) == pytest.approx(10, rel=0.01)
    chosen = recipe.load(["recipe=smoke"])
    assert " of small more than 4 times " in repeated(text, chosen, [run])
    chosen.data.max_epochs = 9.0
    few = words.count(run.tokens // 20)
    assert f"its {few} training tokens of small more than 9 times" in refusal(text, chosen, [run])
