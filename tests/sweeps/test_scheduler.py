"""The scheduler as a pure function: examples from Ray's own failures, and properties of every cluster and queue."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Hold, Job, Refuse, Running, Start, decide
from tests.sweeps import reference_scheduler

GPU = Resources(cpus=1, gpus=1)


def cluster(nodes, gpus=8):
    return [Node(name=f"n{i}", total=Resources(cpus=16, gpus=gpus)) for i in range(nodes)]


def job(name, workers=1, seconds=10.0, **kw):
    return Job(run_id=name, worker=GPU, workers=workers, seconds=seconds, **kw)


def kinds(decisions):
    return {d.run_id: type(d).__name__ for d in decisions}


def test_a_gang_starts_whole_on_whole_nodes():
    (start,) = decide(0, cluster(4), [job("big", workers=32)], [])
    assert start == Start(run_id="big", allocation={"n0": 8, "n1": 8, "n2": 8, "n3": 8})


def test_a_gang_that_fits_one_node_is_not_spread():
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 6}, ends=100)]
    (start,) = decide(0, cluster(2), [job("four", workers=4)], busy)
    assert start.allocation == {"n1": 4}


def test_small_runs_fill_the_fullest_node_first():
    busy = [Running(run_id="x", worker=GPU, allocation={"n1": 6}, ends=100)]
    (start,) = decide(0, cluster(2), [job("one")], busy)
    assert start.allocation == {"n1": 1}


@pytest.mark.parametrize("workers", [33, 64])
def test_an_impossible_run_is_refused_at_once_with_the_reason(workers):
    (refused,) = decide(0, cluster(4), [job("huge", workers=workers)], [])
    assert isinstance(refused, Refuse)
    assert f"{workers} workers of 1 GPU" in refused.reason
    assert "4 nodes" in refused.reason
    assert "placement" in refused.reason


def test_a_stream_of_small_runs_never_delays_the_big_one():
    """What Ray's own placement groups do: an 8-GPU group behind 1-GPU groups never started. Here second by second."""
    nodes, now, running, started = cluster(1), 0.0, [], None
    running = [Running(run_id=f"s{i}", worker=GPU, allocation={"n0": 1}, ends=1.0 + i) for i in range(8)]
    for second in range(60):
        now = float(second)
        running = [r for r in running if r.ends > now]
        queue = [job("big", workers=8, queued=0.0)] if started is None else []
        queue += [job(f"t{second}-{i}", seconds=20.0, queued=now + 1) for i in range(4)]
        for decision in decide(now, nodes, queue, running):
            if isinstance(decision, Start):
                length = 20.0
                running.append(
                    Running(run_id=decision.run_id, worker=GPU, allocation=decision.allocation, ends=now + length)
                )
                if decision.run_id == "big":
                    started = now
        if started is not None:
            break
    assert started == 8.0, "the moment at which the last of the eight running runs ended"


def test_backfill_uses_the_gap_only_if_the_head_is_not_delayed():
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 4}, ends=100)]
    queue = [job("head", workers=8, queued=0), job("short", seconds=90, queued=1), job("long", seconds=200, queued=2)]
    decisions = decide(0, cluster(1), queue, busy)
    assert kinds(decisions) == {"head": "Hold", "short": "Start", "long": "Hold"}
    assert decisions[0].eta == 100
    assert "would delay head" in decisions[2].reason


def test_a_long_run_may_start_beside_the_reservation():
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 8}, ends=100)]
    queue = [job("head", workers=12, queued=0), job("beside", seconds=1e6, queued=1)]
    nodes = [*cluster(2), Node(name="small", total=Resources(cpus=16, gpus=1))]
    decisions = decide(0, nodes, queue, busy)
    started = {d.run_id: d.allocation for d in decisions if isinstance(d, Start)}
    assert started == {"beside": {"small": 1}}


