"""The driver on a fake cluster: what is done stays done, failures are retried or reported, nothing ends it early."""

import math
import os
import time
from dataclasses import replace

import pytest

from gpt3core import costs
from gpt3core.errors import DiskFullError, StoreError, UsageError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.cluster.job import Progress, StartError, Update
from sweeps.driving import adaptive, driver, nodes, proposers, status, taking
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Running


class FakeCluster:
    """Finishes every run at the next poll, as ``behaviour(run_id, how often it was started)`` says."""

    def __init__(self, root, behaviour=lambda run_id, n: "done", cpus=2.0):
        self.root, self.behaviour, self.cpus = root, behaviour, cpus
        self.started, self.stopped, self._running, self.polls = [], [], {}, 0

    def inventory(self):
        return [Node(name="n", total=Resources(cpus=self.cpus))]

    def running(self):
        return list(self._running.values())

    def others(self):
        return []

    def start(self, run_id, allocation, shape, entry, job):
        self.started.append(run_id)
        self.evals = job.evals
        self._running[run_id] = Running(run_id=run_id, worker=shape, allocation=allocation)

    def stop(self, run_id=None):
        self.stopped += [i for i in self._running if run_id in (None, i)]

    def finish(self, run_id):
        run = RunDir(self.root, run_id)
        run.write_evaluation(self.evals.eval_id, {"task": [HELD_OUT], "loss": [4.0], "loss_se": [0.01]})
        run.finish({"status": "done"})

    def poll(self):
        self.polls += 1
        updates = []
        for run_id in list(self._running):
            state = "stopped" if run_id in self.stopped else self.behaviour(run_id, self.started.count(run_id))
            step = 0
            if isinstance(state, tuple):
                state, step = state
            if state == "running":
                live = Progress(phase="training", step=step, steps=100)
                updates.append(Update(run_id=run_id, state=state, progress=live))
                continue
            del self._running[run_id]
            if state == "done":
                self.finish(run_id)
            fatal = state == "fatal"
            state = {"fatal": "failed", "vanished": "done"}.get(state, state)
            updates.append(Update(run_id=run_id, state=state, error="because", fatal=fatal, result={}))
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


class Clock:
    """Stands in for ``time``: sleeping is what moves the monotonic clock, the wall clock does as it likes."""

    def __init__(self):
        self.now, self.wall = 1000.0, 1e9

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 0.25)

    def time(self):
        return self.wall


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(driver, "time", found)
    return found


@pytest.fixture
def smoke(isolated, clock):
    chosen = recipe.load(["recipe=smoke"])
    return chosen, grid.build(chosen, "0" * 64), isolated / "root"


def ids(smoke):
    return [run.run_id for run in smoke[1].runs]


def some(smoke, count):
    """The sweep asked with its first few runs only."""
    chosen, cells, root = smoke
    return chosen, grid.Grid(runs=cells.runs[:count], left=[], evals=cells.evals), root


def drive(smoke, cluster, display=None):
    chosen, cells, root = smoke
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        return driver.Driver(chosen, taken, cluster, display or Silent(), entry="fake:fake").drive()


def test_a_second_sweep_trains_nothing_and_a_larger_one_only_what_is_new(smoke):
    root = smoke[2]
    first = FakeCluster(root)
    assert len(drive(some(smoke, 2), first).done) == 2
    assert sorted(first.started) == sorted(ids(smoke)[:2])
    second = FakeCluster(root)
    assert len(drive(smoke, second).done) == 4
    assert sorted(second.started) == sorted(ids(smoke)[2:])
    third = FakeCluster(root)
    assert len(drive(smoke, third).done) == 4
    assert third.started == []


def test_long_runs_start_first(smoke):
    cluster = FakeCluster(smoke[2], cpus=1.0)
    drive(smoke, cluster)
    flops = {run.run_id: run.budget_flops for run in smoke[1].runs}
    assert [flops[run_id] for run_id in cluster.started] == [2e10, 2e10, 1e10, 1e10]


