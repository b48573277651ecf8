"""Where runs go: sizes with placements and priorities of their own, and runs that make room for others."""

from __future__ import annotations

import pytest

from sweeps.driving.estimates import Estimates
from sweeps.driving.nodes import Nodes
from sweeps.planning import grid, placing, recipe
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import ACCELERATOR, Kind, Node, Resources
from sweeps.scheduling.scheduler import Job, Running, Start
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive

GPU = Resources(cpus=1, gpus=1)
SMOKE = ["recipe=smoke", "placement.gpus=1"]


def built(*words):
    chosen = recipe.load([*SMOKE, *words])
    return chosen, grid.build(chosen, "0" * 64)


def test_a_size_has_a_placement_of_its_own_over_the_recipes():
    chosen, cells = built(
        "placement.accelerator=A100", "placement_of={d16: {workers: 2, rack: pod, accelerator: H100}}"
    )
    asked = {run.label: Estimates(chosen).kind(run) for run in cells.runs}
    assert asked["d16"] == Kind(GPU, 2, 1, "H100", "pod")
    assert asked["d8"] == Kind(GPU, 1, 1, "A100", "")
    assert placing.own(chosen, "d16").plan.gpu == "H100", "it is estimated as what it runs on"
    assert placing.own(chosen, "d8").plan.gpu == "A100"


def test_estimates_are_of_the_workers_that_a_size_has():
    (chosen, cells), (alone, _) = built("placement_of={d16: {workers: 2}}"), built()
    for run in cells.runs:
        mine, single = Estimates(chosen).seconds(run), Estimates(alone).seconds(run)
        assert mine < single if run.label == "d16" else mine == single


def test_ids_of_runs_do_not_change_with_their_place():
    same = built()[1].runs
    assert built("placement_of={d16: {workers: 2, priority: 3}}", "placement.preempt=true")[1].runs == same


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["placement_of={d17: {priority: 1}}"], "placement_of.d17: no such size.*; the recipe.s sizes are d8, d16"),
        (["placement_of={d16: {}}"], "placement_of.d16: says nothing; give one of workers, tensor"),
        (["placement_of={d16: {prio: 1}}"], "prio"),
        (["placement_of={d16: {priority: high}}"], "high"),
        (["placement_of={d16: {priority: 5000}}"], "placement_of.d16.priority=5000: from -1000 to 1000"),
        (["placement_of={d16: {workers: 0}}"], "placement_of.d16.workers"),
        (["placement_of={d16: {gpus: 0}}"], "placement_of.d16.gpus=0, placement.gpus=1: .* make two sweeps"),
        (["placement_of={d16: {gpus: 1.5}}"], "placement_of.d16.gpus=1.5: a whole number, or a share"),
        (["placement_of={d16: {rack: pod}}"], "placement_of.d16.rack has no effect on runs of one worker"),
        (["placement_of={d16: {workers: 7}}"], "placement.workers=7: the batch of d16-.* do not divide"),
        (["placement.rack=pod"], "placement.rack=pod has no effect with placement.workers=1"),
        (["placement.preempt=true"], "placement.preempt=true has no effect with placement_of={}"),
        (["placement.patience_hours=2"], "placement.patience_hours=2 has no effect with placement_of={}"),
        (["placement_of={d16: {priority: 1}}", "placement.patience_hours=0"], "placement.patience_hours=0: hours"),
        (["placement.gpus=0", "placement.accelerator=H100"], "placement.accelerator=H100 has no effect with placement"),
        (
            ["placement.accelerator=H100", "plan.gpu=A100"],
            "plan.gpu=A100 has no effect with placement.accelerator=H100",
        ),
        (["placement.accelerator=''"], "placement.accelerator='': the name of a GPU"),
        (["plan.rack_nodes=4"], "plan.rack_nodes=4 has no effect with plan.gpus=null"),
        (["plan.gpus=64", "plan.rack_nodes=4"], "plan.rack_nodes=4 has no effect with placement.rack=null"),
        (["plan.gpus=64", "plan.node_hours=0"], "plan.node_hours=0"),
    ],
)
def test_what_has_no_meaning_is_refused_in_a_sentence(words, sentence):
    kept = [word for word in SMOKE if word.split("=")[0] not in {w.split("=")[0] for w in words}]
    with pytest.raises(ValueError, match=sentence):
        grid.build(recipe.load([*kept, *words]), "0" * 64)


