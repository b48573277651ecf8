"""A run cut by tensor, pipeline and data over two nodes, through the command that a user types."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gpt3core import run as runs
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps import line
from sweeps.cluster import connect
from tests.conftest import EVALS, write_corpus
from tests.reliability import kill_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

RECIPE = """
name: cut
family: shapes
shapes: [{n_layer: 8, d_model: 32, n_head: 2}]
tokens: [15360]
min_tokens: 1000
model: {n_ctx: 32, band: 6}
optim: {batch_tokens_min: 256, batch_tokens_max: 256, lr_max: 0.003}
evals: {tasks: [], validation_tokens: 2048}
precision: fp32
kernel: softmax
"""


@pytest.fixture
def two_nodes(tmp_path, monkeypatch):
    """The environment that reaches a mock cluster of two nodes with room for four workers each, and its processes."""
    root, folder = tmp_path / "root", tempfile.mkdtemp(prefix="isoflop-two-", dir="/tmp")
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # see sweeps/line.py
    for name, value in {**connect.UNUSED, **loopback, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ISOFLOP_ROOT", str(root))
    monkeypatch.setenv("PYTHONPATH", str(line.CODE))
    Path(folder, "ray").mkdir()
    from ray.cluster_utils import Cluster

    dashboard, *agents = line._free_ports(4)  # another Ray of this machine may have the usual ones
    small = [{"object_store_memory": 80_000_000, "dashboard_agent_listen_port": port} for port in agents]
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": dashboard, "temp_dir": folder, **small[0]}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=4, **each) for each in small[1:]]
    cluster.wait_for_nodes()
    raylets = [info.process.pid for node in nodes for info in node.all_processes["raylet"]]
    environment = {**os.environ, "RAY_ADDRESS": f"http://{cluster.head_node.webui_url}"}
    deadline = time.monotonic() + 180
    while submit(["-c", "0"], environment).wait():  # the head's agent, which starts jobs, comes late
        assert time.monotonic() < deadline, "no job can be submitted"
    yield environment, root, raylets
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def submit(words, environment):
    """``ray job submit`` of a Python file with its arguments."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--", sys.executable]
    return subprocess.Popen(
        [*command, *words],
        env=environment,
        cwd=line.CODE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_in(root):
    found = list(root.glob("runs/*"))
    return RunDir(root, found[0].name) if found else None


def started_with(run):
    """The layouts that the attempts began with."""
    events = [event for attempt in run.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    return [
        tuple(event["layout"][name] for name in ("data", "tensor", "pipeline"))
        for event in events
        if event["event"] == "start"
    ]


def test_a_cut_run_is_killed_and_goes_on_by_another_layout_to_the_losses_of_one_process(two_nodes, tmp_path):
    environment, root, raylets = two_nodes
    recipe = tmp_path / "cut.yaml"
    recipe.write_text(RECIPE)
    corpus = write_corpus(tmp_path / "text", documents=1500)
    words = [
        "sweeps/sizes.py",
        f"recipe={recipe}",
        f"data.corpus={corpus}",
        "data.tokenizer=gpt2:300",
        "placement.max_failures=1",
    ]
    words += ["placement.checkpoint_seconds=0.1"]
    first = submit([*words, "placement.workers=8", "placement.tensor=2", "placement.pipeline=2"], environment)
    while (run := run_in(root)) is None or not run.checkpoint_steps():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    ranks = kill_sweep.workers([pid for raylet in raylets for pid in kill_sweep.descendants(raylet)])
    assert len(ranks) == 8
    os.kill(ranks[-1], signal.SIGKILL)
    said, _ = first.communicate()
    assert first.returncode != 0, said
    assert not run.trained, said
    assert 0 < max(run.checkpoint_steps()) < 60
    again = submit([*words, "placement.workers=4", "placement.pipeline=4"], environment)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert "1 of 1 run done" in said
    assert started_with(run) == [(2, 2, 2), (1, 1, 4)]
    runs.run(run.spec(), EVALS, tmp_path / "one")
    losses = run.curve()["loss"].tolist()
    assert len(losses) == 60
    assert losses == pytest.approx(RunDir(tmp_path / "one", run.run_id).curve()["loss"].tolist(), abs=1e-5)
