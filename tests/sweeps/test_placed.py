"""How runs that are started are cut over their workers, and that the driver hands it on."""

from dataclasses import replace

import pytest

from gpt3core.errors import UsageError
from gpt3core.parallel.layout import Layout
from sweeps import command
from sweeps.planning import estimate, grid, hardware, recipe
from sweeps.planning.recipe import Own
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Running
from tests.sweeps.fake_cluster import FakeCluster, drive

PINNED = ["recipe=smoke", "placement.workers=4", "placement.tensor=2", "placement.pipeline=2", "model.n_head=2"]


def runs_of(*words):
    chosen = recipe.load(words)
    return chosen, grid.build(chosen, "0" * 64).runs


def test_runs_are_replicas_unless_degrees_are_pinned():
    chosen, runs = runs_of("recipe=smoke")
    assert {estimate.placed(run, chosen) for run in runs} == {None}
    pinned, same = runs_of(*PINNED)
    assert [run.model.n_head for run in same] == [2] * len(runs)
    for run in same:
        cut = estimate.placed(run, pinned)
        assert (cut.tensor, cut.pipeline, cut.data) == (2, 2, 1)
        assert cut.micro_batches(run.optim.batch_tokens // run.model.n_ctx) >= 2, "a micro-batch a stage"
        assert estimate.together(cut) == 2


@pytest.mark.parametrize("name", ["smoke", "depth"])
def test_workers_that_do_not_divide_a_batch_are_refused_when_planned(known_text, name):
    with pytest.raises(UsageError, match=r"placement.workers=3: the batch of .* do not divide over them; take a div"):
        command.read([f"recipe={name}", "placement.workers=3"])


def test_sizes_of_profiles_whose_batch_does_not_divide_are_left_out_with_the_reason(known_text):
    left = command.read(["recipe=smoke_profiles", "placement.workers=2"]).grid.left
    assert left
    assert all("do not divide over them" in cell.reason for cell in left)


def test_placement_is_no_part_of_a_runs_identity():
    ids = [[run.run_id for run in runs_of(*words)[1]] for words in (["recipe=smoke", "model.n_head=2"], PINNED)]
    assert ids[0] == ids[1]


def test_pinned_degrees_run(known_text):
    command.refuse(command.read(PINNED))


def test_what_does_not_fit_its_gpus_is_refused_with_the_number_that_would_do(known_text):
    words = ["recipe=gpt3", "sizes=6.7B", "tokens=30e9", "data.max_epochs=1e5", "placement.gpus=1"]
    with pytest.raises(UsageError, match=r"6.7B on H100: .*placement.workers=(\d+) would do") as refused:
        command.refuse(command.read(words))
    enough = int(str(refused.value).split("placement.workers=")[1].split()[0])
    chosen, (run,) = runs_of(*words, f"placement.workers={enough}")
    cut = estimate.placed(run, chosen)
    assert cut.world_size == enough
    wanted = estimate.task(run, chosen.plan, chosen.placement)
    assert wanted.memory(cut).total <= wanted.room


def test_pinned_degrees_on_gpus_are_held_to_the_memory_too(monkeypatch):
    chosen, runs = runs_of(*PINNED, "placement.gpus=1")
    assert estimate.placed(runs[0], chosen).tensor == 2
    small = replace(hardware.GPUS[chosen.plan.gpu], memory_bytes=1e5)
    monkeypatch.setitem(hardware.GPUS, chosen.plan.gpu, small)
    with pytest.raises(UsageError, match="no layout of 4 devices fits"):
        estimate.placed(runs[0], chosen)


class Wide(FakeCluster):
    """Two nodes of six cores; what was asked of it is kept."""

    def inventory(self):
        return [Node(name=name, total=Resources(cpus=6)) for name in ("m", "n")]

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.jobs = [*getattr(self, "jobs", []), (dict(allocation), job.layout)]


def test_each_gang_gets_its_layout_and_tensor_groups_share_a_node(smoke):
    chosen, cells, root = smoke
    chosen.placement.workers, chosen.placement.tensor = 8, 2
    chosen.placement.pipeline = chosen.placement.context = 2
    cells = grid.build(recipe.load(["recipe=smoke", "model.n_head=2"]), "0" * 64)
    cluster = Wide(root)
    assert len(drive((chosen, cells, root), cluster).done) == len(cells.runs)
    for allocation, cut in cluster.jobs:
        assert allocation == {"m": 4, "n": 4}, "six and two would part a group"
        assert isinstance(cut, Layout)
        assert (cut.world_size, cut.tensor, cut.pipeline, cut.context) == (8, 2, 2, 2)


def test_what_somebody_else_holds_stops_the_gang_that_needs_it_and_not_the_sweep(smoke, clock):
    """One of two cores is a stranger's until all but the gangs have ended: nothing started while they were first."""
    chosen, cells, root = smoke
    chosen.placement_of = {"d16": Own(workers=2)}

    class Shared(FakeCluster):
        def others(self):
            small = [run.run_id for run in cells.runs if run.label == "d8"]
            taken = [Running(run_id="others on n", worker=Resources(cpus=1), allocation={"n": 1})]
            return [] if set(small) <= set(self.started) and not self._running else taken

    cluster, began = Shared(root), clock.now
    longest = max(estimate.seconds(run, workers=1, gpus=0, plan=chosen.plan) for run in cells.runs)
    assert len(drive(smoke, cluster).done) == len(cells.runs)
    assert [run_id.split("-")[0] for run_id in cluster.started] == ["d8", "d8", "d16", "d16"]
    assert clock.now - began < 2 * longest + 60
