"""What the terminal and the report open with: few lines, whose numbers are the study's."""

from pathlib import Path

import pandas as pd
import pytest

from analysis import api, fit
from analysis.output import notes
from analysis.output.answer import GRAVEST, answer
from analysis.output.words import count, flops
from analysis.reference.tables import reference
from dashboards import report
from tests.analysis.test_one_ratio import one_ratio
from tests.commands import called


@pytest.fixture(scope="module")
def published():
    return reference("hoffmann2022_runs_234.csv")


def test_its_numbers_are_those_of_the_study(studied):
    lines = dict(answer(studied))
    (p,) = studied.predictions
    said = lines[f"at {flops(p.compute)}"]
    low, high = p.interval_new_run
    assert said.startswith(f"loss {p.loss:.3f} ({low:.4g} to {high:.4g} for a new run), best size {count(p.n)} (")
    assert said.endswith("1.0 decades beyond the data")
    assert lines["runs"].startswith(f"{len(studied.table)} of {len(studied.everything)} fitted")
    assert f"C^{studied.advice.a:.2f}" in lines["size"]
    assert list(lines)[:2] == ["runs", "law"]
    assert len(lines) <= 7


@pytest.mark.parametrize(
    ("words", "grade"),
    [
        ({"target_compute": [1e23]}, "good"),  # 0.9 decades beyond, backtests reach 2.5
        ({"target_compute": [1e27]}, "fair"),  # 4.9 decades beyond
        ({"target_compute": [1e23], "exclude": 40}, "poor"),  # fewer runs, no three cuts
    ],
)
def test_trust_is_a_word_and_what_it_rests_on(published, words, grade):
    words = dict(words)
    if count := words.pop("exclude", 0):
        published = published.sample(len(published), random_state=0).head(count // 3)
    found = api.fit(published, law="chinchilla", bootstrap=5, **words)
    said = dict(answer(found))["trust"]
    calibration = found.weighting.calibration
    assert said.startswith(f"{grade}: {calibration.cuts} backtest")
    assert f"none beyond {calibration.farthest:.1f} decades" in said


def test_a_law_of_held_exponents_is_not_the_law_that_is_told(published):
    found = api.fit(published, bootstrap=5)
    assert found.ensemble.choices[int(found.weighting.weights.argmax())].law.name not in found.laws
    assert dict(answer(found))["law"].startswith("L(")


def test_without_a_backtest_there_is_no_trust(published):
    few = published.nlargest(7, "N")
    assert dict(answer(api.fit(few, law="chinchilla", bootstrap=5)))["trust"].startswith("none: ")


def test_the_gravest_warning_is_the_weakest_point_and_no_size_is_called_best_along_one_line():
    found = api.fit(one_ratio(0), bootstrap=5)
    lines = dict(answer(found))
    (one_line,) = [note.message for note in found.notes if note.code == "one-line"]
    assert lines["weakest"] == one_line
    assert "best size" not in lines[f"at {flops(found.predictions[0].compute)}"]


def test_budgets_without_a_minimum_are_counted_together(studied):
    table = studied.table[studied.table.budget_flops.notna()]
    left = [g.nsmallest(3, "N") if i < 2 else g for i, (_, g) in enumerate(table.groupby("budget_flops"))]
    found = api.fit(pd.concat(left)[["N", "D", "C", "loss", "budget_flops"]], bootstrap=5, rules="none")
    bad = [note for note in found.notes if note.code == "no-minimum"]
    assert len(bad) >= 2
    assert dict(answer(found))["weakest"].startswith(f"{len(bad)} of {len(found.minima.parabolas)} budgets have no")


def test_every_code_that_is_ranked_is_one_that_notes_give():
    text = Path(notes.__file__).read_text()
    assert [code for code in GRAVEST if f'"{code}"' not in text] == []


def test_the_command_prints_the_answer_and_the_tables_where_they_are_asked_for(simulated, tmp_path):
    words = [f"runs={simulated}", "bootstrap=5", "figures=false", f"out={tmp_path / 'o'}"]
    short, long = (called(fit.main, [*words, *more], tmp_path).stdout for more in ([], ["tables=all"]))
    assert len(short.splitlines()) < 20
    assert "Ensemble of fits" not in short
    assert "Ensemble of fits" in long
    assert f"python -m analysis.design runs={simulated}" in short
    assert "warnings" in short
    refused = called(fit.main, [*words, "tables=some"], tmp_path)
    assert refused.returncode == 2
    assert "tables=some: allowed are none (the answer alone) and all" in refused.stderr


def test_the_report_opens_with_it(studied, tmp_path):
    report.write(studied, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.index("<dt>trust</dt>") < text.index("plotly.min.js") < text.index("Ensemble of fits")