def test_priority_then_age_then_length():
    queue = [
        job("young", queued=5),
        job("old-short", seconds=1, queued=1),
        job("old-long", seconds=9, queued=1),
        job("vip", priority=1, queued=9),
    ]
    nodes = [Node(name="n", total=Resources(cpus=1, gpus=1))]
    order = []
    while queue:
        (start,) = [d for d in decide(0, nodes, queue, []) if isinstance(d, Start)]
        order.append(start.run_id)
        queue = [j for j in queue if j.run_id != start.run_id]
    assert order == ["vip", "old-long", "old-short", "young"]


nodes_st = st.lists(
    st.builds(Resources, cpus=st.integers(1, 16).map(float), gpus=st.integers(0, 8).map(float)), min_size=1, max_size=5
).map(lambda totals: [Node(name=f"n{i}", total=t) for i, t in enumerate(totals)])
shape_st = st.builds(Resources, cpus=st.sampled_from([0.5, 1.0, 2.0]), gpus=st.sampled_from([0.0, 1.0, 2.0]))
jobs_st = st.lists(
    st.tuples(shape_st, st.integers(1, 20), st.sampled_from([1.0, 5.0, 50.0, math.inf]), st.integers(0, 2)), max_size=12
).map(
    lambda rows: [
        Job(run_id=f"j{i}", worker=s, workers=w, seconds=t, priority=p, queued=float(i))
        for i, (s, w, t, p) in enumerate(rows)
    ]
)


def simulate(nodes, queue):
    """Run everything to the end; returns when each run started, checking the node limits at every moment."""
    now, running, started = 0.0, [], {}
    for _ in range(10 * len(queue) + 10):
        decisions = decide(now, nodes, queue, running)
        assert len(decisions) == len(queue)
        by_id = {j.run_id: j for j in queue}
        for d in decisions:
            if isinstance(d, Start):
                j = by_id[d.run_id]
                assert sum(d.allocation.values()) == j.workers, "all or nothing"
                length = j.seconds if j.seconds < math.inf else 7.0
                running.append(Running(run_id=d.run_id, worker=j.worker, allocation=d.allocation, ends=now + length))
                started[d.run_id] = now
        for node in nodes:
            used = Resources()
            for r in running:
                used = used.plus(r.worker.times(r.allocation.get(node.name, 0)))
            assert node.total.fits(used), "a node is over-committed"
        settled = {d.run_id for d in decisions if not isinstance(d, Hold)}
        queue = [j for j in queue if j.run_id not in settled]
        if not queue:
            return started
        assert running, "nothing runs and somebody waits: a deadlock"
        now = min(r.ends for r in running)
        running = [r for r in running if r.ends > now]
    raise AssertionError("the queue never emptied")


@settings(max_examples=150, deadline=None)
@given(nodes=nodes_st, queue=jobs_st)
def test_every_queue_empties_and_no_node_is_ever_over_committed(nodes, queue):
    simulate(nodes, queue)


@settings(max_examples=100, deadline=None)
@given(nodes=nodes_st, queue=jobs_st)
def test_the_same_input_gives_the_same_decisions(nodes, queue):
    assert decide(0, nodes, queue, []) == decide(0, list(nodes), list(reversed(queue)), [])


@settings(max_examples=100, deadline=None)
@given(nodes=nodes_st, queue=jobs_st)
def test_the_head_starts_no_later_than_promised(nodes, queue):
    queue = [Job(**{**vars(j), "seconds": min(j.seconds, 50.0)}) for j in queue]
    held = [d for d in decide(0, nodes, queue, []) if isinstance(d, Hold) and d.eta is not None]
    if held:
        assert simulate(nodes, queue)[held[0].run_id] <= held[0].eta + 1e-6


busy_st = st.lists(
    st.tuples(shape_st, st.integers(0, 4), st.integers(1, 4), st.sampled_from([-1.0, 1.0, 5.0, 50.0, math.inf])),
    max_size=8,
)


def running_on(nodes, rows):
    """Runs that hold what still fits, node by node."""
    free, found = Capacity.of(nodes), []
    for i, (shape, index, workers, ends) in enumerate(rows):
        name = nodes[index % len(nodes)].name
        if free.free[name].workers(shape) >= workers:
            free.take(shape, {name: workers})
            found.append(Running(run_id=f"r{i}", worker=shape, allocation={name: workers}, ends=ends))
    return found


