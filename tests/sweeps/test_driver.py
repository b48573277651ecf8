"""The driver on a fake cluster: what is done stays done, what was asked is what a sweep is, runs stop on request."""

import pytest

from gpt3core.errors import StoreError, UsageError
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.driving import happenings, view
from sweeps.planning import grid, recipe
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Running
from tests.reliability import node_losses
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids, some


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
    assert outcome.failed == {hopeless: "because (3 times without a newer checkpoint in between)", wrong: "because"}
    assert len(outcome.done) == 2


def test_a_run_that_diverged_is_done_and_says_so(smoke):
    cluster, display = FakeCluster(smoke[2]), Silent()
    cluster.finish = lambda run_id: RunDir(smoke[2], run_id).finish({"status": "diverged"})
    assert len(drive(some(smoke, 1), cluster, display).done) == 1
    (line,) = [line for line in display.lines if line.startswith("done ")]
    assert line.split()[1:] == [ids(smoke)[0], *["N", "1.76k", "D", "154k", "C", "1e10", "DIVERGED"]]


def test_a_busy_run_is_looked_at_again_after_a_while(smoke, clock):
    busy, began = ids(smoke)[0], clock.now
    cluster = FakeCluster(smoke[2], lambda run_id, n: "busy" if run_id == busy and n < 3 else "done")
    assert len(drive(smoke, cluster).done) == 4
    assert cluster.started.count(busy) == 3
    assert clock.now - began >= 2 * happenings.BUSY_SECONDS


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
    assert clock.now - began >= happenings.VISIBLE_SECONDS


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
        (view.Outcome(done=["a"]), 0, "next: python -m analysis.fit"),
        (view.Outcome(done=["a"], failed={"b": "because"}), 1, "b: because"),
        (view.Outcome(done=["a"], damage=["run a: the checkpoint of step 5 is damaged"]), 3, "is damaged"),
        (view.Outcome(done=["a"], held={"b": "stopped on request"}), 1, "b: stopped on request"),
        (view.Outcome(interrupted=True), 130, "start the same command again"),
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


def test_a_chaos_script_finds_the_nodes_of_the_runs_under_way_in_the_log(smoke):
    seen = []

    class Watched(FakeCluster):
        def poll(self):
            seen.append((len(self._running), node_losses.under_way(self.root)))
            return super().poll()

    drive(smoke, Watched(smoke[2], lambda run_id, n: "vanished" if n < 2 else "done"))
    assert {(bool(running), *nodes) for running, nodes in seen} == {(False,), (True, "n")}
    assert node_losses.under_way(smoke[2]) == set()


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


def test_a_file_in_the_place_of_the_requests_is_said_and_stops_nothing(smoke):
    sweep, display = SweepDir(smoke[2], smoke[0].name), Silent()
    sweep.path.mkdir(parents=True)
    (sweep.path / "stop").touch()
    assert len(drive(smoke, FakeCluster(smoke[2]), display).done) == 4
    (said,) = (line for line in display.lines if line.startswith("stop/"))
    assert "names no run of this sweep: a file stop/RUN_ID holds that run" in said


def test_a_run_that_stopped_early_is_done_with_a_line_that_says_so_and_never_tried_again(smoke):
    class Stopping(FakeCluster):
        def finish(self, run_id):
            super().finish(run_id)
            run = RunDir(self.root, run_id)
            more = {"tokens": 12_800, "steps": 100, "noise_scale": 640.0, "batch_beyond_noise_scale": 30}
            run.path.joinpath("result.json").unlink()
            run.finish({"status": "stopped early", **more})

    display = Silent()
    outcome = drive(smoke, Stopping(smoke[2]), display)
    assert len(outcome.done) == 4
    assert outcome.failed == {}
    said = [line for line in display.lines if "STOPPED EARLY" in line]
    assert len(said) == 4
    assert all("  D 12.8k  " in line and "no point on a law" in line and "loss 4.0000" in line for line in said)
    assert all("noise scale 640 tokens, batches beyond it since step 30" in line for line in said)
    again = FakeCluster(smoke[2])
    assert len(drive(smoke, again).done) == 4
    assert again.started == []
