"""Dollars where a cluster has GPUs of several kinds: each costs what it costs, in the plan, a limit and the bill."""

import re

import pytest

from gpt3core.store.sweepdir import SweepDir
from gpt3core.words import duration
from sweeps import command
from sweeps.driving import spending
from sweeps.driving.estimates import Estimates
from sweeps.driving.run_state import RunState
from sweeps.planning import estimate, grid, hardware, recipe
from sweeps.planning.recipe import Hardware, Placement
from sweeps.scheduling.inventory import ACCELERATOR, Node, Resources
from tests.sweeps.timed_cluster import Timed, World, driven

GPT3 = ["recipe=gpt3", "sizes=[125M,1.3B]", "tokens=[30e9]", "data.max_epochs=1e6", "placement.gpus=1"]
OWN = ["placement.accelerator=H100", "placement_of={125M: {accelerator: A100}}"]
TWO_KINDS = [*OWN, "plan.gpus=2", "plan.gpus_of={A100: 1}"]
SECONDS = 50.0


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def plan_of(words, capsys):
    assert command.sweep([*words, "--plan"], usage="") == 0
    return " ".join(capsys.readouterr().out.split())


def runs_of(words):
    return grid.build(recipe.load(words), "0" * 64).runs


def test_the_plan_of_two_kinds_counts_and_prices_each(known_text, capsys):
    said = plan_of([*GPT3, *TWO_KINDS, "plan.usd_per_gpu_hour_of={A100: 0.5}"], capsys)
    small, large = grid.build(recipe.load(GPT3), "0" * 64).runs
    hours = [24 * estimate.on_gpus(run, Hardware(gpu=gpu)).days for run, gpu in ((small, "A100"), (large, "H100"))]
    usd = 0.5 * hours[0] + hardware.GPUS["H100"].usd_per_hour * hours[1]
    prices = f"0.50 a A100-hour ({hours[0]:,.0f}) and 3.00 a H100-hour ({hours[1]:,.0f})"
    assert f"in all: {sum(hours):,.0f} GPU-hours, {usd:,.0f} USD at {prices} for 2 runs" in said
    assert f"on 2 GPUs (1 H100, 1 A100): {duration(3600 * max(hours))} from the first start" in said
    assert "never start" not in said
    assert "set plan.usd_per_gpu_hour_of={H100: ...} to yours" in said
    assert "{A100: ...}" not in said


def test_the_plan_of_a_gpu_that_is_in_no_table_says_its_own_price(known_text, capsys):
    words = [*GPT3, "placement.accelerator=L4"]
    said = plan_of([*words, "plan.usd_per_gpu_hour_of={L4: 0.7}"], capsys)
    assert "gpt3 on L4, estimated as H100: 989 TFLOP/s" in said
    assert "USD at 0.70 a L4-hour for 2 runs" in said
    assert "H100-hour" not in said
    assert "to yours" not in said
    unpriced = plan_of(words, capsys)
    assert "USD at 3.00 a L4-hour, a round figure: set plan.usd_per_gpu_hour to yours." in unpriced
    assert "H100-hour" not in unpriced


def test_a_plan_holds_to_a_limit_of_dollars_what_each_kind_costs(known_text, capsys):
    said = plan_of([*GPT3, *TWO_KINDS, "limit.usd=100"], capsys)
    small, large = grid.build(recipe.load(GPT3), "0" * 64).runs
    usd = [estimate.on_gpus(run, Hardware(gpu=gpu)).usd for run, gpu in ((small, "A100"), (large, "H100"))]
    assert usd[0] < 100 < usd[1]
    assert re.search(rf"1 of 2 runs fit by the first estimates \([\d.]+ GPU-hours, {usd[0]:.3g} USD\)", said)
    assert re.search(rf"held: 1.3B-\w+; they would take [\d.]+ GPU-hours, {usd[1]:.3g} USD more", said)


