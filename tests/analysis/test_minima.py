"""N* and D* with intervals: budgets whose minima are known in closed form, and ladders on which laws steepen."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation import family, isoflop
from analysis.output import documents, text
from analysis.output.answer import answer
from analysis.runs.ratio import per_6nd, tokens
from tests.benchmarks import known_truth
from tests.benchmarks.known_truth import EXPONENT, budgets, true_loss
from tests.benchmarks.known_truth import optimal_size as true_size

FORMER = Path(__file__).parent / "data" / "former_laptop_ladder.csv"  # on another split of the same text


def ladder(seed, noise, count=5, sizes=5):
    """IsoFLOP curves of Hoffmann et al.'s law, their sizes off centre."""
    rng = np.random.default_rng(seed)
    table = budgets(rng, count, sizes)
    loss = true_loss(table.N.to_numpy(), table.D.to_numpy())
    table["loss"] = loss * np.exp(noise * rng.standard_normal(len(table)))
    return table.assign(run_id=[f"r{i}" for i in range(len(table))], C=6 * table.N * table.D)


def curve(ln_n, centre, level, bend, skew):
    z = ln_n - centre
    return level + bend * (z**2 + skew * z**3)


def test_a_family_of_curves_is_found_exactly():
    c = np.log(np.geomspace(1e18, 1e20, 4))
    centre, level = 19 + 0.5 * (c - c[0]), 1.2 - 0.05 * (c - c[0])
    bend = 0.03 * np.exp(-0.1 * (c - c.mean()))
    budget = np.repeat(np.arange(4), 6)
    x = centre[budget] + np.tile(np.linspace(-1.5, 1.1, 6), 4)
    y = curve(x, centre[budget], level[budget], bend[budget], -0.04)
    start = np.stack([level + 0.001, centre + 0.1, bend * 1.1])
    found = family.fit(budget, x, y, c, start)
    np.testing.assert_allclose(found.centre, centre, atol=2e-3)
    np.testing.assert_allclose(found.level, level, atol=1e-4)
    np.testing.assert_allclose(found.bend, bend, rtol=0.01)
    assert found.skew == pytest.approx(-0.04, abs=0.003)
    assert float(found.line(found.centre[None])[0, 0]) == pytest.approx(0.5, abs=1e-3)


def test_the_skewness_of_a_family_is_that_of_the_law():
    """(beta - alpha)/3 along 6ND = C; with it the minima are the closed form's, which parabolas miss."""
    minima = isoflop.analyse(ladder(0, 0.0, sizes=7), draws=10, seed=0)
    assert minima.family.skew == pytest.approx((0.28 - 0.34) / 3, abs=0.01)
    truth = np.log([true_size(p.budget) for p in minima.used])
    missed = np.abs(minima.family.centre - truth).max()
    assert missed < 0.005
    assert np.abs(np.log([p.n_star for p in minima.used]) - truth).max() > 3 * missed


def test_n_star_is_unbiased_and_covered_two_decades_out():
    misses, inside = [], []
    for seed in range(25):
        minima = isoflop.analyse(ladder(seed, 0.003), draws=50, seed=0)
        said, rng = minima.family.carried(np.log([1e22, 1e23])), np.random.default_rng(seed)
        drawn = said.draws(1000, minima.family.freedom, minima.family.inflation, rng)
        truth = np.log([true_size(c) for c in (1e22, 1e23)])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        misses.append(said.mean - truth)
        inside.append((low <= truth) & (truth <= high))
    assert np.abs(np.median(misses, axis=0)).max() < 0.08
    assert np.mean(inside) >= 0.9


def test_an_exponent_that_falls_is_followed_and_its_interval_holds_the_next_decade():
    """ln N* of the five budgets of an earlier recipe of the laptop sweep: slopes .81, .80, .74, .50 per factor e."""
    c = np.log([1e11, 3e11, 1e12, 3e12, 1e13])
    centre = np.log([9e3, 22e3, 58e3, 130e3, 237e3])
    own = np.diag(np.full(5, 0.05**2))
    at = np.log([1e14])
    said = family._carried(c, centre, own, at)
    straight = float(np.polyval(np.polyfit(c, centre, 1), at[0]))
    assert said.mean[0] < straight - 0.2, "the last step counts for more than the first"
    low, high = said.mean[0] + 1.96 * np.sqrt(said.variance[0]) * np.array([-1, 1])
    assert low < centre[-1] + 0.5 * np.log(10) < high, "the slope that was seen last goes on"
    assert high - low < np.log(12)


