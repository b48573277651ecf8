"""Downsampling keeps what a reader must not miss, and only shows what was measured."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.downsample import downsample
from dashboards.figures.curves import kept

LONG = 100_000


def series(seed=0, n=LONG):
    """Steps and a noisy loss that falls."""
    steps = np.arange(1.0, n + 1)
    return steps, 3 + 5 * steps**-0.2 + 0.1 * np.random.default_rng(seed).standard_normal(n)


def test_a_short_series_is_left_alone():
    x, y = series(n=2000)
    assert np.array_equal(downsample(x, y), np.arange(2000))


@settings(max_examples=60)
@given(
    y=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)), min_size=1, max_size=400),
    most=st.integers(8, 60),
    log=st.booleans(),
)
def test_ends_extremes_and_the_number_of_points_always_hold(y, most, log):
    x, y = np.arange(1.0, len(y) + 1), np.array(y)
    shown = downsample(x, y, most, log=log)
    assert len(shown) <= most or len(shown) == len(y) <= most
    assert np.all(np.diff(shown) > 0)
    assert shown[0] == 0 and shown[-1] == len(y) - 1
    if np.isfinite(y).any():
        assert np.nanmin(y[shown]) == np.nanmin(y)
        assert np.nanmax(y[shown]) == np.nanmax(y)


def test_a_spike_of_one_step_and_both_sides_of_gaps_and_restarts_are_shown():
    x, y = series()
    y[70_001] = 50.0
    y[30_000:30_010] = np.nan
    y[5] = np.nan
    x[60_000:] -= 500  # an attempt that began again 500 steps earlier
    shown = set(downsample(x, y, 500, restarts=[80_000]).tolist())
    assert 70_001 in shown
    assert {29_999, 30_000, 30_009, 30_010, 4, 5, 6} <= shown
    assert {59_999, 60_000, 79_999, 80_000} <= shown


def test_on_a_log_axis_the_left_is_as_dense_as_the_right_and_on_a_linear_one_it_is_not():
    x, y = series()
    early = {log: int((downsample(x, y, 1000, log=log) < 1000).sum()) for log in (True, False)}
    assert early[True] > 200, "three of the five decades of steps"
    assert early[False] < 30
    linear = downsample(x, y, 1000, log=False)
    assert np.diff(linear).max() < 3 * LONG / 499


def test_the_envelope_is_that_of_each_stretch():
    """Against pandas: the lowest and highest of every equal stretch."""
    x, y = series()
    shown = downsample(x, y, 402, log=False)
    stretch = pd.Series(y).groupby(np.minimum((np.arange(LONG) / (LONG - 1) * 200).astype(int), 199))
    assert set(stretch.idxmin()) | set(stretch.idxmax()) | {0, LONG - 1} == set(shown.tolist())


def test_a_series_of_nothing_but_gaps_stays_within_its_points():
    x, y = series(n=10_000)
    y[::2] = np.nan
    assert len(downsample(x, y, 200)) <= 200
    assert len(downsample(x, np.full(10_000, np.nan), 200)) == 2


def test_curves_are_kept_as_measured_with_the_restarts_of_their_attempts():
    x, y = series(n=10_000)
    curve = pd.DataFrame({"tokens": 512 * x, "loss": y, "attempt": np.where(x < 4321, 1, 2)})
    rows = kept(curve, 100)
    assert len(rows) <= 100
    assert {4319, 4320} <= set(rows.index)
    pd.testing.assert_frame_equal(rows, curve.loc[rows.index])


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="3 x and 2 y"):
        downsample([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="most=4"):
        downsample([1.0], [1.0], 4)