def test_a_plan_times_and_prices_runs_that_name_no_gpu_as_the_ones_that_they_get(known_text, capsys):
    """Two sizes, a GPU of each kind: the longer run is first, on the kind that comes first by name."""
    words = [*GPT3, "plan.max_days=1e6", "plan.gpus=2", "plan.gpus_of={A100: 1}"]
    said = plan_of([*words, "plan.usd_per_gpu_hour_of={A100: 0.5}"], capsys)
    small, large = grid.build(recipe.load(GPT3), "0" * 64).runs
    on = {
        (run, gpu): 24 * estimate.on_gpus(run, Hardware(gpu=gpu, gpus=1, max_days=1e6)).days
        for run in (small, large)
        for gpu in ("A100", "H100")
    }
    assert on[large, "A100"] > 2 * on[large, "H100"] > 2 * on[small, "H100"]
    assert f"on 2 GPUs (1 H100, 1 A100): {duration(3600 * on[large, 'A100'])} from the first start" in said
    usd = 0.5 * on[large, "A100"] + hardware.GPUS["H100"].usd_per_hour * on[small, "H100"]
    assert f"{on[large, 'A100']:,.0f} A100-hours and {on[small, 'H100']:,.0f} H100-hours, {usd:,.0f} USD" in said


@pytest.mark.parametrize("usd", [0.5, 2.0], ids=["the fast kind is dearer", "the slow kind is dearer for its time"])
def test_a_limit_in_a_plan_counts_what_a_run_may_take_where_it_may_have_one_kind_or_the_other(known_text, capsys, usd):
    words = [*GPT3, "plan.max_days=1e6", "plan.gpus=2", "plan.gpus_of={A100: 1}"]
    said = plan_of([*words, f"plan.usd_per_gpu_hour_of={{A100: {usd}}}", "limit.usd=1e6"], capsys)
    prices, runs = {"A100": usd, "H100": hardware.GPUS["H100"].usd_per_hour}, grid.build(recipe.load(GPT3), "0" * 64)
    each = [
        {gpu: 24 * estimate.on_gpus(run, Hardware(gpu=gpu, gpus=1, max_days=1e6)).days for gpu in prices}
        for run in runs.runs
    ]
    hours = sum(max(of.values()) for of in each)
    cost = sum(max(of[gpu] * prices[gpu] for gpu in prices) for of in each)
    assert f"all 2 runs fit by the first estimates (at most {hours:,.3g} GPU-hours, {cost:,.3g} USD)" in said


def test_a_plan_holds_to_a_deadline_what_runs_one_after_another_and_on_the_slower_kind(known_text, capsys):
    """As the simulation beside it says: a run that takes all GPUs leaves none to the next, on A100s it takes longer."""
    all_of_them = ["recipe=gpt3", "sizes=[1.3B,2.7B]", "tokens=[30e9]", "data.max_epochs=1e6", "placement.gpus=1"]
    all_of_them += ["placement.workers=8", "plan.gpus=8", "plan.max_days=1e6"]
    days = [
        estimate.on_gpus(r, Hardware(gpus=8, max_days=1e6), Placement(workers=8, gpus=1.0)).days
        for r in runs_of(all_of_them)
    ]
    between = 24 * (max(days) + sum(days)) / 2
    assert "1 of 2 runs fit by the first estimates" in plan_of([*all_of_them, f"limit.deadline={between:.0f}h"], capsys)
    assert "all 2 runs fit" in plan_of([*all_of_them, f"limit.deadline={24 * sum(days) + 1:.0f}h"], capsys)
    either = [GPT3[0], "sizes=125M", *GPT3[2:], "plan.max_days=1e6", "plan.gpus=2", "plan.gpus_of={A100: 1}"]
    (run,), kinds = runs_of(either), [Hardware(gpu=gpu, gpus=1, max_days=1e6) for gpu in ("H100", "A100")]
    fast, slow = (24 * estimate.on_gpus(run, kind).days for kind in kinds)
    assert "0 of 1 runs fit" in plan_of([*either, f"limit.deadline={(fast + slow) / 2:.2f}h"], capsys)
    assert "all 1 runs fit" in plan_of([*either, f"limit.deadline={slow + 1:.2f}h"], capsys)


