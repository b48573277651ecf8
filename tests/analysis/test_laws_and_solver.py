"""Laws against finite differences, known parameters and published fits; the solver against scipy."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from analysis import laws
from analysis.estimation import minimise, robust, solve, uncertainty
from analysis.estimation.fitted_laws import FittedLaw
from analysis.estimation.robust import Rho
from analysis.estimation.solve import FitStatus
from analysis.laws import kaplan
from analysis.output.answer import value_of
from analysis.reference.tables import reference

TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # Hoffmann et al. 2022


def ladder(noise=0.0, seed=0, runs=60):
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(np.log(1e7), np.log(1e10), runs)), np.exp(rng.uniform(np.log(1e9), np.log(1e12), runs))
    loss = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    data = {"N": n, "D": d, "C": 6 * n * d, "U": d / rng.choice([1.0, 3.0, 20.0], runs)}
    data |= {"C_min": data["C"] / 2, "S_min": d / 5e5}
    return data, loss * np.exp(noise * rng.standard_normal(runs))


@pytest.mark.parametrize("law", laws.LAWS.values(), ids=laws.LAWS)
def test_gradients_are_the_finite_differences(law):
    data, loss = ladder()
    starts = law.starts(data, loss)
    evaluate = law.on(data)
    value = np.abs(np.log(loss) - evaluate(starts)[0]).sum(1)
    theta = starts[np.argsort(value)[:4]] + 0.05
    _, gradient = evaluate(theta)
    for k in range(law.dimension):
        up, down = theta.copy(), theta.copy()
        up[:, k] += 1e-6
        down[:, k] -= 1e-6
        slope = (evaluate(up)[0] - evaluate(down)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, k], slope, rtol=1e-4, atol=1e-6)


def closed_forms():
    """Each law as its paper prints it, with round parameters: name -> (data -> loss, published parameters)."""
    return {
        "compute_frontier": (lambda x: (1e25 / x["C"]) ** 0.05, {"C_c": 1e25, "alpha_C": 0.05}),
        "compute_frontier_irreducible": (
            lambda x: 1.5 + (1e20 / x["C"]) ** 0.15,
            {"E": 1.5, "C_c": 1e20, "alpha_C": 0.15},
        ),
        "kaplan_n": (lambda x: (8.8e13 / x["N"]) ** 0.076, {"N_c": 8.8e13, "alpha_N": 0.076}),
        "kaplan_d": (lambda x: (5.4e13 / x["D"]) ** 0.095, {"D_c": 5.4e13, "alpha_D": 0.095}),
        "kaplan_c_min": (lambda x: (2.7e28 / x["C_min"]) ** 0.05, {"C_c": 2.7e28, "alpha_C": 0.05}),
        "kaplan_nd": (
            lambda x: ((6.4e13 / x["N"]) ** (0.076 / 0.103) + 1.8e13 / x["D"]) ** 0.103,
            {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        ),
        "kaplan_ns": (
            lambda x: (6.5e13 / x["N"]) ** 0.077 + (2.1e3 / x["S_min"]) ** 0.76,
            {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76},
        ),
        "chinchilla": (lambda x: 1.69 + 406.4 / x["N"] ** 0.34 + 410.7 / x["D"] ** 0.28, TRUE),
        "over_training": (
            lambda x: 1.8 + (600 * (x["D"] / x["N"]) ** 0.17 + 1700 * (x["D"] / x["N"]) ** -0.17) * x["C"] ** -0.17,
            {"E": 1.8, "a": 600.0, "b": 1700.0, "eta": 0.17},
        ),
    }


@pytest.mark.parametrize("name", closed_forms())
def test_a_law_is_found_from_the_formula_of_its_paper(name):
    formula, published = closed_forms()[name]
    data, _ = ladder()
    fit = solve.fit(laws.LAWS[name], data, formula(data))
    assert fit.status is FitStatus.OK
    assert fit.params == pytest.approx(published, rel=2e-3)


def test_the_law_of_repeated_data_is_muennighoffs():
    """Values by the formulas of the paper (eq. 5 to 7) with its C4 constants, and the constants found back."""
    e, a, b, alpha = 1.87, 521.0, 1488.0, 0.353
    r_d, r_n = 15.4, 5.3
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e7), np.log(9e9), 200))
    u = np.exp(rng.uniform(np.log(1e8), np.log(1e11), 200))
    d = u * rng.choice([1, 2, 4, 8, 16, 32], 200)
    g = (a / b) ** (1 / (2 * alpha))
    u_n = np.minimum(n, g * (g * u))  # N_opt(U) with alpha = beta
    d_eff = u + u * r_d * (1 - np.exp(-(d / u - 1) / r_d))
    n_eff = u_n + u_n * r_n * (1 - np.exp(-(n / u_n - 1) / r_n))
    loss = e + a / n_eff**alpha + b / d_eff**alpha
    fit = solve.fit(laws.DATA_CONSTRAINED, {"N": n, "D": d, "U": u}, loss)
    expected = {"E": e, "A": a, "B": b, "alpha": alpha, "beta": alpha, "R_D": r_d, "R_N": r_n}
    assert fit.params == pytest.approx(expected, rel=0.02)


def test_text_that_never_tires_is_as_good_as_new_and_every_start_finds_the_same_fit():
    """Where R_D has no limit, 1 - exp(-R/R_D) once was rounding, whose noise starts took for optima."""
    rng = np.random.default_rng(1)
    n, d = (np.exp(rng.uniform(np.log(low), np.log(high), 14)) for low, high in ((1e7, 5e9), (1e9, 1e11)))
    data = {"N": n, "D": d, "U": d / np.exp(rng.uniform(0, np.log(6), 14))}
    endless = np.array([[np.log(1.87), np.log(521), np.log(1488), 0.353, 0.353, r, 60.0] for r in (40.0, 45.0, 80.0)])
    fresh = laws.CHINCHILLA.on(data)(endless[:1, :5])[0][0]
    values, gradient = laws.DATA_CONSTRAINED.on(data)(endless)
    assert values == pytest.approx(np.broadcast_to(fresh, values.shape), rel=1e-9)
    assert np.abs(np.diff(gradient[:, 5], axis=0)).max() < 1e-9
    noisy = np.exp(fresh - 0.02 * np.log(d / data["U"]) + 0.01 * rng.standard_normal(14))  # repeats help a little
    fit = solve.fit(laws.DATA_CONSTRAINED, data, noisy)
    start = fit.theta + rng.standard_normal((200, 7)) * np.array([0.3, 1, 1, 0.05, 0.05, 2, 2])
    found = minimise.minimise(laws.DATA_CONSTRAINED.on(data), np.log(noisy), np.vstack([fit.theta, start]))
    assert fit.objective <= found.objective.min() * (1 + 1e-6)
    assert "R_D" in fit.at_bounds
    assert value_of(FittedLaw(fit=fit), "R_D") == "without limit (at its bound)"


def test_a_break_is_found_where_it_is():
    c = np.geomspace(1e18, 1e24, 60)
    loss = 1.5 + 500 * c**-0.15 * (1 + (c / 1e21) ** (1 / 0.5)) ** (-0.1 * 0.5)
    fit = solve.fit(laws.BROKEN, {"C": c}, loss, rho=robust.LEAST_SQUARES)
    assert fit.predict({"C": c}) == pytest.approx(loss, rel=1e-4)
    assert fit.params["d1"] == pytest.approx(1e21, rel=0.5)


def test_the_critical_batch_is_kaplans():
    assert kaplan.critical_batch(np.array([3.0]))[0] == pytest.approx(2.1e8 / 3.0 ** (1 / 0.21))
    same = kaplan.minimum_compute(np.array([1e20]), np.array([1.0]), np.array([3.0]))
    assert same[0] == pytest.approx(1e20, rel=1e-5)


def test_the_234_runs_give_the_published_replications_optimum():
    """Besiroglu et al. 2024 find a 0.5126 on 240 runs of the same figure, with an interval of 0.47 to 0.56."""
    table = reference("hoffmann2022_runs_234.csv").astype(float)
    data = {"N": table.N.to_numpy(), "D": table.D.to_numpy()}
    fit = solve.fit(laws.CHINCHILLA, data, table.loss.to_numpy())
    assert fit.status is FitStatus.OK
    a = fit.params["beta"] / (fit.params["alpha"] + fit.params["beta"])
    assert 0.46 < a < 0.55
    n, d = laws.allocation(fit.params, np.array(5.76e23))
    assert 6 * n * d == pytest.approx(5.76e23)
    assert 15 < d / n < 35  # about 20 tokens per parameter at Chinchilla's compute
    grid = np.geomspace(n / 10, n * 10, 4001)
    along = fit.predict({"N": grid, "D": 5.76e23 / (6 * grid)})
    assert grid[np.argmin(along)] == pytest.approx(float(n), rel=2e-3)


def test_the_objective_is_no_worse_than_scipys():
    data, loss = ladder(noise=0.01, seed=3)
    observed, evaluate = np.log(loss), laws.CHINCHILLA.on(data)
    fit = solve.fit(laws.CHINCHILLA, data, loss)

    def objective(theta):
        value, gradient = evaluate(theta[None])
        residual = observed - value[0]
        return robust.HUBER.value(residual).sum(), -gradient[0] @ np.clip(residual, -robust.DELTA, robust.DELTA)

    axes = (np.arange(-1, 1.1, 0.5), *[np.arange(0, 26, 5)] * 2, *[np.arange(0, 2.1, 0.5)] * 2)
    starts = np.array(list(itertools.product(*axes)), float)
    promising = starts[np.argsort([objective(start)[0] for start in starts])[:12]]
    chosen = np.vstack([promising, np.random.default_rng(0).permutation(starts)[:12]])
    best = min(optimize.minimize(objective, start, jac=True, method="L-BFGS-B").fun for start in chosen)
    assert fit.objective <= best * (1 + 1e-9)


@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy", "least_squares"])
def test_loss_functions_are_scipys(name):
    """scipy's least_squares minimises delta^2/2 sum rho((r/delta)^2) over the same residuals."""
    data, loss = ladder(noise=0.01, seed=1)
    rho = Rho(name=name, delta=1e-2)
    fit = solve.fit(laws.CHINCHILLA, data, loss, rho=rho)
    evaluate = laws.CHINCHILLA.on(data)
    theirs = optimize.least_squares(
        lambda theta: np.log(loss) - evaluate(theta[None])[0][0],
        fit.theta,
        loss={"least_squares": "linear"}.get(name, name),
        f_scale=1e-2,
        xtol=1e-14,
        ftol=1e-14,
    )
    assert fit.objective == pytest.approx(theirs.cost, rel=1e-6)
    residual = np.linspace(-0.05, 0.05, 7)
    slope = (rho.value(residual + 1e-7) - rho.value(residual - 1e-7)) / 2e-7
    np.testing.assert_allclose(rho.weight(residual) * residual, slope, atol=1e-6)


