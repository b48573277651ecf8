"""A sweep read from a store: what is asked of a run and not measured yet hides nothing that is."""

from dataclasses import replace

from analysis.runs import store
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
