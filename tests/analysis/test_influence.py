"""What moves the ensemble's prediction: refits at once against refits one by one, and the first-order form of them."""

import numpy as np
import pandas as pd
import pytest

from analysis.estimation import isoflop
from analysis.estimation.backtest import combine
from analysis.estimation.choices import choice_ln_loss, fit_choices
from analysis.estimation.ensemble import fit_ensemble
from analysis.estimation.influence import first_order, influences, parabolas, predictions
from analysis.estimation.robust import LEAST_SQUARES
from tests.analysis.test_approaches import budgets


def made(noise):
    table = budgets(noise=noise).assign(run_id=lambda t: [f"r{i}" for i in range(len(t))], U=lambda t: t.D)
    minima = isoflop.analyse(table, draws=50, seed=0)
    point = pd.DataFrame({"N": [3e9], "D": [1e21 / 1.8e10], "C": [1e21], "U": [1e21 / 1.8e10], "optimal": [True]})
    return table, minima, point


@pytest.fixture(scope="module")
def ladder():
    table, minima, point = made(0.003)
    return table, minima, point, fit_ensemble(table, frontier=True)


def test_refits_at_once_are_those_of_every_choice_one_by_one(ladder):
    table, minima, point, ensemble = ladder
    for out in ([4], [28, 29], list(range(28, 35))):
        hit = table.index.isin(out)
        again = [fit_choices([choice], table[~hit].reset_index(drop=True))[0] for choice in ensemble.choices]
        each = [choice_ln_loss(c, f.theta[None], point)[0] for c, f in zip(ensemble.choices, again, strict=True)]
        by_hand = combine(np.array(each).T, ensemble.weights(point)[0])[0]
        through = parabolas(table, hit[None], minima)
        at_once = predictions(ensemble, table, point, hit[None], minima, through)[0, 0]
        assert at_once == pytest.approx(by_hand, abs=3e-4)


def test_an_influence_is_the_ensembles_and_the_spoilt_run_leads(ladder):
    table, _, point, _ = ladder
    spoilt = table.assign(loss=table.loss.where(table.run_id != "r34", table.loss * 1.03))
    minima = isoflop.analyse(spoilt, draws=50, seed=0)
    found = influences(fit_ensemble(spoilt, rho=LEAST_SQUARES, frontier=True), spoilt, point, minima)
    assert found[0].loss_change < 0, "without what was too high the prediction falls"
    assert next(i.left_out for i in found if i.kind == "run") == "r34"
    assert any(np.isfinite(i.n_star_change) for i in found)


def test_the_first_order_form_is_near_the_refits(ladder):
    table, minima, point, _ = ladder
    ensemble = fit_ensemble(table, law="chinchilla", rho=LEAST_SQUARES)
    left_out = np.vstack([np.zeros((1, len(table)), bool), np.eye(len(table), dtype=bool)])
    through = parabolas(table, left_out, minima)
    base, *rest = predictions(ensemble, table, point, left_out, minima, through)[:, 0]
    changes = np.array(rest) - base
    first = first_order(ensemble, table, point)
    assert np.corrcoef(first, changes)[0, 1] > 0.95
    assert np.abs(first - changes).max() < 0.5 * np.abs(changes).max()
