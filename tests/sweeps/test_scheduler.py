"""The scheduler as a pure function: examples, from Ray's own failures among others."""

import math
from dataclasses import replace

import pytest

from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import ACCELERATOR, Node, Resources
from sweeps.scheduling.scheduler import Hold, Job, Preempt, Refuse, Rules, Running, Start, decide

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


def test_of_those_that_may_go_ahead_the_shortest_does_and_age_counts_as_much_as_length():
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 7}, ends=100)]
    head, hour = job("head", workers=8, queued=0), job("old", seconds=90, queued=1.0)

    def ahead(*others, **rules):
        decisions = decide(0, cluster(1), [head, *others], busy, rules=Rules(**rules))
        return [d.run_id for d in decisions if isinstance(d, Start)]

    assert ahead(hour, job("short", seconds=10, queued=80.0)) == ["short"]
    assert ahead(hour, job("short", seconds=10, queued=82.0)) == ["old"], "80 s shorter, 81 s later"
    assert ahead(hour, job("short", seconds=10, queued=5.0), patience=3.0) == ["old"]
    assert ahead(replace(hour, priority=1), job("short", seconds=10, queued=1.0)) == ["old"], "priority before length"


def test_nobody_behind_a_run_that_needs_most_of_the_cluster_delays_it():
    """The whole cluster is free at 300 s: a long run behind the gang would do no harm to the first, and much to it."""
    ends = {"n0": 100.0, "n1": 100.0, "n2": 300.0}
    busy = [Running(run_id=name, worker=GPU, allocation={name: 8}, ends=end) for name, end in ends.items()]
    queue = [job("head", workers=16, queued=0), job("all", workers=32, queued=2)]

    def told(*others):
        return {d.run_id: d for d in decide(0, cluster(4), [*queue, *others], busy)}

    late = told(job("late", seconds=301, queued=3))["late"]
    why = "would delay all, which needs more than half of the cluster, expected in 300 s at the earliest"
    assert late == Hold(run_id="late", reason=why)
    assert isinstance(told(job("short", seconds=300, queued=3))["short"], Start)
    assert isinstance(told(job("older", seconds=301, queued=1))["older"], Start), "it stands before it"
    assert isinstance(told(job("late", seconds=101, queued=3, workers=8))["late"], Start), "beside the first"
    queue[1] = job("half", workers=16, queued=2)
    assert isinstance(told(job("late", seconds=301, queued=3))["late"], Start), "two of them fit beside each other"


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
    assert "more than the 1 node that may be used now can offer" in held.reason
    assert isinstance(started, Start)
    (refused,) = decide(0, cluster(1), [job("gang", workers=24)], [], largest=cluster(2))
    assert isinstance(refused, Refuse)
    assert "this cluster of 2 nodes" in refused.reason


def test_a_run_that_is_overdue_is_not_taken_to_end_at_any_moment():
    """It takes a fifth of its delay yet: others use that time, and the first waits for another that ends sooner."""
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 4}, ends=-50.0)]
    queue = [job("next", workers=8, queued=-1.0), job("short", 4, seconds=9), job("long", 4, seconds=11)]
    held, long, short = decide(0, cluster(1), queue, busy)
    assert held.eta == pytest.approx(10)
    assert isinstance(long, Hold)
    assert isinstance(short, Start)
    busy.append(Running(run_id="y", worker=GPU, allocation={"n1": 8}, ends=8.0))
    assert decide(0, cluster(2), [job("next", workers=8)], busy)[0].eta == 8


def test_thousands_of_runs_on_a_thousand_nodes_share_their_placements():
    """No run looks at every node: 10,000 runs of three kinds ask the cluster a few times, not 10 million times."""
    asked = 0
    real = Capacity.place

    def counted(self, kind, share):
        nonlocal asked
        asked += 1
        return real(self, kind, share)

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


