"""Gangs through the real launcher on a mock Ray cluster of three nodes with four fake GPUs each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import hearing, pool
from sweeps.cluster.job import Job
from sweeps.cluster.launcher import Launcher
from sweeps.driving import driver, taking
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job as Queued
from sweeps.scheduling.scheduler import Refuse, Start, decide
from tests.cluster.conftest import everything_free
from tests.conftest import EVALS, make_run, write_corpus

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GPU = Resources(cpus=1, gpus=1)
PAIR = Resources(cpus=1, gpus=2)  # half a node
WHOLE = Resources(cpus=1, gpus=4)  # all of a node
HOLD = "tests.cluster.bodies:hold"


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def a_job(root):
    """Something to hand to the bodies; they need its root only."""
    spec = make_run(write_corpus(root / "text", documents=1), steps=1)
    return Job(spec=spec, evals=EVALS, root=root, device="cpu")


def step(launcher, queue, job, entry=HOLD):
    """One turn of a driver: decide, start; returns the decisions."""
    decisions = decide(time.time(), launcher.inventory(), queue, launcher.running())
    for decision in decisions:
        if isinstance(decision, Start):
            (asked,) = (queued for queued in queue if queued.run_id == decision.run_id)
            launcher.start(decision.run_id, decision.allocation, asked.worker, entry, job)
    return decisions


def finish(launcher, root, names):
    """Release all bodies and poll until the named runs have ended; their final states."""
    (root / "release").touch()
    states = {}

    def over():
        states.update({u.run_id: u.state for u in launcher.poll() if u.state != "running"})
        return set(names) <= set(states)

    wait_until(over, 120)
    return states


def places(root, name):
    return [json.loads(path.read_text()) for path in sorted((root / "places").glob(f"{name}-*.json"))]


@pytest.mark.soak
def test_gangs_of_different_sizes_are_placed_whole_and_small_runs_fill_the_gaps(launcher, tmp_path):
    queue = [
        Queued(run_id="g4", worker=PAIR, workers=4, seconds=60),
        Queued(run_id="g2", worker=GPU, workers=2, seconds=60),
    ]
    queue += [Queued(run_id=f"s{i}", worker=GPU, seconds=30) for i in range(2)]
    decisions = step(launcher, queue, a_job(tmp_path))
    assert all(isinstance(d, Start) for d in decisions)
    allocation = {d.run_id: dict(d.allocation) for d in decisions}
    assert sorted(allocation["g4"].values()) == [2, 2]
    (two,) = allocation["g2"]
    assert allocation["s0"] == allocation["s1"] == {two: 1}, "they fill the gap beside the small gang"
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 8)  # nobody is released before all ranks run
    states = finish(launcher, tmp_path, [job.run_id for job in queue])
    assert set(states.values()) == {"done"}
    for name, expected in allocation.items():
        found = places(tmp_path, name)
        nodes = [p["node"] for p in found]
        assert {node: nodes.count(node) for node in nodes} == expected, f"{name} ran where the plan put it"
    four = places(tmp_path, "g4")
    assert max(p["start"] for p in four) < min(p["end"] for p in four), "all ranks at once"
    assert len({(p["node"], gpu) for p in four for gpu in p["gpus"].split(",")}) == 8, "GPUs of its own for every rank"


@pytest.mark.soak
def test_a_gang_that_spans_all_nodes_waits_for_them_and_is_not_starved(launcher, tmp_path):
    small = [Queued(run_id=f"s{i}", worker=GPU, seconds=5, queued=0.0) for i in range(3)]
    step(launcher, small, a_job(tmp_path))
    big = Queued(run_id="all", worker=WHOLE, workers=3, seconds=60, queued=1.0)
    more = [Queued(run_id=f"t{i}", worker=GPU, seconds=1e6, queued=2.0) for i in range(4)]
    held = decide(time.time(), launcher.inventory(), [big, *more], launcher.running())
    assert not any(isinstance(d, Start) for d in held), "long small runs must not pass the gang"
    assert "first in the queue" in held[0].reason
    for i in range(3):
        (tmp_path / f"release-s{i}").touch()
    wait_until(lambda: all(u.state != "running" for u in launcher.poll()))
    (start, *_) = step(launcher, [big], a_job(tmp_path))
    assert sorted(start.allocation.values()) == [1, 1, 1]
    assert finish(launcher, tmp_path, ["all"]) == {"all": "done"}
    assert [len(p["gpus"].split(",")) for p in places(tmp_path, "all")] == [4, 4, 4]
    assert len({p["node"] for p in places(tmp_path, "all")}) == 3


def test_an_impossible_run_is_refused_at_once(launcher, tmp_path):
    queue = [Queued(run_id="huge", worker=GPU, workers=14), Queued(run_id="ok", worker=GPU)]
    decisions = step(launcher, queue, a_job(tmp_path))
    refused = [d for d in decisions if isinstance(d, Refuse)]
    assert [d.run_id for d in refused] == ["huge"]
    assert "14 workers of 1 GPU and 1 core at once, which this cluster of 4 nodes" in refused[0].reason
    assert finish(launcher, tmp_path, ["ok"]) == {"ok": "done"}


def test_warm_workers_are_reused_and_make_room_for_gangs(launcher, tmp_path):
    (tmp_path / "release").touch()
    pids = []
    for i in range(3):
        decisions = step(launcher, [Queued(run_id=f"w{i}", worker=GPU)], a_job(tmp_path))
        finish(launcher, tmp_path, [f"w{i}"])
        pids.append(places(tmp_path, f"w{i}")[0]["pid"])
    assert len(set(pids)) == 1
    warm = next(iter(decisions[0].allocation))
    launcher.start("gang", {warm: 2}, PAIR, HOLD, a_job(tmp_path))
    assert finish(launcher, tmp_path, ["gang"]) == {"gang": "done"}, "the idle worker made room for the gang"


def test_a_dead_worker_is_reported_lost(launcher, tmp_path):
    (tmp_path / "release").touch()
    step(launcher, [Queued(run_id="x", worker=GPU)], a_job(tmp_path), entry="tests.cluster.bodies:crash")
    assert finish(launcher, tmp_path, ["x"]) == {"x": "lost"}
    step(launcher, [Queued(run_id="x", worker=GPU)], a_job(tmp_path), entry="tests.cluster.bodies:crash")
    assert finish(launcher, tmp_path, ["x"]) == {"x": "done"}


def test_a_new_driver_adopts_what_a_dead_one_left_running(launcher, mock_cluster, tmp_path):
    queue = [Queued(run_id="gang", worker=GPU, workers=2), Queued(run_id="one", worker=GPU)]
    step(launcher, queue, a_job(tmp_path))
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 3)  # every rank has begun
    wait_until(lambda: all(u.progress for u in launcher.poll()))
    import ray

    namespace = launcher._connection.namespace
    ray.shutdown()  # the first driver is gone without a word
    adopted = Launcher(namespace, address=mock_cluster)
    launcher._teams, launcher._pool = adopted._teams, adopted._pool  # for the fixture to end
    assert sorted(run.run_id for run in adopted.running()) == ["gang", "one"]
    assert sorted(sum(run.allocation.values()) for run in adopted.running()) == [1, 2]
    assert finish(adopted, tmp_path, ["gang", "one"]) == {"gang": "done", "one": "done"}
    assert len({p["pid"] for p in places(tmp_path, "gang")}) == 2, "no rank was started twice"


@pytest.mark.soak
def test_a_whole_sweep_of_gangs(launcher, tmp_path):
    words = ["recipe=smoke", "budgets=[1e10]", "placement.workers=2", "placement.gpus=1", "optim.batch_tokens_min=1024"]
    chosen = recipe.load(words)
    cells = grid.build(chosen, "0" * 64)
    assert len(cells.runs) == 2
    (tmp_path / "release").touch()
    sweep = SweepDir(tmp_path, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        outcome = driver.Driver(chosen, taken, launcher, Quiet(), entry=HOLD).drive()
    assert sorted(outcome.done) == sorted(run.run_id for run in cells.runs)
    assert outcome.failed == {}


class Quiet:
    def say(self, line): ...
    def show(self, snapshot): ...
    def close(self): ...


def test_data_parallel_training_on_a_gang(launcher, tmp_path, isolated):
    """Two ranks on fake GPUs train on the CPU by gloo and leave one result."""
    run = make_run(write_corpus(tmp_path / "text"), steps=10)
    job = Job(spec=run, evals=EVALS, root=tmp_path, device="cpu", checkpoint_seconds=1.0)
    step(launcher, [Queued(run_id=run.run_id, worker=GPU, workers=2)], job, entry="sweeps.cluster.worker:train")
    assert finish(launcher, tmp_path, [run.run_id]) == {run.run_id: "done"}
    result = RunDir(tmp_path, run.run_id).result()
    assert result is not None
    assert result["devices"] == 2
    assert result["status"] == "done"


@pytest.mark.soak
def test_the_rank_that_knows_the_cause_is_heard(launcher, tmp_path):
    queue = [Queued(run_id="x", worker=GPU, workers=2)]
    step(launcher, queue, a_job(tmp_path), entry="tests.cluster.bodies:break_up")
    ended = []
    wait_until(lambda: ended.extend(u for u in launcher.poll() if u.state != "running") or ended)
    assert (ended[0].error, ended[0].fatal) == ("train.npy is damaged", True)
    assert "Connection closed" in ended[0].ranks[0]
    assert "train.npy is damaged" in ended[0].ranks[1]


def test_a_system_exit_in_a_worker_is_a_failure(launcher, tmp_path):
    step(launcher, [Queued(run_id="x", worker=GPU)], a_job(tmp_path), entry="tests.cluster.bodies:leave")
    ended = []
    wait_until(lambda: ended.extend(u for u in launcher.poll() if u.state != "running") or ended, 30)
    assert ended[0].state == "failed"
    assert "SystemExit: a library gave up" in ended[0].error


def test_one_run_is_stopped_and_the_others_go_on(launcher, tmp_path):
    step(launcher, [Queued(run_id=name, worker=GPU) for name in ("a", "b")], a_job(tmp_path))
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 2)
    launcher.stop("a")
    wait_until(lambda: [run.run_id for run in (launcher.poll(), launcher.running())[1]] == ["b"])
    assert len(list(tmp_path.glob("places/a-0.json"))) == 1
    assert finish(launcher, tmp_path, ["b"]) == {"b": "done"}


def test_idle_workers_give_back_what_they_hold(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher._pool, "idle_seconds", 0.5)
    (tmp_path / "release").touch()
    step(launcher, [Queued(run_id="x", worker=GPU)], a_job(tmp_path))
    assert finish(launcher, tmp_path, ["x"]) == {"x": "done"}
    wait_until(lambda: (launcher.poll(), not launcher._pool.idle)[1], 20)
    assert everything_free()


def test_a_worker_that_never_begins_is_taken_back_and_delays_nobody(launcher, tmp_path, monkeypatch):
    """As when somebody else takes the GPU between the look and the start."""
    import ray

    monkeypatch.setattr(hearing, "START_SECONDS", 3.0)
    node = next(n for n in launcher.inventory() if n.total.gpus)
    others = ray.remote(lambda: time.sleep(60)).options(
        num_cpus=0,
        num_gpus=4,
        scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.name, soft=False),
    )
    holding = others.remote()
    wait_until(lambda: ray.available_resources().get("GPU") == 8)
    launcher.start("x", {node.name: 1}, GPU, HOLD, a_job(tmp_path))
    looks = []
    wait_until(lambda: (looks.append([u for u in launcher.poll() if u.state != "running"]), looks[-1])[1])
    (*before, ended) = looks
    assert ended[0].state == "unstarted"
    assert "did not start" in ended[0].error
    assert before, "a poll does not wait for a worker that is not there"
    assert launcher.running() == []
    ray.cancel(holding, force=True)


DRIVER = """
import sys, time
from pathlib import Path
from sweeps.cluster.launcher import Launcher
from sweeps.scheduling.inventory import Resources
from tests.cluster.test_mock_cluster import GPU, HOLD, a_job
launcher = Launcher(sys.argv[1], address=sys.argv[2], orphan_seconds=2.0)
nodes = [n.name for n in launcher.inventory() if n.total.gpus]
job = a_job(Path(sys.argv[3]))
launcher.start("gang", {nodes[0]: 1, nodes[1]: 1}, GPU, HOLD, job)
launcher.start("one", {nodes[2]: 1}, GPU, HOLD, job)
launcher.claim("all of it", alone=False)
if sys.argv[4:] == ["raise"]:
    while not len(list(Path(sys.argv[3]).glob("started/*"))) == 3:
        launcher.poll()
        time.sleep(0.1)
    launcher.close()
    sys.exit(7)
