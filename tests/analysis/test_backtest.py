"""Rolling-origin backtests, their calibration, and the ensemble of fit choices."""

import numpy as np
import pandas as pd
import pytest

from analysis import api, laws
from analysis.estimation import backtest, choices, ensemble, robust, solve, uncertainty
from analysis.estimation.backtest import Backtests
from tests.analysis.test_laws_and_solver import ladder


def runs(noise=0.002, seed=0, count=80, bend=0.0):
    data, loss = ladder(noise=noise, seed=seed, runs=count)
    table = pd.DataFrame({name: data[name] for name in ("N", "D", "C")}).assign(run_id=[f"r{i}" for i in range(count)])
    table["U"] = table.D
    table["loss"] = loss * np.exp(bend * np.maximum(0.0, np.log10(table.C / 1e19)) ** 2)
    return table


def test_no_cut_sees_what_it_predicts():
    table, seen = runs(), []

    def fitter(below):
        seen.append(float(below.C.max()))
        return lambda points: np.full((len(points), 1), float(below.C.max()))

    found = backtest.run(table, fitter)
    assert found.cuts == len(seen) >= 3
    assert (found.rows.C > found.rows.fitted_to).all()
    np.testing.assert_array_equal(found.ln_predicted[:, 0], found.rows.fitted_to)
    assert (found.rows.decades > 0).all()


def test_cuts_leave_runs_on_either_side():
    compute = np.geomspace(1e18, 1e22, 40)
    found = backtest.cuts(compute)
    assert found == sorted(found, reverse=True)
    for cut in found:
        assert (compute < cut).sum() >= backtest.LEAST_RUNS
        assert (compute >= cut).sum() >= backtest.LEAST_ABOVE
    assert backtest.cuts(np.geomspace(1e18, 1e22, 8)) == []


@pytest.mark.parametrize("digits", [17, 3])
def test_no_cut_goes_through_a_budget_whose_runs_differ_by_rounding(digits):
    n = np.concatenate([np.sqrt(c / 120) * np.geomspace(0.25, 4, 5) for c in np.geomspace(1e19, 1e21, 5)])
    budget = np.repeat(np.geomspace(1e19, 1e21, 5), 5)
    rounded = [np.array([float(f"{v:.{digits}g}") for v in values]) for values in (n, budget / (6 * n))]
    compute = 6 * rounded[0] * rounded[1]
    below = [int((compute < cut).sum()) for cut in backtest.cuts(compute)]
    assert below == [20, 15, 10]


def backtests_of(pace, noise, span=4.0, seed=0):
    """Backtests whose misses are a slope carried on, of a known pace, plus noise."""
    rng = np.random.default_rng(seed)
    rows, predicted = [], []
    for cut in range(60):
        slope = rng.standard_normal() * pace / np.sqrt(span)
        for d in (0.25, 0.5, 1.0):
            miss = slope * d + noise * rng.standard_normal()
            row = {"fitted_to": 10.0**cut, "decades": d, "span": span, "measured": float(np.exp(miss)), "run_id": "r"}
            rows.append(row)
            predicted.append([0.0])
    return Backtests(rows=pd.DataFrame(rows), ln_predicted=np.array(predicted))


def test_calibration_finds_the_pace_of_slopes_carried_on():
    found = backtest.calibrate(backtests_of(0.04, 0.003), np.ones(1), noise=0.003)
    assert found.pace == pytest.approx(0.04 * np.sqrt(2 / np.pi), rel=0.25)
    assert found.supported
    widths = found.half_width(np.array([0.0, 0.5, 1.0, 2.0]), 1.0, 0.95)
    assert (np.diff(widths) > 0).all()
    # a decade is farther from data that span one than from data that span four
    near, far = found.half_width(np.ones(2), np.array([4.0, 1.0]), 0.95)
    assert far > 1.2 * near


def test_what_cuts_are_worth_is_how_often_the_distance_goes_into_the_span():
    found = backtest.calibrate(backtests_of(0.0, 0.003), np.ones(1), noise=0.003)
    # misses of nothing but noise, a decade out: data of many decades know it, those of one do not
    wide, narrow = found.half_width(np.ones(2), np.array([30.0, 1.0]), 0.95)
    assert wide < 3.5 * 0.003
    assert narrow > 5 * 0.003


