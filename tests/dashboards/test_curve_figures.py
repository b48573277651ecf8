"""Loss curves against tokens and against compute: as measured, by size, and no more than a browser draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dashboards.figures.curves import MOST_POINTS, MOST_RUNS, curves
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
    assert "are drawn" not in page.about
    run = studied.everything.iloc[3]
    assert [(t.x[i], t.y[i]) for t in lines for i, name in enumerate(t.customdata) if name == run.run_id] == [
        (run.D, run.loss)
    ], "whose name a hover says"


def test_of_thousands_of_sizes_some_are_drawn_and_all_are_rows(studied):
    one = studied.everything.iloc[:1]
    many = pd.concat([one] * 3 * MOST_RUNS, ignore_index=True).assign(N=np.geomspace(1e6, 1e9, 3 * MOST_RUNS))
    page = curves(replace(studied, everything=many.assign(run_id=many.index.astype(str))), {})
    sizes = [t.customdata for t in panel(page, 1) if t.mode == "lines+markers"]
    assert (len(sizes), sizes[0], sizes[-1]) == (MOST_RUNS, ("0",), (str(3 * MOST_RUNS - 1),))
    assert f"{MOST_RUNS} of {3 * MOST_RUNS} sizes are drawn." in page.about
    assert set(page.rows.run_id.dropna()) == set(many.index.astype(str))
