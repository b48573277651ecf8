"""The scheduler on a clock that jumps: closed forms, and the rules of the scheduler itself."""

import math
import random

import pytest

from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job
from sweeps.scheduling.simulator import cluster, simulate

GPU = Resources(cpus=1, gpus=1)


def job(name, seconds, workers=1, **words):
    return Job(run_id=name, worker=GPU, workers=workers, seconds=seconds, **words)


def test_equal_runs_take_as_many_rounds_as_they_need():
    done = simulate(cluster(16, 8, 1), [job(f"r{i:02}", 100.0) for i in range(40)])
    assert done.seconds == math.ceil(40 / 16) * 100
    assert len(done.spells) == 40
    assert done.gpu_seconds() == 40 * 100


def test_the_longest_starts_first_and_short_runs_fill_the_rest():
    done = simulate(cluster(8, 8, 1), [job("short", 10.0, 4), job("long", 100.0, 4), job("half", 60.0, 4)])
    assert [(s.run_id, s.started) for s in done.spells] == [("long", 0), ("half", 0), ("short", 60)]
    assert done.seconds == 100


def test_a_large_gang_is_reserved_room_and_only_what_ends_before_goes_ahead():
    """EASY backfill (Lifka 1995): 8 GPUs at 100 s; 90 s beside them do not fit ahead of it, 40 s do."""
    queue = [job("first", 100.0, 4), job("gang", 50.0, 8, queued=1.0), job("late", 120.0, 4, queued=2.0)]
    queue.append(job("quick", 40.0, 4, queued=3.0))
    at = {s.run_id: s.started for s in simulate(cluster(8, 8, 1), queue).spells}
    assert at == {"first": 0, "quick": 3, "gang": 100, "late": 150}


def test_a_branch_waits_for_the_checkpoint_of_its_trunk():
    done = simulate(cluster(8, 8, 1), [job("trunk", 100.0), job("branch", 20.0)], {"branch": ("trunk", 70.0)})
    assert [(s.run_id, s.started, s.ended) for s in done.spells] == [("trunk", 0, 100), ("branch", 70, 90)]
    alone = simulate(cluster(8, 8, 1), [job("branch", 20.0)], {"branch": ("elsewhere", 70.0)})
    assert alone.seconds == 20  # the trunk is trained already


def test_what_can_never_start_is_refused_with_its_reason():
    done = simulate(cluster(12, 8, 1), [job("ok", 5.0, 8), job("huge", 5.0, 24)], {"after": ("huge", 1.0)})
    assert [s.run_id for s in done.spells] == ["ok"]
    assert "24 workers of 1 GPU and 1 core at once, which this cluster of 2 nodes" in done.refused["huge"]
    with pytest.raises(ValueError, match="odd: a run of unknown length"):
        simulate(cluster(8, 8, 1), [job("odd", math.inf)])


def test_no_gpu_is_given_twice_and_no_run_is_lost():
    rng = random.Random(0)
    jobs = [
        job(f"r{i:03}", rng.uniform(1, 100), rng.choice([1, 2, 4, 8, 16]), queued=rng.uniform(0, 200))
        for i in range(150)
    ]
    done = simulate(cluster(40, 8, 1), jobs)
    assert sorted(s.run_id for s in done.spells) == [j.run_id for j in jobs]
    for at in {s.started for s in done.spells}:
        assert sum(s.resources.gpus for s in done.spells if s.started <= at < s.ended) <= 40
    assert done.seconds >= done.gpu_seconds() / 40
    assert {s.run_id: s.ended - s.started for s in done.spells} == pytest.approx({j.run_id: j.seconds for j in jobs})
