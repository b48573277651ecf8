"""Ladders that train every size at one ratio of tokens to parameters: they say nothing of which size is best."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit
from analysis.estimation import optimal_size, predict
from analysis.estimation.ensemble import fit_ensemble
from analysis.laws import allocation, optimal_exponents
from gpt3core.errors import UsageError
from tests.analysis.synthetic import make_store


def one_ratio(seed, ratio=20, runs=14):
    """N and D = 20 N by Hoffmann et al.'s published law, with seed noise."""
    n = np.geomspace(1e7, 3e9, runs)
    noise = np.exp(0.005 * np.random.default_rng(seed).standard_normal(runs))
    return pd.DataFrame({"N": n, "D": ratio * n, "loss": truth(n, ratio * n) * noise})


def truth(n, d):
    return 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28


@pytest.mark.parametrize("seed", [4, 5, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(4))])
def test_the_command_predicts_along_the_line_and_says_that_no_size_is_known_to_be_best(tmp_path, capsys, seed):
    """Seeds 4 and 5 fit a negative exponent, whose allocation is a complex number."""
    one_ratio(seed).to_csv(tmp_path / "t.csv", index=False)
    words = [f"runs={tmp_path / 't.csv'}", f"out={tmp_path / 'o'}", "bootstrap=20", "figures=false"]
    assert fit.main(words) == 0
    assert "no size is known to be best" in " ".join(capsys.readouterr().out.split())
    document = json.loads((tmp_path / "o" / "fit.json").read_text())
    (prediction,) = document["predictions"]
    assert prediction["D"] / prediction["N"] == pytest.approx(20, rel=1e-6)
    assert 6 * prediction["N"] * prediction["D"] == pytest.approx(prediction["compute"], rel=1e-9)
    assert prediction["loss"] == pytest.approx(float(truth(prediction["N"], prediction["D"])), rel=0.03)
    law = document["laws"]["chinchilla"]
    assert law["status"] in ("ill-determined", "not converged")
    if min(law["params"]["alpha"], law["params"]["beta"]) <= 0:
        assert "would not fall with scale" in law["reason"]
        assert "optimum" not in law


def level(rise):
    """N and D of one budget; ND rises by so much an e-fold of N."""
    n = np.geomspace(2e4, 6e5, 8)
    d = 1e13 / 6 / n * (n / n[0]) ** rise
    return pd.DataFrame({"N": n, "D": d, "loss": 3.39 + 0.03 * np.log(n / n[3]) ** 2})


def exact(table):
    """Of models so small that what 6ND leaves out is most of their compute: C falls by 2.6 along the line."""
    return 6 * table.N * table.D * (1 + 3 * np.sqrt(2e4 / table.N))


ONE = "the runs are all of one compute, or nearly, and tell nothing of "


@pytest.mark.parametrize(
    "table",
    [
        level(0.15).assign(C=1e13),
        level(0.0).assign(C=exact),
        level(0.03).assign(C=exact),
        level(0.3).assign(budget_flops=1e13),
        level(0.0).assign(D=lambda t: 1e14 / exact(t.assign(D=1.0)), C=1e14),  # in ln N and ln D no line
    ],
)
def test_runs_of_one_compute_tell_nothing_of_another(tmp_path, capsys, table):
    """6ND rises or falls a little along one budget, and continued to ten times C that is nonsense."""
    table.to_csv(tmp_path / "t.csv", index=False)
    words = [f"runs={tmp_path / 't.csv'}", f"out={tmp_path / 'o'}", "bootstrap=20", "figures=false"]
    assert fit.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{ONE}C=" in said
    assert ": no prediction; run another budget next python -m analysis.design" in said
    assert not json.loads((tmp_path / "o" / "fit.json").read_text())["predictions"]
    points = api.fit(table, predict=pd.DataFrame({"N": [1e6], "D": [1e9]}), bootstrap=5, law="chinchilla")
    assert points.predicted_points[0].interval_mean is None
    assert f"{ONE}N=1e+06 D=1e+09: no interval" in "; ".join(note.message for note in points.notes)
    with pytest.raises(UsageError, match=r"point 1: the runs are all of one compute.*; run another budget$"):
        api.fit(table, predict=pd.DataFrame({"C": [1e15]}), bootstrap=5, law="chinchilla")


