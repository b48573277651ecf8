"""Forecasts of scores and of final losses."""

import numpy as np
import pytest

from analysis.accuracy.score_forecast import ACCURACIES, forecast_gpt3, forecast_scores
from analysis.estimation.curve_forecast import Curve, forecast_loss
from analysis.reference.tables import gpt3_scores


def test_table_h1_is_the_papers():
    wide, compute = gpt3_scores()
    assert len(wide) == 63 * 3
    assert wide.metric.isin(ACCURACIES).sum() == 126
    assert compute[-1] == 3.14e23
    row = wide[(wide.task == "LAMBADA") & (wide.metric == "acc") & (wide.setting == "few-shot")].iloc[0]
    assert row["GPT-3 175B"] == 86.4


def test_smaller_sizes_predict_13b_better_than_the_best_simple_way():
    """From 125M to 1.3B, one decade below 13B. 175B is left to the benchmark."""
    wide, compute = gpt3_scores()
    found = forecast_gpt3(last=5, target=6)
    found = found[found.metric.isin(ACCURACIES)]
    sizes = [c for c in wide.columns if str(c).startswith("GPT-3")]
    known = wide[wide.metric.isin(ACCURACIES)]
    x = np.log10(compute)
    line = [np.polyval(np.polyfit(x[1:5], row, 1), x[6]) for row in known[sizes[1:5]].to_numpy(float)]
    ours = np.abs(found.predicted - found.measured).mean()
    assert ours < np.abs(np.clip(line, 0, 100) - known[sizes[6]]).mean()
    assert ours < np.abs(known[sizes[4]] - known[sizes[6]]).mean()
    assert ((found.low <= found.predicted) & (found.predicted <= found.high)).all()


def test_too_few_sizes_are_said():
    with pytest.raises(ValueError, match="too few to calibrate"):
        forecast_scores(np.full((3, 3), 50.0), np.array([1e20, 1e21, 1e22]), 1e23, pools=["a"] * 3, kinds=["a"] * 3)


def cosine(total=5000, warm_up=100, peak=2e-4):
    step = np.arange(1, total + 1)
    decay = 0.1 + 0.45 * (1 + np.cos(np.pi * np.clip((step - warm_up) / (total - warm_up), 0, 1)))
    return peak * np.minimum(step / warm_up, 1) * decay


def simulated(end, drop, seed):
    lr, rng = cosine(), np.random.default_rng(seed)
    steps = np.geomspace(150, 5000, 25).round()
    at = steps.astype(int) - 1
    loss = end + 0.4 * np.cumsum(lr)[at] ** -0.5 + drop * np.sqrt(lr[at] / lr.max())
    loss = loss * np.exp(0.0005 * rng.standard_normal(25))
    return Curve(steps=steps, loss=loss, lr=lr, cost=float(seed + 1))


def test_the_drop_of_the_schedule_is_foreseen():
    curve = simulated(2.0, 0.18, 0)
    found = forecast_loss(curve.until(0.4))
    assert found.method == "alone"
    assert found.loss == pytest.approx(curve.loss[-1], rel=0.01)
    assert found.interval[0] < curve.loss[-1] < found.interval[1]
    assert curve.until(0.4).loss[-1] / curve.loss[-1] > 1.05


def test_finished_runs_tell_what_the_curve_alone_cannot():
    """A drop that no prior knows: twenty finished runs of the same schedule do."""
    finished = [(c, float(c.loss[-1])) for c in (simulated(2 + 0.05 * i, 0.6 + 0.01 * i, i) for i in range(20))]
    curve = simulated(2.47, 0.694, 99)
    found = forecast_loss(curve.until(0.3), finished)
    alone = forecast_loss(curve.until(0.3))
    assert found.method == "finished runs"
    assert found.loss == pytest.approx(curve.loss[-1], rel=0.005)
    assert abs(found.loss - curve.loss[-1]) < abs(alone.loss - curve.loss[-1])
    assert found.interval[0] < curve.loss[-1] < found.interval[1]
    assert (alone.beside, found.beside) == ((), tuple(range(20)))
    short = (curve.until(0.04), 2.4)  # three points: nothing can be learnt from it
    assert forecast_loss(curve.until(0.3), [short, *finished]).beside == tuple(range(1, 21))


def test_a_curve_of_three_points_is_refused():
    with pytest.raises(ValueError, match="4 are needed"):
        forecast_loss(simulated(2.0, 0.2, 0).until(0.04))