def test_a_lost_worker_is_replaced_and_a_hopeless_run_given_up(smoke):
    victim, hopeless, wrong = ids(smoke)[:3]
    ends = {victim: lambda n: "lost" if n == 1 else "done", hopeless: lambda n: "lost", wrong: lambda n: "fatal"}
    cluster = FakeCluster(smoke[2], lambda run_id, n: ends.get(run_id, lambda n: "done")(n))
    outcome = drive(smoke, cluster)
    assert cluster.started.count(victim) == 2
    assert cluster.started.count(hopeless) == smoke[0].placement.max_failures
    assert cluster.started.count(wrong) == 1
    assert outcome.failed == {hopeless: "because", wrong: "because"}
    assert len(outcome.done) == 2


def test_a_busy_run_is_looked_at_again(smoke):
    busy = ids(smoke)[0]
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
    with SweepDir(isolated, "s").owned():
        with pytest.raises(StoreError, match=r"has a driver already .*pid"), SweepDir(isolated, "s").owned():
            pass
        with SweepDir(isolated, "another").owned():
            pass
    with SweepDir(isolated, "s").owned():
        pass


def test_workers_that_say_done_without_a_result_are_not_believed(smoke, clock):
    cluster = FakeCluster(smoke[2], lambda run_id, n: "vanished")
    began = clock.now
    outcome = drive(smoke, cluster)
    assert sorted(outcome.failed) == sorted(ids(smoke))
    assert all("shared by all nodes" in reason for reason in outcome.failed.values())
    assert cluster.started.count(ids(smoke)[0]) == smoke[0].placement.max_failures
    assert clock.now - began >= driver.VISIBLE_SECONDS


def test_a_result_that_is_seen_a_minute_late_is_taken_and_nothing_is_trained_twice(smoke, clock):
    """As on a network file system, whose cache shows a new file later."""
    late = ids(smoke)[0]
    cluster = FakeCluster(smoke[2], lambda run_id, n: "vanished" if run_id == late else "done")
    moment = clock.now + 60
    sleep = clock.sleep

    def sleep_and_see(seconds):
        sleep(seconds)
        if clock.now > moment and not RunDir(smoke[2], late).trained:
            cluster.finish(late)

    clock.sleep = sleep_and_see
    outcome = drive(smoke, cluster)
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert cluster.started.count(late) == 1


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (driver.Outcome(done=["a"]), 0, "next: python -m analysis.fit"),
        (driver.Outcome(done=["a"], failed={"b": "because"}), 1, "b: because"),
        (driver.Outcome(done=["a"], damage=["run a: the checkpoint of step 5 is damaged"]), 3, "is damaged"),
        (driver.Outcome(done=["a"], held={"b": "stopped on request"}), 1, "b: stopped on request"),
        (driver.Outcome(interrupted=True), 130, "start the same command again"),
    ],
)
def test_the_exit_code_tells_how_a_sweep_ended(smoke, capsys, outcome, code, said):
    chosen, cells, root = smoke
    assert command._conclude(SweepDir(root, chosen.name), len(cells.runs), outcome) == code
    assert said in capsys.readouterr().out


def test_a_run_that_finished_while_no_driver_was_there_counts_once(smoke):
    root, first = smoke[2], ids(smoke)[0]
    cluster = FakeCluster(root)
    cluster.evals = smoke[1].evals
    open_root(root, create=True)
    RunDir(root, first).create(smoke[1].runs[0])
    cluster.finish(first)
    shape = Resources(cpus=1.0)
    cluster._running[first] = Running(run_id=first, worker=shape, allocation={"n": 1})
    display = Silent()
    outcome = drive(smoke, cluster, display)
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert first not in cluster.started
    assert sum(line.startswith(f"done    {first}") for line in display.lines) == 0


# ------------------------------------------------------------------------------------------------- what was asked