def test_a_gang_of_several_nodes_takes_whole_nodes_and_waits_for_them():
    """16 GPUs are two nodes, not four halves, which would talk over the network more and break up four nodes."""
    half = [Running(run_id=f"r{i}", worker=GPU, allocation={f"n{i}": 4}, ends=50.0 + i) for i in range(4)]
    (held,) = decide(0, cluster(4), [job("gang", workers=16)], half)
    assert isinstance(held, Hold)
    assert held.eta == 51
    for_ever = [Running(run_id="others on n0", worker=Resources(gpus=4), allocation={f"n{i}": 1}) for i in range(3)]
    (start,) = decide(0, cluster(4), [job("gang", workers=16)], for_ever)
    assert start.allocation == {"n0": 4, "n1": 4, "n2": 4, "n3": 4}, "what others hold for ever is not waited for"


RACK = "ray.io/gpu-domain"


def racked(*sizes, accelerator="H100"):
    """Nodes of eight GPUs, so many in each rack."""
    labels = [{RACK: f"rack{i}", ACCELERATOR: accelerator} for i, size in enumerate(sizes) for _ in range(size)]
    return [Node(name=f"n{i}", total=Resources(cpus=16, gpus=8), labels=each) for i, each in enumerate(labels)]


def test_a_gang_that_asks_for_one_rack_lies_in_one():
    nodes = racked(3, 4, 2)
    (start,) = decide(0, nodes, [job("gang", workers=16, rack=RACK)], [])
    assert start.allocation == {"n7": 8, "n8": 8}, "the smallest rack that can"
    busy = [Running(run_id="x", worker=GPU, allocation={"n0": 1, "n3": 1, "n7": 1}, ends=100)]
    free, waits = decide(0, nodes, [job("anywhere", workers=48), job("gang", workers=32, rack=RACK, queued=1.0)], busy)
    assert isinstance(free, Start)
    assert isinstance(waits, Hold)
    assert "in one ray.io/gpu-domain" in waits.reason


def test_a_gang_larger_than_any_rack_is_refused_though_the_cluster_is_large_enough():
    (refused,) = decide(0, racked(3, 4, 2), [job("gang", workers=40, rack=RACK)], [])
    assert isinstance(refused, Refuse)
    assert "40 workers of 1 GPU and 1 core at once, in one ray.io/gpu-domain" in refused.reason
    assert "no ray.io/gpu-domain is that large, only several together: leave placement.rack out" in refused.reason
    (start,) = decide(0, racked(3, 4, 2), [job("gang", workers=40)], [])
    assert isinstance(start, Start)


def test_a_node_without_the_label_is_a_rack_of_its_own():
    (start,) = decide(0, cluster(2), [job("one", workers=8, rack=RACK)], [])
    assert start.allocation == {"n0": 8}
    (refused,) = decide(0, cluster(2), [job("two", workers=16, rack=RACK)], [])
    assert isinstance(refused, Refuse)


def test_a_run_for_one_kind_of_gpu_never_goes_to_another():
    nodes = [*racked(1), Node(name="old", total=Resources(cpus=16, gpus=8), labels={ACCELERATOR: "A100"})]
    queue = [job("a", workers=8, accelerator="A100"), job("b", workers=8, accelerator="H100", queued=1.0)]
    queue += [job("c", accelerator="A100", queued=2.0), job("any", workers=16, queued=-1.0, seconds=5.0)]
    whole, *_ = decide(0, nodes, queue, [])
    assert whole.allocation == {"n0": 8, "old": 8}
    a, b, c = decide(0, nodes, queue[:3], [])
    assert (a.allocation, b.allocation) == ({"old": 8}, {"n0": 8})
    assert isinstance(c, Hold)
    (refused,) = decide(0, nodes, [job("x", accelerator="V100")], [])
    assert "no node is labelled ray.io/accelerator-type=V100 (there are: A100, H100)" in refused.reason
    assert "placement.accelerator" in refused.reason


