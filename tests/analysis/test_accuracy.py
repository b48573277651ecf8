"""Accuracies against simulations of known truth: ceilings, the error of shared items, which tasks a mean is of."""

import numpy as np
import pandas as pd
import pytest

from analysis.accuracy.overlap import overlaps
from analysis.accuracy.trends import MEAN, at_compute, averaged, trends
from analysis.laws.accuracy import fit_bounded, worth_of_scatter

RUNS, ITEMS = 16, 400


def curve(x, ceiling, slope=1.5, middle=12.5):
    return 0.25 + (ceiling - 0.25) / (1 + np.exp(-slope * (x - middle)))


def evals(accuracy, items=ITEMS, task="t", shots=0, chance=0.25):
    names = [f"r{i}" for i in range(len(accuracy))]
    frame = pd.DataFrame({"run_id": names, "task": task, "shots": shots, "items": items, "fits": True})
    return frame.assign(
        metric="choice", accuracy=accuracy, logprob=np.nan, chance=chance, prior_accuracy=chance, logprob_se=np.nan
    )


def ladder(runs=RUNS):
    return pd.DataFrame({"run_id": [f"r{i}" for i in range(runs)], "C": np.geomspace(1e11, 1e14, runs), "loss": np.nan})


@pytest.mark.parametrize("ceiling", [0.7, 1.0])
def test_the_interval_a_decade_on_holds_under_any_ceiling(ceiling):
    """A law that takes every ceiling for one covers none of the first kind."""
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(25):
        x = np.sort(rng.uniform(11, 14, RUNS))
        hits = rng.binomial(ITEMS, curve(x, ceiling)).astype(float)
        found = fit_bounded(x, hits, np.full(RUNS, float(ITEMS)), floor=0.25)
        low, high = np.quantile(found.draws(np.full(1000, 15.0), rng)[0], [0.025, 0.975])
        covered.append(low <= curve(15.0, ceiling) <= high)
    assert np.mean(covered) >= 0.85


def test_a_ceiling_that_the_data_show_is_found():
    x = np.linspace(11, 15, 24)
    items = np.full(24, 5000.0)
    found = fit_bounded(x, np.round(items * curve(x, 0.7, slope=3)), items, floor=0.25)
    assert found.ceiling == pytest.approx(0.7, abs=0.01)
    assert found.ceiling_interval[0] <= 0.7 <= found.ceiling_interval[1] < 0.75
    assert found.slope == pytest.approx(3, rel=0.1)


def test_the_error_of_shared_items_is_that_of_one_sample_of_them():
    """Every run answers the same items: what a new draw of the items would change is not averaged away over runs."""
    rng = np.random.default_rng(0)
    hard = rng.standard_normal((1500, 1, 200))  # an item is known to a run or not, all but for a little luck
    able = np.linspace(0, 1, 12)[None, :, None]
    hits = (8 * (able - hard) + rng.logistic(size=(1500, 12, 200)) > 0).mean(2)
    spread = hits[:, -4:].mean(1).std()
    errors = [trends(evals(row, 200, chance=0.0), ladder(12))[0].accuracy_large_se for row in hits[:10]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)


def test_the_mean_is_of_the_same_tasks_at_every_number_of_examples():
    parts = [
        evals(np.full(RUNS, level), task=task, shots=k).assign(fits=k <= most)
        for task, level, most in (("long", 0.1, 4), ("short", 0.4, 16), ("shorter", 0.6, 16))
        for k in (0, 4, 16)
    ]
    found = {t.shots: t for t in trends(pd.concat(parts), ladder()) if t.task == MEAN}
    assert {k: round(t.accuracy_large, 3) for k, t in found.items()} == {0: 0.5, 4: 0.5, 16: 0.5}
    which = averaged(pd.concat(parts))
    assert (which.tasks, which.shots, which.left_out, which.without) == (["short", "shorter"], [0, 4, 16], ["long"], [])


def test_a_run_that_did_not_measure_a_task_takes_it_out_of_the_mean():
    parts = [evals(np.full(RUNS, level), task=task) for task, level in (("a", 0.3), ("b", 0.5), ("c", 0.9))]
    parts[2] = parts[2].iloc[1:]
    assert averaged(pd.concat(parts)).tasks == ["a", "b"]


