"""The driver on a fake cluster: what is done stays done, failures are retried or reported, two drivers cannot meet."""

import time

import pytest

from gpt3core import costs
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from sweeps import command
from sweeps.cluster.launcher import Update
from sweeps.driving import adaptive, driver
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Running


class FakeCluster:
    """Finishes every run at the next poll, as ``behaviour(run_id, how often it was started)`` says."""

    def __init__(self, root, behaviour=lambda run_id, n: "done", cpus=2.0):
        self.root, self.behaviour, self.cpus = root, behaviour, cpus
        self.started, self._running = [], {}

    def inventory(self):
        return [Node(name="n", total=Resources(cpus=self.cpus))]

    def running(self):
        return list(self._running.values())

    def others(self):
        return []

    def start(self, run_id, allocation, shape, entry, payload):
        self.started.append(run_id)
        self._running[run_id] = Running(run_id=run_id, worker=shape, allocation=allocation)

    def stop(self):
        pass

    def poll(self):
        updates = []
        for run_id in list(self._running):
            del self._running[run_id]
            state = self.behaviour(run_id, self.started.count(run_id))
            if state == "done":
                RunDir(self.root, run_id).finish({"status": "done"})
            fatal = state == "fatal"
            updates.append(
                Update(run_id=run_id, state="failed" if fatal else state, error="because", fatal=fatal, result={})
            )
        return updates


class Silent:
    def __init__(self):
        self.lines, self.snapshots = [], []

    def say(self, line):
        self.lines.append(line)

    def show(self, snapshot):
        self.snapshots.append(snapshot)

    def close(self):
        pass


@pytest.fixture
def smoke(isolated, monkeypatch):
    monkeypatch.setattr(driver, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(driver, "BUSY_SECONDS", 0.0)
    chosen = recipe.load(["recipe=smoke"])
    return chosen, grid.build(chosen, "0" * 64).runs, isolated / "root"


def drive(smoke, cluster, display=None):
    chosen, runs, root = smoke
    with driver.owned(root, chosen.name) as folder:
        return driver.Driver(chosen, runs, root, folder, cluster, display or Silent(), entry="fake:fake").drive()


def test_a_second_sweep_trains_nothing_and_a_larger_one_only_what_is_new(smoke):
    chosen, runs, root = smoke
    first = FakeCluster(root)
    assert len(drive((chosen, runs[:2], root), first).done) == 2
    assert sorted(first.started) == sorted(run.run_id for run in runs[:2])
    second = FakeCluster(root)
    assert len(drive(smoke, second).done) == 4
    assert sorted(second.started) == sorted(run.run_id for run in runs[2:])
    third = FakeCluster(root)
    assert len(drive(smoke, third).done) == 4
    assert third.started == []


def test_long_runs_start_first(smoke):
    cluster = FakeCluster(smoke[2], cpus=1.0)
    drive(smoke, cluster)
    flops = {run.run_id: run.budget_flops for run in smoke[1]}
    assert [flops[run_id] for run_id in cluster.started] == [2e10, 2e10, 1e10, 1e10]


def test_a_lost_worker_is_replaced_and_a_hopeless_run_given_up(smoke, monkeypatch):
    monkeypatch.setattr(driver.time, "time", _clock())
    victim, hopeless, wrong = (run.run_id for run in smoke[1][:3])
    ends = {victim: lambda n: "lost" if n == 1 else "done", hopeless: lambda n: "lost", wrong: lambda n: "fatal"}
    cluster = FakeCluster(smoke[2], lambda run_id, n: ends.get(run_id, lambda n: "done")(n))
    outcome = drive(smoke, cluster)
    assert cluster.started.count(victim) == 2
    assert cluster.started.count(hopeless) == smoke[0].placement.max_failures
    assert cluster.started.count(wrong) == 1
    assert outcome.failed == {hopeless: "because", wrong: "because"}
    assert len(outcome.done) == 2


def _clock():
    now = [0.0]

    def tick():
        now[0] += 1.0
        return now[0]

    return tick


def test_a_busy_run_is_looked_at_again(smoke):
    busy = smoke[1][0].run_id
    cluster = FakeCluster(smoke[2], lambda run_id, n: "busy" if run_id == busy and n < 3 else "done")
    assert len(drive(smoke, cluster).done) == 4
    assert cluster.started.count(busy) == 3


def test_an_impossible_run_is_refused_with_the_reason(smoke):
    display = Silent()
    outcome = drive(smoke, FakeCluster(smoke[2], cpus=0.5), display)
    assert len(outcome.failed) == 4
    assert all("needs 1 core" in reason for reason in outcome.failed.values())


def test_every_waiting_run_has_its_reason_on_display(smoke):
    display = Silent()
    drive(smoke, FakeCluster(smoke[2], cpus=1.0), display)
    waiting = [snapshot.waiting for snapshot in display.snapshots if snapshot.waiting]
    assert waiting
    assert all(reason for snapshot in waiting for reason in snapshot.values())


def test_two_drivers_of_one_sweep_cannot_meet(isolated):
    with driver.owned(isolated, "s"):
        with pytest.raises(StoreError, match=r"has a driver already .*pid"), driver.owned(isolated, "s"):
            pass
        with driver.owned(isolated, "another"):
            pass
    with driver.owned(isolated, "s"):
        pass


def test_workers_that_say_done_without_a_result_are_not_believed(smoke):
    elsewhere = FakeCluster(smoke[2])
    elsewhere.behaviour = lambda run_id, n: "vanished"
    elsewhere.poll = lambda: [
        Update(run_id=run.run_id, state="done", result={})
        for run in [elsewhere._running.pop(r) for r in list(elsewhere._running)]
    ]
    outcome = drive(smoke, elsewhere)
    assert len(outcome.failed) == 4
    assert "shared by all nodes" in next(iter(outcome.failed.values()))


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (driver.Outcome(done=["a"]), 0, "next: python -m analysis.fit"),
        (driver.Outcome(done=["a"], failed={"b": "because"}), 1, "b: because"),
        (driver.Outcome(done=["a"], damage=["run a: the checkpoint of step 5 is damaged"]), 3, "is damaged"),
        (driver.Outcome(interrupted=True), 130, "start the same command again"),
    ],
)
def test_the_exit_code_tells_how_a_sweep_ended(smoke, capsys, outcome, code, said):
    chosen, runs, root = smoke
    assert command._conclude(chosen, runs, outcome, root) == code
    assert said in capsys.readouterr().out


