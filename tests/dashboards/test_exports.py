"""What a figure hands out: rows that are read back as they were, and the line of Python that draws it again."""

import errno
import gc
import io
import itertools
import os
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from pandas.testing import assert_frame_equal

from analysis import api
from analysis.output import documents
from analysis.settings import Fix, StudySettings
from dashboards import app, exports, live, one_run, pairs, plan, refit, report, watch
from dashboards.figures import catalogue, comparison
from dashboards.figures.backtest import backtest
from dashboards.figures.frontier import frontier
from dashboards.figures.plan import plan as plan_figure
from dashboards.figures.style import Page
from dashboards.pages import compare, laws, sweep
from dashboards.pages import plan as plan_page
from dashboards.security import Door
from gpt3core.errors import DiskFullError, StoreError
from gpt3core.store import files
from tests.browser.under_way import put_under_way

pytestmark = pytest.mark.xdist_group("study")
NOTHING = {"slug": "", "title": "", "about": "", "rows": pd.DataFrame()}


def read_csv(content):
    return pd.read_csv(io.BytesIO(content))


def test_rows_are_read_back_to_the_last_bit(studied):
    rows = frontier(studied).rows.reset_index(drop=True)
    assert_frame_equal(read_csv(exports.csv(rows)), rows, check_dtype=False, check_exact=True)
    assert_frame_equal(pd.read_parquet(io.BytesIO(exports.parquet(rows))), rows, check_dtype=False, check_exact=True)


def test_whatever_a_table_holds_is_written():
    values = [1e-320, 1 / 3, 1e300, np.nan, 123456789.125]
    rows = pd.DataFrame({"x": values, "name": ['a,"b"\nc', "=1+1", None, "ü", ""], "seed": [1, "1b", None, 2, 3]})
    rows["nested"] = [[1, 2], [], None, [3], [4]]
    back = read_csv(exports.csv(rows))
    assert back.x.tolist()[:3] + back.x.tolist()[4:] == values[:3] + values[4:]
    assert back.name[0] == 'a,"b"\nc'
    assert pd.read_parquet(io.BytesIO(exports.parquet(rows))).seed.tolist()[:2] == ["1", "1b"]
    assert exports.csv(pd.DataFrame({"a": []})).decode().strip() == '"a"'


def test_a_folder_that_cannot_be_written_is_named_by_its_key(studied, tmp_path):
    (tmp_path / "file").touch()
    for there in (tmp_path / "file" / "report", Path("/proc")):  # which even root may not write
        for write in (report.write, documents.write):
            with pytest.raises(StoreError, match="name a writable folder by out="):
                write(studied, there)


