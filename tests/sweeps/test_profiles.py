"""IsoFLOP profiles that place themselves: on a simulated law every minimum ends between sizes, whatever the prior."""

import random
import re

import numpy as np
import pandas as pd
import pytest

from analysis.runs import ladder
from gpt3core.errors import UsageError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.driving import profiling
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning import centre, grid, recipe
from sweeps.planning.centre import Minimum
from tests.benchmarks.profile_placing import BUDGETS, CENTRE, World, at_once, profiles, simulate
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive

SHA = "0" * 64


@pytest.mark.parametrize("factor", [1, 10, *(pytest.param(factor, marks=pytest.mark.soak) for factor in (4, 1 / 4))])
@pytest.mark.parametrize("slots", [4, *(pytest.param(slots, marks=pytest.mark.soak) for slots in (1, 32))])
def test_every_minimum_ends_between_sizes_whatever_the_prior(factor, slots):
    world = World(seed=1, drift=0.02)
    got = simulate(world, profiles(center_params=CENTRE * factor, center_exponent=0.5), slots)
    assert all(got.inside(budget, world.centre(budget)) for budget in BUDGETS)
    assert sum("between" in sentence for sentence in got.told if sentence.startswith("profile")) == len(BUDGETS)
    fixed = at_once(world, profiles(center_params=CENTRE * factor, center_exponent=0.5).outlook(), slots)
    if factor != 1:
        assert not all(fixed.inside(budget, world.centre(budget)) for budget in BUDGETS), "the prior alone misses some"
    sizes = [s.spec.budget_flops for s in got.states.values()]
    top = sizes.count(BUDGETS[-1])
    assert 5 <= top <= 7, "what was learnt below is not paid for again at the dearest budget"


@pytest.mark.parametrize(
    "draws", [5, pytest.param(20, marks=pytest.mark.soak), pytest.param(400, marks=pytest.mark.long)]
)
def test_whatever_the_world_each_budget_ends_with_a_minimum_between_sizes_or_the_reason_for_none(draws):
    for k in range(draws):
        rng = random.Random(k)
        often = rng.choice([0, 0, 0.1, 0.3])
        world = World(seed=k, drift=rng.uniform(-0.05, 0.08), fails=failing(k, often))
        placed = profiles(
            center_params=CENTRE * 10 ** rng.uniform(-1, 1),
            center_exponent=rng.uniform(0.3, 0.9),
            points=rng.choice([3, 4, 5, 7]),
            spacing=rng.choice([1.6, 2.0]),
            beside=rng.choice([1, 1, 2]),
            ahead=rng.choice([0, 1, 2, 5]),
            replicas=rng.choice([1, 1, 2, 3]),
            most_points=(most := rng.choice([9, 12, 20])),
            min_tokens=rng.choice([1e4, 1e4, 3e5]),
        )
        got = simulate(world, placed, rng.choice([1, 2, 3, 7, 30]))
        for budget in BUDGETS:
            (verdict,) = (said for said in got.told if said.startswith(f"profile {budget:.3g} "))
            sizes = {s.spec.model.d_model for s in got.states.values() if s.spec.budget_flops == budget}
            assert len(sizes) <= most
            if not got.inside(budget, world.centre(budget)):
                assert "between" not in verdict
                assert "left out" in verdict or "no size" in verdict or len(sizes) == most, verdict


def failing(k, often):
    """Runs that fail, the same ones at every look."""
    return lambda run: random.Random(f"{k}{run.run_id}").random() < often


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("ended", [0, 3, 8, 15])
def test_a_driver_that_takes_over_places_the_same_sizes(ahead, ended):
    """Nothing is left of the one before it but the runs and how they ended."""
    world, placed = World(seed=3), profiles(center_params=CENTRE * 4, ahead=ahead)
    whole = simulate(world, placed, 4)
    states = simulate(world, placed, 4, until=ended).states
    kept = {
        i: RunState(spec=s.spec, phase=s.phase if s.phase == Phase.DONE else Phase.SPARE) for i, s in states.items()
    }
    again = simulate(world, placed, 4, begun=kept)
    assert set(states) <= set(again.states)
    assert all(again.inside(budget, world.centre(budget)) for budget in BUDGETS)
    if not ahead:  # where budgets begin early, it depends on which workers were free when
        assert set(again.states) == set(whole.states)
    assert simulate(world, placed, 4, begun=again.states).flops == again.flops, "what is settled stays"


def test_sizes_that_fail_are_passed_over_and_said():
    world = World(seed=2, fails=lambda run: run.model.d_model == 24)
    got = simulate(world, profiles(), 4)
    assert all(got.inside(budget, world.centre(budget)) for budget in BUDGETS)
    assert any("d24 (ended without a loss)" in sentence for sentence in got.told)
    hopeless = simulate(World(fails=lambda run: True), profiles(budgets=[1e11]), 4)
    assert hopeless.told[-1].startswith("profile 1e+11 FLOPs: no size ended with a loss")
    assert len(hopeless.states) == 5
    few = simulate(World(fails=lambda run: run.model.d_model != 24), profiles(budgets=[1e11], most_points=5), 4)
    assert few.told[-1].startswith("profile 1e+11 FLOPs: no minimum: d24 alone ended with a loss; most_points=5 were")


