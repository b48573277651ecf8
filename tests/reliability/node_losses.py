"""Nodes of running gangs are taken away, without a word and with a notice: every run ends with the same bits.

  python -m tests.reliability.node_losses --losses 6 --seed 0

A mock cluster of four nodes of one core each; every run of the sweep is a gang of two ranks on two nodes, trained for
real. A node on which a rank trains is removed (as when a machine dies), or drained with a notice of so many seconds
and removed then (as a cloud preempts it); a new node comes in its place. Without a word, a run goes on from its last
checkpoint; with a notice it has written one, and loses no step.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import connect
from sweeps.driving.spending import FREED
from tests.benchmarks.target import target
from tests.reliability.kill_sweep import outcome, same, start

NODES = 4
SETTINGS = (
    "recipe=smoke",
    "budgets=[4e10]",
    "placement.workers=2",
    "placement.cpus=1",
    "placement.checkpoint_seconds=0.3",
)
SETTINGS += ("precision=fp32", "kernel=softmax", "optim.batch_tokens_min=1024", "placement.max_failures=1000")
PATIENCE = 300.0
GAP = 2.0, 8.0  # seconds of training between two losses


class Nodes:
    """A mock cluster whose nodes come and go."""

    def __init__(self, folder: Path) -> None:
        os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder), **connect.UNUSED})
        from ray.cluster_utils import Cluster

        (folder / "ray").mkdir()
        self._store = 80_000_000
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": self._store, "temp_dir": str(folder)}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add() for _ in range(NODES)]
        self.environment = {**os.environ, "RAY_ADDRESS": self._cluster.address}

    def add(self) -> Any:
        """A new node."""
        return self._cluster.add_node(num_cpus=1, object_store_memory=self._store)

    def training(self, root: Path) -> list[Any]:
        """The nodes on which ranks of a run train."""
        names = under_way(root)
        return [node for node in self.nodes if node.node_id in names]

    def lose(self, node: Any) -> None:
        """The node is gone without a word, and another one comes."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes = [other for other in self.nodes if other is not node] + [self.add()]

    def drain(self, node: Any, seconds: float) -> None:
        """Say that the node will be gone after so long; it is, and another one comes."""
        words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the cloud wants it back"]
        words += ["--deadline-remaining-seconds", f"{seconds:g}", "--node-id", node.node_id]
        command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--address", self._cluster.address, *words]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        time.sleep(seconds)
        self.lose(node)

    def close(self) -> None:
        """The end of it."""
        self._cluster.shutdown()


def under_way(root: Path) -> set[str]:
    """The nodes that runs hold, by the driver's log."""
    holding: dict[str, Sequence[str]] = {}
    for event in files.read_lines(SweepDir(root, "smoke").path / "events.jsonl"):
        if event["event"] == "start":
            holding[event["run_id"]] = list(event["allocation"])
        elif event["event"] == FREED:
            holding.pop(event["run_id"], None)
    return {name for allocation in holding.values() for name in allocation}


def disturbed(nodes: Nodes, root: Path, rng: random.Random, losses: int, notice: float) -> Counter[str]:
    """Drive a sweep to its end while nodes are taken away; how many, and how."""
    done: Counter[str] = Counter()
    driver = start(root, nodes.environment, SETTINGS)
    until = time.monotonic() + PATIENCE
    while driver.poll() is None and time.monotonic() < until:
        wait = time.monotonic() + rng.uniform(*GAP)
        while driver.poll() is None and time.monotonic() < wait:
            time.sleep(0.05)
        if sum(done.values()) < losses and driver.poll() is None and (training := nodes.training(root)):
            how = "drained" if sum(done.values()) % 2 else "lost"
            done[how] += 1
            node = rng.choice(training)
            if how == "lost":
                nodes.lose(node)
            else:
                nodes.drain(node, notice)
            until = time.monotonic() + PATIENCE
    assert driver.poll() == 0, root.with_name(f"{root.name}.log").read_text()[-4000:]
    return done


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=6)
    parser.add_argument("--notice", type=float, default=20.0, help="seconds between a drain's notice and its end")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="isoflop-nodes-") as name:
        folder = Path(name)
        (folder / "ray-files").mkdir()
        nodes = Nodes(folder / "ray-files")
        try:
            assert start(folder / "whole", nodes.environment, SETTINGS).wait() == 0
            expected, total, rounds, equal = outcome(folder / "whole"), Counter[str](), 0, True
            while sum(total.values()) < given.losses:
                root = folder / f"round-{rounds}"
                done = disturbed(nodes, root, rng, given.losses - sum(total.values()), given.notice)
                total, rounds = total + done, rounds + 1
                equal &= same(outcome(root), expected)
                events = Counter(e["event"] for e in files.read_lines(SweepDir(root, "smoke").path / "events.jsonl"))
                print(f"round {rounds}: {dict(done)}, same bits so far: {equal}, events {dict(events)}", flush=True)
                assert done or rounds < 20, "the sweeps end before a node can be lost"
        finally:
            nodes.close()
    met = [
        target("nodes_lost_in_gangs", total["lost"], ">=", 3),
        target("nodes_drained_in_gangs", total["drained"], ">=", 3),
        target("node_losses_same_bits", float(equal), "==", 1),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