def test_a_sweep_is_what_was_asked_under_its_name_or_says_what_drops_out(smoke):
    chosen, _, root = smoke
    drive(smoke, FakeCluster(root))
    cluster = FakeCluster(root)
    with pytest.raises(UsageError, match="2 other runs"):
        drive(some(smoke, 2), cluster)
    assert cluster.started == []
    assert len(SweepDir(root, chosen.name).record().runs) == 4, "a refused command changes nothing"
    vars(chosen)["extend"] = True
    another = grid.build(recipe.load(["recipe=smoke", "seed=1"]), "0" * 64)
    outcome = drive((chosen, another, root), cluster)
    assert len(outcome.done) == 8
    assert len(cluster.started) == 4
    vars(chosen).update(extend=False, replace=True)
    assert len(drive((chosen, another, root), cluster).done) == 4
    assert set(SweepDir(root, chosen.name).record().runs) == {run.run_id for run in another.runs}


def test_extending_trains_what_an_earlier_command_left_undone(smoke):
    """The specifications of runs that this command does not spell come from the store."""
    chosen, _, root = smoke
    hopeless = ids(smoke)[3]
    drive(smoke, FakeCluster(root, lambda run_id, n: "fatal" if run_id == hopeless else "done"))
    vars(chosen)["extend"] = True
    cluster = FakeCluster(root)
    assert len(drive(some(smoke, 2), cluster).done) == 4
    assert cluster.started == [hopeless]


def test_a_new_task_evaluates_the_runs_that_are_trained(smoke):
    chosen, cells, root = smoke
    drive(smoke, FakeCluster(root))
    more = grid.build(recipe.load(["recipe=smoke", "evals.tasks=[copy]"]), "0" * 64)
    assert more.evals.eval_id != cells.evals.eval_id
    cluster = FakeCluster(root)
    assert len(drive((chosen, more, root), cluster).done) == 4
    assert sorted(cluster.started) == sorted(ids(smoke))
    assert all(RunDir(root, i).evaluation_path(more.evals.eval_id).exists() for i in ids(smoke))


def test_adopted_runs_that_are_no_longer_asked_for_are_stopped(smoke):
    cluster = FakeCluster(smoke[2])
    cluster._running["gone"] = Running(run_id="gone", worker=Resources(cpus=1.0), allocation={"n": 1})
    drive(smoke, cluster)
    assert cluster.stopped == ["gone"]


# --------------------------------------------------------------------------------------------------- nodes that die


class Shrinking(FakeCluster):
    """Two nodes; gangs over both run on them, until one dies with everything on it."""

    def __init__(self, root, back_after=math.inf, clock=None):
        super().__init__(root, cpus=1.0)
        self.alive, self.clock, self.back_after, self.died = 2, clock, back_after, math.inf

    def inventory(self):
        return [Node(name=f"n{i}", total=Resources(cpus=self.cpus)) for i in range(self.alive)]

    def poll(self):
        if self._running and self.died == math.inf:
            self.alive, self.died = 1, self.clock.now
            self.behaviour = lambda run_id, n: "lost"
            return super().poll()
        if self.clock.now - self.died > self.back_after:
            self.alive = 2
        self.behaviour = lambda run_id, n: "done"
        return super().poll()


def gangs(smoke):
    smoke[0].placement.workers = 2
    return smoke


def test_a_dead_node_holds_the_gangs_and_fails_none(smoke, clock):
    cluster, display = Shrinking(smoke[2], back_after=120, clock=clock), Silent()
    outcome = drive(gangs(smoke), cluster, display)
    assert outcome.failed == {}
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert any("waits for nodes to come back" in r for s in display.snapshots for r in s.waiting.values())


def test_gangs_whose_node_stays_away_are_held_aloud_after_a_grace(smoke, clock):
    cluster, display = Shrinking(smoke[2], clock=clock), Silent()
    began = clock.now
    outcome = drive(gangs(smoke), cluster, display)
    assert sorted(outcome.held) == sorted(ids(smoke))
    assert outcome.failed == {}
    assert clock.now - began >= nodes.GRACE_SECONDS
    assert any(line.startswith("WAITING for nodes") for line in display.lines)
    assert "start the same command again" in outcome.held[ids(smoke)[0]]


# ----------------------------------------------------------------------------------------------- failures, counted


