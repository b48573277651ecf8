"""The law of the best learning rate and batch: known truths, a public table, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import hparams as command
from analysis.laws import kaplan
from analysis.runs import tuned
from analysis.settings import HparamSettings
from analysis.tuning import critical, interval, judge, study, surface
from analysis.tuning.surface import Form
from gpt3core import rule
from gpt3core.errors import UsageError
from tests.benchmarks import hyperparameter_search as benchmark
from tests.commands import called

STEPLAW = Path(os.environ.get("ISOFLOP_STEPLAW", "/nowhere"))
LR, BATCH = benchmark.LR, benchmark.BATCH


def exact(seed=0, noise=0.0, pairs=((1e6, 1e7), (1e6, 4e7), (4e6, 4e7), (4e6, 2e8), (2e7, 2e8), (2e7, 6e8))):
    """Trials about a known optimum whose surface is a cubic, as the fit's."""
    random, rows = np.random.default_rng(seed), []
    for n, d in pairs:
        best = np.log([law[0] * n ** law[1] * d ** law[2] for law in (LR, BATCH)])
        u, w = random.uniform(-1, 1, (2, 30))
        excess = 0.01 * u**2 - 0.004 * u * w + 0.008 * w**2 + 0.002 * u**3
        loss = 3 * (n / 1e6) ** -0.05 * np.exp(excess + noise * random.standard_normal(30))
        columns = {"lr": np.exp(best[0] + u), "batch_tokens": np.exp(best[1] + w), "loss": loss}
        rows.append(pd.DataFrame({"N": n, "D": d, **columns}))
    return pd.concat(rows, ignore_index=True)


def test_a_known_law_is_found_exactly():
    found = surface.fit(surface.trials(exact()), Form(window=0.05, cubic=True))
    np.testing.assert_allclose([found.lr.constant, found.lr.N, found.lr.D], LR, rtol=1e-3)
    np.testing.assert_allclose([found.batch.constant, found.batch.D], [BATCH[0], BATCH[2]], rtol=1e-3)
    assert found.batch.N == 0.0
    np.testing.assert_allclose(found.curvature, [[0.02, -0.004], [-0.004, 0.016]], atol=1e-5)


def test_the_jacobian_is_that_of_finite_differences():
    data = surface.trials(exact(noise=0.001))
    basis = np.column_stack([np.ones(data.pairs), data.z - data.z.mean(0)])[data.pair]
    rows = surface._Rows(
        pair=data.pair, x=data.x - data.x.mean(0), basis=basis, beside=data.beside, y=data.y, count=data.pairs
    )
    theta = 0.1 * np.random.default_rng(1).standard_normal(data.pairs + surface.SURFACE + 6)
    _, jacobian = surface._surface(theta, rows)
    for k in range(len(theta)):
        step = np.zeros(len(theta))
        step[k] = 1e-6
        slope = (surface._surface(theta + step, rows)[0] - surface._surface(theta - step, rows)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[:, k], slope, atol=1e-7)


def test_intervals_hold_the_truth_and_narrow_with_less_noise():
    widths = []
    for noise in (0.003, 0.0003):
        data = surface.trials(exact(noise=noise))
        found = surface.fit(data, Form(window=0.05, cubic=True))
        drawn = interval.resample(data, found, 60)
        low, high = drawn.exponent("lr", "N")
        assert low <= LR[1] <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_warm_up_that_helps_is_found_and_one_in_the_noise_is_not():
    table = exact(noise=0.0005)
    table["warmup_fraction"] = np.tile([0.1, 0.2, 0.2], len(table) // 3)
    table["final_fraction"] = np.tile([0.0, 0.1], len(table) // 2)
    table.loc[table.warmup_fraction == 0.1, "loss"] *= 0.99
    rule_of = study._beside(table, surface.fit(surface.trials(table), Form(window=0.05, cubic=True)))
    assert rule_of == {"warmup_fraction": 0.1, "final_fraction": table.final_fraction.value_counts().index[0]}


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        (((1e6, 2e7), (2e6, 4e7), (4e6, 8e7), (8e6, 1.6e8), (1.6e7, 3.2e8)), "on-a-line"),
        (((1e6, 1e7),) * 1, "not-tested"),
    ],
)
def test_what_the_pairs_do_not_tell_is_said(pairs, code):
    found = study.tune(HparamSettings(bootstrap=0), exact(noise=0.001, pairs=pairs))
    assert code in {note.code for note in found.notes}
    assert found.rule.lr.N == 0.0


def test_runs_of_nearly_the_same_tokens_are_a_pair():
    table = pd.DataFrame({"N": 1e6, "D": [1.00e7, 1.02e7, 1.04e7, 2.0e7, 2.05e7]})
    assert tuned.pairs(table).nunique() == 2


def test_a_choice_between_runs_is_interpolated_and_outside_the_nearest_counts():
    x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    known = judge.Losses(x, 1 + x[:, 0] + 3 * x[:, 1])
    assert known.at(np.exp(0.5), np.exp(1.5)) == pytest.approx(1 + 0.5 + 4.5)
    assert known.at(np.exp(9), np.exp(9)) == pytest.approx(9)
    assert known.given_away((1.0, 1.0)) == pytest.approx(0)


def test_kaplans_critical_batch_is_the_papers_and_is_fitted_where_it_was_measured():
    assert critical.Critical().at(2.5) == pytest.approx(kaplan.critical_batch(np.array(2.5)))
    loss = np.linspace(2, 5, 12)
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal(12))
    found = critical.fit(pd.DataFrame({"loss": loss, "noise_scale": 3e8 * loss**-4.0 * noise}))
    assert found.alpha == pytest.approx(0.25, rel=0.15)
    assert critical.fit(pd.DataFrame({"loss": loss})) is None


def test_the_command_writes_a_rule_that_is_read_back(tmp_path):
    path = tmp_path / "mine.csv"
    exact(noise=0.001).rename(columns={"lr": "eta"}).to_csv(path, index=False)
    words = [f"runs={path}", "columns.lr=eta", "bootstrap=20", "target_n=[1e9]", "target_d=[2e10]"]
    done = called(command.main, words, tmp_path)
    assert "extrapolated: N by 50x, D by 33.3x" in " ".join(done.stdout.split())
    found = rule.read(str(tmp_path / "mine-rule.yaml"))
    assert found.lr.N == pytest.approx(LR[1], abs=0.05)
    assert found.fitted.pairs == 6
    assert found.beyond(4e6, 4e7) == {}
    assert found.fitted.lr_n_95[0] < LR[1] < found.fitted.lr_n_95[1]
    drawn = {path.name for path in (tmp_path / "mine-rule-figures").glob("*.html")}
    assert drawn == {"index.html", "basins.html", "tuned-optimum.html"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="lr"), "columns.lr"),
        (lambda t: t.assign(batch_tokens=512), "all runs have batch_tokens=512"),
        (lambda t: t.groupby("N").head(2), "no pair of N and D has 5 runs"),
    ],
)
def test_what_holds_no_law_is_refused_in_a_sentence(change, said):
    with pytest.raises(UsageError, match=said):
        study.tune(HparamSettings(), change(exact()))


@pytest.mark.skipif(
    not STEPLAW.is_file(), reason="needs ISOFLOP_STEPLAW, a copy of Step Law's runs, which are not shipped"
)
def test_the_law_of_smaller_pairs_holds_for_larger_ones():
    found, left = benchmark.public(STEPLAW, "loss_smoothed")
    assert all(away <= benchmark.GIVEN_AWAY for pair in found["ours, batch*(D)"] for away in pair)
    assert left <= benchmark.GIVEN_AWAY
