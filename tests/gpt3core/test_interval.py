"""How often a run is saved: little of its time, and Young's rule where failures are known."""

import math

import numpy as np
import pytest

from gpt3core.train.interval import seconds_between


@pytest.mark.parametrize("save", [0.0, 0.01, 1.0, 7.0, 600.0])
def test_saves_take_less_than_5_percent_of_the_time(save):
    every = seconds_between(save, least=10.0)
    assert save / (save + every) < 0.05
    assert every >= 10.0


def test_a_quick_save_leaves_what_was_asked_for():
    assert seconds_between(0.1, least=10.0) == 10.0


def test_youngs_interval_is_the_cheapest():
    """What saves and repeated work cost a second, d / T + T / (2 M), is least at the interval given."""
    save, mtbf = 60.0, 10 * 3600.0 * 24
    every = np.geomspace(100, 1e6, 2001)
    cost = save / every + every / (2 * mtbf)
    assert seconds_between(save, least=1.0, failures_every=mtbf) == pytest.approx(every[cost.argmin()], rel=0.01)
    assert seconds_between(save, least=1.0, failures_every=mtbf) == math.sqrt(2 * save * mtbf)
