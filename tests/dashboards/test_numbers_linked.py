"""Every number of every table leads to the runs behind it; the few that rest on none are listed, with their reasons."""

from dataclasses import replace

import pandas as pd
import pytest

from analysis import api, laws
from analysis.estimation import isoflop
from analysis.estimation.fitted_laws import fit_once
from analysis.output import evidence, text
from analysis.runs import conventions
from dashboards import summary, typeset
from dashboards.run_list import RunList
from tests.analysis.synthetic import make_store

WHY_NONE = {  # by the function that makes the table, and its column
    ("choices", "fit"): "a constant of the fit",
    ("coverage", "decades"): "how the distances are parted",
    ("laws", "law"): "the form of the law",
    ("laws", "status"): "what laws need that cannot be tried",
    ("optimum", "approach"): "its number in Hoffmann et al. 2022",
    ("optimum", "from"): "what would be needed for an exponent that there is not",
    ("minima", "note"): "what would be needed for a minimum that there is not",
    ("predictions", "of"): "how many are not printed",
    ("rules", "meaning"): "a constant of the rule",
}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A study of which every table has rows: budgets enough to hold some out, scores, texts, and runs under way."""
    root = tmp_path_factory.mktemp("rich") / "root"
    ids = make_store(root, "budgets=[1e11,2e11,4e11,8e11,1.6e12,3.2e12]", noise=0.002)
    for run in ids[::9]:
        (root / "runs" / run / "result.json").unlink()
    found = api.fit(root, bootstrap=5, max_compute=4e12)
    asked = found.runs.evals.assign(gram=8.0, dirty=0.0, accuracy_dirty=None, accuracy_clean=0.5)
    under_way = pd.DataFrame([{"run_id": ids[0], "done": 0.5, "loss": 4.1, "low": 4.0, "high": 4.2}])
    under_way = under_way.assign(method="finished runs", beside=[list(found.table.run_id[:9])])
    many = found.predictions * (text.MOST_PREDICTIONS + 2)
    return replace(
        found,
        runs=replace(found.runs, evals=asked),
        forecasts=under_way,
        predictions=many,
        accuracies=[found.accuracies[0], *[[]] * (len(many) - 1)],
    )


def test_every_number_of_every_table_has_an_address_or_a_reason_for_none(rich):
    listed, met = RunList(study=rich), set()
    for make in text.TABLES:
        table = make(rich)
        assert table.rows, f"{make.__name__}: this study is to show every table"
        for row in table.rows:
            assert len(row.cells) == len(table.header)
            for column, cell in zip(table.header, row.cells, strict=True):
                for words, address in summary.linked(cell, listed.address):
                    if not address and any(is_number for _, is_number in typeset.numbers(words)):
                        met.add((make.__name__, column))
    assert met <= set(WHY_NONE), "numbers without the runs behind them"


def test_so_has_every_number_of_a_note(rich):
    listed, without = RunList(study=rich), set()
    assert len({note.code for note in rich.notes}) > 5
    for note in rich.notes:
        linked = summary.linked([(note.message, note.runs)], listed.address)
        if any(is_number for _, is_number in typeset.numbers(note.message)) and not any(to for _, to in linked):
            without.add(note.code)
    assert without <= {"mean-of-tasks"}, "which counts examples"


def test_exponents_of_a_convention_are_those_of_the_runs_behind_them(rich):
    """Fitted anew to these runs alone, as this convention counts them."""
    rho = rich.options.rho
    for found in rich.exponents:
        points = conventions.points(rich.runs.table, found.convention)
        ids = evidence.of_exponents(rich, found)
        of_budgets, joint, best = (points[points.run_id.isin(runs)].reset_index(drop=True) for runs in ids)
        groups = [[run for run in p.run_ids if run in set(ids[0])] for p in rich.minima.parabolas]
        minima = isoflop.analyse(of_budgets, draws=0, seed=0, budgets=[group for group in groups if group])
        assert minima.exponent == pytest.approx(found.isoflop)
        assert fit_once(laws.CHINCHILLA, joint, minima, rho).a_and_b[0] == pytest.approx(found.parametric, rel=1e-4)
        alpha_c = fit_once(laws.LOSS_OF_C, best, minima, rho).fit.params["alpha_C"]
        assert alpha_c == pytest.approx(found.alpha_c, rel=1e-4)


def test_a_held_out_budget_rests_on_those_below_it_and_on_itself(rich):
    budget = rich.table.set_index("run_id").budget_flops
    for row in text.held_out(rich).rows:
        cut, at, predicted, measured, off, _ = (cell[0][1] for cell in row.cells)
        assert budget[list(cut)].max() == pytest.approx(float(row.words[0]), rel=0.01)
        assert budget[list(at)].tolist() == pytest.approx([float(row.words[1])] * len(at), rel=0.01)
        assert (predicted, measured, set(off)) == (cut, at, {*cut, *at})


def test_examples_bring_something_in_runs_that_were_asked_with_and_without(rich):
    evals, one = rich.runs.evals, rich.table.run_id.iloc[0]
    lacking = evals[~((evals.run_id == one) & (evals.shots == 0))]
    found = replace(rich, runs=replace(rich.runs, evals=lacking))
    assert set(evidence.of_gain(rich, "rising", 4)) - set(evidence.of_gain(found, "rising", 4)) == {one}


def test_a_run_without_a_result_is_listed_as_one(rich):
    """A number may rest on a run under way, and on one that the sweep stopped before its end."""
    pruned = rich.runs.missing[1]
    listed = RunList(study=replace(rich, runs=replace(rich.runs, missing=rich.runs.missing[:1], pruned=[pruned])))
    assert listed.address((rich.runs.missing[0], pruned))
    shown = [row.cells for row in listed.rows() if row.sets]
    assert [(cells[0], cells[-1]) for cells in shown] == [
        (run, "no result yet") for run in sorted(rich.runs.missing[:2])
    ]
