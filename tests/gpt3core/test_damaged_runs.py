"""Damage to a run's files costs steps and not the result, or is refused."""

from dataclasses import replace

import pytest

from gpt3core import run as runs
from gpt3core.errors import StoreError
from gpt3core.numerics import Numerics
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop
from tests.conftest import EVALS
from tests.gpt3core.outcomes import outcome, run, stopped


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(tiny_run, isolated):
    whole, hurt = isolated / "whole", isolated / "hurt"
    run(tiny_run, whole)
    stopped(tiny_run, hurt, 5)
    folder = stopped(tiny_run, hurt, 5)
    victim = folder.checkpoint(10) / "optimizer-00000.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 4
    victim.write_bytes(raw)
    result = run(tiny_run, hurt)
    assert len(result["damage"]) == 1
    assert "optimizer-00000.safetensors has sha256" in result["damage"][0]
    assert outcome(hurt, tiny_run) == outcome(whole, tiny_run)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"status"', '{"a": 1}'])
def test_a_damaged_result_is_made_again_from_the_last_checkpoint(tiny_run, isolated, monkeypatch, content):
    first = run(tiny_run, isolated)
    before = outcome(isolated, tiny_run)
    path = RunDir(isolated, tiny_run.run_id).path / "result.json"
    path.write_text(content)
    monkeypatch.setattr(loop.Trainer, "_update", lambda *_: pytest.fail("trained"))
    again = run(tiny_run, isolated)
    assert outcome(isolated, tiny_run) == before
    assert again["train_seconds"] == pytest.approx(first["train_seconds"], abs=1e-3)
    (sentence,) = again["damage"]
    assert "its result is damaged" in sentence
    assert len(list(path.parent.glob("damaged-result.json-*"))) == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"precision": "fp8", "kernel": "sdpa", "threads": 1}'])
def test_damaged_numerics_are_those_that_the_attempts_logged(tiny_run, isolated, content):
    spec = replace(tiny_run, precision="auto", kernel="auto")
    folder = stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"))
    (folder.path / "numerics.json").write_text(content)
    result = run(spec, isolated, suggested=Numerics(precision="bf16", kernel="softmax"))
    assert (result["precision"], result["kernel"]) == ("fp32", "sdpa")
    assert "numerics.json is damaged" in result["damage"][0]


def test_damaged_numerics_that_nothing_tells_are_not_guessed(tiny_run, isolated):
    folder = stopped(tiny_run, isolated, 3)
    (folder.path / "numerics.json").write_text("{}")
    (folder.attempts()[0] / "events.jsonl").unlink()
    for _ in range(2):  # trying again does not turn the refusal into a guess
        with pytest.raises(StoreError, match="no attempt logged what it said: bring it back"):
            run(tiny_run, isolated)


def test_lost_numerics_are_those_that_the_attempts_logged(tiny_run, isolated):
    spec = replace(tiny_run, kernel="auto")
    folder = stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"))
    (folder.path / "numerics.json").unlink()
    result = run(spec, isolated, suggested=Numerics(precision="fp32", kernel="softmax"))
    assert result["kernel"] == "sdpa"
    assert "numerics.json is missing" in result["damage"][0]


def test_a_trained_run_without_its_checkpoint_is_not_trained_again(tiny_run, isolated):
    runs.run(tiny_run, EVALS, isolated)
    for folder in RunDir(isolated, tiny_run.run_id).checkpoints.iterdir():
        files.remove_folder(folder)
    more = replace(EVALS, items=9)
    with pytest.raises(StoreError, match="is trained, but its last checkpoint is gone"):
        runs.run(tiny_run, more, isolated)


def test_a_damaged_evaluation_is_made_again(tiny_run, isolated):
    runs.run(tiny_run, EVALS, isolated)
    table = RunDir(isolated, tiny_run.run_id).evaluation_path(EVALS.eval_id)
    whole = table.read_bytes()
    table.write_bytes(whole[:-3])
    runs.run(tiny_run, EVALS, isolated)
    assert table.read_bytes() == whole
