"""The driver when nodes die, workers are lost or starts are refused: retried and counted, or held and reported."""

import math

from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import StartError, Update
from sweeps.driving import nodes
from sweeps.scheduling.inventory import Node, Resources
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids, some

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


def test_what_no_node_can_take_is_held_where_the_sweep_had_begun(smoke, clock):
    small = FakeCluster(smoke[2], cpus=1.0)
    drive(some(smoke, 1), small)
    outcome = drive(gangs(smoke), small)
    assert (outcome.failed, len(outcome.done), len(outcome.held)) == ({}, 1, 3)


# ------------------------------------------------------------------------------------------------ starts, refused


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
