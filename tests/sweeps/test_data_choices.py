"""Data choices as an axis: what sweeps/data.py prepares and drives, and what it refuses."""

import json
from pathlib import Path

import pytest

from gpt3core.data.prepare.__main__ import main as prepare
from gpt3core.errors import UsageError
from sweeps import command, data_command
from sweeps.data_command import choices, run
from sweeps.planning import recipe as recipes


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A web and a curated source, of which the web has each document twice."""
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    for name, words, times in (("web", "cheap free win", 2), ("books", "whale sea captain", 1)):
        lines = [json.dumps({"text": f"{words} {n} " * 40}) + "\n" for n in range(60)] * times
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"tokenizer: gpt2:300\nquality: {{alpha: 1}}\nsources:\n  web: {{path: {tmp_path}/web.jsonl, role: web}}\n"
        f"  books: {{path: {tmp_path}/books.jsonl}}\n"
    )
    return path


def test_each_choice_has_a_sweep_a_folder_and_words_of_its_own(recipe):
    found = choices(["recipe=smoke", "data.tokenizer=gpt2:300"], {"data": str(recipe), "without": "[quality, dedup]"})
    assert [choice.sweep for choice in found] == ["smoke-all", "smoke-no-quality", "smoke-no-dedup"]
    assert [choice.prepared[1:] for choice in found] == [(), ("quality.rule=none",), ("dedup.rule=none",)]
    assert len({choice.folder for choice in found}) == 3
    again = choices(
        ["recipe=smoke", "name=other", "data.tokenizer=gpt2:300"], {"data": str(recipe), "without": "[dedup]"}
    )
    assert [choice.sweep for choice in again] == ["other-all", "other-no-dedup"]
    assert again[1].folder == found[2].folder, "what is prepared has nothing to do with the ladder"
    (recipe.parent / "books.jsonl").write_text('{"text": "another text"}\n' * 3)
    changed = choices(["recipe=smoke", "data.tokenizer=gpt2:300"], {"data": str(recipe), "without": "[dedup]"})
    assert changed[0].folder != found[0].folder, "another text is another folder"


@pytest.mark.parametrize(
    ("settings", "own", "sentence"),
    [
        ([], {"without": "[dedup]"}, "data=RECIPE is needed"),
        ([], {"data": "five"}, "without=: name what is left out, each once"),
        ([], {"data": "five", "without": "[dedup,dedup]"}, "name what is left out, each once"),
        ([], {"data": "five", "without": "[dedupe]"}, "without=dedupe, did you mean dedup"),
        ([], {"data": "five", "without": "[decontaminate]"}, "changes nothing: the recipe five does not have it"),
        (["data.corpus=/x"], {"data": "five", "without": "[dedup]"}, "says which text it is; leave data.corpus out"),
        (["wokers=2"], {"data": "five", "without": "[dedup]"}, "unknown key 'wokers', did you mean workers"),
        (["widthss=[8]"], {"data": "five", "without": "[dedup]"}, "widthss"),
        ([], {"data": "fife", "without": "[dedup]"}, "no such recipe, did you mean five"),
        (
            ["data.tokenizer=gpt2"],
            {"data": "five", "without": "[dedup]"},
            "prepared with gpt2:1024; give data.tokenizer=",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(settings, own, sentence):
    with pytest.raises(UsageError, match=sentence):
        choices(settings, own)


def test_the_same_ladder_is_driven_on_every_choice_and_a_failure_stops_the_line(recipe, monkeypatch, capsys):
    driven = []

    def sweep(argv, usage):
        driven.append(dict(word.split("=", 1) for word in argv))
        recipes.load(argv)
        return codes.get(driven[-1]["name"], command.DONE)

    monkeypatch.setattr(command, "sweep", sweep)
    words = [
        f"data={recipe}",
        "without=[dedup]",
        "workers=1",
        "recipe=smoke",
        "name=x",
        "seed=3",
        "data.tokenizer=gpt2:300",
    ]
    codes = {}
    assert run(words, usage="") == command.DONE
    assert [one["name"] for one in driven] == ["x-all", "x-no-dedup"]
    assert all(one["recipe"] == "smoke" and one["seed"] == "3" for one in driven)
    manifests = [json.loads((Path(one["data.corpus"]) / "manifest.json").read_text()) for one in driven]
    documents = [manifest["sources"]["web"]["documents"] for manifest in manifests]
    assert sum(documents[1].values()) > sum(documents[0].values()), "copies are in the second"
    said = capsys.readouterr().out
    assert "sweep=[x-no-dedup,x-all]" in said
    assert "both hold out the same of books: there the losses are of one text" in said
    driven.clear()
    codes = {"x-all": command.LIMITED}
    assert run(words, usage="") == command.LIMITED
    assert len(driven) == 2, "a limit is of one sweep"
    codes = {"x-all": command.FAILED}
    assert run(words, usage="") == command.FAILED
    assert len(driven) == 3


def test_the_plan_prepares_nothing(recipe, tmp_path, capsys):
    assert (
        run([f"data={recipe}", "without=[quality]", "recipe=smoke", "data.tokenizer=gpt2:300", "--plan"], usage="")
        == command.DONE
    )
    assert not (tmp_path / "cache" / "prepared").exists()
    assert "its runs can be planned when it is prepared" in capsys.readouterr().out
    assert data_command.LEFT_OUT.keys() == {"quality", "dedup", "decontaminate"}


def test_the_folder_is_the_one_that_the_command_of_its_words_fills(recipe):
    whole, _ = choices(["data.tokenizer=gpt2:300"], {"data": str(recipe), "without": "[dedup]"})
    assert prepare([*whole.prepared, "workers=1", f"out={whole.folder}"]) == 0
    assert (whole.folder / "manifest.json").exists()


@pytest.mark.parametrize(("typed", "meant"), [("outt=/x", "out"), ("worker=2", "workers")])
def test_a_mistyped_key_of_the_preparation_is_met_with_the_one_that_was_meant(typed, meant):
    with pytest.raises(UsageError, match=f"unknown key '{typed.partition('=')[0]}', did you mean {meant}"):
        prepare(["recipe=five", typed])
