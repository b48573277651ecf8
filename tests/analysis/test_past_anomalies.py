"""Runs that went on past anomalies: they stay in a fit, with D and C of what they trained on, and a note says so."""

import json

import pytest

from analysis.runs import store
from gpt3core import costs
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store


def met(root, run_id, **said):
    path = RunDir(root, run_id).path / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **said}))


def test_what_was_left_out_counts_in_neither_d_nor_c(isolated):
    root = isolated / "root"
    ids = make_store(root, asked="smoke")
    before = store.load(root)
    assert before.notes == []
    met(root, ids[0], skipped_steps=3, overflows=1, skipped_tokens=9 * 128, anomalies=2)
    met(root, ids[1], roll_backs=2, passed_tokens=5120, skipped_steps=0, skipped_tokens=0)
    met(root, ids[2], status="diverged")
    after = store.load(root)
    old, new = (runs.table.set_index("run_id") for runs in (before, after))
    spec = RunDir(root, ids[0]).spec()
    assert new.tokens[ids[0]] == spec.tokens - 9 * 128
    assert new.flops_model[ids[0]] == pytest.approx(costs.train_flops(spec.model, spec.tokens - 9 * 128))
    assert new.flops_6nd[ids[0]] == pytest.approx(old.flops_6nd[ids[0]] * new.tokens[ids[0]] / spec.tokens)
    assert new.drop(index=ids[:3]).equals(old.drop(index=ids[:3]))
    assert new.loc[ids[1]].equals(old.loc[ids[1]]), "a roll back trains on as many tokens as were asked"
    (note,) = after.notes
    assert (note.code, note.severity) == ("anomalies", "info")
    assert f"{ids[0]} 3 updates left out (1 by fp16's loss scale)" in note.message
    assert f"{ids[1]} 2 roll backs past 5,120 tokens" in note.message
    assert ids[2] not in note.message


def test_a_diverged_run_is_left_out_and_one_that_skipped_is_not(isolated):
    from analysis import api
    from analysis.output import notes

    root = isolated / "root"
    ids = make_store(root, asked="smoke")
    met(root, ids[0], skipped_steps=1, skipped_tokens=128)
    met(root, ids[1], status="diverged")
    study = api.fit(root, bootstrap=1, law="chinchilla")
    codes = {note.code: note.message for note in notes.notes(study)}
    assert ids[1] in codes["rule-diverged"]
    assert ids[0] in codes["anomalies"]
    assert ids[0] not in codes["rule-diverged"]


def test_a_curve_has_no_rows_of_updates_that_were_left_out(isolated):
    run = RunDir(isolated, "d16-0")
    run.path.mkdir(parents=True)
    loss = [3.0, float("nan"), 2.5]
    rows = {"step": [1, 2, 3], "tokens": [4, 8, 12], "loss": loss, "skipped": [False, True, False]}
    run.write_metrics(run.new_attempt(), rows)
    for columns in (None, ("step", "tokens", "loss")):
        curve = store.curve(isolated, "d16-0", columns)
        assert curve.step.tolist() == [1, 3]
        assert "skipped" not in curve
    assert run.curve().skipped.tolist() == [False, True, False]
