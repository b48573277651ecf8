"""Figures of the laws show what the study says, and say so where it says nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.interpolate import RegularGridInterpolator

from analysis.estimation.approaches import Advice
from analysis.estimation.isoflop import Minima
from analysis.laws import allocation
from analysis.output import documents
from analysis.reference.tables import gpt3_models, reference
from dashboards.figures import catalogue, drawing, published, style
from dashboards.figures.backtest import backtest
from dashboards.figures.clouds import clouds, ellipse
from dashboards.figures.contours import contours
from dashboards.figures.drawing import Panel, arrange, panelled
from dashboards.figures.frontier import frontier
from dashboards.figures.influence import MOST, influence
from dashboards.figures.isoflop import isoflop
from dashboards.figures.published import beside_published
from dashboards.figures.style import LOSS, loss_ticks
from dashboards.figures.triptych import triptych
from gpt3core.errors import UsageError

pytestmark = pytest.mark.xdist_group("study")


def named(page, name, row=None):
    """The one trace of a name, in a panel."""
    axis = None if row is None else f"y{row if row > 1 else ''}"
    (found,) = [t for t in page.figure.data if t.name == name and axis in (None, t.yaxis)]
    return found


def panel(page, row):
    """The traces of a panel."""
    return [t for t in page.figure.data if t.yaxis == f"y{row if row > 1 else ''}"]


def labels(page):
    return [str(a.text) for a in page.figure.layout.annotations]


@pytest.mark.parametrize(
    ("variable", "law", "row"), [("N", "kaplan_n", 1), ("D", "kaplan_d", 3), ("C", "compute_frontier", 5)]
)
def test_the_triptych_has_the_studys_laws_their_bands_and_residuals(studied, variable, law, row):
    page, fitted = triptych(studied), studied.laws[law]
    line = named(page, f"L({variable})")
    assert np.array(line.y) == pytest.approx(fitted.fit.predict({variable: np.array(line.x)}))
    exponent = fitted.fit.params[f"alpha_{variable}"]
    slope = np.diff(np.log(line.y)) / np.diff(np.log(line.x))
    assert slope == pytest.approx(-exponent), "a power law"
    assert any(f"{variable}<sup>−{exponent:.3f}</sup>" in text for text in labels(page))
    (area,) = [t for t in panel(page, row) if t.fill == "toself"]
    x, half = np.array(area.x), len(area.x) // 2
    drawn = np.exp(fitted.fit.law.on({variable: x[:half]})(fitted.draws)[0])
    assert np.array(area.y[:half]) == pytest.approx(np.quantile(drawn, 0.975, axis=0))
    points, (left,) = named(page, f"fitted by L({variable})"), panel(page, row + 1)
    by_law = fitted.fit.predict({variable: np.array(points.x)})
    assert np.array(left.y) == pytest.approx(100 * (np.array(points.y) / by_law - 1))
    assert len(points.x) == fitted.fit.runs


def test_the_triptych_hands_out_its_lines_and_all_of_its_points(studied):
    page = triptych(studied)
    for row, variable in ((1, "N"), (3, "D"), (5, "C")):
        known = set(page.rows[[variable, "loss"]].itertuples(index=False, name=None))
        drawn = [t for t in panel(page, row) if t.fill is None and t.x is not None]
        assert {t.name for t in drawn} >= {"runs", f"L({variable})", f"fitted by L({variable})"}
        for trace in drawn:
            assert set(zip(trace.x, trace.y, strict=True)) <= known, (variable, trace.name)


def test_what_the_triptych_rings_no_smaller_run_beats(studied):
    points = named(triptych(studied), "fitted by L(N)")
    for n, loss in zip(points.x, points.y, strict=True):
        smaller = studied.table[studied.table.N <= n].loss
        assert loss == smaller.min()


def test_sizes_and_tokens_that_are_best_stand_under_the_profiles(studied):
    page = isoflop(studied)
    used = studied.minima.used
    for row, variable, star in ((3, "N", "n_star"), (4, "D", "d_star")):
        assert list(named(page, f"{variable}* of a budget", row).y) == [getattr(p, star) for p in used]
        (best,) = [p for p in studied.predictions if p.optimal]
        predicted = named(page, f"predicted {variable}*", row)
        assert (predicted.x[0], predicted.y[0]) == pytest.approx((best.compute, best.n if variable == "N" else best.d))
        low, high = best.interval_n if variable == "N" else best.interval_d
        assert predicted.error_y.array[0] == pytest.approx(high - predicted.y[0])
        line = named(page, "approach 2", row)
        assert line.y[-1] == pytest.approx(predicted.y[0]), "the line leads to the prediction"
        ends = [t for t in panel(page, row) if t.fill == "toself" and max(t.x) == line.x[-1]]
        assert any([min(e.y[n := len(e.x) // 2 - 1], e.y[n + 1]), e.y[n]] == pytest.approx([low, high]) for e in ends)
    assert any(f"approach 2: C<sup>{studied.minima.exponent:.2f}</sup>" in text for text in labels(page))


def test_where_compute_is_6nd_approach_3_is_the_closed_form(studied):
    """Hoffmann et al. 2022, equation 4."""
    exact = {name: getattr(studied, name).eval("C = 6 * N * D") for name in ("table", "everything")}
    found = replace(studied, **exact)
    page, params = isoflop(found), studied.laws["chinchilla"].fit.params
    for row, closed in enumerate(allocation(params, np.array(named(page, "approach 3", 3).x)), start=3):
        assert np.array(named(page, "approach 3", row).y) == pytest.approx(closed, rel=2e-3)
    line = named(contours(found), "efficient frontier")
    assert np.array(line.y) == pytest.approx(allocation(params, np.array(line.x))[0], rel=2e-3)


def test_the_strip_under_the_profiles_is_what_the_parabolas_leave(studied):
    left = [t for t in panel(isoflop(studied), 2) if t.mode == "markers"]
    shown = np.concatenate([np.array(t.y) for t in left])
    assert shown == pytest.approx(100 * np.expm1(np.concatenate([p.residuals for p in studied.minima.parabolas])))


def test_lines_of_equal_loss_are_of_the_law_and_the_frontier_is_their_lowest_along_a_compute(studied):
    page, joint = contours(studied), studied.laws["chinchilla"].fit
    surface = named(page, "loss by L(N,D)")
    ln_c, ln_n, ln_z = np.log(surface.x), np.log(surface.y), np.log(surface.z)
    at = np.log(studied.table[["N", "C"]].to_numpy(float))
    said = RegularGridInterpolator((ln_n, ln_c), ln_z)(at)
    by_law = joint.predict({name: studied.table[name].to_numpy(float) for name in ("N", "D")})
    assert said == pytest.approx(np.log(by_law), abs=5e-3), "where a run lies, the loss of its own N and D"
    assert surface.contours.start <= studied.table.loss.max()
    line = named(page, "efficient frontier")
    column = int(np.argmin(np.abs(ln_c - np.log(line.x[3]))))
    assert np.log(line.y[3]) == pytest.approx(ln_n[ln_z[:, column].argmin()], abs=np.diff(ln_n)[0])
    runs = named(page, "runs")
    assert sorted(runs.marker.color) == sorted(studied.table.loss)
    assert (runs.marker.cmin, runs.marker.cmax) == (surface.zmin, surface.zmax), "one scale for lines and runs"
    of_runs, of_line = (page.rows[page.rows.what == what] for what in ("run", "efficient frontier"))
    assert of_runs.residual_percent.tolist() == pytest.approx(list(100 * (of_runs.loss / of_runs.fitted - 1)))
    assert (list(of_line.C), list(of_line.N)) == (list(line.x), list(line.y))


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.06), (2.2, 3.4), (1.7, 9.8), (2.9755, 2.9771)])
def test_an_axis_of_losses_has_a_few_round_labels(low, high):
    ticks = loss_ticks(low, high)
    assert 3 <= len(ticks) <= 12
    assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])
    assert f"{ticks[1] - ticks[0]:.0e}"[0] in "125"
    assert ticks[0] <= low and high <= ticks[-1]


def test_runs_that_are_nearly_alike_have_labels_and_a_panel_without_points_takes_no_room():
    """As of a sweep that has begun: two runs of one budget."""
    runs = go.Scatter(x=[1.00003e14, 1.0001e14], y=[2.9755, 2.9771])
    figure = style.axes(go.Figure(runs), "C", LOSS, log_y=True).layout
    assert figure.xaxis.range[1] - figure.xaxis.range[0] == pytest.approx(0.6, abs=0.01), "not 1.00003 to 1.0001"
    assert sum(2.9755 <= tick <= 2.9771 for tick in figure.yaxis.tickvals) > 2
    assert loss_ticks(2.97551, 2.97551) == [2.9755]
    arranged = panelled(3)
    arranged.add_trace(runs, row=1, col=1)
    arranged.add_scatter(x=[1.0, 2.0], y=[1.0, 2.0], row=3, col=1)
    arrange(arranged, [Panel(x="C", y=LOSS, log_y=True), drawing.strip("C"), Panel(x="a", y="b", log_x=False)])
    first, strip, _ = arranged.select_xaxes()
    assert (first.title.text, first.showticklabels, strip.visible) == ("C", True, False)
    above, _, below = (axis.domain for axis in arranged.select_yaxes())
    assert (above[0] - below[1]) * (arranged.layout.height - drawing.TOP - drawing.BOTTOM) < drawing.GAP + 20


@pytest.mark.parametrize("top", [4e2, 1e5, 4e7, 1e30, np.inf])
def test_losses_of_a_run_that_diverged_have_the_ticks_of_decades(top):
    """Steps of ten thousand from zero on would leave the losses that count without a label, and infinity has none."""
    figure = style.axes(go.Figure(go.Scatter(x=[1, 2, 3], y=[2.0, 3.0, top])), "C", LOSS, log_y=True)
    arranged = panelled(1)
    arranged.add_scatter(x=[1, 2, 3], y=[2.0, 3.0, top], row=1, col=1)
    arrange(arranged, [Panel(x="C", y=LOSS, log_y=True)])
    ticks = list(figure.layout.yaxis.tickvals)
    assert ticks == list(arranged.layout.yaxis.tickvals), "one rule for both"
    assert 3 <= len(ticks) <= 20
    assert 0 < ticks[0] <= 2


def test_sizes_within_a_decade_have_the_labels_of_sizes():
    """Steps of two from 1e8 to 1e9 would be five hundred million labels."""
    figure = panelled(2)
    for row, y in ((1, [1e8, 1e9]), (2, [2.2, 3.4])):
        figure.add_scatter(x=[1, 2], y=y, row=row, col=1)
    arrange(figure, [Panel(x="C", y="N*, parameters", log_y=True), Panel(x="C", y=LOSS, log_y=True)])
    assert [None if axis.tickvals is None else len(axis.tickvals) for axis in figure.select_yaxes()] == [None, 8]


def test_an_ellipse_of_a_gaussian_cloud_is_the_closed_form():
    """95% of a Gaussian lie within 2.448 standard deviations (chi-squared, two degrees of freedom)."""
    covariance = np.array([[4.0, 1.2], [1.2, 1.0]])
    draws = np.random.default_rng(0).multivariate_normal([3.0, -1.0], covariance, 40_000)
    found = ellipse(draws)
    assert found.radius == pytest.approx(2.4477, rel=0.02)
    assert found.factor @ found.factor.T == pytest.approx(covariance, rel=0.03)
    away = np.linalg.solve(found.factor, (found.outline - found.centre).T)
    assert np.hypot(*away) == pytest.approx(found.radius)
    assert ellipse(np.stack([draws[:, 0], draws[:, 0]], 1)) is None


def test_clouds_are_the_studys_draws(studied):
    page, joint = clouds(studied), studied.laws["chinchilla"]
    cloud = named(page, "by run")
    assert list(cloud.x) == list(joint.published["alpha"])
    assert list(cloud.y) == list(joint.published["beta"])
    assert {f"by {by}" for by in joint.by_cluster} <= {t.name for t in page.figure.data}
    document = documents.to_json(studied)["laws"]
    for name, entry in (
        ("approach 2", document["n_star"]["interval95"]["a"]),
        ("approach 3", document["chinchilla"]["optimum"]["interval95_a"]),
    ):
        assert list(named(page, f"95% of {name}").x) == pytest.approx(entry)


def test_backtests_show_every_prediction_and_the_coverage_that_the_tables_print(studied):
    page = backtest(studied)
    points = named(page, "predictions")
    told = [row for row in documents.to_json(studied)["backtest"] if row["predicted"] is not None]
    assert sorted(points.x) == pytest.approx(sorted(row["predicted"] for row in told))
    assert sorted(points.y) == pytest.approx(sorted(row["measured"] for row in told))
    printed, best = studied.coverage, studied.weighting is studied.ensemble.at_optimum
    inside = (printed.coverage95 * printed.tests).sum() / printed.tests.sum()
    assert page.summary.inside95[page.summary.optimal == best].mean() == pytest.approx(inside)
    assert f" and {inside:.0%} of the {'minima' if best else 'runs'} (" in page.about
    runs = page.summary[~page.summary.optimal]
    middle = np.expm1(runs.miss.abs()).median()
    assert f"{len(runs)} runs: median miss {middle:.2%}" in page.about, "minima are judged by themselves"
    assert [symbol.endswith("x") for symbol in points.marker.symbol] == list(~page.summary.inside95)
    assert [symbol.startswith("diamond") for symbol in points.marker.symbol] == list(page.summary.optimal)


def test_one_cut_of_the_backtests_can_be_seen_alone(studied):
    rows = studied.judged
    cut = rows.fitted_to.max()
    page = backtest(studied, rows[rows.fitted_to == cut])
    assert set(page.summary.fitted_to) == {cut}
    assert (page.summary.C > cut).all()


def test_no_prediction_without_an_interval_counts_as_inside_one(studied):
    """A cut alone of its kind is calibrated by no other: it is told apart, and the others are still judged."""
    rows = studied.judged.copy()
    cut = rows.fitted_to == rows.fitted_to.max()
    rows.loc[cut, ["half80", "half95"]] = np.inf
    page = backtest(studied, rows)
    assert page.summary.inside95[cut].isna().all()
    others = rows[~cut]
    assert list(page.summary.inside95[~cut]) == list(others.miss.abs() <= others.half95)
    assert f"{cut.sum()} have no interval, for no other cut could calibrate it" in page.about
    best = others.optimal.to_numpy(bool)
    share = (others.miss.abs() <= others.half95)[~best].mean()
    assert f" and {share:.0%} of the runs (circles)" in page.about
    crossed = [symbol.endswith("x") for symbol in named(page, "predictions").marker.symbol]
    assert not any(np.array(crossed)[cut])
    assert "no intervals to test" in backtest(studied, rows[cut]).about


def test_influences_are_listed_by_what_they_move(studied):
    page = influence(studied)
    assert len(page.rows) == len(studied.influences)
    shown = {}
    for trace in panel(page, 1):
        if trace.mode == "markers":
            shown |= dict(zip(trace.y, trace.x, strict=True))
    assert shown == {k: pytest.approx(100 * i.loss_change) for k, i in enumerate(studied.influences[:MOST])}
    axis, first = page.figure.layout.yaxis, studied.influences[0]
    assert axis.range[0] > axis.range[1], "the largest is on top"
    odd = replace(studied, influences=[replace(studied.influences[0], left_out="C about 3.16e12", kind="budget")])
    assert influence(odd).figure.layout.yaxis.ticktext[0] == style.printed("C about 3.16e12"), "as of a table"
    runs = [(k, i.left_out) for k, i in enumerate(studied.influences[:MOST]) if i.kind == "run"]
    assert all(axis.ticktext[k] == name for k, name in runs)
    assert f"{100 * first.loss_change:+.2f}%" in page.about


def test_published_results_lie_where_their_papers_have_them(studied):
    page = beside_published(studied)
    gpt3, sizes = named(page, "GPT-3"), named(page, "GPT-3's sizes, by its law")
    assert sizes.x[-1] == 3.14e23  # table D.1
    assert sizes.y[-1] == pytest.approx(1.734, abs=1e-3)
    assert np.interp(8.64e19, gpt3.x, gpt3.y) == pytest.approx(2.57, rel=2e-3), "at one PF-day, in FLOPs"
    kaplan = named(page, "Kaplan et al.")
    assert np.interp(np.log(8.64e19), np.log(kaplan.x), kaplan.y) == pytest.approx(3.1e8**0.050, rel=1e-3)
    assert sorted(named(page, "Chinchilla").y) == sorted(reference("hoffmann2022_runs_234.csv").loss)
    assert "slopes compare, levels do not" in page.about
    assert page.rows.source.value_counts()["Chinchilla"] == 234
    assert list(page.rows.C[page.rows.source == sizes.name]) == list(sizes.x)
    assert (page.rows.source == studied.runs.name).sum() == len(frontier(studied).rows)
    assert [t.name for t in frontier(studied).figure.data if t.name in ("GPT-3", "Kaplan et al.")] == []
    (predicted,) = [note for note in page.figure.layout.annotations if " at 10" in note.text]
    assert (predicted.xref, predicted.xanchor) == ("x domain", "left"), "left of its point it would leave a phone"
    with pytest.raises(UsageError, match=r"published=kapan.*kaplan"):
        published.over(frontier(studied), studied, ("kapan",))


def losses(study, steps):
    """A curve a run."""
    ends = zip(study.everything.run_id, study.everything.D, strict=True)
    return {
        i: pd.DataFrame({"tokens": np.linspace(d / steps, d, steps), "loss": np.linspace(9, 3, steps)}) for i, d in ends
    }


def test_published_results_are_laid_over_every_panel_of_which_they_have_both_quantities(studied):
    runs, models = reference("hoffmann2022_runs_234.csv"), gpt3_models()
    models = models.rename(columns={"params": "N", "train_tokens": "D", "train_flops": "C"})
    seen = 0
    for page in catalogue.pages(studied, losses(studied, 20)):
        over, axes = published.over(page, studied), page.figure.layout
        if page.slug == published.SLUG:
            assert over is page, "once"
            continue
        assert (published.NOTHING in over.about) == (not any(page.panels)), page.slug
        for row, panel_of in enumerate(page.panels, start=1):
            axis = str(row) if row > 1 else ""
            assert panel_of is None or {axes[f"{c}axis{axis}"].type for c in "xy"} == {"log"}, (page.slug, row)
            added = panel(over, row)[len(panel(page, row)) :]
            assert (panel_of is None) == (not added), (page.slug, row)
            for trace in added:
                table = {"Chinchilla": runs, published.OF_SIZES: models}.get(trace.name)
                for quantity, values in zip(panel_of or (), (trace.x, trace.y), strict=True):
                    if table is not None and quantity in table:
                        assert sorted(values) == sorted(table[quantity]), (page.slug, row, trace.name)
                        seen += 1
    assert seen > 20


def test_the_rows_are_what_is_drawn(studied):
    """Every point of a trace, in the columns of the figure's axes, is a row; of the IsoFLOP figure, of each panel."""
    drawn = frontier(studied)
    rows = {(row.C, row.loss) for row in drawn.rows.itertuples()}
    for trace in drawn.figure.data:
        if trace.mode in ("markers", "lines") and trace.fill is None and trace.x[0] is not None:
            assert set(zip(trace.x, trace.y, strict=True)) <= rows, trace.name
    (star,) = [row for row in drawn.rows.itertuples() if row.what == "prediction"][:1]
    assert [star.low95, star.high95] == studied.predictions[0].interval_new_run
    page = isoflop(studied)
    of_panels = {1: ("N", "loss"), 2: ("N", "residual_percent"), 3: ("C", "N"), 4: ("C", "D")}
    for row, columns in of_panels.items():
        known = set(page.rows[list(columns)].itertuples(index=False, name=None))
        for trace in panel(page, row):
            if trace.fill is None and trace.x is not None and len(trace.x):
                assert set(zip(trace.x, trace.y, strict=True)) <= known, (row, trace.name)


def test_a_study_with_nothing_has_its_scores_and_every_other_figure_says_so(studied):
    """As of runs that have scores alone."""
    empty = replace(
        studied,
        everything=studied.everything.assign(loss=np.nan),
        table=studied.table.assign(loss=np.nan),
        minima=Minima(parabolas=[]),
        implied=[],
        training_curves=None,
        advice=Advice(),
        laws={},
        ensemble=None,
        predictions=[],
        influences=[],
    )
    assert [page.slug for page in catalogue.pages(empty, {})] == [*catalogue.OF_SCORES, "compute"]
    pages = {slug: make(empty) for slug, make in catalogue.PAGES.items()}
    for slug in ("contours", "backtest", "influence"):
        assert pages[slug].about.startswith("Nothing to draw: "), slug
    assert "No cloud" in pages["clouds"].about
    assert "Nothing to draw: no law gives N* either" in pages["isoflop"].about
    assert "L(N) was not asked for" in pages["triptych"].about
