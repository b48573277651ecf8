"""Compute-optimal sizes against closed forms, and one exponent of a law in every table."""

import warnings

import numpy as np
import pandas as pd
import pytest

from analysis import api, laws
from analysis.estimation import exponents, information, isoflop, optimal_size, optimum, predict, size_information, solve
from analysis.estimation.ensemble import fit_ensemble
from analysis.output import documents, text
from tests.analysis.test_laws_and_solver import TRUE


def ladder(noise=0.0):
    """Runs of Hoffmann et al.'s law off any budget, with seed noise that differs between cheap and large runs."""
    n = np.repeat(np.geomspace(2e7, 3e9, 7), 6)
    d = n * np.tile([3.0, 7.0, 17.0, 41.0, 97.0, 211.0], 7)
    loss = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    return pd.DataFrame({"N": n, "D": d, "loss": loss * np.exp(noise * np.random.default_rng(0).standard_normal(42))})


def test_the_lowest_point_is_found_between_the_points_of_any_grid():
    for at in (-0.123456789, 0.7071067811, 2.5):
        found = optimum.lowest(lambda x, at=at: 0.05 * (x - at) ** 2, -5.0, 5.0)
        assert found == pytest.approx(at, abs=1e-6)


def test_where_the_loss_only_falls_or_has_no_value_there_is_no_optimum():
    assert optimum.lowest(lambda x: -x, 0.0, 1.0) is None
    assert optimum.lowest(lambda x: x, 0.0, 1.0) is None
    assert optimum.lowest(lambda x: np.full_like(x, np.nan), 0.0, 1.0) is None


