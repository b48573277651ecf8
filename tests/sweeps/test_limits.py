"""Limits of a sweep: kept to the second on a clock of the test's own, over restarts, and gone on with when raised."""

import math
from dataclasses import replace

import pytest

from gpt3core.errors import UsageError
from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.driving import spending
from sweeps.driving.limiting import STOP_SECONDS
from sweeps.planning import estimate, grid, limits, recipe
from sweeps.scheduling.inventory import ACCELERATOR, Node, Resources
from tests.sweeps.fake_cluster import Silent
from tests.sweeps.timed_cluster import Timed, World, driven


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def laptop(*words):
    chosen = recipe.load(["recipe=laptop", "budgets=[1e11,3.16e11,1e12]", *words])
    return chosen, grid.build(chosen, "0" * 64)


def guessed(factor=1.0):
    """A truth that is the first guess times a factor."""
    return lambda run: (
        factor * (estimate.seconds(run, workers=1, gpus=0, plan=recipe.Hardware()) - estimate.EVALUATION_SECONDS)
    )


def spent(root, name="laptop"):
    return spending.so_far(SweepDir(root, name)).core_hours


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_hours_are_kept_whatever_the_machine_and_the_rest_is_said(isolated, world, factor):
    chosen, cells = laptop("limit.hours=0.05")
    cluster = Timed(world, isolated / "root", guessed(factor))
    outcome, _ = driven(chosen, cells, isolated / "root", cluster)
    total = len(cells.runs)
    assert cluster.held / 3600 <= 0.05 * 1.01
    assert spent(isolated / "root") == pytest.approx(cluster.held / 3600, rel=0.02)
    if factor == 0.3:
        assert len(outcome.done) == total, "all of them fit once the speed is known"
        assert outcome.limited == ""
        return
    assert outcome.beyond
    assert sorted([*outcome.done, *outcome.beyond]) == sorted(run.run_id for run in cells.runs)
    assert "limit.hours=0.05" in outcome.limited
    assert f"{len(outcome.beyond)} of {total} runs are missing" in outcome.limited
    assert command._conclude(SweepDir(isolated / "root", chosen.name), total, outcome) == command.LIMITED
    if factor == 1.0:
        assert outcome.done
        assert cluster.stopped == [], "a run that starts ends where estimates hold"


@pytest.mark.soak
def test_restarts_reset_nothing_and_a_raised_limit_goes_on(isolated, world):
    root = isolated / "root"
    chosen, cells = laptop("limit.hours=0.04")
    first, _ = driven(chosen, cells, root, one := Timed(world, root, guessed()))
    world.now += 7 * 86_400
    again, _ = driven(chosen, cells, root, two := Timed(world, root, guessed()))
    assert two.started == []
    assert sorted(again.done) == sorted(first.done)
    chosen, cells = laptop("limit.hours=1")
    last, found = driven(chosen, cells, root, three := Timed(world, root, guessed()))
    assert len(last.done) == len(cells.runs)
    assert not set(three.started) & set(first.done), "nothing is done twice"
    assert found.spending.used(world.now).core_hours == pytest.approx((one.held + three.held) / 3600, rel=0.02)


@pytest.mark.parametrize("name", ["9" * 400, "../x", "", 7, None])
def test_devices_of_a_run_that_has_no_such_name_count_nothing(isolated, name):
    sweep, rates = SweepDir(isolated / "root", "laptop"), {"gpus": 0.0, "cores": 1.0, "usd_per_hour": 0.0}
    files.make_folder(sweep.path)
    for run_id in (name, "d8-1"):
        files.append_line(sweep.path / "events.jsonl", {"event": "took", "time": 1.0, "run_id": run_id, **rates})
    assert spending.so_far(sweep, 3601.0, driven=True).core_hours == 1.0
    assert spending.so_far(sweep, 3601.0).core_hours == 0.0, "no sign of life"


@pytest.mark.soak
def test_a_log_that_is_lost_resets_nothing(isolated, world):
    root = isolated / "root"
    chosen, cells = laptop("limit.hours=0.04")
    driven(chosen, cells, root, Timed(world, root, guessed()))
    before = spent(root)
    (SweepDir(root, "laptop").path / "events.jsonl").unlink()
    assert spent(root) == pytest.approx(before, rel=0.01)
    again = Timed(world, root, guessed())
    _, found = driven(chosen, cells, root, again)
    assert found.spending.used(world.now).core_hours == pytest.approx(before + again.held / 3600, rel=0.01)
    assert before + again.held / 3600 <= 0.04 * 1.01


