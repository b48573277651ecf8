"""Nodes that fail, leave or are missing: avoided and forgiven, left in time, done without by gangs that may shrink."""

import math
import os
import signal

import pytest

from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Update
from sweeps.driving import driver, taking
from sweeps.driving.avoided import FORGIVEN_SECONDS, WINDOW_SECONDS, Avoided
from sweeps.driving.elastic import GAIN_SECONDS, ROOM_SECONDS, Elastic
from sweeps.driving.estimates import Estimates
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.survival import Survival
from sweeps.planning import checks, grid, hardware, recipe
from sweeps.planning.recipe import Own
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Job, Running
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids, some

CORE = Resources(cpus=1.0)


def nodes(*names, cpus=1.0):
    return [Node(name=name, total=Resources(cpus=cpus)) for name in names]


def names(inventory):
    return [node.name for node in inventory]


# ------------------------------------------------------------------------------------------------------ nodes that fail


ONE = [Job(run_id="", worker=CORE).kind]


def avoiding(*failures):
    """(node, run, cause, time) in turn; what is avoided, and what was said."""
    said = []
    avoided = Avoided(said.append)
    for node, run_id, cause, now in failures:
        avoided.failed(node, run_id, cause, "because", now)
    return avoided, said


def test_what_the_runs_ask_is_not_asked_while_no_node_is_bad():
    """Ten thousand runs, four times a second."""
    avoided, said = avoiding(("a", "x", Cause.DEATH, 0.0))
    assert names(avoided.look(nodes("a", "b"), lambda: pytest.fail("asked in vain"), 20.0)) == ["a", "b"]
    assert not said


def test_a_node_on_which_two_runs_died_is_avoided_aloud_and_forgiven_after_half_an_hour():
    avoided, said = avoiding(("a", "x", Cause.DEATH, 0.0), ("a", "y", Cause.HANG, 10.0))
    assert names(avoided.look(nodes("a", "b"), lambda: ONE, 20.0)) == ["b"]
    assert names(avoided.look(nodes("a", "b"), lambda: ONE, 30.0)) == ["b"]
    assert len(said) == 1
    assert "failed 2 times (x, y; at last: because): nothing new starts there for 30 minutes" in said[0]
    assert names(avoided.look(nodes("a", "b"), lambda: ONE, 10.0 + FORGIVEN_SECONDS)) == ["a", "b"]
    assert "no longer avoided" in said[1]


@pytest.mark.parametrize(
    "failures",
    [
        [("a", "x", Cause.DEATH, 0.0)],
        [("a", "x", Cause.DEATH, 0.0), ("a", "y", Cause.DEATH, WINDOW_SECONDS)],
        [("a", "x", Cause.CRASH, 0.0), ("a", "y", Cause.USER, 1.0), ("a", "z", Cause.MEMORY, 2.0)],
        [("a", "x", Cause.DEATH, 0.0), ("b", "x", Cause.DEATH, 1.0), ("a", "y", Cause.DEATH, 2.0)],
    ],
    ids=["once", "an hour apart", "of the run's own", "wherever the run goes"],
)
def test_a_node_that_may_be_sound_is_used(failures):
    avoided, said = avoiding(*failures)
    assert names(avoided.look(nodes("a", "b"), lambda: ONE, failures[-1][3])) == ["a", "b"]
    assert said == []


def test_a_node_is_used_all_the_same_where_nothing_else_is_left():
    both = ("a", "x", Cause.DEATH, 0.0), ("a", "y", Cause.DEATH, 0.0)
    avoided, said = avoiding(*both)
    two = [Job(run_id="", worker=CORE, workers=2).kind]
    assert names(avoided.look(nodes("a", "b"), lambda: two, 1.0)) == ["a", "b"], "a gang of two needs both"
    assert "used all the same" in said[0]
    assert names(avoiding(*both)[0].look(nodes("a"), lambda: ONE, 1.0)) == ["a"]


class TwoNodes(FakeCluster):
    """Runs die on the first node; notes where each was started."""

    def __init__(self, root):
        super().__init__(root, cpus=1.0)
        self.where = []

    def inventory(self):
        return nodes("bad", "good")

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.where += list(allocation)

    def poll(self):
        dying = {i for i, run in self._running.items() if "bad" in run.allocation}
        self.behaviour = lambda run_id, n: "lost" if run_id in dying else "done"
        return [
            Update(run_id=u.run_id, state="lost", error="died", cause=Cause.DEATH, node="bad")
            if u.state == "lost"
            else u
            for u in super().poll()
        ]