def test_what_is_not_feasible_is_left_out_with_the_reason():
    world = World()
    short = simulate(world, profiles(min_tokens=8e5, budgets=[1e11, 1e12]), 4)
    lowest, above = (next(s for s in short.told if s.startswith(f"profile {b}")) for b in ("1e+11", "1e+12"))
    assert "fewer than min_tokens=8e+05" in lowest
    assert "between" in above
    assert short.inside(1e12, world.centre(1e12))
    text = profiles(budgets=[1e12])
    text = type(text)(text.recipe, text._data, train_tokens=1e5)
    small = [size for size in text.sizes(1e12) if "epochs of the text, more than data.max_epochs=40" in size.reason]
    assert small
    assert max(size.n for size in small) < min(size.n for size in text.sizes(1e12) if size.runs)
    listed = profiles(widths=[20, 36, 74, 96], spacing=1.5, width_step=4)
    assert [label for label, _ in listed.unusable] == []
    uneven = profiles(widths=[90, 96, 100], spacing=1.5, width_step=4)
    assert [(label, "does not divide into" in why) for label, why in uneven.unusable] == [("d100", True)]


def test_a_run_that_is_held_keeps_its_profile_waiting():
    placed = profiles(budgets=[1e11, 1e12])
    states = {run.run_id: RunState(spec=run, phase=Phase.DONE) for run in placed.opening()}
    held = next(iter(states.values()))
    held.phase = Phase.HELD
    proposer = profiling.SelfPlacing(placed, lambda i: World().loss(states[i].spec))
    assert proposer.propose(states, lambda: 0).over == ""


def test_the_line_is_the_posterior_of_a_regression_and_the_vertex_that_of_a_parabola():
    minima = [Minimum(ln_c=c, ln_n=n, sigma=s) for c, n, s in ((25, 9.5, 0.15), (26.2, 10.1, 0.5), (27.5, 11.3, 0.15))]
    found = centre.fit(25.3, 9.0, 0.6, minima)
    x = np.array([[1, m.ln_c - 25.3] for m in minima])
    weight = np.diag([1 / (m.sigma**2 + centre.DRIFT**2) for m in minima])
    precision = np.diag([centre.LEVEL_SPREAD**-2, centre.EXPONENT_SPREAD**-2]) + x.T @ weight @ x
    prior = np.array([centre.LEVEL_SPREAD**-2 * 9.0, centre.EXPONENT_SPREAD**-2 * 0.6])
    mean = np.linalg.solve(precision, prior + x.T @ weight @ [m.ln_n for m in minima])
    at, sigma = found.at(29.0)
    row = np.array([1, 29.0 - 25.3])
    assert at == pytest.approx(float(row @ mean))
    assert sigma**2 == pytest.approx(float(row @ np.linalg.solve(precision, row)) + centre.DRIFT**2)
    u, y = [9.1, 9.4, 10.2, 11.0], [1.5, 1.42, 1.45, 1.6]
    a, b, _ = np.polyfit(u, y, 2)
    assert centre.vertex(u, y) == pytest.approx(-b / (2 * a))
    assert centre.vertex(u, [-v for v in y]) is None
    assert centre.vertex([1.0, 2.0, 2.0], [1.0, 2.0, 3.0]) is None


class Measuring(FakeCluster):
    """Finishes runs with the losses of a law."""

    def __init__(self, root, placed, cpus=4.0):
        super().__init__(root, cpus=cpus)
        self.placed, self.world, self.longest = placed, World(), 0

    def finish(self, run_id):
        folder, loss = RunDir(self.root, run_id), self.world.loss(self.placed.runs[run_id])
        folder.write_evaluation(self.evals.eval_id, {"task": [HELD_OUT], "loss": [loss], "loss_se": [0.01]})
        folder.finish({"status": "done", "tokens_per_second": 1e4, "epochs": 0.1})

    def poll(self):
        self.longest = max(self.longest, len(self._running))
        return super().poll()


def swept(isolated, *settings):
    chosen = recipe.load(["recipe=laptop_profiles", "center_params=4e4", "min_tokens=1e4", *settings])
    return chosen, grid.build(chosen, SHA), isolated / "root"


def test_a_sweep_grows_by_its_results_and_is_done_when_asked_again(isolated, clock, capsys):
    sweep = swept(isolated)
    cells = sweep[1]
    cluster, display = Measuring(sweep[2], cells.profiles), Silent()
    outcome = drive(sweep, cluster, display)
    assert not outcome.failed
    assert len(outcome.told) == len(cells.profiles.budgets)
    assert all("between" in sentence for sentence in outcome.told)
    assert any(line.startswith("placed ") for line in display.lines)
    record = SweepDir(sweep[2], sweep[0].name).record()
    assert sorted(cluster.started) == list(record.runs), "the sweep is what was placed, each once"
    assert cluster.longest == 4
    again = Measuring(sweep[2], cells.profiles)
    repeated = drive(sweep, again)
    assert again.started == []
    assert repeated.told == outcome.told
    assert command._conclude(SweepDir(sweep[2], sweep[0].name), len(repeated.done), repeated) == 0
    assert outcome.told[0] in capsys.readouterr().out


