"""Figures of a search about a known optimum: the lines have its exponents, the basins lie over one another."""

import numpy as np
import pytest

from analysis.settings import HparamSettings
from analysis.tuning import study
from dashboards.figures.tuning import basins, optimum
from gpt3core.rule import STEP_LAW
from tests.analysis.test_hparams import BATCH, LR, exact

pytestmark = pytest.mark.xdist_group("tuned")


@pytest.fixture(scope="module")
def found():
    return study.tune(HparamSettings(bootstrap=8), exact(noise=0.0003))


def slope(trace):
    """Of a line in the logarithms of both axes."""
    return np.diff(np.log(np.array(trace.y, float)))[0] / np.diff(np.log(np.array(trace.x, float)))[0]


def test_the_lines_have_the_exponents_of_the_truth(found):
    page = optimum(found)
    rates = [t for t in page.figure.data if (t.name or "").startswith("learning rate* at D")]
    assert len(rates) == 4, "one a D that was searched"
    assert [slope(t) for t in rates] == pytest.approx([LR[1]] * 4, abs=0.03)
    (batch,) = [t for t in page.figure.data if t.name == "batch*"]
    assert slope(batch) == pytest.approx(BATCH[2], abs=0.03)
    published = [t for t in page.figure.data if t.name == "Li et al. 2025"]
    assert slope(published[0]) == pytest.approx(STEP_LAW.lr.N)
    assert slope(published[1]) == pytest.approx(STEP_LAW.batch_tokens.D)
    assert len(page.rows) == found.data.pairs
    inside = page.rows.law_lr.between(page.rows.law_lr_low95, page.rows.law_lr_high95)
    assert inside.all()


def test_basins_lie_over_one_another_in_units_of_the_law(found):
    page = basins(found)
    lines = [t for t in page.figure.data if t.mode == "lines+markers"]
    raw, scaled = lines[::2], lines[1::2]
    assert len(raw) == found.data.pairs
    lowest = [np.log([t.x[int(np.argmin(t.y))] for t in group]) for group in (raw, scaled)]
    assert np.ptp(lowest[0]) > 3 * np.ptp(lowest[1])
    assert np.abs(lowest[1]).max() < np.log(2)
    assert all(min(t.y) == 0 for t in lines), "each pair's best run"
    (surface,) = [t for t in page.figure.data if t.name == "fitted surface"]
    assert surface.x[int(np.argmin(surface.y))] == pytest.approx(1.0, abs=0.02)
    curvature = np.polyfit(np.log(surface.x[35:46]), np.log1p(np.array(surface.y[35:46]) / 100), 2)[0]
    assert curvature == pytest.approx(0.01, rel=0.15), "of the truth along lr: 0.01 u^2"
    assert len(page.rows) == len(found.table)