def test_where_no_items_are_known_the_scatter_is_the_noise():
    rng = np.random.default_rng(1)
    x = np.linspace(11, 14, 200)
    worth = worth_of_scatter(x, rng.binomial(300, curve(x, 0.9)) / 300, floor=0.25)
    assert worth == pytest.approx(300, rel=0.25)
    rows = evals(rng.binomial(300, curve(np.linspace(11, 14, 12), 1.0)) / 300, np.nan)
    (trend,) = trends(rows, ladder(12))
    assert (trend.verdict, trend.items) == ("rises", None)
    (ahead,) = at_compute([trend], 1e15)
    assert ahead.interval_new_run[0] < curve(15.0, 1.0) < ahead.interval_new_run[1] + 1e-9


@pytest.mark.soak
@pytest.mark.parametrize("scatter", [0.0, 0.02])
def test_a_flat_score_has_small_p_values_no_more_often_than_they_say_and_not_never(scatter):
    """With few runs the test once called nothing a trend: 0% of these at 5%, and 2% of trends like the one below."""
    rng, x = np.random.default_rng(5), np.linspace(11, 14, 6)

    def told(rise, draws):
        p = np.clip(0.5 + rise * (x - x.mean()) + scatter * rng.standard_normal((draws, 6)), 0, 1)
        found = [fit_bounded(x, h.astype(float), np.full(6, 1000.0), floor=0.25) for h in rng.binomial(1000, p)]
        return np.mean([f is not None and f.p_value < 0.05 for f in found])

    assert 0.005 <= told(0.0, 400) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    if not scatter:
        assert told(0.03, 100) > 0.7  # 4.9 standard errors


def test_scores_on_a_line_by_accident_are_no_trend():
    hits = np.array([100.0, 101.0, 102.0, 103.0])
    found = fit_bounded(np.arange(4.0), hits, np.full(4, 200.0), floor=0.0)
    assert found.p_value > 0.5


def test_scores_below_chance_are_said_to_be_below():
    rng = np.random.default_rng(2)
    found = trends(evals(rng.binomial(ITEMS, 0.1, RUNS) / ITEMS), ladder())
    assert [t.verdict for t in found] == ["below chance"]
    assert trends(evals(rng.binomial(ITEMS, 0.25, RUNS) / ITEMS), ladder())[0].verdict == "at chance"


def test_a_score_of_two_runs_is_not_measured():
    (trend,) = trends(evals(np.array([0.3, 0.9])), ladder(2))
    assert (trend.verdict, trend.reason) == ("not measured", "2 runs, 3 are needed")


def test_pure_noise_without_items_is_no_trend():
    rng = np.random.default_rng(0)
    found = [trends(evals(rng.binomial(200, 0.5, 16) / 200, np.nan), ladder())[0].verdict for _ in range(20)]
    assert sum(verdict in ("rises", "falls") for verdict in found) <= 1


def test_the_table_of_what_is_in_the_training_text_is_c1_of_the_runs_of_most_compute():
    """Brown et al. 2020, Table C.1: its PIQA (1,838 questions 82.3, 526 dirty 89.9, clean 79.3: -4%) by two seeds."""
    asked = evals(np.array([0.5, 0.813, 0.833]), 1838, task="piqa").assign(
        gram=8.0, dirty=526.0, accuracy_dirty=[0.5, 0.889, 0.909], accuracy_clean=[0.5, 0.783, 0.803]
    )
    other = evals(np.array([0.5, 0.5, 0.5]), task="copy")  # nobody looked for its questions
    table = ladder(3).assign(C=[1e11, 1e12, 1e12])
    (row,) = [vars(one) for one in overlaps(pd.concat([asked, other]), table)]
    found = row.pop("row")
    assert row == {"shots": 0, "run_ids": ("r1", "r2")}
    assert (found.name, found.n, found.total, found.dirty, found.clean) == ("piqa", 8, 1838, 526, 1312)
    assert [found.score, found.dirty_score, found.clean_score] == pytest.approx([0.823, 0.899, 0.793])
    assert (round(100 * found.clean_share), round(100 * found.difference)) == (71, -4)
    assert overlaps(other, table) == []