def state(**details):
    run = grid.build(recipe.load(["recipe=smoke"]), "0" * 64).runs[0]
    return RunState(spec=run, phase=Phase.RUNNING, **details)


def lost(error="its worker died"):
    return Update(run_id="x", state="lost", error=error)


def test_lost_workers_count_only_while_a_run_makes_no_progress():
    run = state()
    for step in range(10, 300, 10):
        run.heard(Progress(phase="training", step=step, steps=1000))
        assert not run.failed(lost(), limit=3, now=0.0)
    assert not run.failed(lost(), limit=3, now=0.0)
    assert run.failed(lost(), limit=3, now=0.0)
    assert run.phase == Phase.FAILED


def test_lost_workers_and_failures_are_counted_apart():
    run = state()
    assert not run.failed(lost(), limit=3, now=0.0)
    assert not run.failed(Update(run_id="x", state="failed"), limit=3, now=0.0)
    assert not run.failed(lost(), limit=3, now=0.0)
    assert not run.failed(Update(run_id="x", state="failed"), limit=3, now=0.0)
    assert run.failed(Update(run_id="x", state="failed"), limit=3, now=0.0)


class Refusing(FakeCluster):
    def __init__(self, root, grows=False):
        super().__init__(root)
        self.asked, self.grows = 0, grows

    def inventory(self):
        return [Node(name="n", total=Resources(cpus=self.cpus + (self.asked // 2 if self.grows else 0)))]

    def start(self, run_id, allocation, shape, entry, job):
        self.asked += 1
        if not self.grows or self.asked < 12:
            raise StartError("actor options are invalid")
        super().start(run_id, allocation, shape, entry, job)


def test_a_start_that_the_cluster_refuses_is_counted_and_given_up(smoke):
    cluster = Refusing(smoke[2])
    outcome = drive(smoke, cluster)
    assert cluster.asked == 4 * smoke[0].placement.max_failures
    assert sorted(outcome.failed) == sorted(ids(smoke))
    assert all("actor options are invalid" in r and "placement.gpus" in r for r in outcome.failed.values())


def test_refused_starts_do_not_count_while_the_cluster_changes(smoke):
    outcome = drive(some(smoke, 1), Refusing(smoke[2], grows=True))
    assert outcome.failed == {}
    assert len(outcome.done) == 1


def test_a_worker_that_never_came_is_counted_as_a_refused_start(smoke):
    cluster = FakeCluster(smoke[2], lambda run_id, n: "unstarted")
    outcome = drive(smoke, cluster)
    assert len(cluster.started) == 4 * smoke[0].placement.max_failures
    assert len(outcome.failed) == 4


def test_a_clock_set_back_by_an_hour_delays_nothing(smoke, clock):
    """The wall clock jumps at the failure; the second try comes after a second all the same."""
    victim = ids(smoke)[0]

    def behave(run_id, n):
        clock.wall -= 3600
        return "lost" if run_id == victim and n == 1 else "done"

    began = clock.now
    assert len(drive(smoke, FakeCluster(smoke[2], behave)).done) == 4
    assert clock.now - began < 30


def test_every_rank_of_a_failed_gang_is_in_the_log(smoke):
    cluster = FakeCluster(smoke[2])
    said = ("rank 0 failed: [/tmp/gloo] connection closed", "rank 1 failed: train.npy is damaged")
    poll = cluster.poll

    def with_ranks():
        return [Update(run_id=u.run_id, state="failed", error="x", fatal=True, ranks=said) for u in poll()]

    cluster.poll, cluster.finish = with_ranks, lambda run_id: None
    drive(smoke, cluster)
    events = files.read_lines(SweepDir(smoke[2], "smoke").path / "events.jsonl")
    assert [e["ranks"] for e in events if e["event"] == "failed"] == [list(said)] * 4


# ----------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"loss": 3}', "\x00\x00"])
def test_a_damaged_result_concerns_its_run_only(smoke, damaged):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "result.json").write_text(damaged)
    cluster, display = FakeCluster(root), Silent()
    outcome = drive(smoke, cluster, display)
    assert cluster.started == [victim]
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert victim in outcome.damage[0]
    assert command._conclude(SweepDir(root, smoke[0].name), 4, outcome) == 3
    assert list(RunDir(root, victim).path.glob("damaged-result.json-*"))


@pytest.mark.parametrize(
    "wrong",
    [
        '"damage": 5',
        '"devices": null',
        '"tokens_per_second": "x"',
        '"epochs": null',
        '"flops_per_second": NaN',
        "[" * 5000,
    ],
)
def test_a_result_with_fields_that_no_trainer_writes_concerns_its_run_only(smoke, wrong):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "result.json").write_text(f'{{"status": "done", {wrong}}}')
    outcome = drive(smoke, FakeCluster(root))
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert victim in outcome.damage[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"PAR1 torn"])
def test_a_damaged_evaluation_is_set_aside_and_made_again(smoke, content):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    table = RunDir(root, victim).evaluation_path(smoke[1].evals.eval_id)
    table.write_bytes(content)
    cluster = FakeCluster(root)
    outcome = drive(smoke, cluster)
    assert cluster.started == [victim]
    assert "its evaluation was damaged" in outcome.damage[0]
    assert RunDir(root, victim).evaluated(smoke[1].evals.eval_id)


@pytest.mark.parametrize("damaged", ["[]", "{}", '{"runs": ['])
def test_a_damaged_record_stops_no_command(smoke, damaged, monkeypatch, capsys):
    monkeypatch.setenv("ISOFLOP_ROOT", str(smoke[2]))
    monkeypatch.setattr(command.texts, "describe", lambda *_: None)
    drive(smoke, FakeCluster(smoke[2]))
    (SweepDir(smoke[2], "smoke").path / "sweep.json").write_text(damaged)
    assert command.read(["recipe=smoke"]).record is None
    assert "it is set aside when the sweep is driven" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_ends_no_sweep(smoke, monkeypatch):
    def full(*_, **__):
        raise DiskFullError("no room")

    monkeypatch.setattr(SweepDir, "event", full)
    display = Silent()
    assert len(drive(smoke, FakeCluster(smoke[2]), display).done) == 4
    assert sum("events.jsonl is not written any more" in line for line in display.lines) == 1


def test_an_earlier_run_finds_its_text_where_it_lies_now(smoke):
    chosen, cells, root = smoke
    drive(smoke, FakeCluster(root))
    moved = [replace(run, data=replace(run.data, corpus="/moved")) for run in cells.runs]
    fewer = replace(cells, runs=moved[:1])
    with SweepDir(root, chosen.name).owned():
        taken = taking.take(replace(chosen, extend=True), fewer, SweepDir(root, chosen.name))
    assert len(taken.runs) == 4
    assert {run.data.corpus for run in taken.runs} == {"/moved"}


@pytest.mark.parametrize("name", ["sweep.json", "status.json"])
@pytest.mark.parametrize("damaged", ["", "[]", "{}", "{"])
def test_damaged_files_of_the_sweep_are_set_aside_and_it_goes_on(smoke, name, damaged):
    chosen, _, root = smoke
    drive(some(smoke, 2), FakeCluster(root))
    (SweepDir(root, chosen.name).path / name).write_text(damaged)
    assert len(drive(smoke, FakeCluster(root)).done) == 4
    assert len(SweepDir(root, chosen.name).record().runs) == 4


def test_a_damaged_specification_is_written_again(smoke):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "spec.json").write_text("{")
    outcome = drive(smoke, FakeCluster(root))
    assert len(outcome.done) == 4
    assert RunDir(root, victim).spec() == smoke[1].runs[1]
    assert victim in outcome.damage[0]