class Yielding(FakeCluster):
    """Whoever is asked to stop does so once; adopted runs go on until then."""

    def __init__(self, root, nodes, adopted):
        super().__init__(root, lambda run_id, n: "done")
        self.nodes, self.adopted, self.shapes, self.order = nodes, set(adopted), {}, []
        self._running = {run.run_id: run for run in adopted.values()} if adopted else {}

    def inventory(self):
        return self.nodes

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.shapes[run_id] = shape, dict(allocation)
        self.order.append(run_id)

    def poll(self):
        self.behaviour = lambda run_id, n: ("running", 10) if n == 0 else "done"
        updates = super().poll()
        gone = {u.run_id for u in updates if u.state == "stopped"}
        self.order += [f"stopped {i}" for i in sorted(gone)]
        self.stopped = [i for i in self.stopped if i not in gone]
        return updates


def sweep_of(smoke, *words):
    _, cells, root = smoke
    chosen = recipe.load([*SMOKE, *words])
    return chosen, cells, root


def test_running_runs_of_lower_priority_make_room_and_go_on_later(smoke, monkeypatch):
    """An earlier driver started the small ones; the large one is of higher priority now, and needs the whole node."""
    monkeypatch.setattr(scheduler, "WORTH_SECONDS", -1.0)
    asked = "placement_of={d16: {workers: 2, priority: 1}}"
    chosen, cells, root = sweep_of(smoke, asked, "placement.preempt=true")
    small, large = [[r.run_id for r in cells.runs if (r.label == "d16") == high] for high in (False, True)]
    adopted = {i: Running(run_id=i, worker=GPU, allocation={"n": 1}) for i in small[:2]}
    cluster = Yielding(root, [Node(name="n", total=Resources(cpus=2, gpus=2))], adopted)
    display = Silent()
    outcome = drive((chosen, cells, root), cluster, display)
    assert sorted(outcome.done) == sorted(run.run_id for run in cells.runs)
    assert cluster.order[:2] == [f"stopped {run_id}" for run_id in sorted(small[:2])]
    assert cluster.order[2] in large, "the place is kept for it"
    said = [line for line in display.lines if line.startswith("stopping")]
    assert len(said) == 2
    assert all("it writes its checkpoint and makes room for d16-" in line for line in said)
    assert [line for line in cluster.order if line.startswith("stopped")] == sorted(cluster.order[:2])


def test_nobody_is_stopped_where_the_recipe_does_not_say_so(smoke, monkeypatch):
    monkeypatch.setattr(scheduler, "WORTH_SECONDS", -1.0)
    chosen, cells, root = sweep_of(smoke, "placement_of={d16: {workers: 2, priority: 1}}")
    cluster = Yielding(root, [Node(name="n", total=Resources(cpus=2, gpus=2))], {})
    outcome = drive((chosen, cells, root), cluster)
    assert sorted(outcome.done) == sorted(run.run_id for run in cells.runs)
    first = [cells.runs[i].label for i in range(len(cells.runs)) if cells.runs[i].run_id == cluster.order[0]]
    assert first == ["d16"], "of higher priority"
    assert not any(line.startswith("stopped") for line in cluster.order)


def test_sizes_of_different_shapes_run_side_by_side_each_where_it_belongs(smoke):
    old = {ACCELERATOR: "A100"}
    nodes = [Node(name="h", total=Resources(cpus=8, gpus=4), labels={ACCELERATOR: "H100"})]
    nodes.append(Node(name="a", total=Resources(cpus=8, gpus=2), labels=old))
    words = "placement_of={d16: {workers: 2, cpus: 2, accelerator: H100}, d8: {gpus: 0.5, accelerator: A100}}"
    chosen, cells, root = sweep_of(smoke, words)
    cluster = Yielding(root, nodes, {})
    outcome = drive((chosen, cells, root), cluster)
    assert sorted(outcome.done) == sorted(run.run_id for run in cells.runs)
    for run in cells.runs:
        shape, allocation = cluster.shapes[run.run_id]
        if run.label == "d16":
            assert (shape, allocation) == (Resources(cpus=2, gpus=1), {"h": 2})
        elif run.label == "d8":
            assert (shape, allocation) == (Resources(cpus=1, gpus=0.5), {"a": 1})


