"""python -m gpt3core.export: a folder that is whole or not there, and nothing of the user's lost."""

import json
import re
from dataclasses import replace

import pytest
import torch

from gpt3core import export
from gpt3core import run as runs
from gpt3core.errors import DiskFullError
from gpt3core.generate import trained
from gpt3core.generate.trained import open_run
from gpt3core.interop import folder as folders
from gpt3core.interop.folder import import_gpt2
from tests.commands import called
from tests.gpt3core import finetuning, stores

NAMES = sorted(folders.WRITTEN)


pytestmark = pytest.mark.xdist_group("trained store")  # trained once, in one process


@pytest.fixture
def command(store, tmp_path):
    def run(*words, runs=store[0]):
        return called(export.main, [f"runs={runs}", *words], tmp_path)

    return run


def test_a_run_becomes_a_folder_with_its_model(store, command, tmp_path):
    root, done, _ = store
    before = stores.fingerprint(root)
    found = command(f"run={done.run_id}", "out=new/folder")
    out = tmp_path / "new" / "folder"
    said = f"written: {out}, a GPTNeoForCausalLM of {done.run_id} at step 40, with its tokenizer\n"
    assert (found.returncode, found.stdout, found.stderr) == (0, said, "")
    assert sorted(path.name for path in out.iterdir()) == NAMES
    assert [path.name for path in out.parent.iterdir()] == ["folder"], "nothing is left over"
    assert json.loads((out / "isoflop.json").read_text())["run_id"] == done.run_id
    assert stores.fingerprint(root) == before
    ids = torch.arange(32)[None]
    with torch.inference_mode():
        expected = open_run(done.run_id, root=root).model(ids)
        torch.testing.assert_close(import_gpt2(out)(ids), expected, atol=1e-5, rtol=1e-5)


def test_a_folder_that_holds_something_is_not_touched(store, command, tmp_path):
    out, word = tmp_path / "out", f"run={store[1].run_id}"
    out.mkdir()
    assert command(word, f"out={out}").returncode == 0, "an empty folder is free"
    before = stores.fingerprint(out)
    found = command(word, f"out={out}")
    assert found.stderr == f"error: out={out} is not empty: name another folder, or give replace=true\n"
    assert stores.fingerprint(out) == before
    assert command(word, f"out={out}", "replace=true").returncode == 0
    assert stores.fingerprint(out) != before
    (out / "thesis.tex").write_text("mine")
    found = command(word, f"out={out}", "replace=true")
    assert f"out={out} is no export of isoflop's alone (thesis.tex): it is not replaced" in found.stderr
    (out / "thesis.tex").unlink()
    (out / "isoflop.json").unlink()
    assert "(no isoflop.json)" in command(word, f"out={out}", "replace=true").stderr
    assert sorted(path.name for path in out.iterdir()) == [name for name in NAMES if name != "isoflop.json"]


def test_a_write_that_fails_leaves_what_was_there(store, command, tmp_path, monkeypatch):
    out, word = tmp_path / "out", f"run={store[1].run_id}"
    command(word, f"out={out}")
    before = stores.fingerprint(out)

    def full(path, mode):
        if path.name == "merges.txt":
            raise DiskFullError("no room")
        return open(path, mode)

    monkeypatch.setattr(folders, "open", full, raising=False)
    for target in ("out", "other"):
        found = command(word, f"out={target}", "replace=true")
        assert (found.returncode, found.stderr) == (2, "error: no room\n")
    assert stores.fingerprint(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "other"))] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "run=ID and out=DIR are needed"),
        (["run=DONE"], "run=ID and out=DIR are needed"),
        (["out=x"], "run=ID and out=DIR are needed"),
        (["run=d17", "out=x"], "run=d17: no run of .* did you mean d16"),
        (["run=BEGUN", "out=x"], "run .* is not finished"),
        (["run=DONE", "out=file"], "out=.*file cannot be a folder"),
        (["run=DONE", "out=file/x"], "(out=.*x cannot be a folder|cannot write .*) .*"),
        (["run=DONE", "out=" + "x" * 300], "out=.* cannot be a folder"),
        (["run=DONE", "out=x", "step=3"], "step=3 of run"),
        (["run=DONE", "out=x", "layout=gpt2"], "unknown key 'layout'"),
    ],
)
def test_what_cannot_be_is_one_sentence(store, command, tmp_path, words, sentence):
    (tmp_path / "file").write_text("")
    before = stores.fingerprint(tmp_path)
    named = {"DONE": store[1].run_id, "BEGUN": store[2].run_id}
    found = command(*(re.sub("DONE|BEGUN", lambda match: named[match[0]], word) for word in words))
    assert (found.returncode, found.stdout) == (2, "")
    assert re.match(f"error: {sentence}", found.stderr), found.stderr
    assert found.stderr.count("\n") == 1
    assert stores.fingerprint(tmp_path) == before


def test_help_and_keys(command):
    assert "python -m gpt3core.export run=ID out=DIR" in command("--help").stdout
    keys = command("--keys").stdout
    for key in vars(export.ExportSettings()):
        assert f"{key}:" in keys
        assert f"{key}=" in (export.__doc__ or "")


def test_an_export_says_that_the_layout_masks_no_documents(store, tmp_path, monkeypatch, capsys):
    root, done, _ = store
    here = open_run(done.run_id, root=root)
    masked = replace(here.spec.model, document_end=here.encoding.eot_token)
    monkeypatch.setattr(trained, "open_run", lambda *_, **__: replace(here, spec=replace(here.spec, model=masked)))
    assert export.main([f"run={done.run_id}", f"out={tmp_path / 'out'}"]) == 0
    assert "trained with data.mask_documents, which this layout has not: give" in capsys.readouterr().out


def test_an_export_of_a_fine_tuned_run_says_that_its_classifier_is_not_there(parent, labelled_files, tmp_path, capsys):
    root, done = parent
    spec = finetuning.specified(done, *labelled_files)
    runs.run(spec, finetuning.evaluation(spec), root)
    assert export.main([f"run={spec.run_id}", f"runs={root}", f"out={tmp_path / 'out'}"]) == 0
    assert "without the classifier" in capsys.readouterr().out
