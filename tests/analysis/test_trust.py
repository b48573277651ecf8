"""The word on how far to trust an answer: never better than what the backtests show, and the reader sees why."""

from dataclasses import replace
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation import backtest
from analysis.output.evidence import words
from analysis.output.text import coverage
from analysis.output.trust import FAIR, GOOD, POOR, at_most, grade_of_share, held_share, trust
from analysis.reference.tables import reference
from analysis.study import Study
from dashboards.refit import Cut, foretold


def law(t):
    """Hoffmann et al.'s, about."""
    return 1.7 + 400 / t.N**0.34 + 400 / t.D**0.28


def bent(t):
    """The same up to 1e18 FLOPs, and the more above it the further: what the lower budgets cannot know."""
    return law(t) * np.exp(0.08 * np.log10(t.C / 1e18).clip(lower=0) ** 2)


def waving(t):
    """Which way the loss goes on differs from budget to budget."""
    return law(t) * np.exp(0.05 * np.sin(2 * np.pi * np.log10(t.C) / 1.2))


def ladder(loss, decades=3, step=0.5, noise=0.002, seed=0):
    """Five sizes a budget, whose losses are known."""
    c = np.repeat(10 ** np.arange(17, 17 + decades + 0.01, step), 5)
    n = 0.1 * np.sqrt(c) * np.tile(np.geomspace(0.25, 4, 5), len(c) // 5)
    table = pd.DataFrame({"N": n, "D": c / 6 / n, "C": c, "budget_flops": c})
    return table.assign(loss=loss(table) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(c))))


def fitted(table, **settings):
    return api.fit(table, bootstrap=5, law="chinchilla", rules="none", **settings)


def said(study):
    return words(trust(study))


def test_the_truth_of_a_law_that_is_found_is_inside_and_the_word_is_good():
    found = fitted(ladder(law))
    (p,) = found.predictions
    truth = law(pd.DataFrame({"N": [p.n], "D": [p.d]})).iloc[0]
    assert p.interval_new_run[0] < truth < p.interval_new_run[1]
    assert said(found).startswith("good: 5 backtests, none beyond 2.5 decades, median miss 0.")
    assert said(found).endswith("100% of 5 held-out budgets inside their 95% intervals")


@pytest.mark.parametrize(("loss", "is_outside"), [(bent, True), (waving, False)])
def test_of_losses_that_no_lower_budget_foresees_the_word_is_poor_and_the_reader_sees_why(loss, is_outside):
    found = fitted(ladder(loss))
    (p,), (share, runs) = found.predictions, held_share(found.tested)
    why = said(found).rpartition(": ")[0]
    assert why.startswith("poor, because only ")
    assert f"only {share:.0%} of {runs} held-out budgets lay inside their 95% intervals" in why
    assert share < 0.8
    truth = loss(pd.DataFrame({"N": [p.n], "D": [p.d], "C": [p.compute]})).iloc[0]
    assert (truth > 1.1 * p.interval_new_run[1]) == is_outside


def test_few_held_out_budgets_that_all_lie_inside_show_little():
    found = fitted(ladder(law, decades=2), target_compute=[10**19.5])
    assert held_share(found.tested) == (1.0, 3)
    assert said(found).startswith(
        "fair, because only 3 held-out budgets could be predicted (5 are wanted to show that "
        "intervals hold): 3 backtest"
    )


@pytest.mark.parametrize(
    ("target", "word", "why"),
    [
        (10**21.5, "good", ""),
        (1e22, "poor", "the target lies 2.0 decades beyond the data, and only 2 backtests reach as far (3 are wanted)"),
        (10**22.53, "poor", "beyond the data, and only 1 backtest reaches as far (3 are wanted)"),  # 2.5, as printed
        (1e23, "poor", "the target lies 3.0 decades beyond the data, farther than any backtest (2.5)"),
        (1e16, "fair", "below the data nothing was held out"),
        (10**16.96, "good", ""),  # within, as printed
    ],
)
def test_a_target_where_nothing_was_tested_is_trusted_less(target, word, why):
    found = said(fitted(ladder(law), target_compute=[target]))
    assert found.startswith(f"{word}, because " if why else f"{word}: ")
    assert why in found.rpartition(": ")[0]


def judged(decades, miss, half95):
    """Held-out runs, each a run of its own."""
    rows = pd.DataFrame({"decades": decades, "miss": miss, "half95": half95, "half80": np.array(half95) / 2})
    cuts = [float(i % 3) for i in rows.index[::-1]]
    return rows.assign(run_id=[f"r{i}" for i in rows.index], optimal=False, measured=3.0, fitted_to=cuts)


def with_tests(study, rows):
    """A study whose backtests came out otherwise."""
    other = Study(**{name: getattr(study, name) for name in study.__dataclass_fields__})
    other.__dict__["tested"] = rows
    return other


@pytest.fixture(scope="module")
def hoffmann():
    return api.fit(reference("hoffmann2022_runs_234.csv"), law="chinchilla", bootstrap=5)


