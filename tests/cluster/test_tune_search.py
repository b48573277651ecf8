"""A search of hyperparameters on a real Ray, killed in the midst and started again; what comes of it is used."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.settings import HparamSettings
from analysis.tuning.study import tune
from gpt3core import rule
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.conftest import write_corpus
from tests.test_house import CODE

RECIPE = """
family: shapes
name: tiny
shapes: [{n_layer: 1, d_model: 8, n_head: 2}, {n_layer: 1, d_model: 16, n_head: 2}]
tokens: [20000, 40000]
min_tokens: 1.0e4
model: {n_ctx: 32, attention: dense}
data: {corpus: CORPUS, tokenizer: "gpt2:300", validation_fraction: 0.1, max_epochs: 1000}
optim: {batch_tokens_min: 256, batch_tokens_max: 256}
precision: fp32
kernel: softmax
evals: {tasks: [], validation_tokens: 2048}
placement: {checkpoint_seconds: 1.0}
search: {trials: 10, batch: [0.5, 2.0], warmup_fraction: [0.1, 0.2]}
"""
TRIALS = 4 * 10


def start(recipe: Path) -> subprocess.Popen[str]:
    """The command, in a session of its own."""
    words = [sys.executable, "sweeps/hparams.py", f"recipe={recipe}"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words,
        cwd=CODE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def results(root: Path) -> dict[str, float]:
    """The runs that have ended, and when."""
    return {path.parent.name: path.stat().st_mtime for path in root.glob("runs/*/result.json")}


@pytest.mark.long
@pytest.mark.cluster
def test_a_search_that_is_killed_goes_on_and_its_rule_is_used(isolated):
    write_corpus(isolated / "text", documents=2000)
    recipe = isolated / "tiny.yaml"
    recipe.write_text(RECIPE.replace("CORPUS", str(isolated / "text")))
    root = isolated / "root"
    first = start(recipe)
    deadline = time.monotonic() + 150
    while len(results(root)) < 5:
        assert first.poll() is None and time.monotonic() < deadline, first.stdout.read() if first.poll() else "too slow"
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = results(root)
    attempts = {run_id: len(RunDir(root, run_id).attempts()) for run_id in before}
    second = start(recipe)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert "lr*(N, D) =" in said
    after = results(root)
    assert {run_id: after[run_id] for run_id in before} == before, "what had ended was not trained again"
    assert {run_id: len(RunDir(root, run_id).attempts()) for run_id in before} == attempts
    record = SweepDir(root, "tiny").record()
    assert len(record.runs) == TRIALS
    assert set(record.pruned) | set(after) == set(record.runs), "every trial ended, or was stopped at a rung"
    assert record.pruned and not set(record.pruned) & set(after)
    assert all(RunDir(root, run_id).checkpoint_steps() for run_id in record.pruned), "a stopped one can be resumed"
    found = rule.read(str(root / "sweeps" / "tiny" / "rule.yaml"))
    points = tune(HparamSettings(runs=str(root), sweep="tiny")).table
    assert set(points.run_id) <= set(after), "a stopped trial is no point of the law"
    assert found.fitted.runs <= len(points), "of those near the best of their pair, which ones depends on the order"
    third = subprocess.run(
        [sys.executable, "sweeps/hparams.py", f"recipe={recipe}", "--plan"], cwd=CODE, capture_output=True, text=True
    )
    assert f"tried already: {TRIALS} ended, {len(record.pruned)} of them stopped; 0 cut off" in third.stdout
