"""Every figure hands out what it draws: each point of each trace stands in one row of its file."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from dashboards.data import losses
from dashboards.figures import catalogue
from tests.dashboards.test_accuracy_figures import asked  # noqa: F401

pytestmark = pytest.mark.xdist_group("study")

# what an axis makes of the columns, undone
AXES = {
    "accuracy-shots": lambda x, y: (x - 1, y),  # K + 1: no examples have a place on a logarithmic axis
    "influence": lambda x, y: (x / 100, y),  # percent
}
# traces that are drawn for the eye
DECORATIONS = {
    "influence": lambda trace: trace.mode == "lines",  # from zero to each mark
    "backtest": lambda trace: trace.mode == "lines" and list(trace.x) == list(trace.y),  # where both are equal
}


def points(trace):
    """What a trace draws, a tuple of coordinates a point."""
    if trace.type == "contour":
        x, y = np.meshgrid(trace.x, trace.y)
        return list(zip(x.ravel(), y.ravel(), np.ravel(trace.z), strict=True))
    return [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if not (pd.isna(x) or pd.isna(y))]


def as_cell(value):
    return f"{value:.10g}" if isinstance(value, (int, float, np.number)) else value


def lost(page):
    """The points that no row of a figure's file has, by the trace's place."""
    rows = defaultdict(set)
    for name in page.rows.columns:
        for place, value in enumerate(page.rows[name]):
            if np.ndim(value) == 0:
                rows[as_cell(value)].add(place)
    undo, decoration = AXES.get(page.slug, lambda *point: point), DECORATIONS.get(page.slug, lambda trace: False)
    found = {}
    for place, trace in enumerate(page.figure.data):
        drawn = [] if decoration(trace) else [undo(*point) for point in points(trace)]
        if page.slug == "accuracy-compute" and trace.mode == "lines" and len(set(trace.y)) == 1:
            drawn = [(y,) for _, y in drawn]  # a level over the whole panel, of a model decades beyond
            known = page.rows[page.rows.what.isin(["baseline", "GPT-3, table H.1"])].accuracy.map(as_cell)
            assert {as_cell(y) for (y,) in drawn} <= set(known), "no run's"
        if without := [point for point in drawn if not set.intersection(*(rows[as_cell(v)] for v in point))]:
            found[place, trace.name] = without
    return found


def test_every_point_that_is_drawn_stands_in_a_row_of_the_figures_file(studied, asked):  # noqa: F811
    """Those of a sweep's study, and of one with tasks that GPT-3 was asked too."""
    pages = catalogue.pages(studied, losses(studied.runs))
    pages += [catalogue.PAGES[slug](asked) for slug in catalogue.OF_SCORES]
    assert {page.slug for page in pages} >= set(catalogue.SLUGS)
    assert sum(len(points(trace)) for page in pages for trace in page.figure.data) > 8000
    assert {page.slug: lost(page) for page in pages if lost(page)} == {}
