"""What a driver expects, held against what then happens on a clock of the test's own."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import claims, expected
from sweeps.driving.estimates import Estimates
from sweeps.driving.sharing import Among
from sweeps.driving.slots import Slots
from sweeps.planning import estimate, grid, recipe
from sweeps.scheduling.inventory import Kind, Node, Resources
from sweeps.scheduling.scheduler import Job, Running, decide
from tests.sweeps import many_sweeps
from tests.sweeps.timed_cluster import Timed, World, driven


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def guess(run):
    return estimate.seconds(run, workers=1, gpus=0, plan=recipe.Hardware()) - estimate.EVALUATION_SECONDS


def laptop(*words):
    chosen = recipe.load(["recipe=laptop", "budgets=[1e11,3.16e11,1e12]", *words])
    return chosen, grid.build(chosen, "0" * 64)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_runs_start_and_the_sweep_ends_about_when_it_was_said(isolated, world, factor):
    chosen, cells = laptop()
    root, told, began = isolated / "root", {}, {}
    moment = 10.0 if factor == 1.0 else 30.0  # by then runs under way have shown how slow the machine is

    def watch(found):
        now = world.now - 1000
        if now >= moment and not told:
            look = found.outlook.expect(found.states, world.now)
            told.update(starts=dict(look.starts), end=look.end)
        for run_id in found.cluster.live:
            began.setdefault(run_id, world.now)

    driven(chosen, cells, root, Timed(world, root, lambda run: factor * guess(run), rest=3.0), watch=watch)
    left = world.now - 1000 - moment
    assert len(told["starts"]) > 10
    assert told["end"] - 1000 == pytest.approx(world.now - 1000, abs=0.1 * left)
    for run_id, start in told["starts"].items():
        assert start == pytest.approx(began[run_id], abs=0.15 * left)


def test_no_end_is_told_before_a_sweep_has_begun(isolated, world):
    """What is expected while text is prepared is of no runs at all: it is not told once there is a queue."""
    chosen, cells = laptop()
    told = []

    def watch(found):
        if not told:
            found.outlook._expected, found.outlook._next = expected.Expected(end=world.now), math.inf
            told.append(found.outlook.eta(found.states, world.now))

    driven(chosen, cells, isolated / "root", Timed(world, isolated / "root", guess, rest=3.0), watch=watch)
    assert told[0] > sum(map(guess, cells.runs)) / 2


def test_how_wrong_the_estimates_were_is_kept(isolated, world):
    chosen, cells = laptop()
    _, found = driven(
        chosen, cells, isolated / "root", Timed(world, isolated / "root", lambda r: 4 * guess(r), rest=3.0)
    )
    account = found.estimates.account()
    assert account.runs == len(cells.runs)
    assert account.first == pytest.approx(3.5, rel=0.2), "four times the training, with what comes beside it"
    assert account.error < 0.25 * account.first_error
    kept = json.loads((SweepDir(isolated / "root", chosen.name).path / "status.json").read_text())["estimates"]
    assert kept["runs"] == account.runs


def test_what_comes_beside_the_training_is_learned(isolated, world):
    chosen, cells = laptop()
    _, found = driven(chosen, cells, isolated / "root", Timed(world, isolated / "root", guess, rest=20.0))
    run = cells.runs[0]
    assert found.estimates.seconds(run) - guess(run) == pytest.approx(20.0, rel=0.3)


def test_the_end_of_a_queue_by_hand():
    found = expected.expect(0.0, [("a", 10.0), ("b", 5.0), ("c", 1.0)], [3.0, 4.0], 2)
    assert found.starts == {"a": 3.0, "b": 4.0, "c": 9.0}
    assert found.end == 13.0
    known = expected.expect(0.0, [("a", 10.0)], [3.0], 1, {"a": 7.0})
    assert known.starts == {"a": 7.0}, "the scheduler knows better"
    assert expected.expect(0.0, [("a", 1.0)], [], 0).end is None
    theirs = expected.expect(0.0, [("a", 10.0), ("b", 5.0)], [3.0], 1, {"a": math.inf})
    assert (theirs.starts, theirs.ends, theirs.end) == ({"b": 3.0}, {"b": 8.0}, None), "a waits for somebody else"


def test_the_end_of_a_queue_behind_a_run_of_unknown_length_is_told():
    """The scheduler knows no time for the first that waits; infinite would mean that somebody else must free room."""
    core = Resources(cpus=1)
    queue = [Job(run_id="long", worker=core), Job(run_id="next", worker=core, seconds=5.0, queued=1.0)]
    _, held = decide(0.0, [Node(name="n", total=core)], queue, [])
    assert expected.expect(0.0, [("next", 5.0)], [3.0], 1, {"next": held.eta}).end == 8.0


def test_places_are_counted_by_the_scarcer_resource():
    nodes = [Node(name=f"n{i}", total=Resources(cpus=16, gpus=8)) for i in range(2)]
    one = Resources(cpus=1, gpus=1)
    assert expected.places(Kind(one, 1), nodes) == 16
    assert expected.places(Kind(one, 4), nodes) == 4
    assert expected.places(Kind(Resources(cpus=4, gpus=1), 1), nodes) == 8
    others = [Running(run_id="o", worker=Resources(gpus=6), allocation={"n0": 1})]
    assert expected.places(Kind(one, 1), nodes, others) == 10


def test_places_that_others_hold_are_free_when_their_runs_end():
    core, nodes = Resources(cpus=1), [Node(name=f"n{i}", total=Resources(cpus=4)) for i in range(2)]
    held = [("a", {"n0": 2}, 9.0), ("b", {"n0": 1, "n1": 1}, 3.0), ("c", {"n1": 1}, math.inf)]
    others = [Running(run_id=i, worker=core, allocation=where, ends=ends) for i, where, ends in held]
    assert expected.frees(Kind(core, 1), nodes, others) == [*[-math.inf] * 3, 3.0, 3.0, 9.0, 9.0, math.inf]
    assert expected.frees(Kind(core, 3), nodes, others) == [-math.inf, 9.0]
    found = expected.expect(0.0, [("a", 10.0), ("b", 5.0)], [], 1, later=[4.0])
    assert (found.starts, found.end) == ({"a": 0.0, "b": 4.0}, 10.0)


def sharing(theirs, words=(), nodes=1, cores=8):
    """The places of a sweep beside another that waits too."""
    told = claims.to_text(theirs, 0.0, 1)
    held = [
        Running(run_id="others", worker=run.worker.times(n), allocation={node: 1})
        for run in theirs.held
        for node, n in run.allocation.items()
    ]
    cluster = SimpleNamespace(
        inventory=lambda: many_sweeps.nodes(nodes, cores), running=list, others=lambda: held, claims=lambda: {"k": told}
    )
    chosen = recipe.load(["recipe=smoke", *words])
    among = Among(cluster, "s", "s", list[str]().append)
    among.look(0.0, [])
    return Slots(cluster=cluster, estimates=Estimates(chosen), among=among, devices=chosen.limit.devices)


def test_a_share_is_there_when_those_who_hold_it_end_and_as_much_as_fits_on_nodes():
    """It counted as places that are free now, though the other's runs held them for days."""
    days = Running(run_id="k", worker=Resources(cpus=1), allocation={"n000": 7}, ends=2e5)
    theirs = replace(many_sweeps.claim("k", 100), held=(days,))
    assert sharing(theirs).places(0.0) == (1, [2e5] * 3)
    assert sharing(replace(theirs, held=(replace(days, ends=math.inf),))).places(0.0) == (1, [0.0] * 3), "who knows"
    assert sharing(theirs, ["limit.devices=2"]).places(0.0) == (1, [2e5])
    five = replace(theirs, held=(replace(days, allocation={f"n00{i}": 8 for i in range(4)}),))
    assert sharing(five, ["placement.cpus=5"], nodes=4).places(0.0) == (0, [2e5] * 3)
    assert sharing(replace(five, weight=0.01), ["placement.cpus=5"], nodes=4).places(0.0) == (0, [2e5] * 4)


def test_a_sweep_that_chooses_as_it_goes_asks_for_no_more_than_its_limit():
    theirs = many_sweeps.claim("k", 100, held=8)
    assert (sharing(theirs).more({}), sharing(theirs, ["limit.devices=2"]).more({})) == (4, 2)
    assert sharing(many_sweeps.claim("k", 0), ["limit.devices=2"]).more({}) == 2


def test_an_adaptive_sweep_keeps_its_limit_and_ends(isolated, world):
    chosen, cells = laptop("adaptive=true", "adaptive_share=1.0", "limit.hours=0.015")

    def loss(run):
        return 1.2 + 30.0 * (run.tokens / 1e3) ** -0.3

    cluster = Timed(world, isolated / "root", guess, loss=loss)
    outcome, _ = driven(chosen, cells, isolated / "root", cluster)
    assert outcome.done
    assert cluster.held / 3600 <= 0.015 * 1.02
    assert outcome.limited
