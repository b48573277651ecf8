"""Held-out text of several domains: each has its own law, and each its own comparison."""

from __future__ import annotations

import math

import pytest

from analysis import api, fit
from analysis.runs.ladders import ladders
from analysis.runs.selection import select
from analysis.settings import CompareSettings, RunSettings
from gpt3core.errors import UsageError
from tests.analysis.synthetic import make_store

FACTORS = {"bible": 0.8, "wikipedia": 1.25}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two sweeps whose losses on two domains are known multiples of the loss."""
    root = tmp_path_factory.mktemp("mixed") / "root"
    make_store(root, "name=one", evals=False, domains=FACTORS)
    make_store(root, "name=two", "seed=1", evals=False, domains=FACTORS | {"code": 2.0})
    return root


def test_each_domain_has_its_law(mixed, capsys):
    """A law whose every loss is k times another's has k times its E, A and B, and the same exponents."""
    whole = api.fit(mixed, sweep="one", law="chinchilla", bootstrap=2)
    own = api.fit(mixed, sweep="one", law="chinchilla", bootstrap=2, domain="wikipedia")
    ours, all_of_it = (study.laws["chinchilla"].fit.params for study in (own, whole))
    assert ours["alpha"] == pytest.approx(all_of_it["alpha"], rel=1e-3)
    assert ours["E"] == pytest.approx(1.25 * all_of_it["E"], rel=1e-3)
    assert own.predictions[0].ln_loss - whole.predictions[0].ln_loss == pytest.approx(math.log(1.25), abs=1e-3)
    assert fit.main([f"runs={mixed}", "sweep=one", "domain=bible", "figures=false", "bootstrap=2"]) == 0
    assert "sweep one, losses on bible, from" in capsys.readouterr().out
    assert (mixed / "sweeps" / "one" / "fit-bible" / "fit.json").exists()
    assert not (mixed / "sweeps" / "one" / "fit").exists()


def test_a_domains_losses_and_errors_are_its_own(mixed):
    whole, own = (select(RunSettings(runs=str(mixed), sweep="one", domain=d)) for d in (None, "bible"))
    assert (own.table.loss / whole.table.loss).tolist() == pytest.approx([0.8] * len(whole.table))
    assert (whole.table.loss_se.unique().tolist(), own.table.loss_se.unique().tolist()) == ([0.01], [0.02])
    assert own.runs.table.bits_per_byte.unique().tolist() == [0.8]


def test_two_sweeps_are_compared_on_each_domain_that_both_have(mixed):
    found = ladders(CompareSettings(runs=[str(mixed)], sweep=["one", "two"]))
    assert [pair.domain for pair in found] == ["", "bible", "wikipedia"]
    assert (found[2].a.table.loss / found[0].a.table.loss).tolist() == pytest.approx([1.25] * len(found[0].a.table))


def test_a_domain_that_is_not_there_is_one_sentence(mixed, simulated):
    with pytest.raises(UsageError, match=r"domain=bibel: .* did you mean bible.*; there are bible, wikipedia"):
        select(RunSettings(runs=str(mixed), sweep="one", domain="bibel"))
    with pytest.raises(UsageError, match=r"domain=bible: .*; their held-out text is one"):
        select(RunSettings(runs=str(simulated), domain="bible"))
    with pytest.raises(UsageError, match=r"a column of it: columns.loss=loss.bible"):
        select(RunSettings(runs="table.csv", domain="bible"))
