"""One mock cluster for all cluster tests: a head without GPUs and three nodes of four fake ones."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.cluster import connect

NODES, GPUS = 3, 4


@pytest.fixture(scope="package")  # it ends with the last test here: an idle cluster takes a tenth of a core
def mock_cluster() -> Iterator[str]:
    """The address of a running 3 x 4 GPU mock cluster."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ.update(connect.UNUSED)
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="isoflop-mock-", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder  # where Cluster notes its address: not where others look
    Path(folder, "ray").mkdir()
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": 80_000_000,
        "temp_dir": folder,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for index in range(NODES):
        labels = {"ray.io/accelerator-type": "H100", "rack": f"r{index // 2}"}
        cluster.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=80_000_000, labels=labels)
    cluster.wait_for_nodes()
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("RAY_AUTH_MODE", "RAY_TMPDIR", *connect.UNUSED):
        os.environ.pop(name, None)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No watch of a head outlives its test: one whose head is gone ends the process."""
    from sweeps.cluster import launcher
    from sweeps.cluster.head import Head

    watches: list[Head] = []

    def watch(*words: Any, **named: Any) -> Head:
        watches.append(Head(*words, **named))
        return watches[-1]

    monkeypatch.setattr(launcher, "Head", watch)
    yield
    for each in watches:
        each.close()


@pytest.fixture
def launcher(mock_cluster: str, tmp_path, monkeypatch, watched):
    """A launcher on the mock cluster, in a namespace of its own; everything must be free again afterwards."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    import ray

    from sweeps.cluster.launcher import Launcher

    launcher = Launcher(f"test-{tmp_path.name}", address=mock_cluster)
    yield launcher
    for team in list(launcher._teams.values()):
        launcher._dissolve(team)
    launcher._pool.end(launcher._pool.idle)
    free = everything_free()
    ray.shutdown()
    assert free, "something still holds GPUs"


def everything_free(seconds: float = 30.0) -> bool:
    """Whether all GPUs of the mock cluster are free within so long."""
    import ray

    deadline = time.monotonic() + seconds
    while ray.available_resources().get("GPU") != NODES * GPUS:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="package")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that reaches a Ray head which outlives its drivers: the one that ``make sweep`` starts.

    Its jobs and workers have the store and the cache of its environment, not of the test.
    """
    from sweeps import line

    def folders() -> set[Path]:
        return set(Path("/tmp").glob(f"{line.scratch.PREFIX}{os.getpid()}-*"))

    before = folders()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("root", "cache"):
            patch.setenv(f"ISOFLOP_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        with line.head() as environment:
            (folder,) = folders() - before
            yield environment
    assert not folders() - before
    assert line._processes(str(folder), -1, environment["RAY_AUTH_TOKEN"]) == [], "all that was started is gone"