def test_a_run_that_names_no_gpu_leaves_those_that_queued_runs_name():
    """It is first in the queue, and the kind that is asked for is the fuller one and the first by name."""
    kinds = ["A100", "A100", "H100", "V100"]
    nodes = [
        Node(name=f"{kind}-{i}", total=Resources(cpus=16, gpus=8), labels={ACCELERATOR: kind})
        for i, kind in enumerate(kinds)
    ]
    busy = [Running(run_id="r", worker=GPU, allocation={"A100-0": 6}, ends=9.0)]
    anyone, named = job("any"), [job("a", workers=8, accelerator="A100"), job("h", accelerator="H100")]
    alone, *_ = decide(0, nodes, [anyone], busy)
    assert alone.allocation == {"A100-0": 1}, "nobody names any: the fullest"
    first, *_ = decide(0, nodes, [replace(anyone, queued=-1.0), *named], busy)
    assert first.allocation == {"V100-3": 1}
    without = nodes[:3]
    first, *_ = decide(0, without, [replace(anyone, queued=-1.0), *named], busy)
    assert first.allocation == {"H100-2": 1}, "1 of 8 of these is asked for, of the others 8 of 16"
    gang, *_ = decide(0, nodes, [job("gang", workers=16, queued=-1.0), *named], [])
    assert gang.allocation == {"V100-3": 8, "H100-2": 8}


def test_a_gang_that_names_no_gpu_has_one_kind_where_there_is_room_for_that():
    """A gang on two kinds goes at the pace of the slower one, and pays for both."""
    kinds = {"n0": "H100", "n1": "A100", "n2": "H100", "n3": "A100"}
    nodes = [Node(name=n, total=Resources(cpus=16, gpus=8), labels={ACCELERATOR: k}) for n, k in kinds.items()]
    (start,) = decide(0, nodes, [job("gang", workers=16)], [])
    assert {kinds[name] for name in start.allocation} == {"A100"}
    first, _ = decide(0, nodes, [job("gang", workers=16, queued=-1.0), job("named", accelerator="A100")], [])
    assert {kinds[name] for name in first.allocation} == {"H100"}
    (start,) = decide(0, nodes, [job("gang", workers=24)], [])
    assert len(start.allocation) == 3, "no kind has room for all of it"


def test_what_others_hold_keeps_nobody_but_the_gang_waiting_for_longer_than_they_have_held_it():
    """Somebody's notebook on one of eight GPUs, and the first of the queue needs all: the other seven stood idle."""
    queue = [job("gang", workers=8), job("short", seconds=60, queued=1.0), job("long", seconds=600, queued=1.0)]

    others = [Running(run_id="others on n0", worker=GPU, allocation={"n0": 1}, since=0.0)]

    def told(now):
        return {d.run_id: d for d in decide(now, cluster(1), queue, others)}

    assert kinds(told(59.0).values()) == {"gang": "Hold", "short": "Hold", "long": "Hold"}, "they may be gone at once"
    assert kinds(told(60.0).values()) == {"gang": "Hold", "short": "Start", "long": "Hold"}
    assert kinds(told(600.0).values()) == {"gang": "Hold", "short": "Start", "long": "Start"}
    assert "for which somebody else must free what they hold" in told(600.0)["gang"].reason
    gangs = [queue[0], job("next", workers=8, queued=2.0)]
    assert [d.eta for d in decide(600.0, cluster(1), gangs, others)] == [math.inf, math.inf]


def test_a_run_without_gpus_leaves_the_nodes_that_have_some():
    nodes = [Node(name="a", total=Resources(cpus=4, gpus=8)), Node(name="b", total=Resources(cpus=64))]
    small = Job(run_id="cores", worker=Resources(cpus=2), seconds=10)
    (start,) = decide(0, nodes, [small], [])
    assert start.allocation == {"b": 1}
    (start,) = decide(0, nodes[:1], [small], [])
    assert start.allocation == {"a": 1}


