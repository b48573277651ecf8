"""The count of parameters and the rules as dimensions of the ensemble: against fits by hand under each of them."""

import numpy as np
import pandas as pd
import pytest

from analysis import api, laws
from analysis.estimation import solve
from analysis.runs.ratio import Ratio

E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28  # Hoffmann et al. 2022, approach 3


def total(nonembedding):
    """A vocabulary of 50k on one depth: the embedding grows as the square root of the rest."""
    return nonembedding + 4e3 * np.sqrt(nonembedding)


def both_counts(noise=0.0005, seed=0):
    """Runs whose loss is a law of all their parameters, with both counts."""
    rng = np.random.default_rng(seed)
    n = np.repeat(np.geomspace(1e6, 1e8, 8), 6)
    d = n * np.tile([3.0, 7.0, 17.0, 41.0, 97.0, 211.0], 8)
    loss = E + A / total(n) ** ALPHA + B / d**BETA
    loss = loss * np.exp(noise * rng.standard_normal(len(n)))
    return pd.DataFrame({"N_nonembedding": n, "N_total": total(n), "D": d, "loss": loss})


@pytest.fixture(scope="module")
def counted():
    table = both_counts()
    far = pd.DataFrame({"N": [1e9], "D": [2e10]})
    return table, api.fit(table, N="nonembedding", predict=far, bootstrap=40)


def other(study):
    return {c.law.name: (c, f) for c, f in zip(study.ensemble.choices, study.ensemble.fits, strict=True) if c.count}


def test_each_law_is_fitted_to_the_other_count_too_as_by_hand(counted):
    table, study = counted
    assert set(other(study)) == {"chinchilla", "over_training"}
    for name, (_, fit) in other(study).items():
        data = {"N": table.N_total.to_numpy(), "D": table.D.to_numpy()}
        assert fit.params == solve.fit(laws.LAWS[name], data, table.loss.to_numpy()).params


def test_the_count_that_is_the_truths_weighs_most_and_predicts_it_under_the_one_asked_for(counted):
    _, study = counted
    names = [c.name for c in study.ensemble.choices]
    weights = dict(zip(names, study.ensemble.anywhere.weights, strict=True))
    assert max(weights, key=weights.get) == "chinchilla, huber 0.001, the other count of N"
    point = study.predicted_points[0]
    assert point.n == 1e9, "points keep the count that was asked for"
    truth = E + A / total(1e9) ** ALPHA + B / 2e10**BETA
    assert point.by_choice["chinchilla, huber 0.001, the other count of N"] == pytest.approx(truth, rel=5e-3)
    assert point.interval_mean[0] < truth < point.interval_mean[1]
    one_count = [name for name in point.by_choice if "other count" not in name]
    losses, shares = ([of[name] for name in one_count] for of in (point.by_choice, point.weights))
    assert abs(point.loss - truth) < abs(np.average(losses, weights=shares) - truth)


@pytest.mark.soak
def test_a_count_that_is_the_same_law_is_no_choice_of_its_own():
    table = both_counts().assign(N_total=lambda t: 1.01 * t.N_nonembedding)
    assert not other(api.fit(table, N="nonembedding", bootstrap=20))
    assert not other(api.fit(table.drop(columns="N_total"), N="nonembedding", bootstrap=20))


def spoilt():
    """Runs of which every ninth is badly tuned: a third above what it could be."""
    table = both_counts().rename(columns={"N_total": "N"}).drop(columns="N_nonembedding")
    return table.assign(loss=table.loss * np.where(np.arange(len(table)) % 9 == 8, 1.33, 1.0))


def lenient(study):
    return {c.law.name: f for c, f in zip(study.ensemble.choices, study.ensemble.fits, strict=True) if c.lenient}


@pytest.mark.soak
def test_what_a_rule_of_judgement_took_out_is_fitted_by_choices_of_its_own():
    table = spoilt()
    study = api.fit(table, bootstrap=40, target_compute=[1e19])
    out = [name for rule in study.rules if rule.name == "worse-than-smaller" for name in rule.excluded]
    assert len(out) >= 3
    assert set(lenient(study)) == {"chinchilla", "over_training"}
    data = {"N": table.N.to_numpy(), "D": table.D.to_numpy()}
    by_hand = solve.fit(laws.CHINCHILLA, data, table.loss.to_numpy())
    assert lenient(study)["chinchilla"].objective == pytest.approx(by_hand.objective, rel=1e-9)
    (prediction,) = study.predictions
    assert any("rules took out" in name for name in prediction.by_choice)
    assert sum(prediction.weights.values()) == pytest.approx(1.0)
    assert {i.left_out for i in study.influences if i.kind == "run"} <= set(study.table.run_id)


@pytest.mark.soak
@pytest.mark.parametrize("settings", [{"rules": "none"}, {"exclude": ["row-9"]}], ids=str)
def test_what_the_user_decided_is_no_question_of_judgement(settings):
    """With the rules off all runs are in; a run taken out by name stays out of every choice."""
    table = spoilt() if "rules" in settings else both_counts().rename(columns={"N_total": "N"})
    assert not lenient(api.fit(table, bootstrap=20, **settings))


@pytest.mark.parametrize("factor", [2e3, -0.4, 0.0])
def test_a_ratio_is_carried_on_as_the_power_law_that_it_is(factor):
    """The embedding beside the rest grows as N^-0.5: ten thousand times beyond the runs too."""
    n = np.geomspace(1e6, 1e8, 9)
    ln = np.log1p(factor / np.sqrt(n)) if factor != -0.4 else np.log1p(factor * (n / 1e6) ** -0.5)
    found = Ratio.of(np.log(n), ln)
    far = 1e12
    truth = np.log1p(factor / np.sqrt(far)) if factor != -0.4 else np.log1p(factor * (far / 1e6) ** -0.5)
    assert float(found.ln(np.log(np.array([far])))[0]) == pytest.approx(truth, rel=1e-6, abs=1e-12)