def test_a_sweep_does_without_a_bad_node(smoke):
    cluster, display = TwoNodes(smoke[2]), Silent()
    assert len(drive(smoke, cluster, display).done) == 4
    assert cluster.where.count("bad") == 2
    assert list(display.snapshots[-1].avoided) == ["bad"]


# ----------------------------------------------------------------------------------------------------- nodes that leave


class Drained(FakeCluster):
    """Once a run is started on it, its node is to be taken away."""

    def __init__(self, root):
        super().__init__(root, lambda run_id, n: "running", cpus=1.0)
        self.where = []

    def inventory(self):
        return nodes("leaves", "stays")

    def leaving(self):
        return {"leaves": 20.0} if "leaves" in self.where else {}

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.stopped = [i for i in self.stopped if i != run_id]
        self.where += list(allocation)
        if allocation == {"stays": 1}:
            self.behaviour = lambda i, n: "done" if "stays" in self._running[i].allocation else "running"


def test_the_run_of_a_node_that_leaves_stops_with_its_checkpoint_and_goes_on_elsewhere_uncounted(smoke):
    cluster, display = Drained(smoke[2]), Silent()
    vars(smoke[0].placement)["max_failures"] = 1
    outcome = drive(smoke, cluster, display)
    assert len(outcome.done) == 4
    assert cluster.where.count("leaves") == 1, "nothing new starts there"
    told = [line for line in display.lines if "is to be taken away within 20 s" in line]
    assert len(told) == 1
    assert "writes its checkpoint and goes on elsewhere" in told[0]


# ---------------------------------------------------------------------------------------------------- gangs that shrink


def waiting(smoke, **details):
    return RunState(spec=smoke[1].runs[0], phase=Phase.WAITING, **details)


def elastic(patience=60.0, sizes=(4, 2, 1)):
    def job(state):
        return Job(run_id=state.run_id, worker=CORE, workers=state.workers or sizes[0])

    return Elastic(lambda state: sizes, job, patience)


def test_a_gang_waits_its_time_for_all_of_its_workers_and_then_starts_with_the_most_that_fit(smoke):
    state, chooser = waiting(smoke), elastic()
    for now, alive, workers in ((0, "abc", None), (59, "abc", None), (60, "abc", 2), (61, "a", 1), (62, "abcd", None)):
        chooser.choose([state], nodes(*alive), [], float(now))
        assert state.workers == workers, now
    chooser.choose([], nodes(*"abc"), [], 63.0)
    chooser.choose([state], nodes(*"abc"), [], 64.0)
    assert state.workers is None, "its time begins anew with every wait"


def test_what_others_hold_is_not_there_to_be_had(smoke):
    state, chooser = waiting(smoke), elastic(patience=0.0)
    held = [Running(run_id="o", worker=CORE, allocation={"a": 1, "b": 1, "gone": 1})]
    chooser.choose([state], nodes(*"abcd"), held, 0.0)
    assert state.workers == 2


@pytest.mark.parametrize(
    ("left", "alive", "grows"),
    [(4 * GAIN_SECONDS, "abcd", True), (1.9 * GAIN_SECONDS, "abcd", False), (4 * GAIN_SECONDS, "abc", False)],
    ids=["worth it", "nearly done", "no room"],
)
def test_a_small_gang_grows_where_there_has_been_room_and_it_is_worth_a_restart(smoke, left, alive, grows):
    state = waiting(smoke, workers=2, ends=left)
    state.phase = Phase.RUNNING
    chooser, held = elastic(), [Running(run_id=state.run_id, worker=CORE, allocation={"a": 1, "b": 1})]
    assert chooser.to_grow([state], nodes(*alive), held, 0.0) == []
    state.ends += ROOM_SECONDS
    assert bool(chooser.to_grow([state], nodes(*alive), held, ROOM_SECONDS)) == grows


def test_a_gang_shrinks_only_to_numbers_that_share_its_batch(isolated):
    words = ["placement.workers=6", "placement.min_workers=2", "optim.batch_tokens_min=1536", "model.n_ctx=128"]
    chosen = recipe.load(["recipe=smoke", *words, "optim.batch_tokens_max=1536"])
    run = grid.build(chosen, "0" * 64).runs[0]
    assert run.optim.batch_tokens == 12 * 128
    survival = Survival(chosen.placement, Estimates(chosen), FakeCluster(isolated), print)
    assert survival.sizes(RunState(spec=run)) == [6, 4, 3, 2]


