"""Failures counted by kind: what is tried again, how often, and what a new driver knows of it."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import causes
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Progress, Update
from sweeps.driving.failures import MEMORY_TRIES, Tally, backoff, judge, recall
from sweeps.driving.stalls import FIRST, STEPS, Stalls
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids, some

COUNTED = [cause for cause in Cause if cause not in (*causes.UNCOUNTED, Cause.USER, Cause.MEMORY)]


def test_pauses_between_tries_grow_to_a_minute():
    assert [backoff(tries) for tries in range(1, 9)] == [1, 3, 7, 15, 31, 60, 60, 60]


class OutOfMemoryError(RuntimeError):
    """As torch's, and as Ray's in name."""


class ActorDiedError(Exception):
    preempted = False


class NodeDiedError(Exception):
    """As Ray's."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.MEMORY),
        (OutOfMemoryError("CUDA out of memory"), Cause.MEMORY),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"),
            Cause.MEMORY,
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Cause.MEMORY),
        (OSError(errno.EACCES, "Permission denied"), Cause.CRASH),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.DEVICE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Cause.CRASH),
        (KeyError("x"), Cause.CRASH),
    ],
)
def test_a_worker_knows_what_its_exception_is(error, cause):
    assert causes.of_error(error) == cause


def test_what_torch_says_of_memory_that_is_not_there_is_known():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert causes.of_error(caught.value) == Cause.MEMORY


def test_a_driver_knows_what_ray_says_of_a_death():
    assert causes.of_death(OutOfMemoryError("the node is low on memory")) == Cause.MEMORY
    assert causes.of_death(NodeDiedError()) == Cause.NODE
    assert causes.of_death(ActorDiedError()) == Cause.DEATH
    taken = ActorDiedError()
    taken.preempted = True
    assert causes.of_death(taken) == Cause.NODE


def fail(tally, *events, limit=3):
    """Judge (cause, step of the newest checkpoint) in turn, until a failure is for good; the last verdict."""
    for cause, step in events:
        verdict = judge(tally, cause, "because", step=step, limit=limit)
        tally = verdict.tally
    return verdict


def test_lost_nodes_and_notices_count_for_nothing():
    verdict = fail(Tally(crashes=2), *[(Cause.NODE, 0), (Cause.NOTICE, 0)] * 50)
    assert (verdict.wait, verdict.tally) == (0.0, Tally(crashes=2))


@pytest.mark.parametrize("cause", COUNTED)
def test_crashes_are_counted_until_there_is_a_newer_checkpoint(cause):
    assert fail(Tally(), (cause, 0), (cause, 0)).wait == backoff(2)
    assert fail(Tally(), (cause, 0), (cause, 0), (cause, 0)).wait is None
    assert fail(Tally(), *[(cause, 10 * i) for i in range(50)]).wait == backoff(1)
    assert fail(Tally(), (cause, 0), (cause, 0), (cause, 7), (cause, 7)).wait == backoff(2)


def test_what_a_user_must_mend_is_never_tried_again():
    assert fail(Tally(), (Cause.USER, 5)).wait is None


def test_out_of_memory_is_tried_once_more_with_half_the_micro_batch_and_then_explained():
    first = judge(Tally(), Cause.MEMORY, "no room", step=0, limit=3, micro_batch=8)
    assert first.wait is not None
    assert first.tally.halvings == 1
    assert "micro-batch of 8 sequences, goes on with half of it and the same global batch" in first.reason
    again = judge(first.tally, Cause.MEMORY, "no room", step=0, limit=3, micro_batch=4)
    assert again.wait is None
    assert "again with a micro-batch of 4 sequences, half of" in again.reason
    assert "placement.tensor" in again.reason
    later = judge(first.tally, Cause.MEMORY, "no room", step=9, limit=3, micro_batch=4)
    assert (later.wait is not None, later.tally.halvings) == (True, 2), "it had got on in between"


EVENT = st.tuples(st.sampled_from(list(Cause)), st.integers(0, 3))


@given(st.lists(EVENT, max_size=12), st.integers(1, 4))
def test_a_new_driver_counts_on_and_gives_what_had_failed_for_good_one_try(events, limit):
    tally, ended = Tally(), False
    for cause, step in events:
        if ended:
            break  # what a new command makes of it is tested beside this
        verdict = judge(tally, cause, "because", step=step, limit=limit)
        tally, ended = verdict.tally, verdict.wait is None
    told = [{"event": "failed", "run_id": "x", "cause": str(c), "step": s} for c, s in events]
    found = recall(told, limit).get("x", Tally())
    assert found.crashes <= limit - 1
    assert found.memory <= MEMORY_TRIES - 1
    if not ended:
        assert found == tally
    assert recall([*told, {"event": "done", "run_id": "x"}], limit) == {}


def test_a_crash_loop_gets_no_three_new_tries_from_every_driver(smoke):
    victim = ids(smoke)[0]
    cluster = FakeCluster(smoke[2], lambda run_id, n: "lost" if run_id == victim else "done")
    assert list(drive(smoke, cluster).failed) == [victim]
    assert cluster.started.count(victim) == 3
    for tries in (4, 5):
        assert list(drive(smoke, cluster).failed) == [victim]
        assert cluster.started.count(victim) == tries, "one for each command that asks for it again"