def test_the_plan_uses_no_more_gpus_than_the_limit_on_them(known_text, capsys):
    seconds = sum(
        86_400 * estimate.on_gpus(run, Hardware()).days for run in grid.build(recipe.load(GPT3), "0" * 64).runs
    )
    assert f"on 1 GPUs: {duration(seconds)} from" in plan_of([*GPT3, "plan.gpus=64", "limit.devices=1"], capsys)
    assert "that is not simulated" in plan_of([*GPT3, *TWO_KINDS, "limit.devices=1"], capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*OWN, "plan.gpus=2"], "are 2 of H100, and runs ask for A100: .* plan.gpus_of='{A100: 8}'"),
        (["plan.gpus=2", "plan.gpus_of={A100: 3}"], "plan.gpus_of.A100=3: .* from 1 to plan.gpus=2"),
        (["plan.gpus=2", "plan.gpus_of={A100: 0}"], "plan.gpus_of.A100=0"),
        (["plan.gpus=2", "plan.gpus_of={H100: 1}"], "H100 is what plan.gpus=2 are"),
        (["plan.gpus_of={A100: 1}"], "plan.gpus_of=.* has no effect with plan.gpus=null"),
        (
            ["plan.gpus=8", "plan.gpus_of={A100: 8}", "plan.usd_per_gpu_hour_of={A100: 0.1}"],
            "plan.gpus=8 are 8 of A100, so none is the plan.gpu=H100 .* estimated and priced as: give the kind",
        ),
        (
            ["plan.gpus=8", "plan.gpus_of={A100: 4}", "plan.usd_per_gpu_hour_of={A10: 1}"],
            "plan.usd_per_gpu_hour_of.A10 has no effect: plan.gpus=8 are 4 of H100, 4 of A100.* did you mean A100",
        ),
        ([*TWO_KINDS, "placement_of.125M.workers=2"], "plan.gpus=1 of A100: a run takes placement.workers=2"),
        (["plan.usd_per_gpu_hour_of={'': 1}"], "has '': give the name of a GPU"),
        (["plan.usd_per_gpu_hour_of={A100: -1}"], "plan.usd_per_gpu_hour_of.A100=-1.0: US dollars, from 0"),
        ([*OWN, "plan.usd_per_gpu_hour_of={H10O: 2}"], "H10O has no effect.*did you mean H100"),
        (["limit.usd=5", "plan.usd_per_gpu_hour=0"], "limit.usd=5 has no effect"),
        (["kernel=wide"], "kernel=wide is for CPUs, and these runs are on GPUs"),
    ],
)
def test_numbers_and_prices_without_a_meaning_are_refused(words, sentence):
    with pytest.raises(ValueError, match=sentence):
        grid.build(recipe.load([*GPT3, *words]), "0" * 64)


def test_a_cluster_of_one_other_kind_is_estimated_where_all_sizes_name_it():
    words = [*GPT3, "plan.gpus=8", "plan.gpus_of={A100: 8}"]
    named = "placement_of={125M: {accelerator: A100}, 1.3B: {accelerator: A100}}"
    assert grid.build(recipe.load([*words, named]), "0" * 64).runs


def test_a_waiting_run_is_priced_by_nodes_that_hold_what_stays_together():
    chosen = recipe.load([*GPT3, "placement.workers=4", "placement.tensor=4", "plan.usd_per_gpu_hour_of={A100: 0.1}"])
    estimates = Estimates(chosen)
    state = RunState(spec=grid.build(chosen, "0" * 64).runs[0])
    eight, two = Resources(cpus=64, gpus=8), Resources(cpus=64, gpus=2)
    rate = estimates.rate(state, frozenset([(eight, "A100"), (two, "H100")]))
    assert rate.usd == pytest.approx(4 * 0.1 / 3600)


def test_the_peak_of_a_gang_is_the_mean_of_its_gpus_and_unknown_where_one_is():
    chosen = recipe.load([*GPT3, "plan.gpu=A100"])
    estimates, run = Estimates(chosen), grid.build(chosen, "0" * 64).runs[0]
    h100, a100 = (hardware.GPUS[name].peak_flops for name in ("H100", "A100"))
    assert estimates.peak_flops(run, {"H100": 3, "": 1}) == pytest.approx((3 * h100 + a100) / 4)
    assert estimates.peak_flops(run, {}) == a100
    assert estimates.peak_flops(run, {"H100": 1, "L4": 1}) is None


def two_kinds(world, root, kinds=("H100", "L4")):
    """A node of each kind, of which one is in no table."""
    cluster = Timed(world, root, lambda run: SECONDS)
    total = Resources(cpus=16, gpus=1)
    cluster.nodes = [Node(name=kind, total=total, labels={ACCELERATOR: kind}) for kind in kinds]
    return cluster


