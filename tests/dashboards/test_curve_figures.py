"""Loss curves against tokens and against compute: as measured, by size, and no more than a browser draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dashboards.figures.curves import MOST_POINTS, curves
from tests.dashboards.test_law_figures import losses, named, panel


def curve_of(page, run_id, row):
    """The points of a run in a panel."""
    axis = f"y{row if row > 1 else ''}"
    traces = [t for t in page.figure.data if t.yaxis == axis and t.customdata]
    points = [point for t in traces for point in zip(t.customdata, t.x, t.y, strict=True)]
    return tuple(zip(*((x, y) for run, x, y in points if run == run_id and np.isfinite(y)), strict=True))


def test_curves_stand_against_tokens_and_against_compute(studied):
    page = curves(studied, losses(studied, 5000))
    run = studied.everything.iloc[3]
    tokens, compute = (curve_of(page, run.run_id, row) for row in (1, 2))
    assert np.array(compute[0]) / np.array(tokens[0]) == pytest.approx(run.C / run.D)
    assert compute[0][-1] == pytest.approx(run.C)
    assert set(tokens[1]) <= set(losses(studied, 5000)[run.run_id].loss), "as measured"
    assert sum(len(t.x) for t in page.figure.data if t.mode == "lines") <= MOST_POINTS
    rows = page.rows[page.rows.run_id == run.run_id]
    assert (list(rows.tokens), list(rows.C), list(rows.loss)) == tuple(map(list, (tokens[0], compute[0], tokens[1])))
    law = page.rows[page.rows.what == "law of compute"]
    assert list(law.loss) == pytest.approx(list(named(page, "law of compute").y))


@pytest.mark.soak
def test_many_curves_stay_within_what_a_browser_draws(studied):
    many = pd.concat(
        [studied.everything.assign(run_id=[f"{i}-{k}" for k in range(len(studied.everything))]) for i in range(20)]
    )
    few = losses(studied, 600)[studied.everything.run_id.iloc[0]]
    page = curves(replace(studied, everything=many), dict.fromkeys(many.run_id, few))
    assert sum(len(t.x) for t in page.figure.data if t.mode == "lines") <= MOST_POINTS
    assert "are not drawn" in page.about


def test_a_table_without_curves_shows_its_final_losses_by_size(studied):
    page = curves(studied, {})
    lines = [t for t in panel(page, 1) if t.mode == "lines+markers"]
    assert len(lines) == studied.everything.N.nunique()
    assert sum(len(t.x) for t in lines) == len(studied.everything)
    assert "no training curves" in page.about
    names = [name for line in lines for name in line.customdata]
    assert (sorted(names), "customdata" in lines[0].hovertemplate) == (sorted(studied.everything.run_id), True)