@pytest.mark.parametrize(
    ("near", "far", "word", "why"),
    [
        ((40, 0.01, 0.02), (10, 0.01, 0.02), "good", ""),
        ((40, 0.01, 0.02), (10, 0.04, 0.10), "fair", "the median miss at the target's distance was 4.1%"),
        ((40, 0.01, 0.02), (10, 0.30, 0.90), "poor", "the median miss at the target's distance was 35.0%"),
        ((5, 0.03, 0.02), (5, 0.01, 0.02), "poor", "only 50% of 10 held-out runs lay inside their 95% intervals"),
        (
            (40, 0.01, 0.02),
            (10, 0.025, 0.02),
            "poor",
            "only 0% of those at the target's distance or farther lay inside their 95%",
        ),
        ((1, 0.01, 0.02), (3, 0.01, 0.02), "fair", "only 4 held-out runs could be predicted (5 are wanted to show"),
    ],
)
def test_the_word_is_that_of_the_worst_that_was_found(hoffmann, near, far, word, why):
    """Runs near and as far off as the target is: how many, by how much they are missed, half of their intervals."""
    count, miss, half = (np.repeat([a, b], [near[0], far[0]]) for a, b in zip(near, far, strict=True))
    found = said(with_tests(hoffmann, judged(np.where(np.arange(len(count)) < near[0], 0.2, 1.0), miss, half)))
    assert found.startswith(f"{word}, because " if why else f"{word}: ")
    assert why in found.rpartition(": ")[0]


def test_there_is_no_good_word_without_an_interval(hoffmann):
    (p,) = hoffmann.predictions
    bare = replace(hoffmann, predictions=[replace(p, interval_new_run=None)])
    assert said(bare).startswith("poor, because there is no interval for a new run: 9 backtests, ")


def test_the_chance_of_so_few_is_the_binomials():
    for runs, level in product((1, 2, 5, 9), (0.5, 0.95)):
        for inside in range(runs + 1):
            exact = sum(comb(runs, k) * level**k * (1 - level) ** (runs - k) for k in range(inside + 1))
            assert at_most(inside / runs, runs, level) == pytest.approx(exact)
    assert at_most(3 / 5, 5, 0.95) < at_most(3.5 / 5, 5, 0.95) < at_most(4 / 5, 5, 0.95)


@pytest.mark.parametrize(
    ("inside", "runs", "grade"),
    [
        (1, 2, POOR),  # half
        (2, 3, FAIR),  # 14% of triples of 95% intervals do no better
        (3, 5, POOR),  # 2% of fives
        (7, 10, POOR),
        (75, 100, POOR),
        (4, 4, FAIR),  # intervals that hold half of the time do as well in 6% of fours
        (5, 5, GOOD),
        (8, 10, FAIR),  # and as in 5.5% of tens
        (32, 40, FAIR),  # 95% intervals would leave as few inside in 7 of 10,000 forties
        (34, 40, GOOD),  # and in 1.4%, but of public ladders 85% lie inside
        (85, 100, GOOD),
    ],
)
def test_a_share_is_worth_what_the_binomial_says_of_so_many_runs(inside, runs, grade):
    assert grade_of_share(inside / runs, runs) == grade


@pytest.mark.parametrize("runs", [1, 3, 5, 8, 11, 12, 13, 20, 40, 200, 1000])
def test_the_word_never_rises_as_the_share_falls_and_fair_is_between_good_and_poor(runs):
    grades = [grade_of_share(share, runs) for share in np.linspace(1, 0, 1001)]  # of several cuts, between counts too
    assert grades == sorted(grades)
    assert GOOD not in grades or FAIR in grades
    assert grades[-1] == POOR


def test_what_is_said_of_the_farthest_backtests_is_not_said_of_farther_ones(hoffmann):
    """The target lies 0.9 decades out, and the backtests half as far."""
    rows = judged(np.repeat([0.2, 0.45], [40, 10]), np.repeat([0.01, 0.025], [40, 10]), 0.02)
    assert "0% of those at the farthest lay" in said(with_tests(hoffmann, rows))


def test_what_is_judged_is_what_is_printed(hoffmann):
    """Of misses of 3.04% and 3.06%, and shares of 84.6% and 84.4%, only the latter are beyond what good allows."""
    for miss, word in ((0.03, "good"), (0.0304, "good"), (0.0306, "fair")):
        assert said(with_tests(hoffmann, judged([1.0] * 9, np.log1p(miss), 0.1))).startswith(word)
    for inside, runs, word in ((11, 13, "good"), (27, 32, "fair")):
        rows = judged([1.0] * runs, np.where(np.arange(runs) < inside, 0.01, 0.03), 0.02)
        assert said(with_tests(hoffmann, rows)).startswith(word)


def test_a_miss_is_one_number_in_the_word_the_table_and_the_page(hoffmann):
    rows = judged([0.2] * 3 + [1.0] * 6, 0.3, 0.9)
    assert "median miss at the target's distance was 35.0%" in said(with_tests(hoffmann, rows))
    assert "missed by 34.99% in the median" in foretold(Cut(fitted_to=1e18, fitted=9, rows=rows))
    other = with_tests(hoffmann, rows)
    other.__dict__["coverage"] = hoffmann.coverage.assign(median_abs_error=0.3, mean_miss=-0.3)
    assert all(list(row.words[2:4]) == ["34.99%", "-25.92%"] for row in coverage(other).rows)


def test_a_run_that_several_cuts_predict_counts_once():
    rows = judged([0.5] * 4, [0.1, 0.1, 0.0, 0.0], [0.05, 0.05, 0.05, np.inf])
    assert held_share(rows.assign(run_id=["a", "a", "b", "c"])) == (pytest.approx(1 / 3), 2)
    assert backtest.edge(1e3) == backtest.EDGES[-1]


def test_of_scores_alone_nothing_was_tested_and_both_are_on_one_line():
    table = reference("hoffmann2022_runs_234.csv")
    rng, high = np.random.default_rng(0), 1 / (1 + np.exp(8 * (table.loss - 2.6)))
    scored = {name: rng.binomial(1000, 0.25 + 0.7 * high) / 1000 for name in ("quiz", "trivia")}
    found = api.fit(table.assign(**scored).drop(columns="loss"), scores=list(scored), bootstrap=5)
    assert said(found).startswith("none: no score was held out; ")
    assert said(found).endswith("carried on by 1.0 decades")
