"""Figures and the report, without a browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis import api
from analysis.estimation import training_curves
from dashboards import report
from dashboards.figures import catalogue, look, style
from dashboards.figures.accuracy import accuracy_compute
from dashboards.figures.curves import CURVE_POINTS, curves, kept
from dashboards.figures.drawing import Panel, arrange, panelled, strip
from dashboards.figures.frontier import _free, frontier
from dashboards.figures.isoflop import isoflop
from dashboards.figures.linear import linear
from dashboards.figures.lowest import lowest
from dashboards.figures.published import over
from dashboards.figures.residuals import residuals
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store
from tests.analysis.test_training_curves import ALPHA, BETA, best, ladder
from tests.test_house import CODE
from tests.test_notebook import run as run_cell

pytestmark = pytest.mark.xdist_group("study")  # whose fit it shows


def test_every_figure_has_its_place():
    assert {*catalogue.PAGES, "curves", "lowest-curves"} == set(catalogue.SLUGS)


def test_every_run_is_on_the_frontier_and_behind_it(studied):
    page = frontier(studied)
    shown = [text for trace in page.figure.data if trace.text is not None for text in trace.text]
    for run_id in studied.runs.table.run_id:
        assert any(run_id in text for text in shown)
    assert set(page.summary.run_id) == set(page.rows.run_id.dropna()) == set(studied.runs.table.run_id)
    (prediction,) = [trace for trace in page.figure.data if trace.name == "prediction"]
    assert prediction.x[0] == pytest.approx(studied.predictions[0].compute)


def test_the_name_of_a_line_stands_between_runs_or_beyond_them():
    grid, budgets = np.geomspace(1e18, 1e23, 80), np.geomspace(1e18, 1e22, 5)
    assert np.log10(_free(grid, pd.Series(budgets))) % 1 == pytest.approx(0.5, abs=0.1)
    assert _free(grid, pd.Series(np.geomspace(1e18, 1e21, 200))) > 1.3e21


def test_no_axis_reaches_for_a_prediction_without_an_interval(studied):
    """Six runs of one budget said a loss of 324 a decade beyond: the axis of their losses went from 2 to 500."""
    wild = [replace(p, ln_loss=np.log(324.4), interval_new_run=None) for p in studied.predictions]
    page, none = (frontier(replace(studied, predictions=given, laws={})) for given in (wild, []))
    assert "324 at 1e14" in page.about
    assert "without an interval of a new run" in page.about
    assert "Bars" not in page.about
    assert "Bars" in frontier(studied).about
    for one, other in ((page, none), (over(page, studied), over(none, studied))):
        (star,) = [trace for trace in one.figure.data if trace.marker.symbol == "star"]
        assert star.visible == "legendonly", "plotly's own range is of what is visible"
        assert not [a for a in one.figure.layout.annotations if "324" in a.text], "it would reach for words too"
        assert one.figure.layout.yaxis.tickvals == other.figure.layout.yaxis.tickvals
        assert one.figure.layout.xaxis.range == other.figure.layout.xaxis.range


def test_what_docs_say_of_a_notebook_draws(studied, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (CODE / "docs" / "analysis.md").read_text(), re.DOTALL)
    monkeypatch.setattr(api, "fit", lambda runs: studied)
    _, drawn = run_cell(code, {})
    assert {"runs", "GPT-3", "Kaplan et al."} <= {trace.name for trace in drawn.data}


def test_a_run_without_a_standard_error_says_none(studied):
    rows = studied.everything.head(2).assign(loss_se=[np.nan, 0.01])
    without, with_one = style.hover(rows)
    assert "±" not in without
    assert "± 0.0100<" in with_one


def test_isoflop_draws_a_curve_and_a_star_for_each_budget_with_a_minimum(studied):
    stars = [t for t in isoflop(studied).figure.data if t.marker.symbol == "star"]
    assert [s.x[0] for s in stars] == pytest.approx([p.n_star for p in studied.minima.used])


def test_sizes_are_ordered_by_a_scale_that_is_one_in_grey_too(studied):
    (runs,) = [trace for trace in frontier(studied).figure.data if trace.name == "runs"]
    assert runs.marker.color == pytest.approx(np.log10(studied.everything.N))
    grey = [np.dot([int(c[i : i + 2], 16) for i in (1, 3, 5)], [0.299, 0.587, 0.114]) for c in look.SCALE]
    assert np.all(np.diff(grey) > 5)
    assert style.shades([1e9, 1e6, 1e12]) == [style.shades([1e6, 1e9, 1e12])[i] for i in (1, 0, 2)]
    assert len(set(style.shades([1e6, 1e9, 1e12]))) == 3
    assert style.shades([5.0]) == style.shades([7.0, 7.0])[:1]


def test_the_rows_behind_the_residuals_are_those_of_their_runs(studied):
    rows = residuals(studied).rows
    law = studied.laws["chinchilla"].fit
    predicted = law.predict({"N": rows.N.to_numpy(float), "D": rows.D.to_numpy(float)})
    assert rows.predicted.tolist() == pytest.approx(list(predicted))
    assert rows.ln_residual.tolist() == pytest.approx(list(np.log(rows.loss / predicted)))
    assert rows.N.is_monotonic_increasing


def test_approach_1_shows_the_lowest_curves_and_their_sizes(studied):
    """Sizes within a sixth of the closed form's, losses a little above its own, and the law that the table prints."""
    found = training_curves.envelope_of(ladder(noise=0.0005, ratio=1.3))
    study = replace(studied, training_curves=replace(found, runs=list(studied.table.run_id)))
    page = lowest(study, {run_id: pd.DataFrame({"tokens": [1, 10**9], "loss": [5.0, 4.0]}) for run_id in found.runs})
    traces = {t.name: t for t in page.figure.data}
    sizes, losses = traces["size of the lowest curve"], traces["curve of the lowest size, as trained"]
    assert np.log(np.array(sizes.y) / [best(c) for c in sizes.x]) == pytest.approx(0, abs=0.15)
    truth = [1.7 + 400 / best(c) ** ALPHA + 410 / (c / 6 / best(c)) ** BETA for c in losses.x]
    above = np.log(np.array(losses.y) / truth)
    assert -0.01 < above.min() < above.max() < 0.12
    line = traces[f"approach 1: N* ~ C<sup>{found.a:.2f}</sup>"]
    assert np.diff(np.log(line.y)) / np.diff(np.log(line.x)) == pytest.approx([found.a])
    assert len(sizes.x) <= 60
    stars = traces["minima of the budgets (approach 2)"]
    assert list(stars.y) == [p.n_star for p in studied.minima.used]
    assert "gives no law here: 0 points" in lowest(studied, {}).about
    rows = dict(list(page.rows.groupby("what")))
    assert list(rows["lowest curve"].N) == list(sizes.y)
    assert list(rows["law of approach 1"].N) == list(line.y)
    assert list(rows["minimum"].N) == list(stars.y)


