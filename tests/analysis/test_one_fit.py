"""One fit behind every number of a law, its weight and its receipt; and columns that hold less than they seem to."""

import numpy as np
import pandas as pd
import pytest

from analysis import api, laws
from analysis.accuracy.trends import predict_accuracies
from analysis.estimation import choices, ensemble, minimise, robust, solve, uncertainty
from analysis.estimation.backtest import TAILS, Backtests
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


@pytest.mark.soak
def test_what_fixes_an_exponent_otherwise_has_another_receipt():
    one, other = (
        api.fit(plain(), fix=fix, law="chinchilla", bootstrap=2) for fix in ({"a": 0.5}, {"alpha_equals_beta": True})
    )
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
    draws = -np.exp(np.log(2.5) + sigma * np.random.default_rng(1).standard_t(TAILS, 100_000))
    low, high = trend.by_loss.at(np.quantile(draws, [0.025, 0.975]))
    assert found.interval_mean == pytest.approx([low, high], abs=0.01)


@pytest.mark.soak
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


@pytest.mark.parametrize("cut", [0, 1])
def test_a_backtest_knows_nothing_of_what_lies_above_its_cut(cut):
    """Seven points tell little: a fit below a cut that began at the fit to all runs would end where these lie."""
    n = np.repeat([1e8, 1.3e8, 1e8, 2e8, 1.3e8, 1e8, 2.6e8], 4)
    d = np.repeat([2e9, 2.5e9, 6e9, 4e9, 7e9, 1e10, 5e9], 4)
    loss = true(n, d) * np.exp(0.003 * np.random.default_rng(0).standard_normal(28))
    table = pd.DataFrame({"run_id": [f"r{i}" for i in range(28)], "N": n, "D": d, "C": 6 * n * d, "U": d, "loss": loss})
    found = ensemble.fit_ensemble(table).anywhere.tests
    top = found.rows.fitted_to.unique()[cut]
    moved = table.assign(loss=table.loss.where(table.C <= top, table.loss * 1.05))
    other = ensemble.fit_ensemble(moved).anywhere.tests
    here, there = (tests.ln_predicted[(tests.rows.fitted_to == top).to_numpy()] for tests in (found, other))
    np.testing.assert_array_equal(here, there)


def test_a_misspelt_loss_function_is_one_sentence():
    with pytest.raises(UsageError, match=r"loss_function=hubber, did you mean huber\?"):
        StudySettings(runs="x.csv", loss_function="hubber").check()
    assert set(robust.RHOS) == set(LOSS_FUNCTIONS)


def true(n, d):
    return 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28


@pytest.mark.soak
@pytest.mark.parametrize("rho", ["huber", "least_squares"])
def test_what_no_backtest_saw_of_the_runs_a_rule_took_out_moves_nothing(rho):
    """Runs at three times their loss above every cut: the rule took them out, and no choice brings them back."""
    table = plain()
    top = table.N * table.D >= (table.N * table.D).nlargest(3).min()
    spoilt = table.assign(loss=table.loss.where(~top, 3 * table.loss))
    study = api.fit(spoilt, loss_function=rho, target_compute=[1e21], bootstrap=20)
    assert sum(len(rule.excluded) for rule in study.rules) == 3
    (prediction,) = study.predictions
    assert prediction.loss == pytest.approx(float(true(prediction.n, prediction.d)), rel=0.01)
    assert prediction.interval_mean[1] < 1.02 * prediction.loss


def test_without_backtests_no_choice_is_lenient():
    table = plain().iloc[::4].head(7)
    bad = table.tail(3).assign(loss=lambda t: 3 * t.loss, D=lambda t: 2 * t.D)
    study = api.fit(pd.concat([table, bad]), target_compute=[1e20], bootstrap=20)
    assert study.rules and not study.ensemble.anywhere.tests.cuts
    assert not any(choice.lenient for choice in study.ensemble.choices)


@pytest.mark.parametrize("same", ["D", pytest.param("N", marks=pytest.mark.soak)])
def test_many_runs_of_one_size_or_length_are_fitted_too(same):
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(17, 23, 1100)), np.exp(rng.uniform(22, 26, 1100))
    table = pd.DataFrame({"N": n, "D": d}).assign(**{same: 1e10})
    table["loss"] = true(table.N, table.D) * np.exp(0.002 * rng.standard_normal(1100))
    assert api.fit(table, bootstrap=100).laws["chinchilla"].fit.theta is not None