# ------------------------------------------------------------------------------------------------ stopping one run


def test_one_run_is_stopped_by_a_file_and_goes_on_when_it_is_gone(smoke):
    chosen, _, root = smoke
    sweep, one = SweepDir(root, chosen.name), ids(smoke)[0]
    cluster = FakeCluster(root, lambda run_id, n: ("running", 5) if run_id == one and n == 1 else "done")
    shown = Silent()
    show = shown.show

    def ask(snapshot):
        show(snapshot)
        if one in snapshot.running:
            sweep.request_stop(one)

    shown.show = ask
    outcome = drive(smoke, cluster, shown)
    assert cluster.stopped == [one]
    assert sorted(outcome.done) == sorted(i for i in ids(smoke) if i != one)
    assert list(outcome.held) == [one]
    assert f"delete {sweep.path / 'stop' / one}" in outcome.held[one]
    assert outcome.failed == {}
    cluster.stopped.clear()
    again = drive(smoke, cluster)
    assert list(again.held) == [one], "a later command does not start it either"
    assert cluster.started.count(one) == 1
    sweep.withdraw_stop(one)
    assert len(drive(smoke, cluster).done) == 4


def test_a_request_to_stop_what_is_not_there_is_said(smoke):
    sweep = SweepDir(smoke[2], smoke[0].name)
    sweep.path.mkdir(parents=True)
    sweep.request_stop("nobody")
    display = Silent()
    assert len(drive(smoke, FakeCluster(smoke[2]), display).done) == 4
    assert any("stop/nobody" in line and "no run of this sweep" in line for line in display.lines)