@pytest.mark.parametrize("compute", [1e20, 3.7e22, 5.76e23])
def test_the_optimum_of_a_law_is_its_closed_form(compute):
    """N* = G (C/6)^a of Hoffmann et al. 2022, eq. 4, typed out here."""
    theta = np.array([np.log(TRUE["E"]), np.log(TRUE["A"]), np.log(TRUE["B"]), TRUE["alpha"], TRUE["beta"]])
    g = (TRUE["alpha"] * TRUE["A"] / (TRUE["beta"] * TRUE["B"])) ** (1 / (TRUE["alpha"] + TRUE["beta"]))
    expected = g * (compute / 6) ** (TRUE["beta"] / (TRUE["alpha"] + TRUE["beta"]))
    found = optimum.of_law(laws.CHINCHILLA, theta, compute, (np.log(1e6), np.log(1e13)))
    assert np.exp(found) == pytest.approx(expected, rel=1e-6)
    assert float(laws.allocation(TRUE, np.array(compute))[0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("law", ["chinchilla", "over_training"])
def test_a_target_is_predicted_at_the_laws_own_optimum(law):
    """A single law, so that its optimum is known in closed form; a grid of 5% steps misses it by up to 2.5%."""
    found = api.fit(ladder(0.002), law=law, target_compute=[1e23, 2e23, 5.76e23], bootstrap=20)
    p = found.laws[law].fit.params
    for prediction in found.predictions:
        if law == "chinchilla":
            expected = float(laws.allocation(p, np.array(prediction.compute))[0])
        else:  # a M^eta = b M^-eta at the best M = D/N
            expected = np.sqrt(prediction.compute / (6 * (p["b"] / p["a"]) ** (1 / (2 * p["eta"]))))
        assert prediction.n == pytest.approx(expected, rel=1e-5)
        assert 6 * prediction.n * prediction.d == pytest.approx(prediction.compute, rel=1e-9)


def test_the_design_looks_at_the_laws_own_optimum():
    table = ladder()
    theta = np.array([np.log(TRUE["E"]), np.log(TRUE["A"]), np.log(TRUE["B"]), TRUE["alpha"], TRUE["beta"]])
    n, d = information.compute_optimal(laws.CHINCHILLA, theta, table, 1e23)
    assert n == pytest.approx(float(laws.allocation(TRUE, np.array(1e23))[0]), rel=1e-6)
    assert 6 * n * d == pytest.approx(1e23)


def test_the_slope_of_the_optimum_is_that_of_the_closed_form():
    """d ln N*/d ln A = 1/(alpha + beta) and d ln N*/d ln B = -1/(alpha + beta)."""
    theta = np.array([np.log(TRUE["E"]), np.log(TRUE["A"]), np.log(TRUE["B"]), TRUE["alpha"], TRUE["beta"]])
    n = float(laws.allocation(TRUE, np.array(1e23))[0])
    bend, curvature = size_information._along(laws.CHINCHILLA, theta, (n, 1e23 / (6 * n)))
    assert (-bend / curvature)[:3] == pytest.approx([0, 1 / 0.62, -1 / 0.62], abs=1e-3)


def test_the_minimum_that_a_law_implies_for_a_budget_is_its_own():
    theta = np.array([np.log(TRUE["E"]), np.log(TRUE["A"]), np.log(TRUE["B"]), TRUE["alpha"], TRUE["beta"]])
    fit = solve.Fit(law=laws.CHINCHILLA, status=solve.FitStatus.OK, theta=theta)
    n_star = float(laws.allocation(TRUE, np.array(1e21))[0])
    n = n_star * np.geomspace(0.4, 3, 7)
    table = pd.DataFrame({"run_id": list("abcdefg"), "N": n, "D": 1e21 / (6 * n), "C": 1e21})
    table["loss"] = fit.predict({"N": n, "D": 1e21 / (6 * n)})
    parabola = isoflop.parabola(isoflop.Runs.of(table))
    assert isoflop.implied(parabola, fit).n_star == pytest.approx(n_star, rel=1e-6)
    assert 6 * parabola.n_star * parabola.d_star == pytest.approx(1e21)
    one = isoflop.parabola(isoflop.Runs.of(table.iloc[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isoflop.implied(one, fit) is None, "D along a budget of one size is no line"
    assert one.reason == "sizes near the best loss: 1, 3 are needed"


def test_one_law_has_one_exponent_in_every_table():
    """Runs with standard errors of their own, which weigh in the fit: each table has to weigh alike."""
    table = ladder(0.004).assign(C=lambda t: 6.5 * t.N * t.D)  # as recorded beside 6ND: two conventions
    table["loss_se"] = np.where(table.D > table.D.median(), 0.05, 0.002)
    found = api.fit(table, bootstrap=30)
    a = found.laws["chinchilla"].a_and_b[0]
    (chosen,) = [e for e in found.exponents if e.chosen]
    assert chosen.parametric == a
    assert chosen.alpha_c == found.laws["compute_frontier"].fit.params["alpha_C"]
    document = documents.to_json(found)
    assert document["laws"]["chinchilla"]["optimum"]["a"] == a
    assert [e["a_parametric"] for e in document["conventions"]["all"] if e["chosen"]] == [a]
    (row,) = [row.words for row in text.optimum(found).rows if row.words[0].startswith("3")]
    (convention,) = [row.words for row in text.exponents(found).rows if "*" in row.words[0]]
    assert row[1] == convention[3] == f"{a:.3g}"
    untold = api.fit(table.drop(columns="loss_se"), bootstrap=30, law="chinchilla").laws["chinchilla"].a_and_b[0]
    assert abs(untold - a) > 1e-3, "the weights move the exponent, or this test shows nothing"


def test_all_conventions_are_fitted_the_same_way():
    """With C = 6ND written out as a column, both conventions are the same numbers: so are the exponents."""
    table = ladder(0.004).assign(C=lambda t: 6 * t.N * t.D, loss_se=lambda t: np.where(t.D > t.D.median(), 0.05, 0.002))
    exact, six = api.fit(table, bootstrap=30).exponents
    assert (exact.parametric, exact.alpha_c) == (six.parametric, six.alpha_c)


def test_conventions_that_differ_in_compute_alone_share_a_fit_of_n_and_d(monkeypatch):
    """Two counts of N, each with compute as recorded and 6ND, and Kaplan's: five conventions, two fits of L(N, D)."""
    table = ladder(0.004).assign(C=lambda t: 6.5 * t.N * t.D, params_nonembedding=lambda t: t.N - 3 * t.N**0.7)
    once, fits = exponents.fit_once, []
    monkeypatch.setattr(exponents, "fit_once", lambda law, *rest: fits.append(law) or once(law, *rest))
    found = api.fit(table.rename(columns={"N": "params_total"}), law="kaplan_d", bootstrap=2).exponents
    assert len(found) == 5
    assert fits.count(laws.CHINCHILLA) == 2
    by_count = {count: {e.parametric for e in found if e.convention.n == count} for count in ("nonembedding", "total")}
    assert [len(values) for values in by_count.values()] == [1, 1]
    assert by_count["nonembedding"] != by_count["total"]


def test_n_star_of_an_ensemble_is_the_mean_of_the_laws_that_measure_it():
    """Their closed forms (Hoffmann et al. 2022, eq. 4) by their weights; a tied law has a = 1/2 whatever the runs."""
    table = ladder(0.002).assign(run_id=[f"r{i}" for i in range(42)], C=lambda t: 6 * t.N * t.D, U=lambda t: t.D)
    ensemble, compute = fit_ensemble(table), 1e23
    minima = isoflop.analyse(table, draws=10, seed=0)
    thetas = optimal_size.choice_draws(ensemble, minima, draws=20, seed=0)
    (point,) = optimal_size.optimal_points(np.array([compute]), ensemble, table, minima, thetas).to_dict("records")
    every = zip(ensemble.choices, ensemble.fits, ensemble.anywhere.weights, strict=True)
    free = [(weight, fit.params) for choice, fit, weight in every if choice.law is laws.CHINCHILLA]
    assert 0 < len(free) < len(ensemble.choices)
    closed = [np.log(float(laws.allocation(params, np.array(compute))[0])) for _, params in free]
    assert np.log(point["N"]) == pytest.approx(np.average(closed, weights=[weight for weight, _ in free]), abs=1e-6)
    assert 6 * point["N"] * point["D"] == pytest.approx(compute)
    assert point["N_low"] < float(laws.allocation(TRUE, np.array(compute))[0]) < point["N_high"]


def test_a_minimum_that_is_flat_to_the_last_digit_is_one():
    """Close to it losses differ by rounding alone, and the lowest may be at an end of the last look."""
    for centre in np.linspace(20.0, 21.0, 50):
        found = optimum.lowest(lambda x, c=centre: 0.02 * (x - c) ** 2 + 1e-12 * np.sin(1e9 * x), 10.9, 30.4)
        assert found == pytest.approx(centre, abs=1e-4)


def test_an_optimum_at_ratios_that_were_not_run_has_no_interval_and_a_note():
    """Kaplan's law at 10 to 40 tokens a parameter: 9.1B are best at 2.4e21, 239B (70B to 494B) were said to be."""
    n = np.repeat(np.geomspace(3e7, 1e9, 6), 3)
    d = n * np.tile([10.0, 20.0, 40.0], 6)
    loss = ((8.8e13 / n) ** (0.076 / 0.095) + 5.4e13 / d) ** 0.095
    table = pd.DataFrame(
        {"N": n, "D": d, "loss": loss * np.exp(0.003 * np.random.default_rng(7000).standard_normal(18))}
    )
    for rows, told in ((table, False), (ladder(0.003), True), (ladder(0.003).iloc[::6], False)):
        found = api.fit(rows, bootstrap=20, law="chinchilla")
        assert [p.interval_n is not None for p in found.predictions] == [told]
        noted = [n.message for n in found.notes if n.code == "size-not-told"]
        assert bool(noted) == (rows is table)
    below = api.fit(table, bootstrap=20, target_compute=1e15)  # best at 11.6 there, and at 0.02 where it is decided
    assert below.predictions[0].interval_n is None
    said = [n.message for n in below.notes if n.code == "size-not-told"]
    assert "and the runs have 10 to 40" in said[0]


def test_six_runs_do_not_tell_the_interval_of_five_parameters():
    few = ladder(0.003).iloc[[0, 8, 16, 24, 32, 40]]
    (p,) = api.fit(few, bootstrap=20).predictions
    assert p.interval_mean is None and p.interval_n is None


def test_few_points_with_seeds_hide_intervals_of_the_mean_law_and_no_new_run_is_surer_for_it(monkeypatch):
    """Resamples of seven points tell too little to be shown, and still hold the interval of a new run open."""
    few = pd.concat([ladder(0.003).iloc[[0, 8, 16, 23, 30, 34, 41]]] * 4, ignore_index=True)
    few["loss"] *= np.exp(0.003 * np.random.default_rng(0).standard_normal(len(few)))
    asked = {"bootstrap": 40, "target_compute": 1e23}
    hidden = api.fit(few, **asked)
    monkeypatch.setattr(predict, "few_points", lambda ensemble: False)
    shown = api.fit(few, **asked)
    (p,), (q,) = hidden.predictions, shown.predictions
    assert p.interval_mean is None and p.interval_n is None and q.interval_mean is not None
    assert (p.interval_new_run, p.sigma) == (q.interval_new_run, q.sigma)
    assert p.interval_new_run[0] <= q.interval_mean[0] and q.interval_mean[1] <= p.interval_new_run[1]
    (note,) = [n for n in hidden.notes if n.code == "few-points"]
    assert "7 points of N and D" in note.message and "8 points are needed" in note.message
    assert not [n for n in shown.notes if n.code == "few-points"]


@pytest.mark.parametrize(("best", "side"), [(1e7, "above"), (4e5, "below")])
def test_a_minimum_outside_the_sizes_is_said_to_be_above_or_below_them(best, side):
    n = np.array([1e6, 2e6, 4e6])
    loss = 3 * np.exp(0.005 * np.log(n / best) ** 2)
    table = pd.DataFrame({"run_id": list("abc"), "N": n, "D": 1e17 / n, "C": 6e17, "loss": loss})
    assert isoflop.parabola(isoflop.Runs.of(table)).reason == f"the minimum lies {side} the sizes fitted"
