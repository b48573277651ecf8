"""Whole searches of Ray Tune over runs, on a Ray that outlives them: killed, repeated, cut short."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.conftest import write_corpus
from tests.test_house import CODE

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]
SEARCH = """
import json, sys
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from sweeps.cluster.tune import trainable

if __name__ == "__main__":
    budgets = [float(b) for b in sys.argv[2].split(",")]
    space = {"widths": tune.grid_search([8, 16]), "budgets": tune.grid_search(budgets)}
    cut = ASHAScheduler(time_attr="training_iteration", grace_period=5, max_t=20, reduction_factor=4)
    tuner = tune.Tuner(
        trainable(*json.loads(sys.argv[1]), space=space),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss", mode="min",
            scheduler=cut if "asha" in sys.argv else None,
            reuse_actors="asha" not in sys.argv,
        ),
        run_config=tune.RunConfig(storage_path=sys.argv[3], verbose=0),
    )
    frame = tuner.fit().get_dataframe()
    print(frame[["run_id", "status", "loss", "flops", "tokens", "training_iteration"]].to_json(orient="records"))
"""


def search(head, folder, name, budgets, *words):
    (folder / "search.py").write_text(SEARCH)
    settings = ["recipe=smoke", f"name={name}", "evals.tasks=[addition_2]", "evals.items=8", "evals.shots=[0]"]
    settings += ["evals.validation_tokens=4096", "data.tokenizer=gpt2:300", "min_tokens=1e3"]
    settings += [f"data.corpus={write_corpus(folder / 'text', documents=1500)}", "placement.checkpoint_seconds=0.3"]
    settings += ["span=100"]
    command = [sys.executable, str(folder / "search.py"), json.dumps(settings), budgets, str(folder / "tune"), *words]
    environment = {**head, "PYTHONPATH": str(CODE), "RAY_AIR_NEW_OUTPUT": "0"}
    log = (folder / f"{name}.log").open("ab")
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)


def told(process, folder):
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, "".join(path.read_text() for path in folder.glob("*.log"))
    return json.loads(out.strip().splitlines()[-1])


def starts(root, name):
    """How often each run was begun, by its driver's words."""
    lines = (SweepDir(root, name).path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["run_id"] for event in events if event["event"] == "start"]


def test_a_killed_search_kills_no_run_and_the_next_trains_nothing_again(head, tmp_path):
    root = Path(head["ISOFLOP_ROOT"])
    first = search(head, tmp_path, "killed", "1e10,2e10")
    sweep, deadline = SweepDir(root, "killed"), time.monotonic() + 300
    while not list(root.glob("runs/*/attempt-*/metrics/part-*")) or sweep.record() is None:
        assert first.poll() is None, (tmp_path / "killed.log").read_text()
        assert time.monotonic() < deadline, "nothing trains"
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    record = sweep.record()
    assert record is not None
    taken = [RunDir(root, run_id) for run_id in record.runs]
    while not all(run.trained for run in taken):
        assert time.monotonic() < deadline, "the runs ended with the search"
        time.sleep(0.2)
    second = told(search(head, tmp_path, "killed", "1e10,2e10"), tmp_path)
    assert {row["status"] for row in second} == {"done"}
    assert len({row["run_id"] for row in second}) == 4
    for row in second:
        run = RunDir(root, row["run_id"])
        table = run.evaluation(sweep.record().evals.eval_id)
        assert table is not None
        assert row["loss"] == pytest.approx(float(table[table.task == "held_out"].loss.iloc[0]), rel=1e-9)
        assert len(run.attempts()) == 1, "trained once"
    again = starts(root, "killed")
    third = told(search(head, tmp_path, "killed", "1e10,2e10"), tmp_path)
    assert sorted(row["loss"] for row in third) == sorted(row["loss"] for row in second)
    assert starts(root, "killed") == again, "nothing was started again"


def test_a_scheduler_stops_runs_with_their_checkpoints(head, tmp_path):
    root = Path(head["ISOFLOP_ROOT"])
    rows = told(search(head, tmp_path, "cut", "4e10", "asha"), tmp_path)
    assert len(rows) == 2
    for row in rows:
        run = RunDir(root, row["run_id"])
        if row["status"] != "done" and not run.trained:
            deadline = time.monotonic() + 60
            while not run.checkpoint_steps():
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert row["run_id"] in SweepDir(root, "cut").stop_requests()
