"""A cluster of which only so much may be used: never more, and all of it where whole workers allow."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.scheduling import quota
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import ACCELERATOR, Kind, Node, Resources
from sweeps.scheduling.ledger import Ledger, place
from sweeps.scheduling.scheduler import PLAIN, Job, Running, Start, decide


def nodes(count, gpus=8, cpus=16.0):
    return [Node(name=f"n{i}", total=Resources(cpus=cpus, gpus=gpus)) for i in range(count)]


def started(cluster, shape, workers, count):
    jobs = [Job(run_id=f"j{i}", worker=shape, workers=workers, seconds=60.0) for i in range(count)]
    return [d for d in decide(0.0, cluster, jobs, []) if isinstance(d, Start)]


@settings(max_examples=60)
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


LABELS = [{ACCELERATOR: "A100", "rack": "r0"}, {ACCELERATOR: "A100", "rack": "r1"}, {ACCELERATOR: "H100", "rack": "r0"}]
queue_st = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 4, 8, 12, 16]),  # workers
        st.sampled_from([0.5, 1, 1, 2]),  # GPUs of each
        st.sampled_from(["", "", "A100", "H100"]),
        st.sampled_from(["", "", "rack"]),
        st.sampled_from([1.0, 5.0, 40.0]),
    ),
    min_size=1,
    max_size=12,
)


def turns(inventory, queue, most):
    """Drive a queue to its end as the driver does; who started when, and the most devices at once."""
    running, started, now, used = [], {}, 0.0, 0.0
    while waiting := [job for job in queue if job.run_id not in started]:
        cut = quota.within(inventory, running, [], Kind(Resources(cpus=1, gpus=1)), most)
        first = min(waiting, key=lambda job: place(job, PLAIN))
        nodes, shown = quota.turned(cut, inventory, running, [], first.kind, most)
        for start in (d for d in decide(now, nodes, waiting, shown, inventory) if isinstance(d, Start)):
            job = next(job for job in waiting if job.run_id == start.run_id)
            there = Ledger(inventory, running).free.free
            assert all(there[name].workers(job.worker) >= n for name, n in start.allocation.items())
            started[job.run_id] = now
            ends = now + job.seconds
            running.append(Running(run_id=job.run_id, worker=job.worker, allocation=start.allocation, ends=ends))
        free = Ledger(inventory, running).free.free.values()
        used = max(used, sum(share < 1 for node in free for share in node.devices))
        assert running, [job.run_id for job in waiting]
        now = min(run.ends for run in running)
        running = [run for run in running if run.ends > now]
    return started, used


@settings(max_examples=150)
@given(labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=5), most=st.integers(1, 24), rows=queue_st)
def test_every_run_has_its_turn_on_nodes_and_with_shapes_of_several_kinds(labels, most, rows):
    inventory = [Node(name=f"n{i}", total=Resources(cpus=32, gpus=8), labels=its) for i, its in enumerate(labels)]
    queue = [
        Job(run_id=f"j{i}", worker=Resources(cpus=1, gpus=gpus), workers=n, accelerator=a, rack=rack, seconds=seconds)
        for i, (n, gpus, a, rack, seconds) in enumerate(rows)
    ]
    queue = [j for j in queue if math.ceil(j.kind.devices) <= most and Capacity.of(inventory).share(j.kind)]
    started, used = turns(inventory, queue, most)
    assert len(started) == len(queue)
    assert used <= most


def test_a_gang_is_not_starved_by_runs_on_nodes_that_it_cannot_have():
    """Runs on other GPUs take all that may be used, two of 8 at a time, one ending as the other is half through."""
    inventory = [
        Node(name=f"{k}{i}", total=Resources(cpus=32, gpus=8), labels={ACCELERATOR: k})
        for k, i in [("A100", 0), ("A100", 1), ("A100", 2), ("H100", 0), ("H100", 1)]
    ]
    gpu = Resources(cpus=1, gpus=1)
    queue = [Job(run_id="half", worker=gpu, workers=8, seconds=30.0, priority=2)]
    queue += [Job(run_id=f"j{i:02}", worker=gpu, workers=8, seconds=60.0, accelerator="A100") for i in range(20)]
    queue += [Job(run_id="gang", worker=gpu, workers=16, seconds=60.0, accelerator="H100", queued=-1.0)]
    started, used = turns(inventory, queue, 16)
    assert used == 16
    assert started["gang"] <= 60.0
