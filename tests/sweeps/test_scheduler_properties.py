"""Properties of every cluster and queue: racks, kinds of GPU, shapes, priorities and preemption in the mix."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import ACCELERATOR, Node, Resources
from sweeps.scheduling.ledger import Ledger, Queue
from sweeps.scheduling.scheduler import Hold, Job, Preempt, Refuse, Rules, Running, Start, decide, skim
from sweeps.scheduling.simulator import Failures, cluster, simulate
from tests.sweeps import reference_scheduler

LABELS = [{}, {"rack": "r0"}, {"rack": "r1"}, {"rack": "r0", ACCELERATOR: "A100"}, {ACCELERATOR: "H100"}]
nodes_st = st.lists(
    st.tuples(st.integers(1, 16), st.integers(0, 8), st.sampled_from(LABELS)), min_size=1, max_size=5
).map(
    lambda rows: [
        Node(name=f"n{i}", total=Resources(cpus=float(c), gpus=float(g)), labels=labels)
        for i, (c, g, labels) in enumerate(rows)
    ]
)
shape_st = st.builds(Resources, cpus=st.sampled_from([0.5, 1.0, 2.0]), gpus=st.sampled_from([0.0, 1.0, 2.0]))
PATIENCE = 40.0
RULES = st.builds(Rules, patience=st.just(PATIENCE), preempt=st.booleans())
LENGTHS = [1.0, 5.0, 50.0, 500.0]
GPU = Resources(cpus=1, gpus=1)


def jobs_of(lengths, most=12):
    row = st.tuples(
        shape_st,
        st.integers(1, 20),
        st.sampled_from([1, 1, 2]),
        st.sampled_from(lengths),
        st.integers(0, 2),
        st.sampled_from(["", "", "rack"]),
        st.sampled_from(["", "", "A100"]),
        st.integers(0, 100),
    )
    return st.lists(row, max_size=most).map(
        lambda rows: [
            Job(
                run_id=f"j{i:02}",
                worker=shape,
                workers=workers,
                together=together if workers % together == 0 else 1,
                seconds=seconds,
                priority=priority,
                rack=rack,
                accelerator=accelerator,
                queued=float(queued),
            )
            for i, (shape, workers, together, seconds, priority, rack, accelerator, queued) in enumerate(rows)
        ]
    )


busy_st = st.lists(
    st.tuples(
        shape_st,
        st.integers(0, 4),
        st.integers(1, 4),
        st.sampled_from([-1.0, 1.0, 5.0, 500.0, math.inf]),
        st.integers(0, 2),
        st.integers(0, 100),
        st.sampled_from([True, True, False]),
        st.sampled_from([False, False, True]),
    ),
    max_size=8,
)


def running_on(nodes, rows):
    """Runs that hold what still fits, node by node."""
    free, found = Capacity.of(nodes), []
    for i, (shape, index, workers, ends, priority, queued, resumable, stopping) in enumerate(rows):
        name = nodes[index % len(nodes)].name
        if free.free[name].workers(shape) >= workers:
            free.take(shape, {name: workers})
            run = Running(run_id=f"r{i}", worker=shape, allocation={name: workers}, ends=ends, priority=priority)
            found.append(replace(run, queued=float(queued), resumable=resumable, stopping=stopping))
    return found


def told(decision):
    """A decision with as much of its reason as the plain scheduler gives."""
    if isinstance(decision, Start | Preempt):
        return decision
    reason = decision.reason.split(",")[0] if isinstance(decision, Hold) else ""
    return type(decision).__name__, decision.run_id, "first" in reason, getattr(decision, "eta", None)


@settings(max_examples=300)
@given(nodes=nodes_st, queue=jobs_of([*LENGTHS, math.inf]), busy=busy_st)
def test_the_decisions_are_those_of_the_plain_scheduler(nodes, queue, busy):
    running, rules = running_on(nodes, busy), Rules(patience=PATIENCE)
    mine = decide(100.0, nodes, queue, running, rules=rules)
    assert list(map(told, mine)) == list(map(told, reference_scheduler.decide(100.0, nodes, queue, running, rules)))


@settings(max_examples=150)
@given(
    nodes=st.integers(3, 8),
    busy=st.lists(st.sampled_from([1.0, 5.0, 50.0, 500.0]), min_size=1, max_size=4),
    queue=st.lists(st.tuples(st.integers(1, 8), st.sampled_from(LENGTHS), st.integers(0, 100)), min_size=2, max_size=6),
)
@example(nodes=4, busy=[5.0, 5.0, 50.0], queue=[(2, 5.0, 0), (4, 5.0, 2), (1, 500.0, 3)])
def test_the_decisions_on_whole_nodes_are_those_of_the_plain_scheduler(nodes, busy, queue):
    """Gangs that need most of the cluster, and others that start beside the first, are common here."""
    cells = cluster(8 * nodes, 8, 1)
    running = [
        Running(run_id=f"r{i}", worker=GPU, allocation={cells[i].name: 8}, ends=100.0 + ends)
        for i, ends in enumerate(busy[: nodes - 1])
    ]
    jobs = [
        Job(run_id=f"j{i}", worker=GPU, workers=8 * min(size, nodes), seconds=seconds, queued=float(queued))
        for i, (size, seconds, queued) in enumerate(queue)
    ]
    rules = Rules(patience=PATIENCE)
    mine = decide(100.0, cells, jobs, running, rules=rules)
    assert list(map(told, mine)) == list(map(told, reference_scheduler.decide(100.0, cells, jobs, running, rules)))


@settings(max_examples=300)
@given(nodes=nodes_st, queue=jobs_of(LENGTHS, 4), busy=busy_st)
def test_who_is_stopped_may_be_and_is_needed_and_the_run_then_fits(nodes, queue, busy):
    """Against all sets of runs: none is stopped in vain, none where stopping all would not do, no more than needed."""
    running, rules = running_on(nodes, busy), Rules(patience=PATIENCE, preempt=True)
    decisions = decide(100.0, nodes, queue, running, rules=rules)
    stopped = {d.run_id for d in decisions if isinstance(d, Preempt)}
    plain = reference_scheduler.decide(100.0, nodes, queue, running, rules)
    least = {d.run_id for d in plain if isinstance(d, Preempt)}
    assert bool(stopped) == bool(least)
    if not stopped:
        return
    (by,) = {d.by for d in decisions if isinstance(d, Preempt)}
    head = next(job for job in queue if job.run_id == by)
    for run in running:
        if run.run_id in stopped:
            assert run.resumable
            assert run.priority < head.priority
            assert not run.stopping
            assert run.queued - PATIENCE * run.priority > head.queued - PATIENCE * head.priority
    started = [
        Running(run_id=d.run_id, worker=j.worker, allocation=d.allocation)
        for d in decisions
        for j in queue
        if isinstance(d, Start) and d.run_id == j.run_id
    ]
    before = decisions[: [d.run_id for d in decisions].index(by)]  # they stood before it in the queue
    started = [run for run in started if run.run_id in {d.run_id for d in before}]
    stay = [run for run in running if not run.stopping]

    def fits(gone):
        left = [*started, *[run for run in stay if run.run_id not in gone]]
        lasting = [replace(run, ends=math.inf) for run in left]
        (now,) = [d for d in decide(100.0, nodes, [head], lasting, rules=rules) if d.run_id == by]
        return isinstance(now, Start)

    assert fits(stopped)
    shared = reference_scheduler.held
    cost = {run.run_id: shared(run) for run in running}
    assert len(stopped) <= len(least) + 1, "within one of the fewest there are"
    if len(stopped) == len(least):
        assert sum(cost[i] for i in stopped) >= sum(cost[i] for i in least) - 1e-9


@pytest.mark.soak
@settings(max_examples=100)
@given(nodes=nodes_st, queue=jobs_of(LENGTHS), busy=busy_st, rules=RULES)
def test_the_same_input_gives_the_same_decisions(nodes, queue, busy, rules):
    running = running_on(nodes, busy)
    forward = decide(100.0, nodes, queue, running, rules=rules)
    assert forward == decide(100.0, list(nodes), list(reversed(queue)), running, rules=rules)
    assert len(forward) - sum(isinstance(d, Preempt) for d in forward) == len(queue)


def rank(job):
    """Who is before whom: priority is worth waiting."""
    return job.queued - PATIENCE * job.priority


class Watch:
    """Looks at every pass of a simulation: nodes, gangs, and what the first of the queue was promised."""

    def __init__(self, jobs, *, honest):
        self.jobs, self.honest = {job.run_id: job for job in jobs}, honest
        self.promised, self.stops = {}, {}

    def __call__(self, now, inventory, queue, running, decisions):
        after = list(running)
        starts = [self.jobs[d.run_id] for d in decisions if isinstance(d, Start)]
        for run_id in list(self.promised):  # whoever stands before it and starts now has come since
            if any(rank(job) < rank(self.jobs[run_id]) for job in starts):
                self.promised.clear()
        for d in decisions:
            if isinstance(d, Start):
                job = self.jobs[d.run_id]
                assert sum(d.allocation.values()) == job.workers, "all or nothing"
                assert len(set(d.allocation.values())) == 1
                after.append(Running(run_id=d.run_id, worker=job.worker, allocation=d.allocation))
                by_name = {node.name: node for node in inventory}
                nodes = [by_name[name] for name in d.allocation]
                if job.accelerator:
                    assert {n.labels.get(ACCELERATOR) for n in nodes} == {job.accelerator}
                if job.rack and len(nodes) > 1:
                    assert len({n.labels[job.rack] for n in nodes}) == 1
                if self.honest and d.run_id in self.promised:
                    assert now <= self.promised[d.run_id] + 1e-6, "later than it was promised"
            elif isinstance(d, Preempt):
                self.stops[d.run_id] = self.stops.get(d.run_id, 0) + 1
        for node in inventory:
            used = Resources()
            for run in after:
                used = used.plus(run.worker.times(run.allocation.get(node.name, 0)))
            assert node.total.fits(used), "a node is over-committed"
        head = next((d for d in decisions if isinstance(d, Hold) and d.eta is not None), None)
        self.promised = {} if head is None else {head.run_id: min(head.eta, self.promised.get(head.run_id, math.inf))}


def possible(nodes, queue):
    return {job.run_id for job in queue if not isinstance(decide(0.0, nodes, [job], [])[0], Refuse)}


HALF, WHOLE = Resources(cpus=0.5), Resources(cpus=1.0)
OVERTAKEN = [  # the run of three workers is promised the time 2, when one of a higher priority comes
    *(Job(run_id=f"j0{i}", worker=HALF, seconds=1.0) for i in range(7)),
    Job(run_id="j07", worker=HALF, seconds=1.0, priority=1, queued=2.0),
    Job(run_id="j08", worker=HALF, seconds=5.0, queued=1.0),
    Job(run_id="j09", worker=HALF, workers=3, seconds=1.0),
    Job(run_id="j10", worker=WHOLE, workers=6, seconds=5.0),
]


@settings(max_examples=150)
@given(nodes=nodes_st, queue=jobs_of(LENGTHS, 20), rules=RULES)
@example(nodes=[Node(name="n0", total=Resources(cpus=8.0))], queue=OVERTAKEN, rules=Rules(patience=PATIENCE))
def test_everything_possible_ends_and_the_first_of_the_queue_starts_no_later_than_promised(nodes, queue, rules):
    watch = Watch(queue, honest=True)
    done = simulate(nodes, queue, rules=rules, watch=watch)
    assert {spell.run_id for spell in done.spells if spell.outcome == "done"} == possible(nodes, queue)
    assert set(done.refused) == {job.run_id for job in queue} - possible(nodes, queue)


@settings(max_examples=100)
@given(
    nodes=nodes_st,
    queue=jobs_of(LENGTHS, 20),
    rules=RULES,
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_everything_possible_ends_though_nodes_are_lost_runs_fail_and_estimates_are_wrong(
    nodes, queue, rules, seed, spread
):
    failures = Failures(seed=seed, node_hours=1.0, back_seconds=20.0, run_fails=0.2, spread=spread, checkpoint=10.0)
    watch = Watch(queue, honest=False)
    done = simulate(nodes, queue, rules=rules, failures=failures, watch=watch)
    ended = [spell.run_id for spell in done.spells if spell.outcome == "done"]
    assert sorted(ended) == sorted(possible(nodes, queue)), "each once"
    again = simulate(nodes, queue, rules=rules, failures=failures)
    assert again == done, "the same seed, the same day"


@settings(max_examples=60)
@given(
    patient=st.integers(1, 4),
    stream=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(1, 30)), min_size=60, max_size=60),
    preempt=st.booleans(),
)
def test_nobody_is_overtaken_for_longer_than_the_patience(patient, stream, preempt):
    """A stream of higher priorities without end: who is asked for too late goes behind, so the start has a bound.

    Ahead of a run are those asked for within ``patience`` times the steps that they are above it; each of them is the
    first of the queue for at most the longest run's time, and can be stopped for the others at most.
    """
    nodes, longest = cluster(16, 8, 1), 30.0
    jobs = [Job(run_id="patient", worker=GPU, workers=4 * patient, seconds=10.0, queued=0.0)]
    for i, (workers, priority, seconds) in enumerate(stream):
        jobs.append(
            Job(run_id=f"s{i:02}", worker=GPU, workers=2 * workers, seconds=seconds, priority=priority, queued=4.0 * i)
        )
    rules = Rules(patience=20.0, preempt=preempt)
    ahead = [j for j in jobs[1:] if j.queued - 20.0 * j.priority <= 0.0]
    done = simulate(nodes, jobs, rules=rules)
    starts = [spell.started for spell in done.spells if spell.run_id == "patient"]
    assert starts[0] <= max(j.queued for j in [jobs[0], *ahead]) + (len(ahead) + 1) * longest
    greedy = 4.0 * len(stream)
    assert starts[-1] < greedy + longest * len(ahead)


@settings(max_examples=80)
@given(
    nodes=st.integers(2, 8),
    under_way=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(LENGTHS)), max_size=5),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    behind=st.lists(st.tuples(st.integers(1, 8), st.sampled_from(LENGTHS), st.integers(3, 60)), max_size=8),
)
@example(nodes=4, under_way=[(2, 5.0)], sizes=(3, 2), behind=[(1, 50.0, 3)])
def test_a_run_that_needs_most_of_the_cluster_starts_as_if_nobody_stood_behind_it(nodes, under_way, sizes, behind):
    def gang(name, size, seconds, queued):
        return Job(run_id=name, worker=GPU, workers=8 * min(size, nodes), seconds=seconds, queued=queued)

    alone = [gang(f"r{i}", size, seconds, 0.0) for i, (size, seconds) in enumerate(under_way)]
    alone += [gang("next", sizes[0], 20.0, 1.0), gang("wide", nodes // 2 + sizes[1], 20.0, 2.0)]
    crowd = [gang(f"b{i}", *one) for i, one in enumerate(behind)]
    if len(under_way) > 1:  # of those that wait the first is one of them: nobody stands between it and the wide one
        alone[:-2] = [one for one in alone[:-2] if one.workers * len(under_way) <= 8 * nodes]
    started = [
        {s.run_id: s.started for s in simulate(cluster(8 * nodes, 8, 1), jobs).spells}
        for jobs in (alone, alone + crowd)
    ]
    assert started[1]["next"] <= started[0]["next"] + 1e-6
    if started[0]["wide"] >= started[0]["next"]:  # that it might go ahead of the first is not promised
        assert started[1]["wide"] <= started[0]["wide"] + 1e-6


@settings(max_examples=60)
@given(nodes=nodes_st, queue=jobs_of([200.0, 500.0], 16))
def test_two_runs_never_stop_each_other(nodes, queue):
    stops = []

    def watch(now, inventory, waiting, running, decisions):
        stops.extend((d.run_id, d.by) for d in decisions if isinstance(d, Preempt))

    simulate(nodes, queue, rules=Rules(patience=PATIENCE, preempt=True), watch=watch)
    for (a, b), (c, d) in itertools.combinations(stops, 2):
        assert (a, b) != (d, c), f"{a} and {b} stop each other"


@pytest.mark.soak
@settings(max_examples=300)
@given(nodes=nodes_st, queue=jobs_of([*LENGTHS, math.inf], 20), busy=busy_st, rules=RULES)
def test_a_pass_that_skims_starts_and_stops_the_same_runs(nodes, queue, busy, rules):
    running = running_on(nodes, busy)
    every = decide(100.0, nodes, queue, running, rules=rules)
    said = skim(100.0, Ledger(nodes, running), Queue(rules, queue), nodes, rules)
    mine, its = ([d for d in all_of if isinstance(d, Start | Preempt)] for all_of in (said, every))
    assert sorted(mine, key=repr) == sorted(its, key=repr)
    assert {d for d in said if isinstance(d, Refuse)} == {d for d in every if isinstance(d, Refuse)}
    first = [d for d in said if isinstance(d, Hold)]
    assert first == [d for d in every if isinstance(d, Hold) and d.reason.startswith("first")]