# -------------------------------------------------------------------------------------------------- what ends nothing


class Broken(Silent):
    def show(self, snapshot):
        raise RuntimeError("[/tmp/x] markup")

    say = show


def test_a_display_that_breaks_ends_nothing(smoke, capsys):
    assert len(drive(smoke, FakeCluster(smoke[2]), Broken()).done) == 4
    printed = capsys.readouterr()
    assert printed.err.count("the display broke") == 1
    assert printed.out.count("done    ") >= 3, "plain lines go on"


def test_the_status_is_kept_for_those_without_a_cluster(smoke, monkeypatch):
    monkeypatch.setattr(status, "WRITE_SECONDS", 0.0)
    chosen, _, root = smoke
    sweep, seen = SweepDir(root, chosen.name), []
    cluster = FakeCluster(root, lambda run_id, n: "fatal" if run_id == ids(smoke)[0] else "done", cpus=1.0)
    display = Silent()
    display.show = lambda snapshot: seen.append(status.read(sweep))
    drive(smoke, cluster, display)
    during = [s for s, who in seen if s is not None and s["running"] and s["waiting"]]
    assert during
    assert all(who == "driving" for _, who in seen[1:])
    group = during[0]["waiting"][0]
    assert group["count"] >= 1
    assert group["reason"]
    assert during[0]["eta_seconds"] > 0
    after, who = status.read(sweep)
    assert who == "ended"
    assert (after["asked"], after["done"], list(after["failed"])) == (4, 3, [ids(smoke)[0]])


def test_a_dead_driver_is_told_from_a_living_one():
    here = {"state": "driving", "host": os.uname().nodename, "pid": os.getpid(), "time": time.time()}
    assert status.driver(here) == "driving"
    assert status.driver({**here, "pid": 2**22 + 1}) == "dead"
    away = {**here, "host": "elsewhere", "time": 1000.0}
    assert status.driver(away, now=1030.0) == "driving"
    assert status.driver(away, now=1000.0 + status.SILENT_SECONDS + 1) == "dead"
    assert status.driver(None) == "none"


# ------------------------------------------------------------------------------------------------------- adaptive


class Learning(FakeCluster):
    """Finishes runs with the losses of a known law, two at a time; every tenth diverges."""

    def finish(self, run_id):
        run, folder = self.runs[run_id], RunDir(self.root, run_id)
        if self.started.index(run_id) % 10 == 9:
            folder.finish({"status": "diverged"})
            return
        n = costs.params(run.model).nonembedding
        loss = 1.2 + 6.0 * (n / 1e3) ** -0.25 + 30.0 * (run.tokens / 1e3) ** -0.3
        folder.write_evaluation(self.evals.eval_id, {"task": [HELD_OUT], "loss": [loss], "loss_se": [0.01]})
        folder.finish({"status": "done", "tokens_per_second": 1e4, "epochs": 0.1})