def test_a_driver_that_is_killed_leaves_its_bill(isolated, world):
    """The log has no end of what it ran: the store's last sign of life is."""
    root = isolated / "root"
    chosen, cells = laptop("limit.hours=1")

    class Killed(BaseException):
        pass

    def kill(found):
        if world.now > 1030:
            raise Killed

    cluster = Timed(world, root, guessed())
    with pytest.raises(Killed):
        driven(chosen, cells, root, cluster, watch=kill)
    going_on = dict(cluster.live)
    assert going_on
    ledger = spending.read(files.read_lines(SweepDir(root, "laptop").path / "events.jsonl"))
    assert set(ledger.open) == set(going_on)
    world.now += 5  # no driver: the runs go on, and the next one takes them over
    outcome, found = driven(chosen, cells, root, cluster)
    assert len(outcome.done) == len(cells.runs)
    assert found.spending.used(world.now).core_hours == pytest.approx(cluster.held / 3600, rel=0.02)


def test_a_deadline_is_kept_and_runs_that_cannot_end_do_not_start(isolated, world):
    chosen, cells = laptop("limit.deadline=60s")
    root, began = isolated / "root", world.now
    cluster = Timed(world, root, guessed())
    outcome, _ = driven(chosen, cells, root, cluster)
    assert world.now - began <= 60
    assert outcome.done
    assert outcome.beyond
    assert cluster.stopped == []
    world.now += 600
    again, _ = driven(chosen, cells, root, late := Timed(world, root, guessed()))
    assert late.started == [], "it counts from the first command, not from the last"
    assert sorted(again.done) == sorted(outcome.done)
    chosen, cells = laptop("limit.deadline=2d")
    assert len(driven(chosen, cells, root, Timed(world, root, guessed()))[0].done) == len(cells.runs)


def test_runs_under_way_at_a_deadline_write_their_checkpoints_and_go_on_later(isolated, world):
    root = isolated / "root"
    chosen, cells = laptop("limit.deadline=60s")
    slow = Timed(world, root, guessed(10))
    outcome, _ = driven(chosen, cells, root, slow)
    assert slow.stopped
    assert set(slow.stopped) <= set(outcome.beyond)
    assert world.now <= 1060
    chosen, cells = laptop()
    second = Timed(world, root, guessed(10))
    second.saved = dict(slow.saved)
    assert len(driven(chosen, cells, root, second)[0].done) == len(cells.runs)


def test_devices_at_once_are_kept_and_a_gang_is_not_starved(isolated, world):
    chosen = recipe.load(
        ["recipe=laptop", "placement.gpus=1", "placement.workers=4", "limit.devices=12", "budgets=[1e12]",
         "optim.batch_tokens_min=1024", "optim.batch_tokens_max=1024"]
    )  # fmt: skip
    cells = grid.build(chosen, "0" * 64)
    cluster = Timed(world, isolated / "root", lambda run: 30.0, nodes=4, gpus=8)
    outcome, _ = driven(chosen, cells, isolated / "root", cluster)
    assert len(outcome.done) == len(cells.runs)
    assert cluster.most == 12


def test_a_size_that_names_a_gpu_has_its_turn_where_the_others_may_be_all_that_is_used(isolated, world):
    own = "placement_of={d64: {accelerator: H100}}"
    chosen = recipe.load(["recipe=laptop", "placement.gpus=1", "limit.devices=2", "budgets=[1e12]", own])
    cells = grid.build(chosen, "0" * 64)
    cluster = Timed(world, isolated / "root", lambda run: 30.0)
    total = Resources(cpus=64, gpus=8)
    cluster.nodes = [Node(name=kind, total=total, labels={ACCELERATOR: kind}) for kind in ("A100", "H100")]
    outcome, _ = driven(chosen, cells, isolated / "root", cluster)
    assert len(outcome.done) == len(cells.runs)
    assert cluster.most == 2


def test_a_run_that_was_asked_to_stop_takes_no_more_of_a_limit_than_its_checkpoint(isolated, world):
    chosen, cells = laptop("limit.hours=1")
    _, found = driven(chosen, cells, isolated / "root", Timed(world, isolated / "root", guessed()))
    state = max(found.states.values(), key=lambda s: s.spec.tokens)
    state.started(math.inf)
    state.trained, state.farthest = False, 0
    under_way = {state.run_id: state}
    whole, left = found.limits.missing(under_way).device_hours, found.limits._left(world.now).device_seconds / 3600
    assert whole * 3600 > 2 * STOP_SECONDS
    assert left - found.limits._room([state], under_way, world.now).left.device_seconds / 3600 == pytest.approx(whole)
    state.stopping = True
    taken = left - found.limits._room([state], under_way, world.now).left.device_seconds / 3600
    assert taken * 3600 == pytest.approx(STOP_SECONDS * found.estimates.devices(state))


