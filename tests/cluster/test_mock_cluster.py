"""Gangs through the real launcher on a mock Ray cluster of four nodes with eight fake GPUs each."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from gpt3core.store.rundir import open_root
from sweeps.cluster.launcher import Launcher
from sweeps.driving import driver
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job, Refuse, Start, decide

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GPU = Resources(cpus=1, gpus=1)
HOLD = "tests.cluster.bodies:hold"


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def step(launcher, queue, payload, entry=HOLD):
    """One turn of a driver: plan, start; returns the decisions."""
    decisions = decide(time.time(), launcher.inventory(), queue, launcher.running())
    for decision in decisions:
        if isinstance(decision, Start):
            launcher.start(decision.run_id, decision.allocation, GPU, entry, payload)
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


def test_gangs_of_different_sizes_are_placed_whole_and_small_runs_fill_the_gaps(launcher, tmp_path):
    queue = [Job(run_id="g16", worker=GPU, workers=16, seconds=60), Job(run_id="g6", worker=GPU, workers=6, seconds=60)]
    queue += [Job(run_id=f"s{i}", worker=GPU, seconds=30) for i in range(3)]
    decisions = step(launcher, queue, {"root": str(tmp_path)})
    assert all(isinstance(d, Start) for d in decisions)
    allocation = {d.run_id: dict(d.allocation) for d in decisions}
    assert sorted(allocation["g16"].values()) == [8, 8]
    (six,) = allocation["g6"]
    assert allocation["s0"] == allocation["s1"] == {six: 1}, "the gap of the six-GPU gang is filled first"
    wait_until(lambda: len(list(tmp_path.glob("started/*"))) == 25)  # nobody is released before all ranks run
    states = finish(launcher, tmp_path, [job.run_id for job in queue])
    assert set(states.values()) == {"done"}
    for name, expected in allocation.items():
        found = places(tmp_path, name)
        nodes = [p["node"] for p in found]
        assert {node: nodes.count(node) for node in nodes} == expected, f"{name} ran where the plan put it"
    sixteen = places(tmp_path, "g16")
    assert max(p["start"] for p in sixteen) < min(p["end"] for p in sixteen), "all ranks at once"
    assert len({(p["node"], p["gpus"]) for p in sixteen}) == 16, "every rank has a GPU of its own"


def test_a_gang_that_spans_all_nodes_waits_for_them_and_is_not_starved(launcher, tmp_path):
    small = [Job(run_id=f"s{i}", worker=GPU, seconds=5, queued=0.0) for i in range(4)]
    step(launcher, small, {"root": str(tmp_path)})
    big = Job(run_id="all", worker=GPU, workers=32, seconds=60, queued=1.0)
    more = [Job(run_id=f"t{i}", worker=GPU, seconds=1e6, queued=2.0) for i in range(4)]
    held = decide(time.time(), launcher.inventory(), [big, *more], launcher.running())
    assert not any(isinstance(d, Start) for d in held), "long small runs must not pass the gang"
    assert "first in the queue" in held[0].reason
    for i in range(4):
        (tmp_path / f"release-s{i}").touch()
    wait_until(lambda: all(u.state != "running" for u in launcher.poll()))
    began = time.monotonic()
    (start, *_) = step(launcher, [big], {"root": str(tmp_path)})
    assert sorted(start.allocation.values()) == [8, 8, 8, 8]
    assert finish(launcher, tmp_path, ["all"]) == {"all": "done"}
    assert len(places(tmp_path, "all")) == 32
    assert len({p["node"] for p in places(tmp_path, "all")}) == 4
    assert time.monotonic() - began < 100


def test_an_impossible_run_is_refused_at_once(launcher, tmp_path):
    queue = [Job(run_id="huge", worker=GPU, workers=40), Job(run_id="ok", worker=GPU)]
    decisions = step(launcher, queue, {"root": str(tmp_path)})
    refused = [d for d in decisions if isinstance(d, Refuse)]
    assert [d.run_id for d in refused] == ["huge"]
    assert "40 workers of 1 GPU and 1 core at once, which this cluster of 5 nodes" in refused[0].reason
    assert finish(launcher, tmp_path, ["ok"]) == {"ok": "done"}


def test_warm_workers_are_reused_and_make_room_for_gangs(launcher, tmp_path):
    (tmp_path / "release").touch()
    pids = []
    for i in range(3):
        decisions = step(launcher, [Job(run_id=f"w{i}", worker=GPU)], {"root": str(tmp_path)})
        finish(launcher, tmp_path, [f"w{i}"])
        pids.append(places(tmp_path, f"w{i}")[0]["pid"])
    assert len(set(pids)) == 1
    warm = next(iter(decisions[0].allocation))
    launcher.start("gang", {warm: 8}, GPU, HOLD, {"root": str(tmp_path)})
    assert finish(launcher, tmp_path, ["gang"]) == {"gang": "done"}, "the idle worker made room for the gang"


def test_a_dead_worker_is_reported_lost(launcher, tmp_path):
    (tmp_path / "release").touch()
    step(launcher, [Job(run_id="x", worker=GPU)], {"root": str(tmp_path)}, entry="tests.cluster.bodies:crash")
    assert finish(launcher, tmp_path, ["x"]) == {"x": "lost"}
    step(launcher, [Job(run_id="x", worker=GPU)], {"root": str(tmp_path)}, entry="tests.cluster.bodies:crash")
    assert finish(launcher, tmp_path, ["x"]) == {"x": "done"}


def test_a_new_driver_adopts_what_a_dead_one_left_running(launcher, mock_cluster, tmp_path):
    queue = [Job(run_id="gang", worker=GPU, workers=8), Job(run_id="one", worker=GPU)]
    step(launcher, queue, {"root": str(tmp_path)})
    wait_until(lambda: all(u.progress for u in launcher.poll()))
    import ray

    namespace = launcher._namespace
    ray.shutdown()  # the first driver is gone without a word
    adopted = Launcher(namespace, address=mock_cluster)
    launcher._teams, launcher._idle, launcher._ray = adopted._teams, adopted._idle, adopted._ray
    assert sorted(run.run_id for run in adopted.running()) == ["gang", "one"]
    assert sorted(sum(run.allocation.values()) for run in adopted.running()) == [1, 8]
    assert finish(adopted, tmp_path, ["gang", "one"]) == {"gang": "done", "one": "done"}
    launcher._idle = adopted._idle  # for the fixture to end
    assert len({p["pid"] for p in places(tmp_path, "gang")}) == 8, "no rank was started twice"


def test_a_whole_sweep_of_gangs(launcher, tmp_path):
    chosen = recipe.load(["recipe=smoke", "placement.workers=8", "placement.gpus=1", "optim.batch_tokens_min=1024"])
    runs = grid.build(chosen, "0" * 64).runs
    runs += [replace(run, seed=1) for run in runs]
    open_root(tmp_path, create=True)
    (tmp_path / "release").touch()

    class Quiet:
        def say(self, line): ...
        def show(self, snapshot): ...
        def close(self): ...

    with driver.owned(tmp_path, chosen.name) as folder:
        outcome = driver.Driver(chosen, runs, tmp_path, folder, launcher, Quiet(), entry=HOLD).drive()
    assert sorted(outcome.done) == sorted(run.run_id for run in runs)
    assert outcome.failed == {}


def test_data_parallel_training_on_a_gang(launcher, tmp_path, isolated):
    """Two ranks on fake GPUs train on the CPU by gloo and leave one result."""
    from gpt3core import spec as specs
    from gpt3core.store.rundir import RunDir
    from tests.conftest import make_run, write_corpus

    run = make_run(write_corpus(tmp_path / "text"), steps=10)
    payload = {
        "spec": specs.to_json(run),
        "root": str(tmp_path),
        "device": "cpu",
        "numerics": None,
        "checkpoint_seconds": 1.0,
    }
    payload |= {"peak_flops": None, "usd_per_hour": 0.0}
    step(launcher, [Job(run_id=run.run_id, worker=GPU, workers=2)], payload, entry="sweeps.cluster.worker:train")
    assert finish(launcher, tmp_path, [run.run_id]) == {run.run_id: "done"}
    result = RunDir(tmp_path, run.run_id).result()
    assert result is not None
    assert result["devices"] == 2
    assert result["status"] == "done"
