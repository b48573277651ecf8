"""What runs show of their speed: near sizes share it, far ones share the level, outliers move nothing."""

import math

import numpy as np
import pytest

from sweeps.driving import throughput
from sweeps.driving.throughput import Seen, Throughput

SIZES = [math.log(n) for n in (2e3, 1e4, 1e5, 1e6)]


def told(**seen):
    found = Throughput()
    found.take({name: Seen(size=size, ratio=ratio, seconds=seconds) for name, (size, ratio, seconds) in seen.items()})
    return found


def test_with_nothing_seen_the_expectation_stands():
    ratio, doubt = Throughput().at(SIZES[0])
    assert ratio == 0.0
    assert doubt >= 1.0


def test_one_run_tells_the_machine_and_a_moment_of_it_less():
    whole = told(a=(SIZES[1], -1.0, math.inf))
    for size in SIZES:
        assert whole.at(size)[0] == pytest.approx(-1.0, abs=0.2)
    moment = told(a=(SIZES[1], -1.0, 0.5))
    assert -1.0 < moment.at(SIZES[1])[0] < 0.0
    assert whole.at(SIZES[1])[1] < moment.at(SIZES[1])[1]
    assert whole.at(SIZES[1])[1] < whole.at(SIZES[3])[1], "a size that has not run is less sure"


def test_sizes_differ_and_the_one_between_lies_between():
    found = told(a=(SIZES[0], -1.0, math.inf), b=(SIZES[2], 0.5, math.inf))
    assert found.at(SIZES[0])[0] == pytest.approx(-1.0, abs=0.15)
    assert found.at(SIZES[2])[0] == pytest.approx(0.5, abs=0.15)
    assert -1.0 < found.at(SIZES[1])[0] < 0.5


def test_a_gang_that_scales_badly_says_little_of_runs_on_one_worker():
    """Of eight workers each is a third as fast; sizes on one worker that have not run are as the one that has."""
    found = told(single=(SIZES[1], 0.1, math.inf))
    found.take({"gang": Seen(size=SIZES[2], ratio=-1.0, workers=8)})
    assert found.at(SIZES[2], 8)[0] == pytest.approx(-1.0, abs=0.1)
    assert found.at(SIZES[3])[0] == pytest.approx(0.1, abs=0.25)
    assert found.at(SIZES[3], 8)[0] == pytest.approx(-1.0, abs=0.25)
    assert -1.0 < found.at(SIZES[2], 2)[0] < 0.1
    alone = Throughput()
    alone.take({"gang": Seen(size=SIZES[2], ratio=-1.0, workers=8)})
    assert -1.0 < alone.at(SIZES[2])[0] < 0.0, "it may be the machine or the gang"
    assert alone.at(SIZES[2])[1] > found.at(SIZES[2])[1]


def test_a_gang_larger_than_all_that_ran_loses_what_the_largest_did_and_less_surely():
    found = told(single=(SIZES[1], 0.5, math.inf))
    found.take({"gang": Seen(size=SIZES[2], ratio=-0.5, workers=8)})
    eight, thousand = found.at(SIZES[2], 8), found.at(SIZES[2], 1024)
    assert eight[0] == pytest.approx(-0.5, abs=0.1)
    assert thousand[0] == pytest.approx(eight[0], abs=0.1), "not as many times as slow as there are doublings more"
    assert found.at(SIZES[3], 1024)[0] == pytest.approx(-0.5, abs=0.25)
    assert thousand[1] > found.at(SIZES[2], 64)[1] > 2 * eight[1]


def test_a_run_that_stood_still_moves_its_size_by_nothing():
    runs = {f"r{i}": (SIZES[1], -0.5, math.inf) for i in range(5)}
    assert told(**runs, stuck=(SIZES[1], -6.0, math.inf)).at(SIZES[1])[0] == pytest.approx(-0.5, abs=0.05)


def test_it_is_a_gaussian_process_and_its_order_does_not_matter():
    """Against the formula as scikit-learn and the book have it, by another route: the joint normal, conditioned."""
    rng = np.random.default_rng(0)
    sizes = rng.uniform(8, 14, 6)
    ratios = rng.normal(0, 0.5, 6)
    found = told(**{f"r{i}": (s, r, math.inf) for i, (s, r) in enumerate(zip(sizes, ratios, strict=True))})
    x = np.append(sizes, 11.0)
    joint = throughput.LEVEL**2 + throughput.SLOPE**2 * np.outer(x - 12, x - 12)
    joint += throughput.BEND**2 * np.exp(-0.5 * (np.subtract.outer(x, x) / throughput.REACH) ** 2)
    joint += throughput.OWN**2 * np.eye(7) + np.diag([throughput.RUN**2] * 6 + [0.0])
    precision = np.linalg.inv(joint)  # of a normal, the conditional mean is read off its precision
    mean = -precision[6, :6] @ ratios / precision[6, 6]
    assert found.at(11.0)[0] == pytest.approx(mean)
    assert found.at(11.0)[1] == pytest.approx(precision[6, 6] ** -0.5)


def test_what_a_run_shows_later_takes_the_place_of_what_it_showed_before():
    found = told(a=(SIZES[1], -3.0, 1.0))
    found.take({"a": Seen(size=SIZES[1], ratio=-1.0)})
    assert found.at(SIZES[1])[0] == pytest.approx(-1.0, abs=0.05)