def test_where_the_exponent_stands_still_the_family_is_a_line():
    c = np.log(np.geomspace(1e18, 1e21, 6))
    said = family._carried(c, 10 + 0.5 * c, np.diag(np.full(6, 0.02**2)), np.log([1e22]))
    assert said.mean[0] == pytest.approx(10 + 0.5 * np.log(1e22), abs=0.01)
    assert said.weights[0] > said.weights[-1]


@pytest.mark.soak
def test_held_out_budgets_that_are_missed_widen_the_interval():
    c = np.log(np.geomspace(1e18, 1e22, 6))
    x = np.linspace(-1.2, 1.2, 6)

    def table(centre):
        rows = [
            {"run_id": f"r{b}{i}", "N": np.exp(centre[b] + z), "C": np.exp(c[b]), "loss": np.exp(1 + 0.03 * z**2)}
            for b in range(6)
            for i, z in enumerate(x)
        ]
        return pd.DataFrame(rows).assign(D=lambda t: t.C / (6 * t.N))

    straight = isoflop.analyse(table(-5 + 0.5 * c), draws=10, seed=0)
    jumps = np.array([0, 0, 0, 0.0, 1.5, 0.2])
    jumping = isoflop.analyse(table(-5 + 0.5 * c + jumps), draws=10, seed=0)
    assert straight.family.inflation == 1.0
    assert straight.held_out.covered95.all()
    assert len(straight.held_out) == 3 + 2 + 1
    assert jumping.family.inflation > 1.5
    assert not jumping.held_out.covered95.all()


def test_three_budgets_of_three_sizes_have_an_interval_that_holds():
    """Parabolas through three points leave no residual: N* was 0.73 to 1.43 of the truth without a word."""
    inside = []
    for seed in range(12):
        table = ladder(seed, 0.003, 3, 3)
        minima = isoflop.analyse(table, draws=50, seed=0)
        if not minima.trusted:
            continue
        said = minima.family.carried(np.log([1e22]))
        drawn = said.draws(1000, minima.family.freedom, minima.family.inflation, np.random.default_rng(0))
        low, high = np.quantile(drawn, [0.025, 0.975])
        inside.append(low <= np.log(true_size(1e22)) <= high)
    assert len(inside) >= 4
    assert np.mean(inside) >= 0.85


def test_groups_that_chance_made_are_no_budgets():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"N": np.exp(rng.uniform(15, 20, 60)), "D": np.exp(rng.uniform(19, 24, 60))})
    table = table.assign(C=6 * table.N * table.D, run_id=[f"r{i}" for i in range(60)], loss=3.0)
    assert isoflop.by_budget(table) == []
    assert len(isoflop.by_budget(ladder(0, 0.0))) == 5


@pytest.mark.parametrize("extra", [0.0, 0.4, -0.3])
def test_tokens_at_a_compute_follow_the_runs_own_count(extra):
    """C = 6ND(1 + extra N^-1/2 ...), as a head or left-out embeddings make it: beyond the runs and between them."""
    n = np.geomspace(1e4, 1e7, 8)
    d = 20 * n
    table = pd.DataFrame({"N": n, "D": d, "C": 6 * n * d * (1 + extra * (n / 1e4) ** -0.5)})
    cost = per_6nd(table)
    for at in (2e4, 1e9):
        compute = 6 * at * 1e10 * (1 + extra * (at / 1e4) ** -0.5)
        assert float(tokens(cost, np.log(np.array([at])), compute)[0]) == pytest.approx(1e10, rel=1e-6)


def test_the_unique_tokens_of_a_budget_are_carried_to_its_minimum():
    table = ladder(0, 0.0).assign(U=lambda t: np.minimum(t.D, 3e9))
    for p in isoflop.parabolas(table):
        assert p.u_star == pytest.approx(min(p.d_star, 3e9), rel=0.15)
        assert p.ok == (p.d_star <= 4.004 * p.u_star)
        assert p.ok or "the text was seen" in p.reason


