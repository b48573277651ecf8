"""What an address says wrongly is said, and the default stands in its place."""

import dataclasses
from types import SimpleNamespace
from urllib.parse import quote

import pandas as pd
import pytest

from analysis.settings import StudySettings
from dashboards import live
from dashboards.figures import catalogue
from dashboards.pages import answer, compare, fewshot, laws, plan, runs, shell, sweep

pytestmark = pytest.mark.xdist_group("study")


@pytest.fixture(scope="module")
def following(simulated, studied):
    found = live.Live(StudySettings(runs=str(simulated)))
    found.view = dataclasses.replace(found.view, number=1, pages=catalogue.pages(studied), study=studied)
    return found


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    path = tmp_path_factory.mktemp("tabled") / "two.csv"
    rows = [{"N": 1e6 * (i + 1), "D": 1e8, "loss": 3.0, "text": text} for text in ("web", "books") for i in range(5)]
    pd.DataFrame(rows).to_csv(path, index=False)
    return live.Live(StudySettings(runs=str(path)))


@pytest.mark.parametrize(
    ("page", "query", "said"),
    [
        (laws, {"law": "x"}, "law=x: allowed are all, "),
        (laws, {"N": "x"}, "N=x: allowed are nonembedding, total, given; default is taken"),
        (laws, {"C": "x"}, "C=x: allowed are exact, 6nd, kaplan; default is taken"),
        (laws, {"cut": "x"}, "cut=x: FLOPs, positive, like 1e18"),
        (laws, {"figure": "accuracy-shots"}, "figure=accuracy-shots: allowed are frontier, "),
        (laws, {"axes": "x"}, "axes=x: allowed are drawn, linear; drawn is taken"),
        (laws, {"beside": "x"}, "beside=x: allowed are nothing, published; nothing is taken"),
        (fewshot, {"accuracy": "frontier"}, "accuracy=frontier: allowed are accuracy-compute, "),
        (runs, {"sort": "loss,-size,-lss"}, "sort=loss,-size,-lss: there is no column -lss, did you mean loss?"),
        (runs, {"group": "z"}, "group=z: allowed are "),
        (runs, {"columns": "7"}, "columns=7: a list of columns, like ["),
        (runs, {"columns": '["loss","colour"]'}, 'columns=["loss","colour"]: a list of columns, like ['),
        (runs, {"page": "-3"}, "page=-3: pages are counted from 1; 1 is taken"),
        (runs, {"page": "0"}, "page=0: pages are counted from 1"),
        (sweep, {"sweep": "../x"}, "sweep=../x: there are laptop"),
        (answer, {"figure": "isoflop"}, "figure: this page has no such value"),
        (plan, {"komputer": "1e20"}, "komputer: this page has no such value, did you mean compute?"),
        (plan, {"gpu": "x" * 20_001}, "gpu: longer than 20,000 characters"),
        (laws, {"law": "\u202e\x00\x1b[2J"}, "law=   [2J: allowed are all, "),
        (laws, {"": "x"}, "=: this page has no such value"),
        (laws, {"law": "<b>x</b>^2$"}, "law=<b>x</b>^2$: allowed are all, "),
        (runs, {"sort": "loss,-loss"}, "sort=loss,-loss: a column stands there twice"),
        (runs, {"columns": '["loss","loss"]'}, 'columns=["loss","loss"]: a list of columns, like ['),
        (runs, {"page": "9" * 5000}, "page=9999999999"),
        (laws, {f"a{i}": "" for i in range(101)}, "more than 100 values: none of them is taken"),
    ],
)
def test_what_is_not_taken_is_said_and_the_default_stands_in_its_place(following, page, query, said):
    search = "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    state, sentence = shell.taken(page, following, search)
    assert sentence.startswith(f"Not taken from the address: {said}")
    assert sentence.endswith((".", "?"))
    assert state == page.STATE


@pytest.mark.parametrize("page", shell.PAGES)
def test_a_word_that_is_given_twice_is_said_and_the_last_one_is_taken(following, page):
    for name in page.STATE:
        right = page.STATE[name] or "1"
        state, sentence = shell.taken(page, following, f"?{name}=a&{name}=b&{name}={quote(right)}")
        assert sentence.startswith(f"Not taken from the address: {name}: given 3 times; the last one is taken")
        assert state[name] == right or f"{name}={right}: " in sentence


