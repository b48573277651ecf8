"""The folder that data preparation fills: whose it is, whether it is whole and of this text, who is at it."""

from __future__ import annotations

import os

import pytest

from gpt3core.data.prepare import pipeline, task
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files
from tests.gpt3core import corpora
from tests.gpt3core.corpora import PLAIN, prepare


def test_two_attempts_at_one_task_do_not_meet(tmp_path):
    out = tmp_path / "01-read-x"
    with task.folder(out) as first:
        (first / "chunk").write_text("of the first")
        with task.folder(out) as second:
            assert list(second.iterdir()) == []
            (second / "chunk").write_text("of the second")
        (first / "counts").write_text("of the first")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"chunk": "of the second"}
    assert list(tmp_path.iterdir()) == [out], "nothing of the other stays"


def test_a_whole_folder_of_text_that_changed_is_refused(tmp_path, capsys):
    path = corpora.write(tmp_path / "text")
    words = ("quality.rule=none", "dedup.rule=none")
    prepare(path, tmp_path / "out", *words)
    wiki, owls = tmp_path / "text" / "wiki.jsonl", tmp_path / "text" / "sets" / "owls.jsonl"
    for changed in (wiki, owls):
        before, at = changed.read_text(), changed.stat()
        changed.write_text(before + '{"text": "one more"}\n')
        with pytest.raises(UsageError, match=r"out was prepared from other text: .* give another folder"):
            prepare(path, tmp_path / "out", *words)
        changed.write_text(before)
        os.utime(changed, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert prepare(path, tmp_path / "out", *words) == 0
    assert "not looked at" not in capsys.readouterr().out
    wiki.unlink()
    assert prepare(path, tmp_path / "out", *words) == 0
    said = capsys.readouterr().out
    assert "whether its text is still the same was not looked at: sources.wiki.path=" in said


def test_a_whole_folder_of_former_rules_is_taken_as_it_is_and_that_is_said(tmp_path, capsys, monkeypatch):
    path = corpora.write(tmp_path / "text")
    prepare(path, tmp_path / "out", *PLAIN)
    former = pipeline.FORMAT
    monkeypatch.setattr(pipeline, "FORMAT", former + 1)
    capsys.readouterr()
    assert prepare(path, tmp_path / "out", *PLAIN) == 0  # once "prepared from other text", which is not so
    said = " ".join(capsys.readouterr().out.split())
    assert f"prepared by version {former} of the rules, this isoflop has {former + 1}: runs can go on with it" in said
    with open(tmp_path / "text" / "wiki.jsonl", "a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UsageError, match="out was prepared from other text"):
        prepare(path, tmp_path / "out", *PLAIN)


def test_a_folder_that_got_whole_while_one_waited_is_not_made_again(tmp_path, monkeypatch):
    path, locked = corpora.write(tmp_path / "text"), files.locked

    def filled_before(lock, **how):
        monkeypatch.setattr(files, "locked", locked)
        prepare(path, tmp_path / "out", *PLAIN)
        return locked(lock, **how)

    monkeypatch.setattr(files, "locked", filled_before)
    assert prepare(path, tmp_path / "out", *PLAIN, spread=lambda _: pytest.fail("made again")) == 0


@pytest.mark.parametrize("name", ["work", "decisions", "web"])
def test_a_folder_of_ones_own_is_refused_whatever_its_name(tmp_path, name):
    mine = tmp_path / "out" / name / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(UsageError, match=f"holds {name} already: give a new or empty folder"):
        prepare(corpora.write(tmp_path / "text"), tmp_path / "out")
    assert mine.read_text() == "years of work"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_two_commands_do_not_fill_one_folder(tmp_path):
    path = corpora.write(tmp_path / "text")
    with files.locked(tmp_path / "out" / ".lock"), pytest.raises(StoreError, match="another command is filling"):
        prepare(path, tmp_path / "out")