def test_a_budget_more_goes_on_from_those_that_are_there_and_other_settings_are_another_sweep(isolated, clock):
    sweep = swept(isolated, "budgets=[1e11,3.16e11]")
    drive(sweep, Measuring(sweep[2], sweep[1].profiles))
    more = swept(isolated, "budgets=[1e11,3.16e11,1e12]")
    cluster = Measuring(more[2], more[1].profiles)
    outcome = drive(more, cluster)
    assert {more[1].profiles.runs[i].budget_flops for i in cluster.started} == {1e12}
    assert len(cluster.started) == 5, "where the law says they belong, not where the prior did"
    assert len(outcome.told) == 3
    with pytest.raises(UsageError, match=r"under this sweep's name .* other runs were asked before"):
        drive(swept(isolated, "optim.lr_max=0.005"), cluster)


def test_a_driver_that_dies_is_followed_by_one_that_repeats_nothing(isolated, clock):
    sweep = swept(isolated)

    class Dying(Measuring):
        def poll(self):
            if len(self.started) >= 9:
                raise KeyboardInterrupt
            return super().poll()

    first = Dying(sweep[2], sweep[1].profiles)
    with pytest.raises(KeyboardInterrupt):
        drive(sweep, first)
    done = {run_id for run_id in first.started if RunDir(sweep[2], run_id).trained}
    after = Measuring(sweep[2], sweep[1].profiles)
    outcome = drive(sweep, after)
    assert not done & set(after.started)
    assert all("between" in sentence for sentence in outcome.told)


def test_the_plan_says_where_each_budget_begins_and_what_it_may_cost(isolated, known_text, clock, capsys, monkeypatch):
    monkeypatch.setenv("ISOFLOP_ROOT", str(isolated / "root"))
    (isolated / "text.txt").write_text("words " * 100)
    words = ["recipe=laptop_profiles", f"data.corpus={isolated / 'text.txt'}", "min_tokens=1e4", "evals.tasks=[]"]
    order = command.read(words)
    command.refuse(order)
    command._show(order)
    said = capsys.readouterr().out
    assert (
        "profile 1e+11 FLOPs: about N=1e+04, within a factor of 16 (95%); 5 sizes: 5e+11 FLOPs, at most 1.2e+12" in said
    )
    drive((order.recipe, order.grid, order.root), Measuring(order.root, order.grid.profiles))
    capsys.readouterr()
    command._show(command.read(words))
    after = capsys.readouterr().out
    (line,) = (line for line in after.splitlines() if line.startswith("profile 1e+11 FLOPs"))
    found = re.search(r"about N=(\S+), within a factor of (\S+) .*5 sizes, 5 of them placed", line)
    assert found is not None
    assert float(found[1]) == pytest.approx(CENTRE, rel=0.1)
    assert float(found[2]) < 1.6
    assert "to train: 0.0" in after


def test_the_design_says_that_such_a_recipe_places_its_sizes_itself(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(recipe.load(["recipe=laptop_profiles"])))
    with pytest.raises(UsageError, match=r"places its sizes itself: .*candidates=FILE"):
        ladder.read(path, pd.DataFrame(), 1e13)


def test_widths_that_are_typed_win_over_the_steps_of_the_recipe():
    chosen = recipe.load(["recipe=laptop_profiles", "widths=[12,16,20,24,32]"])
    assert {run.model.d_model for run in grid.build(chosen, SHA).runs} <= {12, 16, 20, 24, 32}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["points=2"], "points=2"),
        (["beside=3", "most_points=6"], "beside=3, most_points=6: .* are 7"),
        (["spacing=1"], "spacing=1: a factor in N"),
        (
            ["widths=[16,32,64]", "spacing=2"],
            r"spacing=2 has no effect with widths=\[16, 32, 64\]: .* give widths=\[\]",
        ),
        (["widths=[16,32,64]", "width_step=8"], "width_step=8 has no effect with widths"),
        (["adaptive=true"], "adaptive: profiles choose their own runs"),
        (["prune.by_value=0.1"], "prune.by_value: profiles choose their own runs"),
        (["train.stop_every=1e5"], "train.stop_every: a run that stops early"),
        (["budgets=[]"], "budgets: 0 of them"),
        (["budgets=[1e6]"], "describes no run at 1e\\+06 FLOPs .*fewer than min_tokens"),
        (["widths_at={1e11: [8]}"], "widths_at: the family profiles does not have it, only nano"),
    ],
)
def test_profiles_that_cannot_be_meant_are_refused(words, sentence):
    with pytest.raises(ValueError, match=sentence):
        grid.build(recipe.load(["recipe=laptop_profiles", *words]), SHA)