@pytest.mark.soak
def test_seven_points_are_not_asked_for_the_exponents_alone():
    """Four seeds each of seven points in one decade, the next one predicted: Hoffmann et al.'s law is the truth."""
    n = np.repeat([1e8, 1.3e8, 1e8, 2e8, 1.3e8, 1e8, 2.6e8], 4)
    d = np.repeat([2e9, 2.5e9, 6e9, 4e9, 7e9, 1e10, 5e9], 4)
    far = pd.DataFrame({"N": [1.3e8, 2e8, 2.6e8, 5e8], "D": [1.2e10, 2e10, 2.5e10, 3e10]})
    far = far.assign(C=6 * far.N * far.D, U=far.D)

    def truth(n, d):
        return 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28

    missed = []
    for seed in range(12):
        loss = truth(n, d) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(28))
        table = pd.DataFrame({"N": n, "D": d, "C": 6 * n * d, "U": d, "loss": loss})
        ours = ensemble.fit_ensemble(table.assign(run_id=[f"r{i}" for i in range(28)])).ln_loss(far)[0]
        alone = solve.fit(laws.CHINCHILLA, choices.columns(table), loss).predict(choices.columns(far))
        missed.append(np.abs([ours - np.log(truth(far.N, far.D)), np.log(alone / truth(far.N, far.D))]).mean(1))
    ours, alone = np.mean(missed, axis=0)
    assert ours < 0.7 * alone


def test_seeds_of_a_point_tell_no_more_parameters():
    """Ten runs of each of two points: the law of three parameters alone predicts; of eight points, all do."""
    of_two = pd.DataFrame({"N": np.repeat([2e8, 3e8], 10), "D": np.repeat([4e9, 5e9], 10)})
    of_two = of_two.assign(C=6 * of_two.N * of_two.D, U=of_two.D, run_id=[f"r{i}" for i in range(20)])
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(20))
    of_two["loss"] = (1.69 + 406.4 / of_two.N**0.34 + 410.7 / of_two.D**0.28) * noise
    of_eight = runs(count=8)
    two, eight = ({c.law.name for c in ensemble.fit_ensemble(table).choices} for table in (of_two, of_eight))
    assert two == {laws.HELD.name}
    assert eight == {laws.CHINCHILLA.name, laws.OVER_TRAINING.name, laws.HELD.name}


def test_a_few_badly_tuned_runs_do_not_rule_the_interval():
    clean, cloud = backtests_of(0.01, 0.003), backtests_of(0.01, 0.003)
    cloud.rows.loc[::12, "measured"] *= 1.1
    paces = [backtest.calibrate(found, np.ones(1), noise=0.003).pace for found in (clean, cloud)]
    reach = cloud.rows.decades / np.sqrt(cloud.rows.span)
    root_mean_square = np.sqrt(np.mean((np.log(cloud.rows.measured) / reach) ** 2))
    assert paces[0] < paces[1] < 0.7 * root_mean_square


def test_without_backtests_there_is_no_interval_and_a_reason():
    found = backtest.calibrate(
        Backtests(rows=pd.DataFrame({"fitted_to": []}), ln_predicted=np.empty((0, 1))), np.ones(1), 0.01
    )
    assert not found.supported
    assert np.isinf(found.half_width(np.array([1.0]), 2.0, 0.95)).all()
    assert "nothing can be backtested" in found.reason


def test_the_choice_that_misses_gets_little_weight_and_the_true_law_predicts():
    table = runs()
    below = table[table.C < table.C.max() / 10].reset_index(drop=True)
    above = table[table.C >= table.C.max() / 10]
    found = ensemble.fit_ensemble(below)
    weight = dict(zip((choice.law.name for choice in found.choices), found.anywhere.weights, strict=False))
    missed = np.maximum(found.anywhere.errors, 1e-3)
    backtested = found.anywhere.weights / [choice.weight for choice in found.choices]
    assert backtested / backtested[0] == pytest.approx((missed[0] / missed) ** 4), "twice the miss, a sixteenth"
    assert missed.max() > 2 * missed.min()
    assert found.anywhere.weights.sum() == pytest.approx(1)
    assert set(weight) == {"chinchilla", "over_training", laws.HELD.name}
    miss = np.log(above.loss) - found.ln_loss(above)[0]
    assert np.median(np.abs(miss)) < 0.005
    half = found.half_width(above, 0.95)
    assert np.mean(np.abs(miss) <= half) > 0.85