def test_no_gang_is_stopped_to_grow_into_room_that_another_sweep_waits_for(isolated):
    words = ["placement.workers=6", "placement.min_workers=2", "optim.batch_tokens_min=1536", "model.n_ctx=128"]
    chosen = recipe.load(["recipe=smoke", *words, "optim.batch_tokens_max=1536"])
    cluster = FakeCluster(isolated)
    survival = Survival(chosen.placement, Estimates(chosen), cluster, lambda line: None)
    state = RunState(spec=grid.build(chosen, "0" * 64).runs[0], phase=Phase.RUNNING, workers=1)
    cluster._running = {state.run_id: state}
    survival._elastic.to_grow = lambda *about: [state]
    survival.fit({state.run_id: state}, [], [], [], 0.0, shared=True)
    assert cluster.stopped == []
    survival.fit({state.run_id: state}, [], [], [], 0.0)
    assert cluster.stopped == [state.run_id]


def test_fewer_workers_are_not_more_than_a_size_has():
    chosen = recipe.load(["recipe=smoke", "placement.min_workers=2", "placement_of={d8: {workers: 3}}"])
    assert Estimates(chosen).common.workers == 1
    chosen.placement.workers = 4
    assert Estimates(chosen).common.workers == 2


@pytest.mark.parametrize(("workers", "least"), [(1, None), (2, None), (3, 2)])
def test_typed_workers_win_over_the_least_that_a_file_names(tmp_path, workers, least):
    path = tmp_path / "four.yaml"
    elastic = "placement={workers: 4, min_workers: 2, shrink_seconds: 5}"
    path.write_text(recipe.to_yaml(recipe.load(["recipe=smoke", elastic])))
    found = recipe.load([f"recipe={path}", f"placement.workers={workers}"])
    checks.check_placements(found)
    assert (found.placement.workers, found.placement.min_workers) == (workers, least)
    assert found.placement.shrink_seconds == (5.0 if least else 60.0)
    with pytest.raises(ValueError, match=r"placement.shrink_seconds=9.0 has no effect without placement.min_workers"):
        checks.check_placements(recipe.load([f"recipe={path}", "placement.workers=2", "placement.shrink_seconds=9"]))
    with pytest.raises(ValueError, match=r"placement.min_workers=2: .* fewer than placement.workers=2, from 1 to 1"):
        checks.check_placements(recipe.load([f"recipe={path}", "placement.workers=2", "placement.min_workers=2"]))


def test_a_gang_that_shrank_tells_the_speed_of_a_worker(isolated):
    """One of four workers that was left with two counts as one of three, and four are as fast a worker."""
    batch = ["model.n_ctx=128", "optim.batch_tokens_min=1536", "optim.batch_tokens_max=1536"]
    chosen = recipe.load(["recipe=smoke", "placement.workers=4", *batch])
    run = grid.build(chosen, "0" * 64).runs[0]
    whole, three, shrunk = Estimates(chosen), Estimates(chosen), Estimates(chosen)
    whole.learn(run, {"flops_per_second": 4e9, "devices": 4, "train_seconds": 100.0})
    three.learn(run, {"flops_per_second": 3e9, "devices": 3, "train_seconds": 100.0})
    shrunk.learn(run, {"flops_per_second": 3e9, "devices": 2, "train_seconds": 100.0, "device_seconds": 300.0})
    assert shrunk.seconds(run) == pytest.approx(three.seconds(run))
    assert shrunk.seconds(run) == pytest.approx(whole.seconds(run), rel=0.03)


class Dying(FakeCluster):
    """Two nodes, of which one dies with the first gang; notes with how many workers each run is started."""

    def __init__(self, root):
        super().__init__(root, cpus=1.0)
        self.sizes, self.alive = [], ["a", "b"]

    def inventory(self):
        return nodes(*self.alive)

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.sizes.append(sum(allocation.values()))

    def poll(self):
        if len(self.alive) == 1 or not self._running:
            return super().poll()
        self.alive, lost = ["a"], list(self._running)
        self._running.clear()
        return [Update(run_id=i, state="lost", error="gone", cause=Cause.NODE, node="b") for i in lost]