while True:
    launcher.poll()
    time.sleep(0.1)
"""


def start_driver(mock_cluster, root, *words):
    (root / "driver.py").write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(pool.CODE), "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, str(root / "driver.py"), f"killed-{root.name}", mock_cluster, str(root), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.soak
def test_what_a_killed_driver_leaves_ends_by_itself_and_frees_the_cluster(launcher, mock_cluster, tmp_path):
    """The runs go on to their ends; then no group and no worker is left, though no driver comes back."""
    killed = start_driver(mock_cluster, tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 3)
    assert launcher.claims() == {f"killed-{tmp_path.name}": "all of it"}
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not launcher.claims())
    assert len(list(tmp_path.glob("places/*"))) == 0, "nothing has ended by the driver's death"
    (tmp_path / "release").touch()
    assert everything_free(60)
    assert len(list(tmp_path.glob("places/*"))) == 3, "every rank ended in peace"


@pytest.mark.soak
def test_a_driver_that_leaves_by_an_exception_ends_no_run(launcher, mock_cluster, tmp_path):
    import ray

    left = start_driver(mock_cluster, tmp_path, "raise")
    said, _ = left.communicate(timeout=90)
    assert left.returncode == 7, said
    assert "2 runs are under way: they go on without it" in said
    assert len(list(tmp_path.glob("places/*"))) == 0
    ray.shutdown()
    adopted = Launcher(f"killed-{tmp_path.name}", address=mock_cluster)
    launcher._teams, launcher._pool = adopted._teams, adopted._pool  # for the fixture to end
    assert sorted(run.run_id for run in adopted.running()) == ["gang", "one"]
    assert finish(adopted, tmp_path, ["gang", "one"]) == {"gang": "done", "one": "done"}