def test_a_bend_that_no_law_has_widens_the_interval():
    straight, bent = ensemble.fit_ensemble(runs()), ensemble.fit_ensemble(runs(bend=0.01))
    assert bent.anywhere.calibration.pace > 2 * straight.anywhere.calibration.pace


def test_replicates_tell_the_seed_noise():
    table = pd.concat([runs(noise=0.0, count=200)] * 3, ignore_index=True)
    table["loss"] *= np.exp(0.004 * np.random.default_rng(0).standard_normal(len(table)))
    table["loss_se"] = 0.01 * table.loss
    found = uncertainty.noise(table)
    assert found.seed == pytest.approx(0.004, rel=0.1)
    assert found.evaluation == pytest.approx(0.01)
    assert found.replicated == 400


def test_clusters_are_drawn_whole():
    table = pd.DataFrame({"N": [1.0, 1.0, 2.0, 2.0, 3.0], "D": [1.0, 1.0, 2.0, 3.0, 4.0], "C": 10.0 ** np.arange(5)})
    by_size = uncertainty.clusters(table, "size")
    counts = uncertainty.resamples(by_size, draws=50, seed=0)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 3]).all()
    by_run = uncertainty.clusters(table, "run")
    assert by_run[0] == by_run[1]  # two seeds of one point
    assert len(set(by_run)) == 4


def test_a_noisy_evaluation_counts_less():
    table = runs(noise=0.0)
    table["loss_se"] = 0.001
    noisy = table.index % 2 == 0
    table.loc[noisy, "loss"] *= np.exp(0.05 * np.random.default_rng(0).standard_normal(noisy.sum()))
    table.loc[noisy, "loss_se"] = 0.2
    choice = choices.Choice(law=laws.CHINCHILLA, rho=robust.LEAST_SQUARES)
    told = choices.fit_choices([choice], table)[0].params
    untold = choices.fit_choices([choice], table.drop(columns="loss_se"))[0].params
    assert abs(told["beta"] - 0.28) < abs(untold["beta"] - 0.28)


def test_runs_of_one_size_tell_nothing_of_another():
    n, d = np.full(24, 1e8), np.geomspace(1e9, 1e11, 24)
    table = pd.DataFrame({"N": n, "D": d, "loss": 1.8 + 400 / n**0.34 + 1200 / d**0.33})
    points = pd.DataFrame({"N": [1e8, 1e10], "D": [3e11, 3e11]})
    found = api.fit(table, predict=points, bootstrap=20)
    same, other = found.predicted_points
    assert same.interval_new_run is not None
    assert other.interval_new_run is None
    assert "off-line" in {note.code for note in found.notes}


def test_a_prediction_without_an_interval_counts_neither_inside_nor_outside():
    """Two cuts, of which only one could be predicted: no other calibrates it, and its half width is infinite."""
    rows = pd.DataFrame({"fitted_to": [1e18] * 3 + [1e19] * 3, "decades": 0.5, "span": 2.0, "measured": 1.0})
    tests = Backtests(rows=rows, ln_predicted=np.array([[0.01], [-0.02], [0.03], [np.nan], [np.nan], [np.nan]]))
    judged = backtest.judged(tests, np.ones(1), noise=0.001)
    assert np.isinf(judged.half95).all()
    (found,) = backtest.coverage(tests, np.ones(1), noise=0.001).to_dict("records")
    assert (found["tests"], found["median_abs_error"]) == (3, pytest.approx(0.02))
    assert np.isnan([found["coverage80"], found["coverage95"]]).all()
    mixed = pd.concat([judged, judged.assign(half80=0.015, half95=0.025)], ignore_index=True)
    np.testing.assert_array_equal(backtest.held(mixed), [[np.nan] * 2] * 3 + [[1, 1], [0, 1], [0, 0]])
