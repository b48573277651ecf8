"""The loss that a driver reads off a finished run, against the whole table as pandas reads it."""

import math

import pytest

from gpt3core.errors import StoreError
from gpt3core.store import metrics
from gpt3core.store.rundir import RunDir
from sweeps.driving.results import held_out_loss
from tests.conftest import EVALS

TABLE = {"task": ["copy", "held_out"], "loss": [1.0, 4.25], "loss_se": [0.5, 0.125], "accuracy": [0.5, None]}


def evaluated(root, **columns):
    run = RunDir(root, "x")
    run.write_evaluation(EVALS.eval_id, {**TABLE, **columns})
    return run


def test_the_loss_is_the_tables_own(tmp_path):
    run = evaluated(tmp_path)
    table = run.evaluation(EVALS.eval_id)
    row = table[table.task == "held_out"].iloc[0]
    assert held_out_loss(run, EVALS) == (row.loss, row.loss_se) == (4.25, 0.125)
    rows = metrics.rows(run.evaluation_path(EVALS.eval_id), ["loss", "task"])
    assert rows == table[["loss", "task"]].to_dict("records")


@pytest.mark.parametrize("loss", [math.nan, math.inf, None])
def test_a_loss_that_is_none_is_not_told(tmp_path, loss):
    assert held_out_loss(evaluated(tmp_path, loss=[1.0, loss]), EVALS) is None


def test_what_was_not_measured_is_not_told(tmp_path):
    assert held_out_loss(RunDir(tmp_path, "x"), EVALS) is None
    assert held_out_loss(evaluated(tmp_path, task=["copy", "cloze"]), EVALS) is None


def test_a_table_that_is_damaged_or_lacks_a_column_is_refused(tmp_path):
    run = evaluated(tmp_path)
    path = run.evaluation_path(EVALS.eval_id)
    with pytest.raises(StoreError, match="not a readable table"):
        metrics.rows(path, ["perplexity"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="not a readable table"):
        metrics.rows(path, ["loss"])
    assert held_out_loss(run, EVALS) is None
    with pytest.raises(FileNotFoundError):
        metrics.rows(path.with_name("none.parquet"), ["loss"])
