"""Of markers that lie on one another one is drawn: nothing is made up, nothing lost, and a closer look parts them."""

import json
from datetime import datetime
from html import unescape

import numpy as np
import plotly.graph_objects as go
import pytest

from dashboards.figures import catalogue, thinned
from dashboards.figures.packed import Packed, drawn, layout, opened
from dashboards.pages import laws

POINTS = 5000


@pytest.fixture
def scattered():
    """A figure of many points, log and linear, each with a name and a colour of its own."""
    rng = np.random.default_rng(0)
    x, y = 10 ** rng.uniform(15, 20, POINTS), rng.normal(3, 0.2, POINTS)
    names = [f"run-{i}" for i in range(POINTS)]
    marker = {"color": np.log10(x), "cmin": 15.0, "cmax": 20.0, "size": 8}
    said = {"text": [f"<b>{name}</b>" for name in names], "hoverinfo": "text", "customdata": names}
    figure = go.Figure().add_scatter(x=x, y=y, mode="markers", marker=marker, **said)
    figure.add_scatter(x=x[:900], y=y[:900], mode="lines")
    figure.update_layout(height=560, xaxis={"type": "log"})
    return figure, x, y, names


def of_trace(figure, which=0):
    trace = figure["data"][which]
    names = [[one] if isinstance(one, str) else one for one in trace["customdata"]]
    return np.array(trace["x"]), np.array(trace["y"]), names, trace


def test_every_point_is_drawn_or_lies_beside_one_that_has_its_name(scattered):
    figure, x, y, names = scattered
    found, under = drawn(figure)
    shown_x, shown_y, inside, trace = of_trace(found)
    assert under == POINTS - len(shown_x) > 1000
    assert sorted(name for some in inside for name in some) == sorted(names)
    wide = np.ptp(np.log10(x))
    place = {name: (np.log10(a) / wide, b / np.ptp(y)) for name, a, b in zip(names, x, y, strict=True)}
    for a, b, some, text, color in zip(shown_x, shown_y, inside, trace["text"], trace["marker"]["color"], strict=True):
        assert (np.log10(a) / wide, b / np.ptp(y)) == place[some[0]], "a point of its own"
        assert (color, text.partition("<br>")[0]) == (np.log10(a), f"<b>{some[0]}</b>")
        away = np.abs(np.array([place[name] for name in some]) - [np.log10(a) / wide, b / np.ptp(y)])
        assert (away * [thinned.WIDTH, 560 - thinned.AROUND] < thinned.SIDES[-1] + 1e-9).all(), "markers touch"
        assert ("more here" in text) == (len(some) > 1)
        assert len(some) == 1 or f"and {len(some) - 1:,} more here" in text
    assert found["data"][1] == json.loads(figure.to_json())["data"][1], "a line is what it was"


def test_the_lowest_and_the_highest_of_those_above_one_another_stay(scattered):
    """The frontier is of the lowest."""
    figure, x, y, _ = scattered
    shown_x, shown_y, _, _ = of_trace(drawn(figure)[0])
    columns = [np.floor((np.log10(at) - np.log10(x).min()) / np.ptp(np.log10(x)) * 150) for at in (x, shown_x)]
    for column in set(columns[0]):
        every, shown = y[columns[0] == column], shown_y[columns[1] == column]
        assert (shown.min(), shown.max()) == (every.min(), every.max())
    assert (shown_x.min(), shown_x.max()) == (x.min(), x.max())


def test_points_of_a_few_places_are_a_few_markers_however_many_traces_they_are_of():
    """Thirty budgets of a thousand runs each, of thirty sizes, that differ by noise; one hidden that has as many."""
    rng, figure = np.random.default_rng(0), go.Figure()
    for i in range(31):
        x, y = np.repeat(np.geomspace(1e5, 1e9, 30), 33), 8 - i / 5 + 0.001 * rng.normal(size=990)
        hidden = {"visible": "legendonly"} if i == 30 else {}
        figure.add_scatter(x=x, y=y, mode="markers", text=["a run"] * 990, **hidden)
    figure.update_layout(height=700, xaxis={"type": "log"})
    found, under = drawn(figure)
    shown = [len(trace["x"]) for trace in found["data"][:30]]
    assert sum(shown) == 30 * 990 - under <= 2 * 900
    assert found["data"][30] == json.loads(figure.to_json())["data"][30]