def test_workers_of_different_shapes_share_one_cluster():
    queue = [
        Job(run_id="cores", worker=Resources(cpus=4), workers=2, seconds=10),
        Job(run_id="half", worker=Resources(cpus=1, gpus=0.5), seconds=10),
        job("gang", workers=16, seconds=20.0),
    ]
    started = {d.run_id: d.allocation for d in decide(0, cluster(3), queue, [])}
    assert started == {"gang": {"n0": 8, "n1": 8}, "cores": {"n0": 2}, "half": {"n2": 1}}


def test_a_step_of_priority_is_worth_the_patience_and_no_more():
    rules = Rules(patience=100.0)
    nodes = [Node(name="n", total=Resources(cpus=1, gpus=1))]
    old = job("old", queued=0.0)
    first = decide(0, nodes, [old, job("vip", priority=1, queued=99.0)], [], rules=rules)
    assert first[0].run_id == "vip"
    first = decide(0, nodes, [old, job("vip", priority=1, queued=101.0)], [], rules=rules)
    assert first[0].run_id == "old", "it has waited for longer than the bound"


def low(name, nodes, workers=8, **words):
    words = {"ends": 1e5, "resumable": True, "queued": 5.0} | words
    return Running(run_id=name, worker=GPU, allocation=dict.fromkeys(nodes.split(), workers), **words)


def preempting(nodes, queue, running):
    decisions = decide(10.0, nodes, queue, running, rules=Rules(preempt=True))
    return decisions, {d.run_id for d in decisions if isinstance(d, Preempt)}


def test_the_fewest_runs_that_can_resume_make_room_for_one_of_higher_priority():
    busy = [low("a", "n0", 4), low("b", "n0", 4), low("c", "n1"), low("d", "n2", 8, priority=2)]
    gang = job("gang", workers=8, priority=1, queued=9.0)
    decisions, stopped = preempting(cluster(3), [gang, job("small", queued=9.5)], busy)
    assert stopped == {"c"}, "one run, not two, and none of higher priority"
    assert decisions[0].reason.startswith("first in the queue, 1 of lower priority make room, needs 8 workers")
    assert decisions[0].eta == 40
    assert isinstance(decisions[1], Hold)
    assert decisions[-1] == Preempt(run_id="c", by="gang")
    assert preempting(cluster(3), [gang], [replace(r, resumable=False) for r in busy])[1] == set()
    assert not [d for d in decide(10.0, cluster(3), [gang], busy) if isinstance(d, Preempt)], "only if asked for"


def test_nobody_is_stopped_where_the_gang_would_not_fit_all_the_same():
    busy = [low("a", "n0"), low("b", "n1", resumable=False)]
    assert preempting(cluster(2), [job("gang", workers=16, priority=1)], busy)[1] == set()
    assert preempting(cluster(2), [job("gang", workers=8, priority=1)], busy)[1] == {"a"}
    soon = [replace(run, ends=60.0) for run in busy]
    assert preempting(cluster(2), [job("gang", workers=16, priority=1)], soon)[1] == set(), "it starts soon anyway"


def test_while_the_stopped_write_their_checkpoints_their_place_is_kept_and_nobody_else_is_stopped():
    busy = [low("a", "n0", stopping=True), low("b", "n1")]
    queue = [job("gang", workers=8, priority=1, queued=9.0), job("later", workers=8, queued=9.5)]
    decisions, stopped = preempting(cluster(2), queue, busy)
    assert stopped == set()
    assert decisions[0].eta == 40
    after = [job("a", workers=8, queued=5.0), *queue]  # a has stopped and waits again
    decisions, stopped = preempting(cluster(2), after, busy[1:])
    assert [type(d).__name__ for d in decisions] == ["Start", "Hold", "Hold"]
    assert decisions[0].run_id == "gang"
    assert stopped == set()


def test_a_run_older_than_the_patience_is_not_stopped_for_it_would_come_first_again():
    busy = [low("old", "n0", queued=-2 * 86_400.0)]
    assert preempting(cluster(1), [job("gang", workers=8, priority=1, queued=9.0)], busy)[1] == set()
    assert preempting(cluster(1), [job("gang", workers=8, priority=3, queued=9.0)], busy)[1] == {"old"}