def test_one_outlier_does_not_move_a_huber_fit():
    data, loss = ladder(noise=0.001)
    clean = solve.fit(laws.CHINCHILLA, data, loss).params
    loss = loss.copy()
    loss[5] *= 1.5
    dirty = solve.fit(laws.CHINCHILLA, data, loss).params
    assert dirty["alpha"] == pytest.approx(clean["alpha"], rel=0.02)


def test_too_few_runs_is_a_status_and_not_a_number():
    data, loss = ladder(runs=5)
    fit = solve.fit(laws.CHINCHILLA, data, loss)
    assert fit.status is FitStatus.TOO_FEW_RUNS
    assert fit.params == {}
    assert "5 runs for 5 parameters" in fit.reason


def test_a_term_that_the_data_do_not_need_is_at_its_bound():
    data, _ = ladder()
    fit = solve.fit(laws.CHINCHILLA, data, 20 * data["N"] ** -0.05 + 30 * data["D"] ** -0.1)
    assert "E" in fit.at_bounds


def test_one_size_leaves_the_law_ill_determined():
    data, _ = ladder()
    data = {**data, "N": np.full(60, 1e8)}
    fit = solve.fit(laws.CHINCHILLA, data, 1.8 + 400 / data["D"] ** 0.3)
    assert fit.status is FitStatus.ILL_DETERMINED
    assert "condition" in fit.reason