def test_an_adaptive_sweep_spends_its_share_on_the_runs_that_tell_most(isolated, clock):
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=0.45"])
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    cluster = Learning(root)
    cluster.runs = {run.run_id: run for run in cells.runs}
    display = Silent()
    outcome = drive((chosen, cells, root), cluster, display)
    flops = {run.run_id: costs.train_flops(run.model, run.tokens) for run in cells.runs}
    spent = sum(flops[run_id] for run_id in outcome.done)
    assert spent <= 0.45 * sum(flops.values())
    assert sorted([*outcome.done, *outcome.not_taken]) == sorted(flops)
    assert outcome.not_taken
    assert any("no further runs" in line for line in display.lines)
    lowest = sorted({run.budget_flops for run in cells.runs})[:2]
    assert {cluster.runs[i].budget_flops for i in cluster.started[:6]} == set(lowest)
    highest = max(flops[run_id] for run_id in cluster.started)
    assert highest >= 0.9 * max(run.budget_flops for run in cells.runs), "a run near the target tells most"
    assert set(SweepDir(root, chosen.name).record().not_taken) == set(outcome.not_taken)
    again = Learning(root)
    again.runs = cluster.runs
    assert drive((chosen, cells, root), again).done == outcome.done
    assert again.started == []


def laptop():
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=1.0"])
    return chosen, {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}


def test_failed_and_diverged_runs_are_neither_data_nor_planned(monkeypatch):
    chosen, runs = laptop()
    names = list(runs)
    phases = [Phase.DONE] * 12 + [Phase.FAILED, Phase.FAILED, Phase.RUNNING]
    states = {i: RunState(spec=runs[i], phase=p) for i, p in zip(names, phases, strict=False)}
    states |= {i: RunState(spec=runs[i]) for i in names[len(phases) :]}
    asked = {}
    real = adaptive.design.propose

    def spy(finished, left, **options):
        asked.update(finished=len(finished), **{k: len(v) for k, v in options.items() if k == "running"})
        return real(finished, left, **options)

    monkeypatch.setattr(adaptive, "_first", lambda runs: [])
    monkeypatch.setattr(adaptive.design, "propose", spy)
    reads = []

    def loss(run_id):
        reads.append(run_id)
        return None if run_id == names[0] else 3.0 + 1e6 / runs[run_id].tokens  # the first diverged

    proposer = proposers.Adaptive(chosen, loss, lambda run: run.tokens / 1e4)
    (first,) = proposer.propose(states).take
    assert asked == {"finished": 11, "running": 1}
    states[first].phase = Phase.RUNNING
    proposer.propose(states)
    assert asked["running"] == 2
    assert sorted(reads) == sorted(names[:12]), "each loss is read once"


def test_the_next_run_is_one_that_was_not_taken():
    chosen, runs = laptop()
    losses = {run_id: 3.0 + 1e6 / run.tokens for run_id, run in list(runs.items())[:20]}
    found = adaptive.next_run(
        chosen, runs, losses=losses, taken=set(losses), under_way=set(), seconds=lambda run: run.tokens / 1e4
    )
    assert found.run_id in set(runs) - set(losses)


def test_another_seed_of_a_run_that_ended_may_be_taken():
    chosen = recipe.load(["recipe=laptop", "replicas=2", "adaptive=true", "adaptive_share=1.0"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = {i: 3.0 + 1e6 / run.tokens for i, run in runs.items() if run.seed == 0}
    first = set(adaptive._first(runs))
    found = adaptive.next_run(
        chosen, runs, losses=losses, taken=set(losses) | first, under_way=set(), seconds=lambda run: run.tokens / 1e4
    )
    assert found.run_id in set(runs) - set(losses) or "not worth it" in found.over
    assert not found.over.startswith("all runs left together would narrow the interval to 100%"), "they tell something"


def test_impossible_adaptive_settings_are_refused():
    with pytest.raises(UsageError, match="adaptive_share"):
        grid.build(recipe.load(["adaptive=true", "adaptive_share=1.5"]), "0" * 64)