def test_a_run_that_finished_while_no_driver_was_there_counts_once(smoke):
    _, runs, root = smoke
    cluster = FakeCluster(root)

    open_root(root, create=True)
    RunDir(root, runs[0].run_id).create(runs[0])
    RunDir(root, runs[0].run_id).finish({"status": "done"})
    shape = Resources(cpus=1.0)
    cluster._running[runs[0].run_id] = Running(run_id=runs[0].run_id, worker=shape, allocation={"n": 1})
    outcome = drive(smoke, cluster)
    assert sorted(outcome.done) == sorted(run.run_id for run in runs)


class Learning(FakeCluster):
    """Finishes runs with the losses of a known law, two at a time, and times every look of the driver."""

    def poll(self):
        updates = super().poll()
        for update in updates:
            result = RunDir(self.root, update.run_id).path / "result.json"
            run = self.runs[update.run_id]
            n = costs.params(run.model).nonembedding
            loss = 1.2 + 6.0 * (n / 1e3) ** -0.25 + 30.0 * (run.tokens / 1e3) ** -0.3
            result.unlink()
            RunDir(self.root, update.run_id).finish({"status": "done", "loss": loss, **STATISTICS})
        return updates


STATISTICS = {"tokens_per_second": 1e4, "epochs": 0.1, "loss_se": 0.01}


def test_an_adaptive_sweep_spends_its_share_on_the_runs_that_tell_most(isolated, monkeypatch):
    monkeypatch.setattr(driver, "TICK_SECONDS", 0.0)
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=0.45"])
    runs, root = grid.build(chosen, "0" * 64).runs, isolated / "root"
    cluster = Learning(root)
    cluster.runs = {run.run_id: run for run in runs}
    display = Silent()
    outcome = drive((chosen, runs, root), cluster, display)
    flops = {run.run_id: costs.train_flops(run.model, run.tokens) for run in runs}
    spent = sum(flops[run_id] for run_id in outcome.done)
    assert spent <= 0.45 * sum(flops.values())
    assert sorted([*outcome.done, *outcome.not_taken]) == sorted(flops)
    assert outcome.not_taken
    assert any("no further runs" in line for line in display.lines)
    cheapest = sorted({run.budget_flops for run in runs})[:2]
    assert {cluster.runs[i].budget_flops for i in cluster.started[:6]} == set(cheapest)
    dearest = max(flops[run_id] for run_id in cluster.started)
    assert dearest >= 0.9 * max(run.budget_flops for run in runs), "a run near the target tells most"
    assert set(files.read_json(root / "sweeps" / chosen.name / "sweep.json")["not_taken"]) == set(outcome.not_taken)
    again = Learning(root)
    again.runs = cluster.runs
    assert drive((chosen, runs, root), again).done == sorted(outcome.done, key=list(flops).index)
    assert again.started == []


def test_choosing_the_next_run_takes_less_than_a_second(isolated):
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=1.0"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = {run_id: 3.0 + 1e6 / run.tokens for run_id, run in list(runs.items())[:20]}
    began = time.process_time()
    found = adaptive.next_run(chosen, runs, losses, set(losses), lambda run: run.tokens / 1e4)
    assert time.process_time() - began < 1.0
    assert found.run_id not in losses


def test_impossible_adaptive_settings_are_refused():
    with pytest.raises(UsageError, match="adaptive_share"):
        grid.build(recipe.load(["adaptive=true", "adaptive_share=1.5"]), "0" * 64)