@pytest.mark.parametrize("page", shell.PAGES)
@pytest.mark.parametrize(
    "value",
    [
        *("%", "%zz", "%ff", "%00", "%u202e", "%E2%80%AE", "nan", "inf", "-inf", "1e400", "-1", "0", "9" * 5000),
        *("1e400,1e400", "[1e400]", "[NaN]", "{", "[" * 6000, "<b>", "%3Cimg+src=x+onerror=alert(1)%3E", "x^2$y$"),
        *("+", "'", '"', ";", "&&", "=", "%2e%2e%2f", "a" * 20_000, "a" * 20_001, "loss%3C", "set%3D../../etc"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else value.TITLE,
)
def test_no_value_of_any_word_breaks_a_page_and_none_is_markup(following, page, value):
    for name in page.STATE:
        state, sentence = shell.taken(page, following, f"?{name}={value}")
        assert sentence.isprintable()
        assert page.layout(following, state).to_plotly_json()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=x&A=x&B=x", ("by=x: allowed are text", "A=x: allowed are books, web", "B=x: allowed are books, web")),
        ("A=web&B=web", ("A=web: is B too",)),
    ],
)
def test_so_is_a_pair_that_there_is_not(tabled, query, said):
    state, sentence = shell.taken(compare, tabled, f"?{query}")
    assert sentence == f"Not taken from the address: {'; '.join(said)}."
    assert state == {**compare.STATE, **({"B": "web"} if len(said) == 1 else {})}


@pytest.mark.parametrize(
    ("page", "query"),
    [
        (laws, "figure=isoflop&axes=linear&beside=published&law=hoffmann&N=total&C=6nd&cut=1e12&from=1e11"),
        (laws, "law=default&figure="),
        (fewshot, "accuracy=accuracy-shots"),
        (runs, "sort=-loss,size&group=size&columns=[%22loss%22]&page=2&filter=x"),
        (runs, "columns=&group="),
        (sweep, "sweep=laptop"),
        (plan, "compute=1e15&days="),
    ],
)
def test_what_is_right_is_taken_and_nothing_is_said(following, page, query):
    state, sentence = shell.taken(page, following, f"?{query}")
    assert sentence == ""
    given = dict(pair.split("=") for pair in query.replace("%22", '"').split("&"))
    assert state == {**page.STATE, **given}
    assert shell.taken(page, following, "") == (page.STATE, "")


def test_every_field_has_a_name_that_is_read_out(following, tabled):
    """A placeholder is none: it goes when something is typed; a label is of one box, and a group has a name itself."""
    by_label, by_group = ("Input", "Dropdown"), ("RadioItems", "Checklist", "Slider", "RangeSlider")

    def unnamed(node, inside):
        kind, props = type(node).__name__, getattr(node, "to_plotly_json", dict)().get("props", {})
        if kind in by_label and getattr(node, "type", None) != "hidden" and "Label" not in inside:
            yield node.id
        if kind in by_group and "group" not in inside:
            yield node.id
        children = props.get("children") or []
        for child in children if isinstance(children, list | tuple) else [children]:
            yield from unnamed(child, inside | {kind, props.get("aria-label") and props.get("role")})

    for page, live_ in [*((page, following) for page in shell.PAGES), (compare, tabled)]:
        assert list(unnamed(page.layout(live_, page.STATE), set())) == [], page.PATH


@pytest.mark.parametrize(("asked", "shown"), [(None, "newest"), ("laptop", "laptop"), ("gone", "newest")])
def test_the_page_of_sweeps_begins_with_the_one_that_the_app_was_started_for(simulated, monkeypatch, asked, shown):
    monkeypatch.setattr(sweep, "_names", lambda _: ["newest", "laptop"])
    started = live.Live(StudySettings(runs=str(simulated), sweep=asked))
    assert f"value='{shown}'" in str(sweep.layout(started, sweep.STATE))


def test_the_page_of_accuracies_says_why_it_is_empty(simulated):
    started, taken = live.Live(StudySettings(runs=str(simulated))), {}
    app = SimpleNamespace(callback=lambda *_: lambda show: taken.update(show=show))
    fewshot.register(app, started)
    _, said, *drawn = taken["show"]("accuracy-size", None, None, None)
    assert said == live.FITTING
    started.view = dataclasses.replace(started.view, problem="no run is finished")
    assert taken["show"]("accuracy-size", None, None, drawn[-1])[1] == "no run is finished"


def test_a_figure_of_accuracies_that_these_runs_have_not_is_said(simulated, following):
    """Before the first fit nobody knows which there will be."""
    started, taken = live.Live(StudySettings(runs=str(simulated))), {}
    fewshot.register(SimpleNamespace(callback=lambda *_: lambda show: taken.update(show=show)), started)
    assert fewshot.unread(started, {"accuracy": "frontier"}) == {}
    started.view = following.view
    _, (lead, *_), *drawn = taken["show"]("frontier", None, None, None)
    assert lead.children.startswith("accuracy=frontier: of these runs there are accuracy-compute, ")
    _, (lead, *_), *_ = taken["show"]("accuracy-compute", None, None, drawn[-1])
    assert "of these runs" not in str(lead), "the same figure, and no longer that sentence"