def test_dollars_are_gpu_hours_at_their_price(isolated, world):
    words = ["recipe=laptop", "budgets=[1e12]", "placement.gpus=1", "plan.usd_per_gpu_hour=2"]
    chosen = recipe.load([*words, "limit.usd=0.1"])  # 180 GPU-seconds: three of five runs
    cells = grid.build(chosen, "0" * 64)
    cluster = Timed(world, isolated / "root", lambda run: 50.0, gpus=1)
    outcome, _ = driven(chosen, cells, isolated / "root", cluster)
    assert len(outcome.done) == 3
    assert cluster.held / 3600 * 2 <= 0.1
    assert "USD" in outcome.limited


def test_without_limits_nothing_is_chosen(isolated, world):
    chosen, cells = laptop()
    outcome, found = driven(chosen, cells, isolated / "root", Timed(world, isolated / "root", guessed()))
    assert len(outcome.done) == len(cells.runs)
    assert found.limits._chosen.known == set()


def test_branches_of_a_trunk_that_does_not_fit_do_not_wait_for_it(isolated, world):
    chosen = recipe.load(["recipe=laptop_wsd", "limit.hours=0.02"])
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    display = Silent()
    outcome, _ = driven(chosen, cells, root, cluster := Timed(world, root, guessed()), display)
    assert outcome.done
    assert outcome.beyond
    assert cluster.held / 3600 <= 0.02 * 1.01


def test_a_deadline_that_is_past_starts_nothing_and_leads_to_no_fit(isolated, world, capsys):
    chosen, cells = laptop("limit.deadline=2020-01-01")
    outcome, _ = driven(chosen, cells, isolated / "root", cluster := Timed(world, isolated / "root", guessed()))
    assert cluster.started == outcome.done == []
    assert len(outcome.beyond) == len(cells.runs)
    assert command._conclude(SweepDir(isolated / "root", chosen.name), len(cells.runs), outcome) == command.LIMITED
    said = capsys.readouterr().out
    assert "stopped at limit.deadline=2020-01-01" in said
    assert "analysis.fit" not in said, "there is nothing to fit"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["limit.hours=0"], "above 0"),
        (["limit.usd=5"], "a core has no price"),
        (["limit.usd=5", "placement.gpus=1", "plan.usd_per_gpu_hour=0"], "no effect"),
        (["limit.devices=1", "placement.workers=2"], "one run takes 2"),
        (["limit.devices=2", "placement_of={d16: {workers: 4}}"], "one run takes 4"),
        (["limit.deadline=tomorrow"], "2027-01-31T18:00"),
        (["limit.deadline=5x"], "unknown unit"),
        (["limit.target=1e14"], "no effect with limit.hours"),
        (["limit.hour=3"], "did you mean limit.hours"),
    ],
)
def test_limits_that_mean_nothing_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        grid.build(recipe.load(["recipe=smoke", *words]), "0" * 64)


def test_deadlines_are_times_or_durations():
    assert limits.deadline("90m", 100.0) == 100.0 + 5400
    assert limits.deadline("1.5h", 0.0) == 5400
    assert limits.deadline("2027-01-31T18:00+00:00", 5.0) == 1801418400.0
    assert limits.is_duration("3d")
    assert not limits.is_duration("2027-01-31")


def test_a_plan_shows_the_limit_and_what_falls_out(isolated, known_text, monkeypatch, capsys):
    monkeypatch.setenv("ISOFLOP_ROOT", str(isolated / "root"))
    (isolated / "text.txt").write_text("words " * 1000)
    words = ["recipe=laptop", f"data.corpus={isolated / 'text.txt'}", "limit.hours=0.05", "limit.devices=2", "--plan"]
    assert command.sweep(words, "") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "limit.devices=2" in out
    assert "of 24 runs fit by the first estimates" in out
    assert "beyond the limit, and held: " in out


@pytest.mark.soak
def test_where_a_limit_orders_the_runs_no_priority_stops_one_that_runs(isolated, world):
    """The order is what tells most; a rank in it, compared with a recipe's priority, would stop the best ones."""
    words = ["recipe=laptop", "placement.preempt=true", "placement_of={d16: {priority: -1}}", "limit.hours=0.01"]
    chosen = recipe.load(words)
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    outcome, found = driven(chosen, cells, root, Timed(world, root, guessed()))
    assert outcome.beyond
    assert found.limits._chosen.order is not None
    assert not found.limits.rules.preempt
    roomy = replace(chosen, limit=recipe.Limit(hours=1e5))
    assert driven(roomy, cells, root, Timed(world, root, guessed()))[1].limits.rules.preempt
