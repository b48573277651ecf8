"""Which exponent to use, and how far the fits that count differ."""

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation import envelope, isoflop
from analysis.estimation.approaches import ENVELOPE, PARABOLAS, PARAMETRIC, advise
from analysis.estimation.predict import Prediction


def budgets(off_centre=1.0, noise=0.0, count=5):
    """L = 1.7 + 400/N^.34 + 410/D^.28, seven sizes a budget, ``off_centre`` times the best ones."""
    rng, rows = np.random.default_rng(0), []
    a = 0.28 / (0.34 + 0.28)
    for c in np.geomspace(1e18, 1e20, count):
        best = (0.34 * 400 / (0.28 * 410)) ** (1 / 0.62) * (c / 6) ** a
        n = best * off_centre * np.geomspace(0.25, 4, 7)
        d = c / 6 / n
        rows.append(pd.DataFrame({"N": n, "D": d, "C": c, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}))
    found = pd.concat(rows, ignore_index=True)
    return found.assign(loss=found.loss * np.exp(noise * rng.standard_normal(len(found))))


@pytest.fixture(scope="module")
def fitted():
    return api.fit(budgets(noise=0.0005), bootstrap=20)


def test_the_approach_that_foresees_the_highest_budgets_is_named_with_its_miss(fitted):
    found = fitted
    (note,) = [n.message for n in found.notes if n.code == "which-exponent"]
    assert found.advice.approach != ENVELOPE, "seven sizes make steps of a factor 1.6"
    assert f"a = {found.advice.a:.2f}" in note
    assert found.advice.a == pytest.approx(0.28 / 0.62, abs=0.05)
    assert set(found.advice.misses) >= {PARABOLAS, PARAMETRIC}
    assert found.advice.misses[found.advice.approach] == min(found.advice.misses.values())


def test_what_is_foreseen_is_seen_by_no_fit():
    """A miss is that of the power law through the lower budgets, by hand."""
    table = budgets(noise=0.002).assign(run_id=lambda t: [f"r{i}" for i in range(len(t))])
    minima = isoflop.analyse(table, draws=50, seed=0)
    found = advise(table, minima, envelope.envelope(table), None)
    c, n = np.log([p.budget for p in minima.used]), np.log([p.n_star for p in minima.used])
    by_hand = [abs(np.polyval(np.polyfit(c[:k], n[:k], 1), c[k]) - n[k]) for k in range(2, len(c))]
    assert found.misses[PARABOLAS] == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_where_nothing_is_determined_none_is_to_be_used():
    table = budgets(count=2).assign(run_id=lambda t: [f"r{i}" for i in range(len(t))])
    minima = isoflop.analyse(table, draws=0, seed=0)
    found = advise(table, minima, envelope.envelope(table), None)
    assert found.approach == ""
    assert "determine neither" in found.reason


@pytest.mark.soak
def test_a_choice_of_no_weight_does_not_widen_the_spread(fitted):
    by_choice, weights = {"a": 2.0, "b": 2.02, "c": 2.8}, {"a": 0.6, "b": 0.397, "c": 0.003}
    point = {"compute": 1e20, "n": 1e9, "d": 1e10, "ln_loss": 0.7, "sigma": 0.01, "decades": 1.0}
    made = Prediction(**point, interval_mean=[2, 2], interval_new_run=None, by_choice=by_choice, weights=weights)
    assert made.spread == [2.0, 2.02]
    found = fitted.predictions[0]
    assert sum(found.weights.values()) == pytest.approx(1)
    assert min(found.by_choice.values()) <= found.spread[0] <= found.loss <= found.spread[1]
