"""A cluster of which only so much may be used: never more, and all of it where whole workers allow."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.scheduling import quota
from sweeps.scheduling.inventory import Kind, Node, Resources
from sweeps.scheduling.scheduler import Job, Running, Start, decide


def nodes(count, gpus=8, cpus=16.0):
    return [Node(name=f"n{i}", total=Resources(cpus=cpus, gpus=gpus)) for i in range(count)]


def started(cluster, shape, workers, count):
    jobs = [Job(run_id=f"j{i}", worker=shape, workers=workers, seconds=60.0) for i in range(count)]
    return [d for d in decide(0.0, cluster, jobs, []) if isinstance(d, Start)]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 6),
    most=st.integers(1, 50),
    gpus=st.sampled_from([0.25, 0.5, 1, 2, 3]),
    theirs=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), max_size=3, unique_by=lambda t: t[0]),
)
def test_never_more_than_allowed_and_no_less_than_there_is(count, most, gpus, theirs):
    inventory, shape = nodes(count), Resources(cpus=0.1, gpus=gpus)
    others = [
        Running(run_id=f"o{i}", worker=Resources(gpus=n), allocation={f"n{i}": 1}) for i, n in theirs if i < count
    ]
    running = []
    for turn in range(250):  # one after another, as a driver starts them
        cut = quota.within(inventory, running, others, Kind(shape), most)
        job = Job(run_id=f"j{turn}", worker=shape, seconds=60.0)
        found = decide(0.0, cut, [job], [*running, *others]) if cut else []
        if not found or not isinstance(found[0], Start):
            break
        running.append(Running(run_id=job.run_id, worker=shape, allocation=found[0].allocation))
    used = len(running) * gpus
    free = sum(8 - sum(o.worker.gpus for o in others if n.name in o.allocation) for n in inventory)
    assert used <= most
    room = sum(math.floor((8 - sum(o.worker.gpus for o in others if n.name in o.allocation)) / gpus) for n in inventory)
    assert len(running) == min(room, math.floor(min(most, free) / gpus) if gpus >= 1 else math.floor(most) / gpus)


def test_a_cluster_within_the_limit_stays_as_it_is():
    inventory = nodes(2)
    assert quota.within(inventory, [], [], Kind(Resources(gpus=1)), 16) is inventory


@pytest.mark.parametrize(
    ("workers", "most", "fit"), [(8, 16, 2), (8, 20, 2), (4, 12, 3), (16, 16, 1), (12, 12, 1), (10, 12, 1)]
)
def test_gangs_find_whole_shares(workers, most, fit):
    cut = quota.within(nodes(4), [], [], Kind(Resources(cpus=1, gpus=1), workers), most)
    assert len(started(cut, Resources(cpus=1, gpus=1), workers, 9)) == fit


def test_cores_are_counted_where_there_are_no_gpus():
    cut = quota.within(nodes(2, gpus=0), [], [], Kind(Resources(cpus=2)), 5)
    assert sum(node.total.cpus for node in cut) == 4