@settings(max_examples=400, deadline=None)
@given(nodes=nodes_st, queue=jobs_st, busy=busy_st)
def test_the_decisions_are_those_of_the_plain_scheduler(nodes, queue, busy):
    running = running_on(nodes, busy)
    assert decide(0.0, nodes, queue, running) == reference_scheduler.decide(0.0, nodes, queue, running)


def test_fractions_of_a_gpu_are_packed_by_device():
    """Ray gives a fraction from one device: five runs of 0.75 on four GPUs are four that run and one that waits."""
    part = Resources(cpus=1, gpus=0.75)
    queue = [Job(run_id=f"j{i}", worker=part, seconds=10) for i in range(5)]
    decisions = decide(0, cluster(1, gpus=4), queue, [])
    assert sum(isinstance(d, Start) for d in decisions) == 4
    busy = [Running(run_id="x", worker=Resources(cpus=1, gpus=0.5), allocation={"n0": 1}, ends=100)]
    third = Resources(cpus=1, gpus=0.5)
    queue = [Job(run_id=f"h{i}", worker=third, seconds=10) for i in range(2)] + [job("whole", queued=1.0)]
    started = [d.run_id for d in decide(0, cluster(1, gpus=2), queue, busy) if isinstance(d, Start)]
    assert started == ["h0", "h1"], "the first half fills the device that is begun, the second begins the other"


def test_what_fits_no_device_is_refused():
    (refused,) = decide(0, cluster(1), [Job(run_id="j", worker=Resources(cpus=1, gpus=1.5))], [])
    assert isinstance(refused, Refuse)


def test_a_gang_too_large_for_the_nodes_that_are_left_waits_for_the_others_and_blocks_nobody():
    queue = [job("gang", workers=16, queued=0.0), job("one", queued=1.0)]
    held, started = decide(0, cluster(1), queue, [], largest=cluster(2))
    assert isinstance(held, Hold)
    assert "more than the 1 node alive now can offer" in held.reason
    assert isinstance(started, Start)
    (refused,) = decide(0, cluster(1), [job("gang", workers=24)], [], largest=cluster(2))
    assert isinstance(refused, Refuse)
    assert "this cluster of 2 nodes" in refused.reason


def test_a_run_that_is_overdue_frees_its_room_at_any_moment():
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 8}, ends=-50.0)]
    (held,) = decide(0, cluster(1), [job("next", workers=8)], busy)
    assert held.eta == 0


def test_thousands_of_runs_on_a_thousand_nodes_share_their_placements():
    """No run looks at every node: 10,000 runs of three kinds ask the cluster a few times, not 10 million times."""
    asked = 0
    real = Capacity.place

    def counted(self, *kind):
        nonlocal asked
        asked += 1
        return real(self, *kind)

    queue = [job(f"j{i}", workers=[1, 1, 1, 8, 64][i % 5], queued=float(i)) for i in range(10_000)]
    queue.append(job("gpt3", workers=8000, queued=-1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Capacity, "place", counted)
        decisions = decide(0, cluster(1000), queue, [])
    assert decisions[0] == Start(run_id="gpt3", allocation={f"n{i}": 8 for i in sorted(range(1000), key=str)})
    assert asked < 10


def test_workers_that_belong_together_share_a_node():
    nodes = cluster(3, gpus=3)
    (start,) = decide(0, nodes, [job("six", workers=6)], [])
    assert start.allocation == {"n0": 3, "n1": 3}
    (start,) = decide(0, nodes, [job("pairs", workers=6, together=2)], [])
    assert start.allocation == {"n0": 2, "n1": 2, "n2": 2}, "three on a node would part a pair"
    (refused,) = decide(0, nodes, [job("fours", workers=8, together=4)], [])
    assert isinstance(refused, Refuse)
    assert "8 workers of 1 GPU and 1 core at once (each 4 on one node)" in refused.reason