def test_what_points_say_is_kept_once_for_the_figures_of_one_fit_and_the_next(studied):
    def said():
        pages = [catalogue.PAGES[slug](studied) for slug in ("isoflop", "triptych", "contours", "backtest")]
        texts = [text for page in pages for trace in page.figure.data for text in trace.text or ()]
        return [text for text in texts if text.startswith("<b>d")]  # of runs

    one, other = said(), said()
    assert len(one) > 5 * len(studied.table)
    assert all(a is b for a, b in zip(one, other, strict=True))


def test_of_thousands_of_curves_some_are_drawn(studied):
    """A browser takes forty thousand points at once; the rows are those that are drawn."""
    many = pd.concat(
        [studied.table.assign(run_id=studied.table.run_id + f"-{i}") for i in range(40)], ignore_index=True
    )
    tokens = np.linspace(0.3, 1, 400)
    losses = {r.run_id: pd.DataFrame({"tokens": r.D * tokens, "loss": 3 + 1 / tokens}) for r in many.itertuples()}
    page = lowest(replace(studied, table=many, training_curves=None), losses)
    lines = [t for t in page.figure.data if t.mode == "lines"]
    assert len({name for line in lines for name in line.customdata}) == 400
    assert (len(lines), len(page.summary)) == (many.N.nunique(), len(many)), "a browser is slow over hundreds of traces"
    assert "N" in [t.marker.colorbar.title.text for t in page.figure.data], "what their colours are of"
    assert f"400 of {len(many)} curves are drawn" in page.about
    drawn = [loss for line in lines for loss in line.y]
    gaps = 400 - len(lines)  # between two runs of one size
    assert len(drawn) - gaps == np.isfinite(drawn).sum() == (page.rows.what == "training loss").sum() <= 40_000


