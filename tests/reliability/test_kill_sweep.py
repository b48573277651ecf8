"""The short form of kill_sweep.py, with kills in the midst of training: the long form is a script."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from gpt3core.numerics import Numerics
from gpt3core.run import run
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from tests.conftest import write_corpus
from tests.reliability.kill_sweep import descendants, kill, lingering, outcome, same, start, workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def settings(isolated):
    """Two runs of a few seconds, with many checkpoints."""
    return [
        "recipe=smoke",
        "budgets=[5e9]",
        f"data.corpus={write_corpus(isolated / 'text', documents=1500)}",
        "data.tokenizer=gpt2:300",
        "data.max_epochs=1000",
        "evals.tasks=[addition_2]",
        "evals.items=8",
        "evals.validation_tokens=4096",
        "placement.checkpoint_seconds=0.2",
    ]


def said(root):
    return root.with_name(f"{root.name}.log").read_text()


def half_done(root):
    """Runs that have a checkpoint and no result."""
    begun = {path.parents[2] for path in root.glob("runs/*/checkpoints/step-*/manifest.json")}
    return [run for run in begun if not (run / "result.json").exists()]


def until_it_trains(root, driver):
    """Until a run has a checkpoint and has not ended: the longer one takes some seconds from there."""
    deadline = time.monotonic() + 300
    while not half_done(root):
        assert driver.poll() is None, said(root)
        assert time.monotonic() < deadline, said(root)
        time.sleep(0.02)


def undisturbed(swept, root):
    """What the runs of a finished sweep come to here, from first step to last in one process, without a cluster."""
    open_root(root, create=True)
    sweep = SweepDir(swept, "smoke")
    shutil.copytree(sweep.path, SweepDir(root, "smoke").path)
    record = sweep.record()
    numerics = Numerics(**record.numerics["cpu"])
    for run_id in record.runs:
        folder = RunDir(root, run_id)
        folder.create(RunDir(swept, run_id).spec())
        assert run(folder.spec(), record.evals, root, suggested=numerics, checkpoint_seconds=1e9)["status"] == "done"
    return outcome(root)


@pytest.mark.soak
def test_a_killed_driver_and_worker_leave_the_same_bits(head, isolated, settings):
    """On a head that outlives its drivers: the other worker goes on and is adopted."""
    whole, swept = isolated / "whole", isolated / "swept"
    driver = start(swept, head, settings)
    until_it_trains(swept, driver)
    kill([driver.pid, workers(descendants(os.getpid()))[0]])
    driver.wait()
    assert start(swept, head, settings).wait() == 0, said(swept)
    assert same(outcome(swept), undisturbed(swept, whole))


@pytest.mark.soak
def test_a_sweep_killed_with_its_local_ray_ends_with_the_same_bits(isolated, settings):
    """Ray started by the driver dies with it: everything is killed at once."""
    whole, swept = isolated / "whole", isolated / "swept"
    driver = start(swept, os.environ, settings)
    until_it_trains(swept, driver)
    assert "started a local Ray" in said(swept)
    second = start(swept, os.environ, settings)
    assert second.wait() == 2, "a second driver is refused"
    assert "has a driver already" in said(swept)
    tree = descendants(driver.pid)
    kill([driver.pid, *tree])
    driver.wait()
    assert start(swept, os.environ, settings).wait() == 0, said(swept)
    assert "2 of 2 runs done" in said(swept)
    assert same(outcome(swept), undisturbed(swept, whole))
    assert lingering(tree) == []


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_kills():
    done = subprocess.run([sys.executable, "-m", "tests.reliability.kill_sweep", "--kills", "30"], check=False)
    assert done.returncode == 0