def test_a_driver_that_dies_between_two_crashes_is_followed_by_one_that_knows_of_the_first(smoke):
    victim = ids(smoke)[0]

    class Dying(FakeCluster):
        def poll(self):
            if self.started.count(victim) == 3:
                raise RuntimeError("the driver is killed")
            return super().poll()

    cluster = Dying(smoke[2], lambda run_id, n: "lost" if run_id == victim else "done")
    with pytest.raises(RuntimeError, match="killed"):
        drive(some(smoke, 1), cluster)
    cluster._running.clear()
    second = FakeCluster(smoke[2], cluster.behaviour)
    assert list(drive(some(smoke, 1), second).failed) == [victim]
    assert second.started.count(victim) == 1
    causes_told = [e["cause"] for e in SweepDir(smoke[2], "smoke").events() if e["event"] == "failed"]
    assert causes_told == ["crash"] * 3


class WithoutMemory(FakeCluster):
    """A run's workers say that they are out of memory, so many times."""

    def __init__(self, root, times):
        super().__init__(root, lambda run_id, n: "failed" if n <= times else "done")
        self.halvings = []

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.halvings.append(job.halvings)

    def poll(self):
        return [
            Update(run_id=u.run_id, state="failed", error="no room", cause=Cause.MEMORY) if u.state == "failed" else u
            for u in super().poll()
        ]


@pytest.mark.parametrize(("times", "done"), [(1, True), (2, False)])
def test_the_second_start_of_a_run_without_memory_asks_for_half_the_micro_batch(smoke, times, done):
    cluster = WithoutMemory(smoke[2], times)
    outcome = drive(some(smoke, 1), cluster)
    assert cluster.halvings == [0, 1]
    assert bool(outcome.done) == done
    assert all("out of memory again" in reason for reason in outcome.failed.values())


# ------------------------------------------------------------------------------------------------------------ stalls


def beat(step=0, beats=0, doing=""):
    progress = Progress(phase="training", step=step, steps=100) if step else None
    return Update(run_id="x", state="running", progress=progress, beats=beats, doing=doing)


def test_a_run_without_a_step_is_told_after_its_limit_or_twenty_of_its_steps():
    quick, slow = Stalls(10.0), Stalls(10.0)
    for now in range(1, 6):
        quick.heard(beat(step=now), float(now))
        slow.heard(beat(step=now), 3.0 * now)
    assert quick.look(15.0) == {}
    assert "no sign of progress for 26 s after step 5" in quick.look(5 + STEPS + 6.0)["x"]
    assert slow.look(15.0 + 3 * STEPS - 1) == {}
    assert "x" in slow.look(15.0 + 3 * STEPS + 1)


def test_beats_are_signs_and_what_says_that_it_is_long_is_waited_for():
    watch = Stalls(10.0)
    watch.heard(beat(step=5), 0.0)
    for now in range(1, 100):
        watch.heard(beat(step=5, beats=now), float(now))  # an evaluation
        assert watch.look(float(now)) == {}
    watch.heard(beat(step=5, beats=99, doing="writing its checkpoint"), 100.0)
    assert watch.look(3000.0) == {}
    assert "where it is writing its checkpoint" in watch.look(4000.0)["x"]


def test_a_start_takes_longer_than_a_step():
    watch = Stalls(10.0)
    for now in range(int(10 * FIRST)):
        watch.heard(beat(), float(now))
    assert watch.look(10.0 * FIRST - 1) == {}
    assert "after its start" in watch.look(10.0 * FIRST + 1)["x"]


def test_a_stalled_run_is_ended_and_started_again(smoke, clock):
    stuck = ids(smoke)[0]
    cluster = FakeCluster(smoke[2], lambda run_id, n: ("running", 5) if run_id == stuck and n == 1 else "done")
    vars(smoke[0].placement)["stall_seconds"] = 30.0
    display = Silent()
    outcome = drive(smoke, cluster, display)
    assert len(outcome.done) == 4
    assert cluster.ended == [stuck]
    assert cluster.started.count(stuck) == 2
    assert any("no sign of progress for 30 s after step 5" in line for line in display.lines)


def test_a_driver_that_was_stopped_itself_ends_nobody(smoke, clock):
    """Ctrl-Z for an hour: what it did not hear meanwhile counts against no run."""
    vars(smoke[0].placement)["stall_seconds"] = 30.0
    polls = []

    class Suspended(FakeCluster):
        def wait(self, seconds):
            polls.append(seconds)
            clock.sleep(3600.0 if len(polls) == 8 else seconds)

    cluster = Suspended(smoke[2], lambda run_id, n: ("running", 5) if len(polls) < 16 else "done")
    outcome = drive(smoke, cluster)
    assert len(outcome.done) == 4
    assert cluster.ended == []


# ---------------------------------------------------------------------------------------------------- nodes, notices


def test_the_record_of_a_run_tells_its_micro_batch(isolated):
    run = RunDir(isolated, "x")
    assert run.micro_batch() is None
    run.path.mkdir(parents=True)
    (run.path / "numerics.json").write_text('{"micro_batch": 4}')
    assert run.micro_batch() == 4
    (run.path / "numerics.json").write_text("{")
    assert run.micro_batch() is None
