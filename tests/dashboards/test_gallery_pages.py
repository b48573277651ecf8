"""A figure that is drawn anew in the browser: all of it is new, but for a reader's zoom on the same thing."""

import dash
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.settings import StudySettings
from dashboards import live, offline
from dashboards.figures.drawing import nothing
from dashboards.figures.style import Page
from dashboards.pages import gallery

BEFORE = go.Figure(go.Bar(x=[1, 2], y=["a", "b"]))
BEFORE.update_layout(shapes=[{"type": "line", "x0": 0, "x1": 1, "y0": 0, "y1": 1}], title="worth of B")
BEFORE.update_xaxes(title="C, FLOPs", type="log", range=[0, 5])
BEFORE.update_yaxes(
    tickvals=[0, 1], ticktext=["a", "b"], categoryorder="array", categoryarray=["a", "b"], domain=[0, 1]
)


@pytest.fixture
def following():
    return live.Live(StudySettings(runs="nowhere"))


def drawn(following, figure, was=None, *, number=1, of=None):
    """The figure that is sent, and what the browser has then."""
    page = Page(slug="bars", title="", about="", figure=figure, rows=pd.DataFrame({"a": [1]}))
    _, sent, _, _, now = gallery.draw(following, "some", page, number, was, "code", of=of)
    return sent, now


def patched(figure, patch):
    """A browser's figure after a Patch, which assigns by paths."""
    found = figure.to_plotly_json()
    for change in patch.to_plotly_json()["operations"]:
        assert change["operation"] == "Assign"
        place = found
        for key in change["location"][:-1]:
            place = place[key]
        place[change["location"][-1]] = change["params"]["value"]
    return found


def test_all_but_a_zoom_is_new(following):
    _, now = drawn(following, BEFORE)
    browser, after = go.Figure(BEFORE), go.Figure(BEFORE)
    browser.update_xaxes(range=[2, 3], autorange=False)
    after.layout.shapes = []
    after.layout.annotations = [{"text": "new"}]
    after.update_layout(title="worth of A")
    after.update_yaxes(ticktext=["b", "a"], categoryarray=["b", "a"], domain=[0.1, 1])
    sent, _ = drawn(following, after, now, number=2)
    found, wanted = patched(browser, sent), after.to_plotly_json()
    assert found["layout"].pop("xaxis") == {**wanted["layout"].pop("xaxis"), "range": [2, 3], "autorange": False}
    assert not found["layout"].pop("shapes")
    assert not found["layout"].pop("images")
    wanted["layout"].pop("shapes", None)
    assert found["layout"].pop("legend") == {"uirevision": '["bars", null]'}, "and what is hidden in the legend"
    assert found["layout"] == wanted["layout"]


@pytest.mark.parametrize(
    "change",
    [
        {"xaxis2": {"anchor": "y2"}, "yaxis2": {}},
        {"xaxis": {"type": "linear"}},
        {"xaxis": {"title": "C as 6ND, FLOPs"}},
        {"xaxis": {"range": [0, 9]}},
        {"yaxis": {"ticktext": None}},
    ],
)
def test_where_an_axis_is_another_all_is_new(following, change):
    _, now = drawn(following, BEFORE)
    sent, after = drawn(following, go.Figure(BEFORE).update_layout(change), now, number=2)
    assert not isinstance(sent, dash.Patch)
    assert after != now


def test_a_zoom_is_of_one_run_and_not_of_another(following):
    _, now = drawn(following, BEFORE, of="run a")
    assert isinstance(drawn(following, BEFORE, now, number=2, of="run a")[0], dash.Patch)
    assert not isinstance(drawn(following, BEFORE, now, number=2, of="run b")[0], dash.Patch)
    with pytest.raises(dash.exceptions.PreventUpdate):
        drawn(following, BEFORE, now, of="run a")


def test_where_there_is_nothing_to_draw_a_sentence_stands_alone(following, isolated):
    """No empty picture, no files of no rows; in the report too."""
    page = nothing("bars", "Bars", "no bar was measured")
    about, sent, style, handed_out, _ = gallery.draw(following, "some", page, 1, None)
    assert (about, style, handed_out) == (["Nothing to draw: no bar was measured."], gallery.HIDDEN, "[]")
    assert sent["data"] == []
    offline.write_pages("some", [page], isolated, "list.html")
    text = (isolated / "bars.html").read_text()
    assert "Nothing to draw: no bar was measured." in text
    assert not any(word in text for word in ("Export:", "0 rows", 'class="plotly'))


def test_a_long_table_of_the_report_is_folded_away(following, isolated):
    """Of hundreds of runs a page would be fifteen screens long."""
    pages = [
        Page(slug=f"of{n}", title="", about="", figure=BEFORE, rows=rows, summary=rows)
        for n in (3, 50, 400)
        for rows in [pd.DataFrame({"a": range(n)})]
    ]
    offline.write_pages("some", pages, isolated, "list.html")
    few, many, most = ((isolated / f"{page.slug}.html").read_text() for page in pages)
    assert "<details open><summary>In short</summary>" in few
    assert "<details><summary>In short</summary>" in many
    assert "<details><summary>In short, the first 300 of 400 rows</summary>" in most
