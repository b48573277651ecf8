"""Nodes that are taken away with notice, and that are lost inside a gang: on clusters of their own.

pytest -m long tests/cluster/test_losing_nodes.py
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeps import line
from sweeps.cluster import connect
from sweeps.cluster.launcher import Launcher
from tests.cluster.surviving import Gang
from tests.gpt3core import ranks

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]
CHANGED_LAYOUT = 1e-5  # of a step's loss: sums over replicas in another order


@dataclass
class Machines:
    """A cluster whose nodes can be taken."""

    cluster: object
    nodes: list
    environment: dict

    def drain(self, node_id, seconds):
        """As a cloud that takes a machine back says it: ``ray drain-node``."""
        words = ["drain-node", "--address", self.cluster.address, "--node-id", node_id]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"]
        words += ["--deadline-remaining-seconds", str(seconds)]
        command = [sys.executable, "-m", "ray.scripts.scripts", *words]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def kill(self, node_id):
        """The power goes: nothing of the node says a word any more."""
        (node,) = (node for node in self.nodes if node.node_id == node_id)
        for infos in node.all_processes.values():
            for info in infos:
                os.kill(info.process.pid, signal.SIGKILL)


@pytest.fixture
def machines(monkeypatch, isolated):
    """Three nodes of one core beside a head that trains nothing."""
    folder = tempfile.mkdtemp(prefix="isoflop-losing-", dir="/tmp")
    for name, value in {**connect.UNUSED, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}.items():
        monkeypatch.setenv(name, value)
    Path(folder, "ray").mkdir()
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, **small}
    )
    nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(3)]
    cluster.wait_for_nodes()
    yield Machines(cluster=cluster, nodes=nodes, environment={**os.environ, "PYTHONPATH": str(line.CODE)})
    import ray

    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def launcher(machines, tmp_path):
    found = Launcher(f"losing-{tmp_path.name}", address=machines.cluster.address)
    yield found
    found.close()


def test_a_drained_node_is_left_with_a_checkpoint_and_the_run_ends_elsewhere_with_the_same_bits(
    machines, launcher, tmp_path
):
    gang, noticed = Gang(tmp_path, "placement.workers=2"), []

    def chaos():
        machines.drain(gang.ranks()[0][1], 20)
        noticed.append((time.time(), gang.ranks()))

    gang.drive(launcher, chaos)
    assert gang.events("failed") == []
    (told, before), (_, again) = noticed[0], gang.events("start")
    left = before[0][1]
    assert left not in again["allocation"]
    assert again["time"] - told < 15
    assert any(f"{left[:8]} is to be taken away within" in said for said in gang.heard.lines)
    assert gang.sizes() == [2, 2]
    gang.assert_same_bits(tmp_path / "undisturbed", ranks.run)


def test_a_gang_that_loses_a_node_goes_on_with_fewer_replicas_to_the_losses_of_the_whole(machines, launcher, tmp_path):
    words = ["placement.workers=3", "placement.min_workers=1", "placement.shrink_seconds=2"]
    words += ["optim.batch_tokens_min=192", "optim.batch_tokens_max=192"]  # 6 sequences: 3, 2 or 1 replicas share them
    gang = Gang(tmp_path, *words)
    lost = []

    def chaos():
        lost.append(gang.ranks()[1][1])
        machines.kill(lost[0])

    gang.drive(launcher, chaos)
    assert [event["cause"] for event in gang.events("failed")] == ["node"]
    assert lost[0] not in gang.events("start")[-1]["allocation"]
    assert gang.sizes() == [3, 2]
    largest = gang.assert_close(tmp_path / "one", CHANGED_LAYOUT)
    print(f"largest difference of a step's loss: {largest:.1e}")
