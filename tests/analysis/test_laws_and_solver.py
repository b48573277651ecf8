"""Laws against finite differences and known parameters; the solver against scipy from the published grid of starts."""

import numpy as np
import pytest
from scipy import optimize

from analysis import laws, solve, uncertainty
from analysis.solve import FitStatus

LAWS = [laws.ComputeFrontier(), laws.ComputeFrontierWithFloor(), laws.Chinchilla()]
TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # Hoffmann et al. 2022


def ladder(noise=0.0, seed=0, runs=60):
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(np.log(1e7), np.log(1e10), runs)), np.exp(rng.uniform(np.log(1e9), np.log(1e12), runs))
    loss = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    return {"N": n, "D": d, "C": 6 * n * d}, loss * np.exp(noise * rng.standard_normal(runs))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_gradients_are_the_finite_differences(law):
    data, loss = ladder()
    theta = law.starts(data, loss)[:4] + 0.05
    _, gradient = law.log_loss(theta, data)
    for k in range(theta.shape[1]):
        up, down = theta.copy(), theta.copy()
        up[:, k] += 1e-6
        down[:, k] -= 1e-6
        slope = (law.log_loss(up, data)[0] - law.log_loss(down, data)[0]) / 2e-6
        np.testing.assert_allclose(gradient[..., k], slope, rtol=1e-4, atol=1e-6)


def test_known_laws_are_found():
    data, loss = ladder()
    fit = solve.fit(laws.Chinchilla(), data, loss)
    assert fit.status is FitStatus.OK
    assert fit.params == pytest.approx(TRUE, rel=1e-4)
    c = np.geomspace(1e18, 1e24, 8)
    power = solve.fit(laws.ComputeFrontier(), {"C": c}, (2.3e8 * 8.64e19 / c) ** 0.05)
    assert power.params["alpha_C"] == pytest.approx(0.05, rel=1e-6)
    assert power.params["C_c"] == pytest.approx(2.3e8 * 8.64e19, rel=1e-4)
    floored = solve.fit(laws.ComputeFrontierWithFloor(), {"C": c}, 1.5 + (1e20 / c) ** 0.15, delta=1e3)
    assert floored.params["E"] == pytest.approx(1.5, rel=1e-3)
    assert floored.params["alpha_C"] == pytest.approx(0.15, rel=1e-3)


def test_the_objective_is_no_worse_than_scipys():
    data, loss = ladder(noise=0.01, seed=3)
    law, observed = laws.Chinchilla(), np.log(loss)
    fit = solve.fit(law, data, loss)

    def objective(theta):
        value, gradient = law.log_loss(theta[None], data)
        residual = observed - value[0]
        slope = np.clip(residual, -solve.DELTA, solve.DELTA)
        return solve.huber(residual, solve.DELTA).sum(), -(slope[:, None] * gradient[0]).sum(0)

    starts = np.random.default_rng(0).permutation(law.starts(data, loss))[:150]
    best = min(optimize.minimize(objective, start, jac=True, method="L-BFGS-B").fun for start in starts)
    assert fit.objective <= best * (1 + 1e-9)


def test_one_outlier_does_not_move_a_huber_fit():
    data, loss = ladder(noise=0.001)
    clean = solve.fit(laws.Chinchilla(), data, loss).params
    loss = loss.copy()
    loss[5] *= 1.5
    dirty = solve.fit(laws.Chinchilla(), data, loss).params
    assert dirty["alpha"] == pytest.approx(clean["alpha"], rel=0.02)


def test_too_few_runs_is_a_status_and_not_a_number():
    data, loss = ladder(runs=5)
    fit = solve.fit(laws.Chinchilla(), data, loss)
    assert fit.status is FitStatus.TOO_FEW_RUNS
    assert fit.params == {}
    assert "5 runs for 5 parameters" in fit.reason


def test_bootstrap_intervals_cover_the_truth_of_a_true_law():
    """Nominal 95% intervals of beta over 40 simulated ladders: binomially compatible with 95%."""
    hits = 0
    for seed in range(40):
        data, loss = ladder(noise=0.005, seed=seed)
        fit = solve.fit(laws.Chinchilla(), data, loss, delta=1e3)
        draws = uncertainty.bootstrap(fit, data, loss, draws=100, seed=0, delta=1e3)
        low, high = uncertainty.interval(draws[:, 4])
        hits += low <= TRUE["beta"] <= high
    assert hits >= 33


def test_bootstrap_is_reproducible():
    data, loss = ladder(noise=0.005)
    fit = solve.fit(laws.Chinchilla(), data, loss)
    a, b = (uncertainty.bootstrap(fit, data, loss, draws=20, seed=1, delta=1e-3) for _ in range(2))
    assert np.array_equal(a, b)


def test_backtests_of_a_true_power_law_do_not_miss():
    c = np.geomspace(1e11, 1e13, 5)
    found = uncertainty.backtest_power_law(c, 20 * c**-0.06)
    assert len(found) == 3
    assert all(abs(b.miss) < 1e-9 for b in found)
    assert [round(b.decades, 1) for b in found] == [0.5, 1.0, 0.5]


def test_the_interval_of_a_new_run_widens_with_distance_and_with_misses():
    c = np.geomspace(1e11, 1e13, 5)
    bent = 20 * c**-0.06 * np.exp(-0.002 * (np.log(c / 1e11)) ** 2)
    wide = uncertainty.widening(uncertainty.backtest_power_law(c, bent), noise=0.005)
    narrow = uncertainty.widening(uncertainty.backtest_power_law(c, 20 * c**-0.06), noise=0.005)
    assert wide.half_width(1.0) > wide.half_width(0.5) > narrow.half_width(1.0)
    assert uncertainty.widening([], noise=0.005).half_width(1.0) == float("inf")