def test_a_run_is_billed_as_the_node_that_it_is_on(isolated, world):
    words = ["recipe=laptop", "budgets=[1e12]", "placement.gpus=1", "plan.gpu=A100"]
    chosen = recipe.load([*words, "plan.usd_per_gpu_hour_of={L4: 0.5}"])
    cluster, jobs = two_kinds(world, isolated / "root"), {}
    start = cluster.start
    cluster.start = lambda *words: (jobs.update({words[0]: words[-1]}), start(*words))
    _, found = driven(chosen, grid.build(chosen, "0" * 64), isolated / "root", cluster)
    sweep, prices = SweepDir(isolated / "root", chosen.name), {"H100": 3.0, "L4": 0.5}
    peaks = {"H100": hardware.GPUS["H100"].peak_flops, "L4": None}  # which is in no table
    events = sweep.events()
    where = {e["run_id"]: next(iter(e["allocation"])) for e in events if e["event"] == "start"}
    assert {i: (job.usd_per_hour, job.peak_flops) for i, job in jobs.items()} == {
        i: (prices[node], peaks[node]) for i, node in where.items()
    }
    freed = [e for e in events if e["event"] == spending.FREED]
    assert set(where.values()) == set(prices)
    assert {e["run_id"]: e["usd_per_hour"] for e in freed} == {run_id: prices[node] for run_id, node in where.items()}
    usd = sum(e["seconds"] / 3600 * prices[where[e["run_id"]]] for e in freed)
    assert found.spending.used(world.now).usd == pytest.approx(usd)
    assert spending.so_far(sweep).usd == pytest.approx(usd)


@pytest.mark.parametrize("usd", [0.12, pytest.param(0.05, marks=pytest.mark.soak)])
def test_a_limit_of_dollars_is_spent_on_what_each_kind_costs(isolated, world, usd):
    """Half of the sizes are on GPUs of a tenth of the others' price."""
    words = ["recipe=laptop", "budgets=[1e12]", "placement.accelerator=H100", "placement.gpus=1"]
    runs = grid.build(recipe.load(words), "0" * 64).runs
    cheap = [run.label for run in runs][::2]
    own = f"placement_of={{{', '.join(f'{label}: {{accelerator: L4}}' for label in cheap)}}}"
    chosen = recipe.load([*words, own, "plan.usd_per_gpu_hour_of={L4: 0.5, H100: 5}", f"limit.usd={usd}"])
    cluster = two_kinds(world, isolated / "root")
    outcome, found = driven(chosen, grid.build(chosen, "0" * 64), isolated / "root", cluster)
    price = {run.run_id: (0.5 if run.label in cheap else 5.0) * (SECONDS + cluster.rest) / 3600 for run in runs}
    spent = sum(price[i] for i in outcome.done)
    assert spent <= usd
    assert outcome.beyond
    assert usd - spent < max(price.values()), "no more would have"
    assert {run.run_id for run in runs if run.label in cheap} <= set(outcome.done), "the cheap ones have room"
    left = found.limits.missing(found.states)
    assert left.usd == pytest.approx(sum(price[i] for i in outcome.beyond), rel=0.3)
    assert f"{left.usd:,.3g} USD" in outcome.limited


@pytest.mark.parametrize(("kinds", "all_fit"), [(("A100",), True), (("A100", "H100"), False)])
def test_runs_that_name_no_gpu_are_held_to_what_the_living_nodes_cost(isolated, world, kinds, all_fit):
    """To the dearest of those that hold one; they are estimated for an H100, at 3 USD an hour."""
    words = ["recipe=laptop", "budgets=[1e12]", "placement.gpus=1", "plan.usd_per_gpu_hour_of={A100: 0.1}"]
    chosen = recipe.load([*words, "limit.usd=0.01"])
    cluster = two_kinds(world, isolated / "root", kinds)
    cluster.nodes.append(Node(name="small", total=Resources(cpus=0.5, gpus=1), labels={ACCELERATOR: "H200"}))
    outcome, found = driven(chosen, grid.build(chosen, "0" * 64), isolated / "root", cluster)
    assert bool(outcome.beyond) == (not all_fit)
    assert found.spending.used(world.now).usd <= 0.01


@pytest.mark.parametrize("usd", [0.01, 0.002])
def test_no_run_is_held_for_dollars_before_there_are_nodes_that_cost_some(isolated, world, usd):
    """By the plan's 3 USD an hour none would fit; the nodes that come after a minute cost a thirtieth of that."""
    words = ["recipe=laptop", "budgets=[1e12]", "placement.gpus=1", "plan.usd_per_gpu_hour_of={A100: 0.1}"]
    chosen = recipe.load([*words, f"limit.usd={usd}"])
    cluster, began = two_kinds(world, isolated / "root", ["A100"]), world.now
    nodes, cluster.inventory = cluster.nodes, lambda: nodes if world.now > began + 60 else []
    outcome, _ = driven(chosen, grid.build(chosen, "0" * 64), isolated / "root", cluster)
    assert len(outcome.done) == (5 if usd == 0.01 else 1)
    assert world.now > began + 60
