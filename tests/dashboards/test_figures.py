"""Figures and the report, without a browser."""

import pandas as pd
import pytest

from analysis import api
from dashboards import report
from dashboards.figures import catalogue
from dashboards.figures.accuracy import accuracy_compute
from dashboards.figures.curves import CURVE_POINTS, thinned
from dashboards.figures.frontier import frontier
from dashboards.figures.isoflop import isoflop
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store


@pytest.fixture
def made(isolated):
    make_store(isolated / "root", noise=0.002)
    return api.fit(isolated / "root", bootstrap=30)


def test_every_run_is_on_the_frontier_and_behind_it(made):
    page = frontier(made)
    shown = [text for trace in page.figure.data if trace.text is not None for text in trace.text]
    for run_id in made.runs.table.run_id:
        assert any(run_id in text for text in shown)
    assert set(page.rows.run_id) == set(made.runs.table.run_id)
    (prediction,) = [trace for trace in page.figure.data if trace.name == "prediction"]
    assert prediction.x[0] == pytest.approx(made.predictions[0].compute)


def test_isoflop_draws_a_curve_and_a_star_for_each_budget_with_a_minimum(made):
    stars = [t for t in isoflop(made).figure.data if t.marker.symbol == "star"]
    assert [s.x[0] for s in stars] == pytest.approx([p.n_star for p in made.minima.used])


def test_what_is_at_chance_gets_no_curve(made):
    page = accuracy_compute(made)
    guessing = [t for t in page.figure.data if t.legendgroup == "guessing"]
    assert [t.mode for t in guessing] == ["markers"]
    assert guessing[0].visible == "legendonly"
    assert any(t.mode == "lines" for t in page.figure.data if t.legendgroup == "rising")
    assert "guessing" in page.about


def test_long_curves_are_thinned_evenly_and_keep_their_ends():
    curve = pd.DataFrame({"tokens": range(1, 10_001), "loss": [5.0] * 10_000})
    thin = thinned(curve)
    assert len(thin) <= CURVE_POINTS
    assert thin.tokens.iloc[0] == 1
    assert thin.tokens.iloc[-1] == 10_000


def test_the_report_has_a_page_a_figure_and_its_rows(made, isolated):
    report.write(made, isolated / "report")
    pages = {path.stem for path in (isolated / "report").glob("*.html")}
    assert pages == {"index", *catalogue.SLUGS}
    for slug in catalogue.SLUGS:
        rows = pd.read_csv(isolated / "report" / "data" / f"{slug}.csv")
        assert len(rows)
    for path in (isolated / "report").glob("*.html"):
        text = path.read_text()
        assert "cdn.plot.ly" not in text
        assert '"showSendToCloud": false' in text


def test_names_are_escaped(made, isolated):
    made.runs.__dict__["sweep"] = "<script>alert(1)</script>"
    report.write(made, isolated / "report")
    assert "<script>alert" not in (isolated / "report" / "index.html").read_text()


@pytest.mark.parametrize("keep", [1, 4])
def test_a_report_of_few_runs_says_what_is_missing(isolated, keep):
    root = isolated / "root"
    for run_id in make_store(root, evals=False)[keep:]:
        (RunDir(root, run_id).path / "result.json").unlink()
    few = api.fit(root, bootstrap=10)
    report.write(few, isolated / "report")
    assert "too few runs" in (isolated / "report" / "index.html").read_text()
