"""Starts beside one another on the mock cluster: nobody waits for one, and one that fails leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sweeps.cluster import forming, pool
from sweeps.cluster.gang import FORMING, ROOM, RUNNING, Gangs
from sweeps.cluster.launcher import Launcher
from tests.cluster.conftest import everything_free
from tests.cluster.test_mock_cluster import GPU, HOLD, PAIR, WHOLE, a_job, finish, places, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LONG = 30.0  # a wait that ends only by being told


def gpu_nodes(launcher):
    return [node.name for node in launcher.inventory() if node.total.gpus]


def test_an_end_is_told(launcher, mock_cluster, tmp_path):
    """The driver does not ask: of a run that it started, of one that it adopted, and of a worker that dies."""
    import ray

    node = gpu_nodes(launcher)[0]
    launcher.start("x", {node: 1}, GPU, HOLD, a_job(tmp_path))
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 1)
    namespace = launcher._connection.namespace
    ray.shutdown()
    adopted = Launcher(namespace, address=mock_cluster)
    launcher._teams, launcher._pool = adopted._teams, adopted._pool  # for the fixture to end
    (tmp_path / "release").touch()
    assert waited(adopted) == {"x": "done"}
    adopted.start("y", {node: 1}, GPU, HOLD, a_job(tmp_path))
    assert waited(adopted) == {"y": "done"}
    adopted.start("z", {node: 1}, GPU, "tests.cluster.bodies:crash", a_job(tmp_path))
    assert waited(adopted) == {"z": "lost"}


def waited(launcher):
    """What one long wait is ended by."""
    wait_until(lambda: all(team.stage == RUNNING for team in launcher._teams.values()))
    began = time.monotonic()
    launcher.wait(LONG)
    assert time.monotonic() - began < LONG / 2
    return {u.run_id: u.state for u in launcher.poll() if u.state != "running"}


@pytest.mark.soak
def test_gangs_form_beside_one_another_and_the_driver_waits_for_none(launcher, tmp_path, monkeypatch):
    nodes, job = gpu_nodes(launcher), a_job(tmp_path)
    (tmp_path / "release").touch()
    launcher.start("warm", {nodes[0]: 1}, PAIR, HOLD, job)  # an idle worker that must make room first
    wait_until(lambda: [u.state for u in launcher.poll()] == ["done"])
    (tmp_path / "release").unlink()
    go, group = threading.Event(), Gangs.group  # no group is there before the driver has done all of its own
    monkeypatch.setattr(Gangs, "group", lambda self, team: go.wait(60) and group(self, team))
    for index, node in enumerate(nodes):
        launcher.start(f"gang{index}", {node: 2}, PAIR, HOLD, job)
    assert launcher._teams["gang0"].stage == ROOM, "the cluster does not know yet that the idle worker is gone"
    assert len(launcher.running()) == 3, "what they ask for counts as taken"
    wait_until(lambda: (launcher.poll(), {team.stage for team in launcher._teams.values()})[1] == {FORMING})
    assert launcher.others() == []
    go.set()
    wait_until(lambda: (launcher.poll(), len(list(tmp_path.glob("started/*"))) == 1 + 3 * 2)[1])
    assert launcher.others() == []
    assert set(finish(launcher, tmp_path, ["gang0", "gang1", "gang2"]).values()) == {"done"}


def hog(launcher, node):
    """Somebody else's task that holds a whole node."""
    import ray

    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    held = ray.remote(lambda: time.sleep(120)).options(num_cpus=0, num_gpus=4, scheduling_strategy=affinity).remote()
    wait_until(lambda: ray.available_resources().get("GPU") == 8)
    return held


@pytest.mark.soak
def test_a_gang_without_a_group_gives_all_back_and_one_taken_back_too(launcher, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(forming, "GROUP_SECONDS", 1.0)
    nodes = gpu_nodes(launcher)
    held = hog(launcher, nodes[0])
    launcher.start("x", dict.fromkeys(nodes, 1), WHOLE, HOLD, a_job(tmp_path))
    ended = []
    wait_until(lambda: ended.extend(u for u in launcher.poll() if u.state != "running") or ended)
    assert (ended[0].state, ended[0].run_id) == ("unstarted", "x")
    assert "no placement group within 1 s" in ended[0].error

    monkeypatch.setattr(forming, "GROUP_SECONDS", 60.0)
    launcher.start("y", dict.fromkeys(nodes, 1), WHOLE, HOLD, a_job(tmp_path))
    wait_until(lambda: launcher._teams["y"].group is not None or launcher._forming.look())
    launcher.stop("y")
    ended.clear()
    wait_until(lambda: ended.extend(u for u in launcher.poll() if u.state != "running") or ended)
    assert (ended[0].state, ended[0].run_id) == ("stopped", "y")
    assert launcher.running() == []
    ray.cancel(held, force=True)
    assert everything_free()


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from sweeps.cluster import forming
from sweeps.cluster.launcher import Launcher
from tests.cluster.test_mock_cluster import GPU, HOLD, a_job
point = int(sys.argv[4])
launcher = Launcher(sys.argv[1], address=sys.argv[2], orphan_seconds=60.0)
nodes = [n.name for n in launcher.inventory() if n.total.gpus]
made = launcher._pool.member
def dying(*words, **more):
    global point
    if point == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    point -= 1
    return made(*words, **more)
launcher._pool.member = dying
give = forming.give
def dying_give(*words):
    if point == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    give(*words)
forming.give = dying_give
launcher.start("gang", {node: 1 for node in nodes[:2]}, GPU, HOLD, a_job(Path(sys.argv[3])))
while True:
    launcher.poll()
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(0, id="group", marks=pytest.mark.long),
        pytest.param(1, id="one worker", marks=pytest.mark.soak),
        pytest.param(2, id="all workers", marks=pytest.mark.long),
    ],
)
def test_a_driver_killed_in_the_middle_of_a_start_leaves_nothing_that_the_next_does_not_remove(
    launcher, mock_cluster, tmp_path, point
):
    import ray

    (tmp_path / "driver.py").write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(pool.CODE), "RAY_AUTH_MODE": "disabled"}
    name = f"middle-{tmp_path.name}"
    words = [sys.executable, str(tmp_path / "driver.py"), name, mock_cluster, str(tmp_path), str(point)]
    assert subprocess.run(words, env=environment, timeout=90, check=False).returncode == -signal.SIGKILL
    ray.shutdown()
    adopted = Launcher(name, address=mock_cluster)
    launcher._teams, launcher._pool = adopted._teams, adopted._pool  # for the fixture to end
    assert adopted.running() == []
    assert everything_free()
    adopted.start("gang", dict.fromkeys(gpu_nodes(adopted)[:2], 1), GPU, HOLD, a_job(tmp_path))
    assert finish(adopted, tmp_path, ["gang"]) == {"gang": "done"}
    assert len(places(tmp_path, "gang")) == 2


@pytest.mark.soak
def test_a_run_that_is_stopped_before_its_worker_is_born_stops(launcher, tmp_path):
    """As by Ctrl-C in the first seconds: of calls to an actor that is not there yet a later one may come first."""
    birth = Path(os.environ["RAY_TMPDIR"], "birth")
    for index, node in enumerate(gpu_nodes(launcher)):
        launcher.start(f"run{index}", {node: 1}, GPU, "tests.cluster.late:hold", a_job(tmp_path))
    wait_until(lambda: all(team.stage == RUNNING for team in launcher._teams.values()))
    launcher.stop()
    birth.touch()
    wait_until(lambda: (launcher.poll(), not launcher.running())[1])
    birth.unlink()