def test_bootstrap_intervals_cover_the_truth_of_a_true_law():
    """Nominal 95% intervals of beta over 40 simulated ladders: binomially compatible with 95%."""
    hits = 0
    for seed in range(40):
        data, loss = ladder(noise=0.005, seed=seed)
        fit = solve.fit(laws.CHINCHILLA, data, loss, rho=robust.LEAST_SQUARES)
        counts = uncertainty.resamples(np.arange(len(loss)), draws=100, seed=0)
        draws = uncertainty.bootstrap(fit, data, loss, counts)
        low, high = uncertainty.interval(draws[:, 4])
        hits += low <= TRUE["beta"] <= high
    assert hits >= 33


def test_a_batch_of_resamples_is_each_of_them_alone():
    data, loss = ladder(noise=0.005)
    fit = solve.fit(laws.CHINCHILLA, data, loss)
    counts = uncertainty.resamples(np.arange(len(loss)), draws=150, seed=1)
    together = uncertainty.bootstrap(fit, data, loss, counts)
    assert np.array_equal(together, uncertainty.bootstrap(fit, data, loss, counts))
    for row in (0, 140):
        alone = uncertainty.bootstrap(fit, data, loss, counts[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-6)
    drawn = np.repeat(np.arange(len(loss)), counts[0].astype(int))
    repeated = {name: column[drawn] for name, column in data.items()}
    by_hand = solve.fit(laws.CHINCHILLA, repeated, loss[drawn])
    evaluate = laws.CHINCHILLA.on(repeated)
    value = robust.HUBER.value(np.log(loss[drawn]) - evaluate(together[:1])[0][0]).sum()
    assert value == pytest.approx(by_hand.objective, rel=1e-3)


@pytest.mark.parametrize("noise", [0.005, 0.05])
@pytest.mark.parametrize("by", ["run", "budget"])
@pytest.mark.parametrize("law", [laws.CHINCHILLA, laws.OVER_TRAINING, laws.LOSS_OF_N_AND_D], ids=lambda law: law.name)
def test_resamples_of_many_runs_lie_where_each_ends(law, by, noise):
    """Followed by the linearised law, or to the optimum where that misses: to a part of a standard error, both ways."""
    data, loss = ladder(noise=noise, runs=700)
    fit = solve.fit(law, data, loss)
    labels = np.arange(700) if by == "run" else np.digitize(np.log10(data["C"]), np.arange(16, 24, 0.5))
    counts = uncertainty.resamples(np.unique(labels, return_inverse=True)[1], draws=60, seed=0)
    found = uncertainty.bootstrap(fit, data, loss, counts)
    one_by_one = np.concatenate([uncertainty.bootstrap(fit, data, loss, row[None]) for row in counts])
    miss = np.abs(found - one_by_one) / one_by_one.std(0)
    assert np.quantile(miss, 0.95) < 0.1
    assert np.abs(found.std(0) / one_by_one.std(0) - 1).max() < 0.1
