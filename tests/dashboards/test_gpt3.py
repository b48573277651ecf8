"""The paper's figures, and a foreign table's pages."""

import shutil

import numpy as np
import pytest

from analysis import api
from analysis.reference.tables import reference
from dashboards import gpt3 as command
from dashboards import report
from dashboards.figures import catalogue, gpt3


def test_figure_1_3_has_the_papers_means_and_the_forecasts():
    page = gpt3.aggregate()
    means = page.rows.set_index("model")
    assert means.loc["GPT-3 175B", "few-shot"] == pytest.approx(57.37, abs=0.01)  # figure 1.3 by eye: 57
    assert means.loc["GPT-3 125M", "zero-shot"] == pytest.approx(23.25, abs=0.01)
    stars = [trace for trace in page.figure.data if "forecast" in (trace.name or "")]
    assert len(stars) == 3


def test_figures_1_2_and_3_1_hold_their_points():
    page = gpt3.symbol_insertion()
    (largest,) = [trace for trace in page.figure.data if trace.name == "GPT-3 175B"]
    assert list(largest.y) == [8.26, 45.4, 67.2]
    law = gpt3.figure_3_1().rows.set_index("model").loss_by_law
    assert law["GPT-3 175B"] == pytest.approx(1.7338, abs=1e-3)


def test_the_command_writes_an_offline_folder(tmp_path):
    assert command.main([f"out={tmp_path / 'g'}"]) == 0
    for name in ("index", "figure-1-2", "figure-1-3", "figure-3-1"):
        assert "https://" not in (tmp_path / "g" / f"{name}.html").read_text().replace("https://plotly.com", "")


@pytest.mark.soak
def test_a_table_of_many_sizes_has_pages_with_one_scale(tmp_path):
    found = api.fit(reference("hoffmann2022_runs_234.csv"), bootstrap=20)
    pages = {page.slug: page for page in catalogue.pages(found)}
    assert set(pages) == set(catalogue.SLUGS) - {"lowest-curves", *catalogue.OF_SCORES}
    (points,) = [trace for trace in pages["frontier"].figure.data if trace.name == "runs"]
    assert len(points.x) == 234
    assert np.ptp(points.marker.color) > 1
    report.write(found, tmp_path)
    assert (tmp_path / "index.html").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to draw SVG")
def test_figures_are_drawn_as_svg_where_kaleido_is(tmp_path):
    pytest.importorskip("kaleido")
    found = api.fit(reference("hoffmann2022_runs_234.csv").head(40), bootstrap=20)
    report.write_svg(found, tmp_path)
    assert (tmp_path / "frontier.svg").read_bytes().startswith(b"<svg")