@pytest.mark.parametrize("of_its_own", [False, True])
def test_a_sweep_of_gangs_that_lost_a_node_goes_on_with_what_is_there(smoke, clock, of_its_own):
    if of_its_own:
        smoke[0].placement_of = {run.label: Own(workers=2) for run in smoke[1].runs}
    else:
        smoke[0].placement.workers = 2
    vars(smoke[0].placement).update(min_workers=1, max_failures=1)
    cluster, began = Dying(smoke[2]), clock.now
    outcome = drive(some(smoke, 2), cluster)
    assert len(outcome.done) == 2
    assert outcome.failed == {}
    assert cluster.sizes == [2, 1, 1]
    assert smoke[0].placement.shrink_seconds <= clock.now - began < 3 * smoke[0].placement.shrink_seconds


def test_a_damaged_gang_is_queued_as_it_was(smoke, monkeypatch):
    """Its place in the queue is that of its first start: the scheduler sees the same job."""
    from sweeps.scheduling import scheduler

    seen, decide = [], scheduler.decide
    monkeypatch.setattr(
        scheduler, "decide", lambda now, inv, jobs, *rest: seen.append(jobs) or decide(now, inv, jobs, *rest)
    )
    victim = ids(smoke)[0]
    cluster = FakeCluster(smoke[2], lambda run_id, n: "lost" if (run_id, n) == (victim, 1) else "done")
    drive(smoke, cluster)
    jobs = [job for jobs in seen for job in jobs if job.run_id == victim]
    assert cluster.started.count(victim) == 2
    assert len(jobs) >= 2
    assert {(job.queued, job.priority, job.seconds) for job in jobs} == {
        (jobs[0].queued, jobs[0].priority, jobs[0].seconds)
    }
    assert math.isfinite(jobs[0].seconds)


def test_a_driver_that_is_sent_sigterm_has_its_runs_write_checkpoints(smoke):
    """As Slurm does before a job's time is over."""

    class Terminated(FakeCluster):
        def poll(self):
            if self.polls == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().poll()

    cluster, display = Terminated(smoke[2], lambda run_id, n: "running"), Silent()
    outcome = drive(smoke, cluster, display)
    assert outcome.interrupted
    assert sorted(cluster.stopped) == sorted(cluster.started)
    last, words = display.snapshots[-1], "the sweep was interrupted; start the same command again to go on"
    assert len(last.waiting) == last.total, "those that were stopped wait too"
    assert set(last.waiting.values()) == {words}, "none is expected to start any more"
    told = SweepDir(smoke[2], smoke[0].name).status()
    assert (told["state"], told["eta_seconds"]) == ("interrupted", None)
    assert [group["reason"] for group in told["waiting"]] == [words]
    assert {start for group in told["waiting"] for start in group["starts"]} == {None}


def test_a_small_gang_that_is_adopted_counts_what_it_has(smoke):
    """An earlier driver started it with half of its workers: estimates, the account and its growth know that."""
    chosen, cells, root = smoke
    chosen.placement.workers, chosen.placement.min_workers = 2, 1
    small, whole = ids(smoke)[:2]
    cluster = FakeCluster(root, lambda run_id, n: "done")
    cpu = Resources(cpus=1)
    cluster._running = {i: Running(run_id=i, worker=cpu, allocation={"n": n}) for i, n in {small: 1, whole: 2}.items()}
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        made = driver.Driver(chosen, taking.take(chosen, cells, sweep), cluster, Silent(), entry="fake:fake")
        made._adopt()
    assert (made.states[small].workers, made.states[whole].workers) == (1, None)
    assert made.estimates.devices(made.states[small]) == 1
    assert made.estimates.left(made.states[small]) > made.estimates.left(made.states[whole]) / 2


def test_each_run_is_billed_at_the_price_of_its_own_gpu(smoke):
    words = ["placement.gpus=1", "placement_of={d16: {accelerator: A100}}"]
    chosen = recipe.load(["recipe=smoke", *words])
    sweep = SweepDir(smoke[2], chosen.name)
    with sweep.owned():
        cluster = FakeCluster(smoke[2])
        made = driver.Driver(chosen, taking.take(chosen, smoke[1], sweep), cluster, Silent(), entry="fake:fake")
        shape = Resources(cpus=1, gpus=1)
        running = [Running(run_id=i, worker=shape, allocation={"n": 1}) for i in made.states]
        made.spending.look(running, 0.0)
        paid = {i: spell.usd_per_hour for i, spell in made.spending._open.items()}
    prices = {gpu: hardware.GPUS[gpu].usd_per_hour for gpu in ("A100", chosen.plan.gpu)}
    assert prices["A100"] != prices[chosen.plan.gpu]
    assert paid == {r.run_id: prices["A100" if r.label == "d16" else chosen.plan.gpu] for r in smoke[1].runs}