def test_what_is_at_chance_gets_no_curve(studied):
    page = accuracy_compute(studied)
    drawn = {task: [t for t in page.figure.data if t.legendgroup == task] for task in ("rising", "guessing")}
    assert [t.mode for t in drawn["guessing"]] == ["markers", "lines"], "the runs, and the baseline"
    assert set(drawn["guessing"][1].y) == {0.26}
    *_, curve = drawn["rising"]
    assert np.all(np.diff(curve.y) > 0)
    assert "guessing" in page.about
    assert "guessing: at chance" in [title.text for title in page.figure.layout.annotations]


def test_a_spike_of_one_step_is_in_every_figure_of_curves(studied):
    """What the app and the report draw are points of the curve, the highest and the lowest among them."""
    losses = {}
    for i, run in enumerate(studied.everything.itertuples()):
        steps = np.arange(1, 10_001)
        loss = 3 + 5 / np.sqrt(steps)
        loss[6_000 + i] = 40.0
        losses[run.run_id] = kept(pd.DataFrame({"tokens": run.D * steps / 10_000, "loss": loss}))
        assert len(losses[run.run_id]) <= CURVE_POINTS
    for page in (curves(studied, losses), lowest(replace(studied, training_curves=None), losses)):
        traces = [t for t in page.figure.data if t.mode == "lines" and t.customdata]
        drawn = [point for t in traces for point in zip(t.customdata, t.y, strict=True)]
        assert {run for run, y in drawn if y == 40.0} == {run for run, _ in drawn} != set()


def test_the_report_has_a_page_a_figure_and_its_rows(studied, isolated):
    report.write(studied, isolated / "report")
    pages = {path.stem for path in (isolated / "report").glob("*.html")}
    assert pages == {"index", "runs", *catalogue.SLUGS}
    for slug in catalogue.SLUGS:
        rows = pd.read_csv(isolated / "report" / "data" / f"{slug}.csv")
        assert len(rows)
    for path in (isolated / "report").glob("*.html"):
        text = path.read_text()
        assert "cdn.plot.ly" not in text
        assert ('"showSendToCloud": false' in text) == (path.stem != "runs"), "it has no figure"


EVIL = '<img src=x onerror="alert(1)">', '<a href="javascript:alert(1)">run</a>', "<script>alert(1)</script>"
FIGURE_TAGS = {
    "<b>",
    "</b>",
    "<br>",
    "<extra>",
    "</extra>",
    "<sub>",
    "</sub>",
    "<sup>",
    "</sup>",
}  # what our own hover texts are marked up with


