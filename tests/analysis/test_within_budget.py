"""Which runs to make when not all can be: against all subsets, where these can be counted."""

import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.estimation import within_budget
from analysis.estimation.within_budget import choose
from sweeps.planning.limits import Cost, Left
from tests.analysis.synthetic import true_loss


def table(sizes=(3e3, 1e4, 3e4), tokens=(1e6, 4e6, 1.6e7)):
    return pd.DataFrame([{"N": n, "D": d} for n in sizes for d in tokens])


def room(runs, budget, **changes):
    seconds = (runs.N * runs.D / 1e9).tolist()
    return Left(seconds=seconds, rates=[Cost(1.0, 0.0)] * len(runs), left=Cost(budget * sum(seconds)), **changes)


def left_of_interval(candidates, rows, made=None):
    """What these runs together leave, straight from the covariance."""
    made = candidates[:0].assign(loss=[]) if made is None else made
    everything = pd.concat([made[["N", "D"]], candidates], ignore_index=True)
    variances = []
    for law in within_budget.LAWS:
        covariance = within_budget._covariance(law, made, everything, None)
        covariance.condition(range(len(made)))
        begin = covariance.target_variance
        covariance.condition([len(made) + row for row in rows])
        variances.append((begin, covariance.target_variance))
    before, after = np.sum(variances, axis=0)
    return float(np.sqrt(after / before))


@pytest.mark.parametrize("budget", [0.15, pytest.param(0.5, marks=pytest.mark.soak)])
@pytest.mark.parametrize("made", [None, pytest.param(4, marks=pytest.mark.soak)])
def test_the_choice_is_within_a_twentieth_of_the_best_of_all_subsets(budget, made):
    candidates = table(tokens=(1e6, 1.6e7)) if made else table()
    known = None
    if made:
        known = table((2e3, 5e3), (5e5, 2e6))
        known["loss"] = [true_loss(n, d) for n, d in zip(known.N, known.D, strict=True)]
    left = room(candidates, budget)
    found = choose(candidates, left, made=known)
    cost = np.array(left.seconds)
    assert cost[found.runs].sum() <= left.left.device_seconds * (1 + 1e-9)
    assert found.interval == pytest.approx(left_of_interval(candidates, found.runs, known), rel=1e-6)
    subsets = (s for k in range(10) for s in itertools.combinations(range(len(candidates)), k))
    best = min(
        left_of_interval(candidates, s, known) for s in subsets if cost[list(s)].sum() <= left.left.device_seconds
    )
    assert found.interval <= 1.05 * best
    cheap = list(np.argsort(cost)[: np.searchsorted(np.cumsum(np.sort(cost)), left.left.device_seconds)])
    assert found.interval <= left_of_interval(candidates, cheap, known) + 1e-9, "no worse than the cheapest first"


def test_where_all_fit_all_are_made_and_where_none_does_none():
    candidates = table()
    assert sorted(choose(candidates, room(candidates, 1.001)).runs) == list(range(9))
    assert choose(candidates, room(candidates, 1e-6)).runs == []


def test_the_unit_of_the_loss_and_the_order_of_the_rows_do_not_matter():
    candidates = table()
    first = choose(candidates, room(candidates, 0.3)).runs
    turned = candidates[::-1].reset_index(drop=True)
    again = choose(turned, room(turned, 0.3)).runs
    assert sorted(first) == sorted(8 - i for i in again)


def test_a_deadline_fills_the_places_that_there_are():
    candidates = table()
    left = room(candidates, 1.0, until=150.0, places=[0.0, 50.0])
    busy = [0.0, 50.0]
    for run in choose(candidates, left).runs:
        busy.sort()
        busy[0] += left.seconds[run]
    assert max(busy) <= 150.0


def test_runs_that_begin_alike_cost_what_is_not_trained_yet():
    left = Left(
        seconds=[100.0, 60.0, 10.0],
        rates=[Cost(2.0, 0.0)] * 3,
        families=["a", "a", ""],
        stable=[80.0, 40.0, 0.0],
        tokens=[100.0, 60.0, 10.0],
    )
    assert left.own(1) == 60.0
    left.take(0)
    assert left.own(1) == pytest.approx(20.0), "40 of its 60 tokens are the trunk's"
    assert left.cost(1) == pytest.approx(40.0)
    rates = [Cost(1.0, 0.0)] * 2
    left = Left(seconds=[100.0, 60.0], rates=rates, families=["a"] * 2, stable=[80.0, 40.0], tokens=[100.0, 60.0])
    left.take(1)
    assert left.own(0) == pytest.approx(60.0), "the longer one starts where the shorter one's decay began"


def test_too_many_to_be_weighed_are_taken_cheapest_first():
    sizes, tokens = np.geomspace(1e3, 1e6, 25), np.geomspace(1e6, 1e8, 20)
    candidates = table(sizes, tokens)
    found = choose(candidates, left := room(candidates, 0.01))
    assert found.rule == within_budget.CHEAP_FIRST
    cost = np.array(left.seconds)
    assert cost[found.runs].tolist() == sorted(cost)[: len(found.runs)]


def test_a_gang_takes_as_many_places_as_it_is_wide_and_a_deadline_waits_for_them():
    rates = [Cost(1.0, 0.0)] * 4
    left = Left(seconds=[10.0] * 4, rates=rates, until=25.0, places=[0.0, 0.0, 5.0], widths=[1, 2, 3, 9])
    left.take(0)
    assert left.places == [0.0, 5.0, 10.0]
    left.take(1)
    assert left.places == [10.0, 15.0, 15.0]
    assert left.fits(2), "from 15 to 25"
    assert left.fits(3), "wider than what is there now: nodes may come"
    left.take(1)
    assert left.places == [15.0, 25.0, 25.0]
    assert left.fits(0)
    assert not left.fits(2)
