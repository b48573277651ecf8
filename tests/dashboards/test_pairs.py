"""Two ladders of what the app follows: which there are, what a permalink means, and the command's own comparison."""

import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.settings import CompareSettings, StudySettings
from dashboards import comparison as report
from dashboards import pairs, typed
from dashboards.behind import Found
from dashboards.figures import comparison
from dashboards.live import Live
from dashboards.pages import compare as compare_page
from gpt3core import cli
from tests.analysis.synthetic import make_store

pytestmark = pytest.mark.xdist_group("study")
WORTH = 1.6  # arm B's compute multiplier, by construction


@pytest.fixture
def table(tmp_path):
    """Two arms of one ladder: B reaches with C what A reaches with WORTH x C."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    rng = np.random.default_rng(0)

    def losses(gain):
        exact = 1.7 + 400 / (n * gain**0.5) ** 0.34 + 400 / (d * gain**0.5) ** 0.28
        return exact * np.exp(0.0005 * rng.standard_normal(25))

    arms = [pd.DataFrame({"N": n, "D": d, "loss": losses(g), "text": t}) for t, g in (("web", 1.0), ("books", WORTH))]
    found = pd.concat(arms, ignore_index=True).assign(seed=0, host=[f"h{i}" for i in range(50)])
    path = tmp_path / "t.csv"
    found.to_csv(path, index=False)
    return path


def test_a_tables_ladders_are_the_columns_that_split_it(table):
    found = pairs.known(StudySettings(runs=str(table)), table)
    assert found == {"text": ["books", "web"]}, "neither N and D, which the law reads, nor a host a row"


def test_a_stores_ladders_are_its_sweeps(isolated):
    root = isolated / "root"
    make_store(root, evals=False)
    given = StudySettings(runs=str(root))
    assert pairs.known(given, root) == {}, "one sweep is compared with nothing"
    make_store(root, "name=again", evals=False)
    found = pairs.known(given, root)
    assert found == {pairs.SWEEP: ["again", "laptop"]}
    pair = pairs.chosen({}, found, shown="again")
    asked = pairs.settings(given, root, pair)
    assert (asked.sweep, asked.by, asked.arms) == (["laptop", "again"], None, [])
    assert cli.settings(CompareSettings(), shlex.split(typed.command("analysis.compare", asked))[3:]) == asked


@pytest.mark.parametrize(
    ("state", "pair"),
    [
        ({}, ("a", "c")),
        ({"A": "b", "B": "a"}, ("b", "a")),
        ({"A": "c"}, ("c", "b")),
        ({"B": "a"}, ("b", "a")),
        ({"A": "a", "B": "a"}, ("b", "a")),
        ({"by": "../x", "A": "<b>", "B": "/etc"}, ("a", "c")),
    ],
)
def test_a_permalink_means_two_different_ladders_that_there_are(state, pair):
    found = pairs.chosen(state, {pairs.SWEEP: ["a", "b", "c"]}, shown="c")
    assert (found.a, found.b) == pair
    assert pairs.chosen(state, {}, shown="c") is None


def test_the_comparison_is_that_of_the_command(table):
    given = StudySettings(runs=str(table), C="6nd", min_compute=1e17)
    pair = pairs.chosen({"by": "text", "A": "web", "B": "books"}, pairs.known(given, table))
    asked = pairs.settings(given, table, pair)
    words = shlex.split(typed.command("analysis.compare", asked))
    assert words[:3] == ["python", "-m", "analysis.compare"]
    assert cli.settings(CompareSettings(), words[3:]) == asked
    ((ladders, found),) = pairs.compare(asked)
    assert found.names == ("web", "books")
    for m in found.at:
        assert m.value == pytest.approx(WORTH, rel=0.05)
    (same,) = api.comparisons(asked)
    assert [m.value for m in same.at] == [m.value for m in found.at]
    page = comparison.frontiers(ladders, found)
    traces = {trace.name: trace for trace in page.figure.data}
    assert sorted(traces["web"].y) == sorted(ladders.a.table.loss)
    runs, best = page.rows[page.rows.what == "run"], page.rows[page.rows.what != "run"]
    assert list(runs.groupby("ladder").size()) == [24, 24], "the smallest run is outside the window"
    assert list(best.loss[best.ladder == "web"]) == list(traces["web, best sizes"].y)
    a, b = traces["web, best sizes"], traces["books, best sizes"]
    assert b.hovertemplate.startswith("<b>books</b>, "), "or a number in a name would be raised"
    shift = np.exp(np.interp(-np.log(b.y[:4]), -np.log(a.y), np.log(a.x))) / b.x[:4]
    assert shift == pytest.approx(WORTH, rel=0.06), "the distance between the lines is the multiplier"


class Callbacks(dict):
    """An app that only keeps what its pages would answer, by name."""

    def callback(self, *_, **__):
        return lambda function: self.setdefault(function.__name__, function)


def test_names_of_what_is_compared_are_shown_as_they_are_written(table, tmp_path):
    """lr^2 of a table is no power, wherever a sentence has it; C^0.5 of ours is one."""
    pair = pairs.chosen({"by": "text", "A": "web", "B": "books"}, pairs.known(given := StudySettings(), table))
    ((ladders, found),) = pairs.compare(pairs.settings(given, table, pair))
    found = replace(found, names=("lr^2", "1e-3"), texts=("x_1^2", "1e5"), precisions=("fp32", "bf16"))
    callbacks, live = Callbacks(), Live(StudySettings(runs=str(table)))
    compare_page._register_shown(callbacks, live, SimpleNamespace(peek=lambda _: [(ladders, found)]))
    report.write([found], tmp_path)
    of_report = (tmp_path / "index.html").read_text().partition("<h2>")[2]
    for page in (callbacks["said"]([0, "text", "web", "books"]), of_report):
        said = re.sub('","|<[^>]*>', "", page)
        assert "A = lr^2 (25 runs), B = 1e-3 (25 runs)" in said
        assert "(lr^2 on x_1^2; 1e-3 on 1e5)" in said
        assert "(lr^2 in fp32; 1e-3 in bf16)" in said
        assert "10<sup>" in page or '10",["sup"' in page, "numbers of ours are raised"


def test_a_comparison_stands_until_the_next_one_is_made():
    found = Found(value=[], of=1, seconds=2.0)
    said = compare_page.progress(found, "b against a")
    assert said == "Comparing behind the page for 2 s. What is shown was compared before results were added."
    assert compare_page.progress(replace(found, done=True), "b against a") == ""
    assert compare_page.progress(Found(seconds=2.0), "b against a").endswith(" What is shown is older: b against a.")
    failed = replace(found, problem="the store does not answer", done=True)
    assert compare_page.progress(failed, "b against a").startswith("Not compared: the store does not answer.")