def test_a_closer_look_parts_them(scattered):
    figure, x, y, names = scattered
    view = {"x": [16.0, 16.1], "y": [2.9, 3.1]}
    shown_x, shown_y, inside, _ = of_trace(drawn(figure, view)[0])
    seen = (abs(np.log10(x) - 16.05) < 0.05) & (abs(y - 3) < 0.1)
    assert 20 < seen.sum() < 100
    one = {some[0]: (a, b) for a, b, some in zip(shown_x, shown_y, inside, strict=True) if len(some) == 1}
    within = [name for name, is_seen in zip(names, seen, strict=True) if is_seen]
    assert len(set(within) & set(one)) > 0.9 * len(within), "but for those within a pixel"
    assert sorted(name for some in inside for name in some) == sorted(names), "beside it too"


def test_what_is_not_in_view_takes_no_markers_from_what_is(scattered):
    """Of a thousand points in view each has its marker, but for those within a pixel or two."""
    figure, x, y, names = scattered
    view = {"x": [16.0, 17.5], "y": [2.9, 3.1]}
    _, _, inside, _ = of_trace(drawn(figure, view)[0])
    within = {n for n, a, b in zip(names, np.log10(x), y, strict=True) if 16 <= a <= 17.5 and 2.9 <= b <= 3.1}
    shown = [some for some in inside if within & set(some)]
    assert 500 < len(within) < thinned.MOST < len(names) - len(within)
    assert all(set(some) <= within for some in shown), "none of those beside it"
    assert len(shown) > 0.9 * len(within)


@pytest.mark.parametrize("ends", [[10**308, -(10**308)], [1e308, -1e308], [5e-324, 0.0]])
def test_ranges_that_no_reader_has(scattered, ends, recwarn):
    assert len(drawn(scattered[0], {"x": ends})[0]["data"]) == 2
    assert not list(recwarn)


def test_what_looks_otherwise_is_not_under_another():
    """One prediction outside its interval, crossed, amid a thousand inside."""
    symbols = ["circle"] * 1000 + ["x"]
    said = {"text": ["a prediction"] * 1001, "marker": {"symbol": symbols}}
    figure = go.Figure().add_scatter(x=[1.0] * 1001, y=[1.0] * 1001, mode="markers", **said)
    assert sorted(drawn(figure)[0]["data"][0]["marker"]["symbol"]) == ["circle", "x"]


@pytest.mark.parametrize(
    ("x", "axis"),
    [
        ([None] * 1000, {}),
        ([np.nan] + [0.0] * 500 + [-1.0] + [1.0] * 498, {"type": "log"}),
        ([1.0] * 1000, {"range": [None, 3.0]}),
    ],
)
def test_points_that_are_nowhere_are_under_none(x, axis):
    figure = go.Figure(layout={"xaxis": axis}).add_scatter(x=x, y=[2.0] * 1000, mode="markers", text=["a"] * 1000)
    found, under = drawn(figure, {"x": [1.0], "y": [2.0, 2.0]})
    nowhere = sum(one is None or not one > 0 for one in x)
    assert under == max(0, 999 - nowhere)
    assert len(found["data"][0]["x"]) == 1000 - under


@pytest.mark.parametrize(
    "more",
    [
        {"x": ["approach 1"] * 1000},
        {"x": [datetime(2026, 1, 1)] * 1000},
        {"x": ["2026-01-01"] * 1000},
        {"marker": {"size": [4] * 999 + [30]}},
        {"error_y": {"array": [1.0] * 1000}},
    ],
)
def test_names_times_and_what_is_larger_than_others_are_all_drawn(more):
    said = {"x": [1.0] * 1000, "y": [2.0] * 1000, "mode": "markers", "text": ["a"] * 1000}
    assert drawn(go.Figure().add_scatter(**{**said, **more}))[1] is None


def test_draws_are_as_dense_as_they_are():
    figure = go.Figure().add_scatter(x=[1.0] * 1000, y=[2.0] * 1000, mode="markers")
    assert drawn(figure)[1] is None


def test_figures_of_few_points_are_what_they_were(studied):
    for page in catalogue.pages(studied):
        assert drawn(page.figure) == (page.figure.to_plotly_json(), None), page.slug


def test_a_packed_figure_keeps_all_its_points_for_who_draws_on_it(scattered):
    figure, x, _, _ = scattered
    packed = Packed(figure)
    assert layout(packed) == json.loads(figure.to_json())["layout"]
    assert json.loads(json.dumps(drawn(figure))) == list(map(json.loads, map(json.dumps, drawn(packed))))
    assert list(opened(packed).data[0].x) == list(x)
    view = {"x": [16.0, 16.1]}
    assert of_trace(drawn(packed, view)[0])[2] == of_trace(drawn(figure, view)[0])[2]


def test_a_lasso_around_a_marker_takes_all_that_lies_under_it():
    points = [{"customdata": ["a", "b &amp; c"]}, {"customdata": "d"}, {"customdata": ["d", 3]}]
    assert laws.runs_in({"points": points}) == ["a", unescape("b &amp; c"), "d"]
