"""Compute that is not 6ND, from the runs to points, lines, grids and influence: against the runs' own counts."""

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.settings import DesignSettings

TIMES = 3.0  # C of these runs, in 6ND


def grid(ratios=(4.0, 10.0, 25.0, 60.0)):
    n = np.repeat(np.geomspace(1e7, 1e9, 8), len(ratios))
    d = n * np.tile(ratios, 8)
    loss = 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28
    loss = loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    return pd.DataFrame({"N": n, "D": d, "C": TIMES * 6 * n * d, "loss": loss})


@pytest.mark.parametrize("given", ["NC", *(pytest.param(name, marks=pytest.mark.soak) for name in ("DC", "ND", "NDC"))])
def test_two_of_a_points_numbers_say_the_third_as_the_runs_do(given):
    table = grid()
    top = table.loc[table.C.idxmax()]
    study = api.fit(table, predict=pd.DataFrame([top[list(given)]]), bootstrap=20)
    (point,) = study.predicted_points
    assert [point.n, point.d, point.compute] == pytest.approx([top.N, top.D, top.C], rel=1e-6)
    assert point.decades == pytest.approx(0.0, abs=1e-6), "it is one of the runs"
    assert point.loss == pytest.approx(top.loss, rel=0.01)


def test_a_line_of_runs_is_continued_to_what_costs_the_compute():
    (prediction,) = api.fit(grid((20.0,)), target_compute=[1e22], bootstrap=20).predictions
    assert TIMES * 6 * prediction.n * prediction.d == pytest.approx(1e22, rel=1e-6)
    assert prediction.d / prediction.n == pytest.approx(20.0, rel=1e-3)


def test_the_runs_that_are_proposed_cost_what_is_said(tmp_path):
    path = tmp_path / "runs.csv"
    grid().to_csv(path, index=False)
    found = api.design(DesignSettings(runs=str(path), largest=3e21))
    assert len(found.table)
    assert (found.table.C / (6 * found.table.N * found.table.D)).to_numpy() == pytest.approx(TIMES, rel=0.02)


@pytest.mark.soak
def test_influence_is_on_the_size_that_is_printed():
    """By the budgets where these are trusted: their own N*, and what it is without the top one."""
    rows = []
    for compute in np.geomspace(1e18, 1e21, 5):
        n = (compute / TIMES / 6 / 20) ** 0.5 * np.geomspace(0.3, 3, 7)
        rows.append(pd.DataFrame({"N": n, "D": compute / (TIMES * 6 * n), "C": compute, "budget_flops": compute}))
    table = pd.concat(rows, ignore_index=True)
    table["loss"] = 1.69 + 406.4 / table.N**0.34 + 410.7 / table.D**0.28
    study = api.fit(table, target_compute=[1e22], bootstrap=20)
    (prediction,) = study.predictions
    assert study.minima.trusted
    for influence in study.influences:
        assert influence.n_star / (1 + influence.n_star_change) == pytest.approx(prediction.n, rel=1e-9)
    top = next(i for i in study.influences if i.left_out == "budget 1e21")
    again = api.fit(table[table.C < 9e20], target_compute=[1e22], bootstrap=20)
    assert top.n_star == pytest.approx(again.predictions[0].n, rel=0.02)
