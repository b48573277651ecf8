"""One fit behind every number of a law, its weight and its receipt; and columns that hold less than they seem to."""

import numpy as np
import pandas as pd
import pytest

from analysis import api, laws
from analysis.accuracy.trends import predict_accuracies
from analysis.estimation import choices, minimise, robust, solve, uncertainty
from analysis.estimation.backtest import GROWTH, Backtests
from analysis.output.receipt import receipt
from analysis.settings import LOSS_FUNCTIONS, StudySettings
from gpt3core.errors import UsageError
from tests.analysis.test_counted_compute import grid


def plain():
    return grid().drop(columns="C")


@pytest.mark.parametrize("law", ["kaplan_n", "kaplan_d"])
def test_a_law_that_was_asked_for_predicts_by_the_fit_that_is_printed(law):
    point = pd.DataFrame({"N": [1e10], "D": [2e11]})
    study = api.fit(plain(), law=law, predict=point, bootstrap=20)
    params = study.laws[law].fit.params
    x = law[-1].upper()
    printed = (params[f"{x}_c"] / float(point[x].iloc[0])) ** params[f"alpha_{x}"]
    assert study.predicted_points[0].loss == pytest.approx(printed, rel=1e-9)


def test_what_fixes_an_exponent_otherwise_has_another_receipt():
    one, other = (api.fit(plain(), fix=fix, bootstrap=10) for fix in ({"a": 0.5}, {"alpha_equals_beta": True}))
    assert receipt(one, one.options) != receipt(other, other.options)


def test_text_seen_again_is_no_seed_noise():
    """A table without noise, each point with all its tokens fresh, with half and with a quarter of them."""
    fresh = plain().assign(loss=lambda t: 1.69 + 406.4 / t.N**0.34 + 410.7 / t.D**0.28)
    parts = [fresh.assign(U=fresh.D / k, loss=fresh.loss * (1 + 0.01 * (k - 1))) for k in (1, 2, 4)]
    table = pd.concat(parts, ignore_index=True).assign(run_id=lambda t: t.index.astype(str))
    found = uncertainty.noise(table)
    assert found.replicated == 0
    assert np.isnan(found.seed)
    assert len(np.unique(uncertainty.clusters(table, "run"))) == len(table)


def test_a_choice_fitted_below_the_easier_cuts_alone_is_judged_beside_the_others_there():
    """Its misses are those of its neighbour wherever it was fitted: so is its error."""
    cuts = np.repeat([1.0, 2.0, 3.0], 4)
    miss = np.repeat([0.04, 0.01, 0.01], 4)
    predicted = -np.stack([miss, 2 * miss, np.where(cuts > 1, miss, np.nan)], 1)
    tests = Backtests(rows=pd.DataFrame({"fitted_to": cuts, "measured": 1.0}), ln_predicted=predicted)
    first, second, partial = tests.errors()
    assert second == pytest.approx(2 * first)
    beside = 0.01 / 0.015  # of the mean of the two that were fitted everywhere
    assert partial == pytest.approx(beside * (first + second) / 2)


def test_the_doubt_of_an_accuracy_has_the_tails_of_the_loss_behind_it():
    study = api.fit(
        plain().assign(acc=lambda t: 1 / (1 + np.exp(t.loss - 4))), scores=["acc"], target_compute=[1e21], bootstrap=20
    )
    (trend,) = [t for t in study.trends if t.task == "acc"]
    sigma = 0.05
    (found,) = predict_accuracies([trend], float(np.log(2.5)), sigma)
    draws = -np.exp(np.log(2.5) + sigma * np.random.default_rng(1).standard_t(GROWTH.freedom, 100_000))
    low, high = trend.by_loss.at(np.quantile(draws, [0.025, 0.975]))
    assert found.interval_mean == pytest.approx([low, high], abs=0.01)


@pytest.mark.parametrize("given", [[0.01] + [0.0] * 31, [np.nan] + [0.01, 0.02] * 15 + [0.03]], ids=["zeros", "a gap"])
def test_standard_errors_that_are_zero_or_missing_leave_the_others_their_weight(given):
    table = plain().assign(loss_se=given, run_id=lambda t: t.index.astype(str))
    weights = choices.run_weights(choices.Choice(law=laws.CHINCHILLA, rho=robust.HUBER), table)
    assert np.isfinite(weights).all()
    order = table.loss_se.fillna(table.loss_se[table.loss_se > 0].median()) / table.loss
    assert np.corrcoef(weights, order)[0, 1] < -0.9
    assert api.fit(table, bootstrap=10).laws["chinchilla"].fit.theta is not None


def test_the_other_count_of_a_point_is_read():
    table = plain().rename(columns={"N": "N_total"})
    table["N_nonembedding"] = table.N_total - 300 * np.sqrt(table.N_total)
    points = pd.DataFrame({"N_nonembedding": [5e9, 5e9], "N_total": [5.1e9, 9e9], "D": [1e11, 1e11]})
    found = api.fit(table, N="nonembedding", predict=points, bootstrap=10).predicted_points
    assert found[1].loss < found[0].loss


@pytest.mark.parametrize("seed", range(4))
def test_no_start_is_given_up_in_a_curved_valley(seed):
    """The law of repeated data: the best of all its starts, each followed to its end."""
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(16, 23, 60)), np.exp(rng.uniform(20, 26, 60))
    data = {"N": n, "D": d, "U": d / rng.choice([1.0, 3.0, 20.0], 60)}
    theta = np.array([np.log(1.69), np.log(406.4), np.log(410.7), 0.34, 0.28, np.log(15.4), np.log(5.3)])
    evaluate = laws.DATA_CONSTRAINED.on(data)
    loss = np.exp(evaluate(theta[None])[0][0] + 0.02 * rng.standard_normal(60))
    fit = solve.fit(laws.DATA_CONSTRAINED, data, loss)
    starts = laws.DATA_CONSTRAINED.starts(data, loss)
    value = np.nan_to_num(robust.HUBER.value(np.log(loss) - evaluate(starts)[0]).sum(1), nan=np.inf)
    kept = starts[np.argsort(value, kind="stable")[: solve.STARTS_KEPT]]
    assert fit.objective <= minimise.minimise(evaluate, np.log(loss), kept).objective.min() * (1 + 1e-9)


def test_a_misspelt_loss_function_is_one_sentence():
    with pytest.raises(UsageError, match=r"loss_function=hubber, did you mean huber\?"):
        StudySettings(runs="x.csv", loss_function="hubber").check()
    assert set(robust.RHOS) == set(LOSS_FUNCTIONS)