@pytest.mark.soak
def test_every_convention_has_the_same_budgets():
    """Exact FLOPs that 6ND does not group: the table of exponents said that its budgets are the same in all."""
    table = ladder(0, 0.001)
    overhead = 1 + (table.N / 1e8) ** -0.5
    table = table.assign(D=table.D / overhead).drop(columns="run_id")
    table["loss"] = true_loss(table.N.to_numpy(), table.D.to_numpy())
    exact, six = api.fit(table, bootstrap=20).exponents
    assert np.isfinite([exact.isoflop, six.isoflop]).all()
    assert abs(exact.isoflop - six.isoflop) < 0.1


def test_predictions_carry_n_star_and_d_star_with_intervals():
    study = api.fit(ladder(1, 0.002).drop(columns="run_id"), target_compute=[1e22], bootstrap=40)
    (p,) = study.predictions
    assert p.interval_n[0] < p.n < p.interval_n[1]
    assert p.interval_d[0] < p.d < p.interval_d[1]
    assert p.interval_n[0] < true_size(1e22) < p.interval_n[1]
    entry = documents.to_json(study)
    assert entry["predictions"][0]["interval95_N"] == p.interval_n
    assert entry["predictions"][0]["interval95_D"] == p.interval_d
    assert entry["laws"]["n_star"]["held_out"]
    assert entry["laws"]["n_star"]["params"]["a"] == pytest.approx(EXPONENT, abs=0.06)
    assert "N* of held-out budgets" in text.to_markdown(study)


def test_what_runs_do_not_tell_has_no_interval_of_the_mean_law():
    """Twelve sizes at one number of tokens say nothing of more tokens: an interval there covered 0 of 12."""
    n = np.geomspace(1e7, 3e9, 12)
    d = np.full(12, 2e10)
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(12))
    table = pd.DataFrame({"N": n, "D": d, "loss": true_loss(n, d) * noise})
    points = pd.DataFrame({"N": [1e10], "D": [2e12]})
    (p,) = api.fit(table, predict=points, bootstrap=20).predicted_points
    assert p.interval_mean is None
    assert p.interval_new_run is None


@pytest.mark.soak
def test_known_truth_is_covered_in_short():
    """Four draws of a grid: the whole table is tests/benchmarks/known_truth.py's."""
    found = known_truth.measured(["grid 1%"], 4, bootstrap=40).reset_index()
    sizes = found[found.what.str.startswith("N*")]
    assert (sizes.shown == 1).all()
    assert sizes.covered.mean() >= 0.75
    assert (found.covered.mean()) >= 0.85


@pytest.fixture(scope="module")
def former_ladder():
    """The 25 runs of a former laptop sweep, which end at 1e13 FLOPs, asked for 1e14."""
    return api.fit(pd.read_csv(FORMER), min_tokens=4e5, target_compute=[1e14], bootstrap=200)


@pytest.fixture(scope="module")
def beyond_the_former_ladder(former_ladder):
    (p,) = former_ladder.predictions
    return p


def test_the_answer_says_where_the_best_size_is_not_expected_to_grow_on_as_before(former_ladder):
    (line,) = [said for label, said in answer(former_ladder) if label == "size"]
    before, then = re.search(
        r"N\* ~ C\^([\d.]+) .*; from 1e13 to 1e14 it is expected to grow as C\^([\d.]+)$", line
    ).groups()
    largest = max(former_ladder.minima.used, key=lambda p: p.budget)
    assert float(then) == pytest.approx(np.log10(former_ladder.predictions[0].n / largest.n_star), abs=0.05)
    assert float(before) > float(then) + 0.05


def test_the_former_ladder_says_what_ten_times_its_largest_budget_gave(beyond_the_former_ladder):
    """Four sizes at 1e14 FLOPs, minimum inside: N* 0.81M, L* 2.970; a line through five minima said 1.05M to 2.0M."""
    p = beyond_the_former_ladder
    assert p.interval_n[0] < 0.81e6 < p.interval_n[1]
    assert p.interval_new_run[0] < 2.970 < p.interval_new_run[1]


def test_the_former_ladder_says_it_within_a_factor_of_twelve(beyond_the_former_ladder):
    """No less than at the largest budget, nor on fewer tokens: that alone leaves a factor of ten."""
    assert beyond_the_former_ladder.interval_n[1] / beyond_the_former_ladder.interval_n[0] < 12