@pytest.mark.soak
def test_one_badly_measured_run_does_not_widen_every_interval():
    point = pd.DataFrame({"N": [1e9], "D": [1e11]})
    table = plain().assign(loss_se=0.004)
    widths = []
    for worst in (0.004, 3.0):
        found = api.fit(table.assign(loss_se=table.loss_se.where(table.index != 5, worst)), predict=point, bootstrap=20)
        low, high = found.predicted_points[0].interval_new_run
        widths.append(high - low)
    assert widths[1] < 1.2 * widths[0]


@pytest.mark.soak
def test_compute_that_is_not_recorded_is_that_of_the_count_fitted_to():
    table = plain().rename(columns={"N": "N_total"})
    table["N_nonembedding"] = table.N_total - 300 * np.sqrt(table.N_total)
    study = api.fit(table, N="total", bootstrap=10)
    assert (study.table.C / (6 * study.table.N * study.table.D)).to_numpy() == pytest.approx(1.0)
    assert "compute-6nd" in {note.code for note in study.notes}


def test_a_count_with_a_gap_is_left_out_with_a_note():
    table = plain().rename(columns={"N": "N_nonembedding"})
    table["N_total"] = (1.5 * table.N_nonembedding).where(table.index != 3)
    study = api.fit(table, bootstrap=10)
    assert len(study.table) == len(table)
    assert "count-incomplete" in {note.code for note in study.notes}
    with pytest.raises(UsageError, match="N_total is missing"):
        api.fit(table.drop(columns="N_nonembedding"), bootstrap=10)


def test_ladders_without_a_common_compute_are_not_told_apart():
    a = plain()
    b = a.assign(N=1e3 * a.N, D=1e3 * a.D, loss=lambda t: 0.99 * true(t.N, t.D))
    (found,) = api.compare(a.assign(run_id=a.index.astype(str)), b.assign(run_id=b.index.astype(str)))
    assert found.verdict == "no common compute"
    assert not any(m.told_apart for m in found.at)
    assert all(m.decades > 0 for m in (*found.at, *found.beyond))


@pytest.mark.soak
def test_one_missing_budget_leaves_the_others_what_they_are():
    """Quarter-decade budgets: half decades of compute would throw two of them together."""
    rows = []
    for compute in np.geomspace(1e18, 1e19, 5):
        n = (compute / 120) ** 0.5 * np.geomspace(0.3, 3, 5)
        rows.append(pd.DataFrame({"N": n, "D": compute / (6 * n), "budget_flops": compute}))
    table = pd.concat(rows, ignore_index=True).assign(loss=lambda t: true(t.N, t.D))
    whole = api.fit(table, law="chinchilla", bootstrap=2)
    gap = api.fit(table.assign(budget_flops=table.budget_flops.where(table.index != 2)), law="chinchilla", bootstrap=2)
    assert len(gap.minima.parabolas) == len(whole.minima.parabolas) == 5
    assert [len(p.run_ids) + len(p.far) for p in gap.minima.parabolas] == [4, *[5] * 4]
    names = {i.left_out for i in api.fit(table.drop(columns="budget_flops"), law="chinchilla", bootstrap=2).influences}
    assert not any(name.startswith("budget") for name in names), "what is no budget is not called one"


@pytest.mark.parametrize("name", LOSS_FUNCTIONS)
def test_resamples_refitted_at_once_end_where_each_ends_alone(name):
    """Of one law by a narrow and a wide function: rows of one start are looked at together, alone they are not."""
    table = grid().assign(loss=lambda t: t.loss * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(t))))
    data, loss = choices.columns(table), table.loss.to_numpy(float)
    fits = [solve.fit(laws.CHINCHILLA, data, loss, rho=robust.Rho(name=name, delta=delta)) for delta in (1e-3, 1e-2)]
    counts = uncertainty.resamples(np.arange(len(table)), draws=12, seed=0)
    many = solve.refit_each(fits, data, np.log(loss), [counts, counts])
    for fit, thetas in zip(fits, many, strict=True):
        assert np.ptp(thetas, axis=0).min() > 1e-6
        alone = [solve.refit(fit, data, np.log(loss), weights=row[None])[0] for row in counts]
        assert thetas == pytest.approx(np.array(alone), rel=1e-6)


def test_an_optimum_alone_is_that_of_the_fit():
    data, loss = choices.columns(plain()), plain().loss.to_numpy(float)
    asked = [(robust.HUBER, None), (robust.Rho(delta=1e-2), loss / loss.mean())]
    found = solve.optima(laws.CHINCHILLA, data, loss, asked)
    for theta, fit in zip(found, solve.fit_each(laws.CHINCHILLA, data, loss, asked), strict=True):
        assert theta == pytest.approx(fit.theta, rel=1e-6)
    assert solve.optima(laws.CHINCHILLA, {k: v[:5] for k, v in data.items()}, loss[:5], asked) == [None, None]