def test_a_size_that_no_node_can_take_fails_at_once_and_the_others_run(smoke):
    nodes = [Node(name="n", total=Resources(cpus=8, gpus=2), labels={ACCELERATOR: "A100"})]
    chosen, cells, root = sweep_of(smoke, "placement_of={d16: {accelerator: H100}}")
    outcome = drive((chosen, cells, root), Yielding(root, nodes, {}))
    without = {run.run_id for run in cells.runs if run.label == "d16"}
    assert set(outcome.failed) == without
    assert all(
        "no node is labelled ray.io/accelerator-type=H100 (there are: A100)" in r for r in outcome.failed.values()
    )
    assert set(outcome.done) == {run.run_id for run in cells.runs} - without


def test_a_gang_keeps_its_reservation_while_a_lost_node_should_come_back():
    """Else a gang on the whole cluster would begin to wait anew with every node that is lost for an hour."""
    both = [Node(name=f"n{i}", total=Resources(cpus=8, gpus=8)) for i in range(2)]
    nodes = Nodes(lambda state: Kind(GPU), lambda line: None)
    queue = [Job(run_id="gang", worker=GPU, workers=16, seconds=10.0)]
    queue += [Job(run_id=name, worker=GPU, seconds=s, queued=1.0) for name, s in (("long", 1e5), ("short", 60.0))]

    def turn(alive, now):
        seen, lost = nodes.expected(alive, alive, now)
        decisions = scheduler.decide(now, seen, queue, lost, both)
        return {d.run_id: (type(d).__name__, getattr(d, "eta", None)) for d in decisions}

    assert turn(both, 0.0)["gang"] == ("Start", None)
    waits = {"gang": ("Hold", 3610.0), "long": ("Hold", None), "short": ("Start", None)}
    assert turn(both[:1], 10.0) == waits
    assert turn(both[:1], 900.0) == waits, "it is counted from the loss"
    assert turn(both[:1], 3700.0) == {"gang": ("Hold", None), "long": ("Start", None), "short": ("Start", None)}
    assert turn(both, 3800.0)["gang"] == ("Start", None)


def test_of_what_others_hold_so_much_is_old_as_was_never_free():
    """A notebook, and jobs that take turns beside it: they were as old as it, and a gang lost its turn to them."""
    nodes, node = Nodes(lambda state: Kind(GPU), lambda line: None), Node(name="n", total=Resources(cpus=8, gpus=8))

    def held(now, gpus):
        taken = [Running(run_id="others on n", worker=GPU.times(gpus), allocation={"n": 1})] if gpus else []
        return nodes.strangers(taken, now)

    def parts(now, gpus):
        return [(part.since, part.worker) for part in held(now, gpus)]

    def starts(now, gpus, workers):
        queue = [Job(run_id="gang", worker=GPU, workers=workers), Job(run_id="long", worker=GPU, seconds=600, queued=1)]
        return [d.run_id for d in scheduler.decide(now, [node], queue, held(now, gpus)) if isinstance(d, Start)]

    assert parts(0.0, 1) == [(0.0, GPU)]
    for minute in range(60, 4980, 60):
        assert parts(minute, 3) == [(0.0, GPU), (minute, GPU.times(2))], "others than a minute ago"
        assert parts(minute + 30, 2) == [(0.0, GPU), (minute, GPU)]
        assert parts(minute + 50, 1) == [(0.0, GPU)]
    assert starts(5000.0, 3, workers=7) == []
    assert starts(5030.0, 3, workers=7) == [], "the gang waits for those that came just now, and keeps its turn"
    assert starts(5030.0, 3, workers=8) == ["long"], "for the notebook nobody waits"
    assert starts(5600.0, 3, workers=7) == ["long"]
    assert parts(5610.0, 0) == []
    assert parts(5620.0, 1) == [(5620.0, GPU)]
