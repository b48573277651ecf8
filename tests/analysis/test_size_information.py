"""What a profile of sizes tells about N*: what the design predicts, against truths that are known in closed form."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from analysis import laws
from analysis.estimation import design, size_information
from analysis.laws.chinchilla import allocation

BUDGETS, TARGET, NOISE, DRAWS = (1e18, 3.16e18, 1e19), 1e20, 0.003, 24


def profile(centre, compute, sizes=5, span=4.0):
    n = centre * np.geomspace(1 / span, span, sizes)
    return pd.DataFrame({"N": n, "D": compute / (6 * n), "cost": compute})


def drawn(rng):
    """L = E + A/N^alpha + B/D^beta with about half a nat for each of the two at 1e8 parameters and 2e9 tokens."""
    alpha, beta = rng.uniform(0.28, 0.40, 2)
    a, b = rng.uniform(0.4, 0.9, 2)
    return {"E": rng.uniform(1.5, 2.0), "A": a * 1e8**alpha, "B": b * 2e9**beta, "alpha": alpha, "beta": beta}


def trained(table, truth, rng):
    loss = truth["E"] + truth["A"] / table.N ** truth["alpha"] + truth["B"] / table.D ** truth["beta"]
    return table.assign(loss=loss * np.exp(NOISE * rng.standard_normal(len(table))))


def ladder(truth, rng):
    """Three budgets of five sizes, none of them quite about its minimum."""
    centres = [float(allocation(truth, np.array(c))[0]) * np.exp(0.3 * rng.standard_normal()) for c in BUDGETS]
    return trained(pd.concat([profile(n, c) for n, c in zip(centres, BUDGETS, strict=True)]), truth, rng)


def known(fitted, runs):
    """Standard deviation of ln N* once the runs are made."""
    covariance = fitted.covariance(runs)
    covariance.condition(range(len(runs)))
    return np.sqrt(covariance.target_variance)


@cache
def draws():
    rows = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        truth = drawn(rng)
        made = ladder(truth, rng)
        before = size_information.fit(laws.CHINCHILLA, made, TARGET)
        possible = profile(before.point[0], TARGET)
        predicted = design.propose(made, possible, compute=TARGET, target="n_star", batch=5)
        every = pd.concat([made, trained(possible, truth, rng)], ignore_index=True)
        after = size_information.fit(laws.CHINCHILLA, every, TARGET)
        ln_true = np.log(float(allocation(truth, np.array(TARGET))[0]))
        rows.append(
            {
                "predicted": predicted.everything,
                "realised": known(after, every) / predicted.sigma,
                "before": before.ln_n - ln_true,
                "after": after.ln_n - ln_true,
                "sigma_before": predicted.sigma,
                "sigma_after": known(after, every),
            }
        )
    return pd.DataFrame(rows)


def test_the_interval_shrinks_by_what_was_predicted():
    table = draws()
    assert table.predicted.median() < 0.7, "a whole profile at the target tells a lot about N*"
    ratio = (table.realised / table.predicted).median()
    assert 1 / 1.5 < ratio < 1.5


@pytest.mark.soak
def test_the_error_of_the_size_shrinks_as_predicted_too():
    table = draws()
    errors = np.sqrt((table.after**2).mean() / (table.before**2).mean())
    assert errors < 0.8
    assert 1 / 1.5 < errors / table.predicted.median() < 1.5


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_interval_of_the_size_holds(when):
    table = draws()
    held = (table[when].abs() < design.NORMAL95 * table[f"sigma_{when}"]).mean()
    assert held >= 0.9


def test_noise_is_told_from_the_runs():
    """Of a truth that the law can be, a run's noise comes out to a factor of two, however large it is."""
    for noise in (0.001, 0.01):
        found = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            truth = drawn(rng)
            made = ladder(truth, rng)
            smooth = truth["E"] + truth["A"] / made.N ** truth["alpha"] + truth["B"] / made.D ** truth["beta"]
            made["loss"] = smooth * np.exp(noise * rng.standard_normal(len(made)))
            found.append(size_information.fit(laws.CHINCHILLA, made, TARGET).noise)
        assert noise / 2 < np.median(found) < noise * 2


def test_runs_far_away_tell_less_about_the_size_than_a_profile_there():
    rng = np.random.default_rng(1)
    truth = drawn(rng)
    made = ladder(truth, rng)
    centre = float(allocation(truth, np.array(TARGET))[0])
    there = design.propose(made, profile(centre, TARGET), compute=TARGET, target="n_star", batch=5)
    small = float(allocation(truth, np.array(1e17))[0])
    away = design.propose(made, profile(small, 1e17), compute=TARGET, target="n_star", batch=5)
    assert there.everything < 0.75 * away.everything
    assert there.worth