def test_a_full_disk_is_said_by_the_key_that_names_its_folder(studied, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (report.write, documents.write):
        with pytest.raises(DiskFullError, match=r"free space there or set out= to another disk, and start again$"):
            write(studied, tmp_path / "out")


def test_a_report_that_is_interrupted_leaves_the_one_before_and_one_that_ends_nothing_of_it(
    studied, tmp_path, monkeypatch
):
    pages = [Page(figure=go.Figure(), **{**NOTHING, "slug": slug}) for slug in ("one", "two")]
    monkeypatch.setattr(report, "_pages", lambda _: pages)
    report.write(studied, tmp_path)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    pages[:] = [Page(figure=go.Figure(), **{**NOTHING, "slug": slug, "title": "new"}) for slug in ("two", "three")]
    written = files.write_bytes
    for last in range(8):
        left = iter(range(last))

        def interrupted(path, data, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            written(path, data)

        monkeypatch.setattr(files, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            report.write(studied, tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == whole
    monkeypatch.setattr(files, "write_bytes", written)
    (tmp_path / "data" / "mine.parquet").touch()
    report.write(studied, tmp_path)
    assert {path.stem for path in tmp_path.rglob("*.html")} == {"index", "runs", "two", "three"}
    assert {path.stem for path in (tmp_path / "data").iterdir()} == {"two", "three", "mine"}, "a reader's own stays"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_figure_is_fetched_by_its_key_and_no_other(studied):
    following = live.Live(StudySettings(runs="nowhere"))
    browser = app.build(following, Door()).server.test_client()
    page = frontier(studied)
    key = following.shelf.put(page)
    assert following.shelf.put(page) == key
    answer = browser.get(f"/export/{key}.csv")
    assert answer.headers["Content-Disposition"] == "attachment; filename=frontier.csv"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert len(read_csv(answer.data)) == len(page.rows)
    for name in ("other.csv", f"{key}.pkl"):
        assert browser.get(f"/export/{name}").status_code == 410, name


def test_a_figure_drawn_again_and_again_pushes_out_its_own_kind_alone_and_the_one_asked_for_stays(monkeypatch):
    shelf, monitored = exports.Shelf(), [made("curve") for _ in range(6)]
    monkeypatch.setattr(exports, "MOST_KEPT", 3)
    other, first, second = (shelf.put(page) for page in (made("frontier"), *monitored[:2]))
    for page in monitored[2:4]:
        assert shelf.get(first).rows is monitored[0].rows
        shelf.put(page)
    monitored[1] = None  # while somebody shows it, it stays
    assert shelf.get(second) is None
    assert shelf.get(first).rows is monitored[0].rows
    for page in monitored[4:]:
        shelf.put(page)
    assert shelf.get(other) is not None


def test_links_of_figures_of_ten_thousand_runs_stay_while_fits_have_them():
    shelf, rows = exports.Shelf(), pd.DataFrame({"x": range(10_000)})
    shown = [replace(made("contours"), rows=rows.copy()) for _ in range(10)]
    keys = [shelf.put(page) for page in shown]
    assert [shelf.get(key).rows is page.rows for key, page in zip(keys, shown, strict=True)] == [True] * 10
    assert [shelf.put(page) for page in shown] == keys
    del shown[:]
    assert [shelf.get(key) is not None for key in keys] == [*[False] * 7, *[True] * 3], "and else the last ones"


def test_large_figures_that_are_drawn_anew_for_hours_do_not_pile_up():
    shelf = exports.Shelf()
    small = Page(slug="spending", title="", about="", figure=go.Figure(), rows=pd.DataFrame({"x": range(3)}))
    other = shelf.put(small)
    keys = [shelf.put(replace(made("timeline"), rows=pd.DataFrame({"x": range(60_000)}))) for _ in range(9)]
    assert [shelf.get(key) is not None for key in keys] == [*[False] * 7, *[True] * 2]
    assert shelf.get(other).rows is small.rows


def test_of_a_figure_that_is_shown_no_more_only_its_rows_are_kept():
    shelf, page = exports.Shelf(), made("timeline")
    key, drawn = shelf.put(page), weakref.ref(page.figure)
    del page
    gc.collect()
    assert shelf.get(key) is not None
    assert drawn() is None


def made(slug):
    return Page(slug=slug, title=slug, about="", figure=go.Figure(), rows=pd.DataFrame())


def run(code):
    """The value of a line of Python that a page hands out, run as a reader would."""
    *statements, expression = code.split("; ")
    names: dict = {}
    exec("; ".join(statements), names)  # noqa: S102
    return eval(expression, names).to_json()  # noqa: S307


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, marks=pytest.mark.soak),
        {"N": "total", "exclude": ["x"], "fix": Fix(a=0.5), "target_compute": [1e14]},
    ],
)
def test_the_line_of_python_draws_the_figure(studied, monkeypatch, changed):
    given, asked = StudySettings(runs="/a store", **changed), []
    monkeypatch.setattr(api, "study", lambda settings: (asked.append(settings), studied)[1:])
    assert run(exports.code(given, "frontier")) == frontier(studied).figure.to_json()
    assert asked == [given]


def test_what_the_page_of_laws_hands_out_draws_its_figures(studied, monkeypatch):
    """On the axes that were chosen, and of the cut that was."""
    given, handed = StudySettings(runs="/a store"), []
    monkeypatch.setattr(api, "study", lambda settings: (studied, None))
    monkeypatch.setattr(catalogue, "page", lambda study, slug: {"frontier": frontier}[slug](study))
    monkeypatch.setattr(laws.gallery, "draw", lambda live, name, page, version, was, code=None, **_: (page, code))
    fit = refit.Fit(asked=given, study=studied, pages=[], answer=[])
    for looks in itertools.product(laws.AXES, laws.BESIDE):
        page, code = laws._drawn(
            laws.Desk(live.Live(given)), laws.FIGURE, fit, frontier(studied), [None, *looks], None, None
        )
        assert run(code) == page.figure.to_json(), looks
        handed.append(code)
    assert handed[0] != handed[1]
    cut = fit.cuts[1]
    assert run(laws._code(fit, cut)) == backtest(studied, rows=cut.rows).figure.to_json()


def test_what_the_page_of_a_sweep_hands_out_draws_its_figures(simulated, tmp_path, monkeypatch):
    """With the colours of its sizes; frozen, for what goes on is drawn up to now."""
    root, now = shutil.copytree(simulated, tmp_path / "root"), time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    put_under_way(root)
    following = live.Live(StudySettings(runs=str(root)))
    past = watch.Watch(root).past("laptop")
    for name in sweep.FIGURES:
        assert run(sweep._code(following, "laptop", name)) == sweep._page(past, name).figure.to_json(), name


def test_what_the_page_of_a_run_hands_out_draws_its_curve(simulated):
    run_id = next((simulated / "runs").iterdir()).name
    page = one_run.curve(simulated, run_id)
    assert page is not None
    assert run(one_run.code(simulated, run_id)) == page.figure.to_json()


def test_what_the_pages_of_plan_and_of_compare_hand_out_draws_their_figures(studied, monkeypatch):
    given = StudySettings(runs="t.csv")
    monkeypatch.setattr(api, "study", lambda settings: (studied, None))
    following = live.Live(given)
    known = plan.outlook(studied)
    drawn = plan_figure(studied, known.along, plan.at(known, 1e14)).figure
    assert run(plan_page._code(following, 1e14)) == drawn.to_json()
    monkeypatch.setattr(pairs, "compare", lambda asked: [(asked.by, asked.arms)])
    monkeypatch.setattr(
        comparison, "frontiers", lambda *found: Page(**NOTHING, figure=go.Figure(layout={"meta": found}))
    )
    monkeypatch.setattr(
        comparison, "multipliers", lambda found: Page(**NOTHING, figure=go.Figure(layout={"meta": found}))
    )
    assert run(compare._code(following, [1, "text", "web", "books"], "frontiers"))
    assert run(compare._code(following, [1, "text", "web", "books"], "multipliers"))


def test_a_figure_that_is_none_is_one_sentence(studied):
    with pytest.raises(ValueError, match="'frontire' is no figure of laptop: there are frontier, "):
        catalogue.page(studied, "frontire")
