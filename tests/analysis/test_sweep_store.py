"""A sweep read from a store: what is asked of a run and not measured yet hides nothing that is."""

import gc
import json
from dataclasses import replace

import pandas as pd
import pytest

from analysis.runs import store
from analysis.runs.selection import select
from analysis.settings import RunSettings
from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.evals.runner import COLUMNS
from gpt3core.evals.spec import QUESTION
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.analysis.synthetic import make_store


def test_one_more_task_hides_no_run_until_it_is_measured(isolated):
    root = isolated / "root"
    ids = make_store(root)
    before = store.load(root)
    sweep = SweepDir(root, "laptop")
    record = sweep.record()
    asked = replace(record.evals, tasks=(*record.evals.tasks, "anagrams_1"))
    sweep.write_record(replace(record, evals=asked))
    after = store.load(root)
    assert after.table.equals(before.table)
    assert after.missing == []
    assert after.unmeasured == ids
    longer = replace(asked, validation_tokens=2 * asked.validation_tokens)
    sweep.write_record(replace(record, evals=longer))
    run = RunDir(root, ids[0])
    rows = [{**row, "items": longer.validation_tokens} for row in run.measurements()]
    run.write_evaluation(longer.eval_id, {name: [row[name] for row in rows] for name in rows[0]})
    only = store.load(root)
    assert list(only.table.run_id) == ids[:1], "another measure of the loss is another loss"
    assert only.missing == ids[1:]


def test_of_a_sweep_without_a_finished_run_the_others_are_named(isolated):
    root = isolated / "root"
    make_store(root, evals=False)
    SweepDir(root, "new").path.mkdir()
    SweepDir(root, "new").write_record(replace(SweepDir(root, "laptop").record(), runs=["d8-000000000000"]))
    with pytest.raises(StoreError, match=r"no finished run yet \(1 are missing\); sweep=NAME names another: laptop$"):
        store.load(root, "new")


def test_prompts_of_fewer_questions_are_kept_beside_those_of_the_most(isolated):
    root = isolated / "root"
    ids = make_store(root)
    before, sweep, run = store.load(root), SweepDir(root, "laptop"), RunDir(root, ids[0])
    record = sweep.record()
    few = replace(record.evals, tasks=("anagrams_1",), shots=(0,), seeds=1)
    asked = [replace(few, items=items) for items in (8, 32)]
    for evals in asked:
        names = dict(zip(QUESTION, evals.questions[1], strict=True))
        row = {"fits": True, "metric": "exact", "accuracy": evals.items / 100, **names}
        run.write_evaluation(evals.eval_id, {name: [row.get(name)] for name in COLUMNS})
    sweep.write_record(replace(record, few_shot={evals.eval_id: specs.as_dict(evals) for evals in asked}))
    after = store.load(root)
    of_run = [table[(table.run_id == ids[0]) & (table.task == "anagrams_1")] for table in (after.evals, after.prompts)]
    assert list(of_run[0]["items"]) == [32]
    assert sorted(of_run[1]["items"]) == [8, 32]
    assert len(after.evals) == len(before.evals) + 1


def test_answers_of_runs_are_the_same_rows_however_few_runs_are_held_apart(simulated, monkeypatch):
    """A frame for each of ten thousand was most of what a study takes for a moment, and it left holes."""
    whole, apart, draws = store.load(simulated), [], store._over_draws

    def counted(scores):
        apart.append(sum(type(one) is pd.DataFrame for one in gc.get_objects()))
        return draws(scores)

    monkeypatch.setattr(store, "_over_draws", counted)
    monkeypatch.setattr(store, "AT_ONCE", 2)
    again = store.load(simulated)
    assert len(apart) == len(whole.table) > 20
    assert max(apart) - apart[0] < 10
    assert len(whole.prompts) > len(apart)
    for name in ("evals", "prompts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name))


def test_a_run_that_stopped_early_is_listed_as_it_was_and_left_out_of_fits(isolated):
    root = isolated / "root"
    ids = make_store(root)
    before = store.load(root).table.set_index("run_id")
    run = RunDir(root, ids[3])
    spec, path = run.spec(), run.path / "result.json"
    tokens = spec.tokens_at(spec.steps // 2)
    ended = {**json.loads(path.read_text()), "status": "stopped early", "tokens": tokens, "steps": spec.steps // 2}
    path.write_text(json.dumps(ended))
    row = store.load(root).table.set_index("run_id").loc[ids[3]]
    assert (row.status, row.tokens) == ("stopped early", tokens)
    assert row.loss == before.loc[ids[3]].loss
    assert row.flops_model == pytest.approx(before.loc[ids[3]].flops_model * tokens / spec.tokens)
    chosen = select(RunSettings(runs=str(root)))
    assert {r.name: r.excluded for r in chosen.rules if r.excluded}["stopped-early"] == [ids[3]]
    assert ids[3] not in set(chosen.table.run_id)
    by_name = select(RunSettings(runs=str(root), rules=["diverged"]))
    assert ids[3] in set(by_name.table.run_id), "who wants it may have it"
    (would,) = [r.would_exclude for r in by_name.rules if r.name == "stopped-early"]
    assert would == [ids[3]]