class Elements(HTMLParser):
    """The elements of a page: (tag, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def strings(value):
    """All strings inside a figure."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def outside():
    """A table whose runs, sizes and precisions are named by somebody else, one of them taken out by a rule."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    names = [f"{EVIL[i % 3]}{i}" for i in range(16)]
    table = pd.DataFrame({"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 400 / d**0.28, "name": names})
    return table.assign(size=[EVIL[i % 3] for i in range(16)], precision=[EVIL[i % 2] for i in range(16)])


def named(found):
    """The study under a name of the same kind."""
    return replace(found, runs=replace(found.runs, name=EVIL[0]))


@pytest.mark.soak
def test_names_from_outside_are_text_in_the_pages(isolated):
    found = named(api.fit(outside(), exclude=[f"{EVIL[0]}0"], bootstrap=10))
    assert any(EVIL[0] in note.message for note in found.notes), "a note names a run, or this shows nothing"
    report.write(found, isolated / "report")
    pages = {path.stem: path.read_text() for path in (isolated / "report").glob("*.html")}
    assert "&lt;img src=x" in pages["index"]
    for name, text in pages.items():
        elements = Elements(text).found
        assert not [tag for tag, _ in elements if tag in ("img", "iframe", "object")], name
        assert not [a for _, attributes in elements for a in attributes if a.startswith("on")], name
        links = [attributes.get("href", "") for tag, attributes in elements if tag == "a"]
        assert all(link.partition("#")[0].endswith((".html", ".csv", ".parquet")) for link in links), name
        assert "alert(1)</script>" not in text, name


def test_names_from_outside_are_text_in_the_figures(isolated, studied):
    """plotly reads a subset of HTML, links among it, in names, hover texts and annotations."""
    store = studied.everything.run_id.iloc[0]
    renamed = {name: getattr(studied, name).replace({store: EVIL[1]}) for name in ("everything", "table")}
    evals = studied.runs.evals.replace({store: EVIL[1], "rising": EVIL[1]})
    trends = [replace(t, task=EVIL[1]) if t.task == "rising" else t for t in studied.trends]
    losses = {EVIL[1]: pd.DataFrame({"tokens": [1, 2], "loss": [3.0, 2.0]})}
    parabolas = [
        replace(
            p,
            run_ids=[EVIL[1] if i == store else i for i in p.run_ids],
            far=[EVIL[1] if i == store else i for i in p.far],
        )
        for p in studied.minima.parabolas
    ]
    of_store = replace(
        studied,
        **renamed,
        runs=replace(studied.runs, evals=evals),
        trends=trends,
        minima=replace(studied.minima, parabolas=parabolas),
    )
    pages = [*catalogue.pages(of_store, losses), *catalogue.pages(named(api.fit(outside(), bootstrap=10)))]
    assert {page.slug for page in pages} == set(catalogue.SLUGS)
    shown = [text for page in pages for text in strings(page.figure.to_plotly_json())]
    assert sum("javascript:alert" in text for text in shown) > 10, "the names are in the figures"
    for text in shown:
        assert set(re.findall("<[^>]*>", text)) <= FIGURE_TAGS, text


@pytest.mark.parametrize("keep", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_a_report_of_few_runs_says_what_is_missing(isolated, keep):
    root = isolated / "root"
    for run_id in make_store(root, evals=False)[keep:]:
        (RunDir(root, run_id).path / "result.json").unlink()
    few = api.fit(root, bootstrap=10)
    report.write(few, isolated / "report")
    assert "too few runs" in (isolated / "report" / "index.html").read_text()


def test_a_figure_on_linear_axes_keeps_its_labels_at_their_points(studied):
    page = frontier(studied)
    found = linear(page).figure
    assert found.layout.xaxis.type == found.layout.yaxis.type == "linear"
    assert page.figure.layout.xaxis.type == "log", "the page that was given is as before"
    assert [list(t.y) for t in found.data] == [list(t.y) for t in page.figure.data]
    (label,) = [a for a in found.layout.annotations if f"{studied.predictions[0].loss:.2f}" in a.text]
    assert label.x == pytest.approx(studied.predictions[0].compute)
    assert label.yanchor == "top"
    lines = [float(np.interp(label.x, t.x, t.y)) for t in found.data if t.mode == "lines" and t.fill is None]
    bands = [y for t in found.data if t.fill == "toself" for x, y in zip(t.x, t.y, strict=True) if x == max(t.x)]
    assert lines
    assert bands
    lowest = min(*lines, *bands, studied.predictions[0].interval_new_run[0])
    assert label.y == pytest.approx(lowest), "words stand below all lines that come by"


def test_the_name_of_the_law_stands_between_budgets(studied):
    (name,) = [a for a in frontier(studied).figure.layout.annotations if "L ~ C" in a.text]
    assert np.abs(name.x - np.log10(studied.everything.C)).min() > 0.2


@pytest.mark.parametrize(
    ("top", "most"), [(1e6, 3), (1.2e6, 3), (5e6, 5), (1e7, 3), (4e7, 5), (9e7, 6), (2e8, 7), (5e8, 8), (1e9, None)]
)
def test_an_axis_of_few_decades_has_no_label_a_digit(top, most):
    """Plotly's own are 2 to 9; it takes 2s and 5s alone where a label has 0.3 decades, and powers alone from 0.7 on."""
    axis = style.axes(go.Figure(go.Scatter(x=[1e6, top], y=[1, 2])), "N", style.LOSS).layout.xaxis
    assert axis.nticks == most
    if top > 2e6:
        assert axis.exponentformat == ("B" if top < 1e7 else "power"), "4M, and no 0.4 x 10^7"
    assert top < 1e7 or most is None or 0.3 < np.log10(top / 1e6) / most < 0.7


@pytest.mark.parametrize(
    ("low", "high", "written"), [(2.8, 4.1, ".1f"), (2.9755, 2.9771, ".4f"), (0.5, 20.0, ".4~f"), (2.0, 4e7, ".3~g")]
)
def test_labels_of_losses_have_as_many_digits_each(low, high, written):
    """No 4 among 3.8 and 4.2."""
    assert style.tick_format(style.loss_ticks(low, high)) == written


def test_panels_over_one_another_have_one_grid():
    figure = panelled(2)
    figure.add_scatter(x=[1e3, 1.1e6], y=[2.2, 3.4], row=1, col=1)
    figure.add_scatter(x=[1e4, 1e5], y=[0.1, 0.2], row=2, col=1)
    arrange(figure, [Panel(x="N", y=style.LOSS, log_y=True), strip("N")])
    above, below = figure.select_xaxes()
    assert above.nticks == below.nticks is None, "of three decades, though the strip has one"
