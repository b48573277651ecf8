"""Budgets are budgets where they are meant; and a fit that nothing tested does not say that it is ok."""

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation import isoflop
from analysis.output import documents, text
from analysis.runs.selection import select
from analysis.settings import RunSettings
from tests.analysis.test_laws_and_solver import ladder
from tests.analysis.test_published_target import true_loss


def random_table(seed, runs):
    data, loss = ladder(noise=0.003, seed=seed, runs=runs)
    return select(RunSettings(), pd.DataFrame({"N": data["N"], "D": data["D"], "loss": loss})).table


def budgets(compute, sizes=5, jitter=0.0):
    rng = np.random.default_rng(0)
    parts = []
    for c in compute:
        n = np.sqrt(c / 6 / 20) * np.geomspace(0.3, 3, sizes)
        parts.append(pd.DataFrame({"N": n, "D": c / (6 * n) * np.exp(jitter * rng.standard_normal(sizes))}))
    return pd.concat(parts, ignore_index=True).assign(loss=lambda t: true_loss(t.N, t.D))


@pytest.mark.parametrize("runs", [20, 60, 240, 1000])
def test_the_accidental_groups_of_a_random_table_are_no_budgets(runs):
    tables = [random_table(seed, runs) for seed in range(5)]
    assert [isoflop.by_budget(t) for t in tables] == [[]] * 5
    if runs == 60:
        assert any(isoflop.equal_compute(t) for t in tables), "there are such groups"


def test_budgets_of_a_design_are_found_with_a_few_other_runs_among_them_or_where_they_are_stated():
    design = budgets([1e19, 1e20, 1e21], jitter=0.005)
    other = random_table(0, 60)[["N", "D", "loss"]]
    found = isoflop.by_budget(select(RunSettings(), pd.concat([design, other.head(8)])).table)
    assert [len(group) for group in found] == [5, 5, 5]
    few = pd.concat([design, other])
    assert isoflop.by_budget(select(RunSettings(), few).table) == []
    stated = random_table(0, 20).assign(budget_flops=1e20)
    assert len(isoflop.by_budget(stated)) == 1


def test_a_reader_is_told_once_that_groups_of_equal_compute_are_an_accident():
    seed = next(s for s in range(9) if isoflop.equal_compute(random_table(s, 60)))
    study = api.fit(random_table(seed, 60)[["N", "D", "loss"]], bootstrap=5, law="chinchilla")
    codes = [n.code for n in study.notes]
    assert codes.count("no-budgets") == 1
    assert "no-minimum" not in codes
    assert np.isnan(study.minima.exponent)


def test_three_points_without_an_interval_are_not_ok():
    """Three budgets of three sizes: parabolas through all their points leave nothing to draw anew."""
    study = api.fit(budgets([1e19, 1e20, 1e21], sizes=3), bootstrap=20, law="compute_frontier", rules="none")
    law = study.laws["compute_frontier"]
    document = documents.to_json(study)["laws"]
    assert law.draws is None
    assert document["compute_frontier"]["status"] == document["n_star"]["status"] == "not tested"
    assert document["envelope"]["status"] != "ok"
    assert "3 points, and nothing to draw anew" in text.to_markdown(study)
    assert "fit-untested" in {n.code for n in study.notes}