@pytest.mark.parametrize("count", ["exact", "6nd", "kaplan"])
def test_a_sweep_of_one_budget_tells_nothing_of_another_however_its_compute_is_counted(isolated, count):
    """6ND varies by half along the one budget."""
    make_store(isolated / "root", "budgets=[1e12]", evals=False)
    found = api.fit(isolated / "root", C=count, bootstrap=5)
    assert (found.predictions, len(found.without_optimum)) == ([], 1)
    assert any(note.message.startswith(ONE) for note in found.notes)


def test_a_line_that_does_not_lead_to_a_compute_is_said_to_be_one():
    """D rises as N falls, so that below the runs C, which the head and the attention make most of, rises again."""
    n = np.geomspace(1e5, 1e8, 10)
    d = 1e9 * (n / 1e5) ** -0.5
    c = 6 * n * d * (1 + 3 * (1e5 / n) ** 0.6)
    found = api.fit(pd.DataFrame({"N": n, "D": d, "C": c, "loss": truth(n, d)}), target_compute=[1e12], bootstrap=5)
    assert not found.predictions
    (said,) = [note.message for note in found.notes if note.code == "no-optimum"]
    assert "does not lead to C=1e+12: no prediction; run other ratios D/N" in said


def test_a_law_with_a_negative_exponent_has_no_optimum():
    params = {"E": 1.0, "A": 2.0, "B": 3.0, "alpha": -0.05, "beta": 0.3}
    n, d = allocation(params, np.array([1e20, 1e21]))
    assert n.dtype == d.dtype == float
    assert np.isnan([*n, *d, *optimal_exponents(params)]).all()


@pytest.mark.soak
def test_what_does_not_fall_with_scale_takes_no_part_in_a_prediction():
    for seed in range(6):
        table = one_ratio(seed).assign(run_id=[f"r{i}" for i in range(14)], C=lambda t: 6 * t.N * t.D, U=lambda t: t.D)
        found = fit_ensemble(table)
        for f in found.fits:
            assert all(f.params[name] > 0 for name in ("alpha", "beta", "eta") if name in f.params)


def test_runs_of_one_size_continue_at_that_size():
    n, d = np.full(24, 1e8), np.geomspace(1e9, 1e11, 24)
    found = api.fit(pd.DataFrame({"N": n, "D": d, "loss": truth(n, d)}), target_compute=[6e20], bootstrap=20)
    (prediction,) = found.predictions
    assert prediction.n == pytest.approx(1e8, rel=1e-6)
    assert prediction.d == pytest.approx(1e12, rel=1e-6)
    assert "one-line" in {note.code for note in found.notes}


def test_the_interval_of_few_runs_along_a_line_has_the_tails_of_what_is_left_over():
    """14 runs less three parameters: sqrt(14/11) times the t quantile of 11 over the normal one; none in a grid."""
    found = api.fit(one_ratio(0), law="over_training", bootstrap=40)
    assert predict.few_runs(found.ensemble) == pytest.approx(np.sqrt(14 / 11) * 2.200985 / 1.959964, rel=1e-6)
    (p,) = found.predictions
    point = pd.DataFrame({"N": [p.n], "D": [p.d], "C": [p.compute], "U": [p.d], "optimal": [True]})
    thetas = optimal_size.choice_draws(found.ensemble, found.minima, draws=predict.mean_share(40), seed=0)
    ((low, high),) = predict.mean_intervals(found.ensemble, point, thetas)
    plain, printed = high - low, np.log(p.interval_mean[1] / p.interval_mean[0])
    assert low < p.ln_loss < high
    assert printed / plain == pytest.approx(predict.few_runs(found.ensemble), rel=1e-6)
    varied = one_ratio(0).assign(D=lambda t: t.D * np.tile([1, 8], 7), loss=lambda t: truth(t.N, t.D))
    assert predict.few_runs(api.fit(varied, law="over_training", bootstrap=2).ensemble) == 1.0
