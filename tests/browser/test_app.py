"""The app in a real browser: it draws, stays on loopback, keeps its state in the address, and hands out its rows.

One server and one browser for all of it: the first test sees the app start and a result arrive.
"""

import socket
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from analysis.output import evidence
from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.pages import answer, shell
from dashboards.security import Door
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store
from tests.browser.conftest import still, until
from tests.browser.test_report import CHROMIUM

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A live app over a store, whose first run's result comes later."""
    root = tmp_path_factory.mktemp("app") / "root"
    ids = make_store(root)
    late = RunDir(root, ids[0]).path / "result.json"
    content = late.read_bytes()
    late.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "POLL_SECONDS", 0.5)
        patch.setattr(shell, "TICK_SECONDS", 0.5)
        following = live.Live(StudySettings(runs=str(root), bootstrap=10), apart=True)
        server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(
            address=f"http://127.0.0.1:{server.port}",
            live=following,
            count=len(ids),
            arrive=lambda: late.write_bytes(content),
        )
        server.shutdown()


A_RUN = """(() => {
  const plot = document.querySelector("#laws-figure .js-plotly-plot"), { xaxis, yaxis } = plot._fullLayout;
  const run = plot._fullData.find(t => (t.customdata || []).length && t.xaxis === "x"), i = run.x.length >> 2;
  const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
  return [box.x + xaxis.d2p(run.x[i]), box.y + yaxis.d2p(run.y[i])];
})()"""  # where one is, in pixels

RANGE = """(() => {
  const { xaxis, yaxis } = document.querySelector(".js-plotly-plot")._fullLayout;
  return [xaxis.range, yaxis.range];
})()"""


@dataclass
class Heard:
    """What a page asked of the network, and what went wrong in it."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def opened(served, browser):
    """Opens pages; at the end none may have asked another host, offered an upload, or failed."""
    heard, pages = Heard(), []

    def on_message(message):
        if message.type == "error":
            heard.errors.append(message.text)

    def start(path="/", **options):
        page = browser.new_page(**options)
        page.on("request", lambda request: heard.asked.append(request.url))
        page.on("pageerror", lambda error: heard.errors.append(str(error)))
        page.on("console", on_message)
        page.goto(served.address + path)
        pages.append(page)
        return page

    yield start
    for page in pages:
        assert page.get_by_text("Share chart").count() == 0
        page.close()
    assert heard.errors == []
    assert [url for url in heard.asked if not url.startswith((served.address, "data:", "blob:"))] == []


@pytest.mark.soak
@needs_chromium
def test_it_answers_before_it_has_fitted_and_new_results_appear_by_themselves(served, opened):
    from playwright.sync_api import expect

    page = opened(viewport={"width": 1200, "height": 1800})
    page.get_by_text("starting").wait_for()
    served.live.follow()
    page.locator("#answer-picture .main-svg").first.wait_for()
    assert page.locator("dt").first.text_content() == "runs"
    assert f"of {served.count - 1} fitted" in page.locator("dd").first.text_content()
    page.get_by_text("IsoFLOP curves").click()
    page.get_by_text("One colour a budget").wait_for()
    assert page.locator("#answer-lines").count() == 0
    page.locator("#laws-figure .scatterlayer .points path").first.wait_for()
    for last in ("#laws-cut-said", "#laws-command"):
        page.locator(f"{last}:not(:empty)").wait_for()
    still(page, "laws-figure")
    _zoom(page)
    before, about = _range(page), page.locator("#laws-figure-about").text_content()
    served.arrive()
    page.get_by_text(f"{served.count} of {served.count} runs").wait_for()
    expect(page.locator("#laws-figure-about")).not_to_have_text(about, timeout=30_000)
    assert _range(page) == before, "a reader's zoom survives an update"


@pytest.mark.soak
@needs_chromium
def test_a_defect_is_a_warning_on_the_page_until_it_is_over(served, opened, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "_sentences", lambda *_: 1 / 0)
        page = opened("/?komputer=1")
        page.locator('#failed:has-text("ZeroDivisionError")').wait_for()
    page.locator("#failed:empty").wait_for(state="attached")
    assert "komputer" in page.locator("#unread").text_content(), "what else was said stays"
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1


@pytest.mark.soak
@needs_chromium
def test_every_page_opens_on_a_phone_at_night(served, opened):
    following(served)
    page = opened(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.paper_bgcolor") == "#141414"
    for each in shell.PAGES:
        page.get_by_role("navigation").get_by_role("link", name=each.TITLE, exact=True).click()
        page.locator(f'#nav [aria-current="page"]:has-text("{each.TITLE}")').wait_for()
        assert page.locator("main").text_content(), each.PATH
        assert page.locator("[data-title*='loud'], [data-title*='Share']").count() == 0, each.PATH
        page.wait_for_timeout(300)  # in which a figure would have been drawn
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{each.PATH} runs off the page"
    page.goto(f"{served.address}/nowhere")
    page.get_by_text("There is no such page").wait_for()


@pytest.mark.soak
@needs_chromium
def test_a_choice_before_the_page_has_answered_ends_what_was_said_of_its_address(served, opened):
    from playwright.sync_api import expect

    following(served)
    held, free = [], threading.Event()
    page = opened("/")
    page.route("**/_dash-update-component?*", lambda route: _hold(route, held, free))
    page.goto(f"{served.address}/laws?figure=isoflop&nonsense=1")
    page.get_by_text("this page has no such value").wait_for()
    page.get_by_text("Residuals of").click()
    expect(page.locator("#page .tabs").first.get_by_role("radio", checked=True)).to_have_value("residuals")
    while not held:  # the address is written after what the page fills in by itself
        page.wait_for_timeout(50)
    free.set()
    while held:
        held.pop().continue_()
    page.wait_for_url("**/laws?figure=residuals*")
    expect(page.locator("#unread")).to_be_empty()


@pytest.mark.soak
@needs_chromium
def test_an_address_shows_what_its_sender_saw(served, opened):
    from playwright.sync_api import expect

    following(served)
    page = opened("/laws?figure=isoflop&nonsense=1")
    page.get_by_text("Not taken from the address: nonsense: this page has no such value.").wait_for()
    page.get_by_text("One colour a budget").wait_for()
    page.get_by_text("Residuals of").click()
    page.wait_for_url("**/laws?figure=residuals*")
    expect(page.locator("#unread")).to_be_empty()  # said until the reader chooses
    page.locator("#laws-figure-about", has_text="Patterns here are misfit").wait_for()
    other = opened(page.url.removeprefix(served.address))
    other.locator("#laws-figure-about", has_text="Patterns here are misfit").wait_for()
    assert _checked(other) == "residuals"
    page.get_by_role("link", name="Few-shot", exact=True).click()
    page.get_by_text("standard errors of the questions").wait_for()
    assert page.url == f"{served.address}/fewshot", "what is as by default is left out"
    page.go_back()
    page.locator("#laws-figure-about", has_text="Patterns here are misfit").wait_for()
    page.goto(f"{served.address}/laws?figure=<script>&axes=cubic")
    page.get_by_text("Each point a run").wait_for()
    page.get_by_text("axes=cubic: allowed are drawn, linear; drawn is taken").wait_for()
    page.wait_for_timeout(1000 * 2 * shell.TICK_SECONDS)
    assert "figure=<script>: allowed are frontier, " in page.locator("#unread").text_content(), "it outlives the clock"


@pytest.mark.soak
@needs_chromium
def test_a_number_leads_to_the_runs_that_it_rests_on(served, opened):
    from playwright.sync_api import expect

    following(served)
    study, page = served.live.view.study, opened("/")
    law = page.locator("#answer-lines dd", has_text="L(N,D)").locator("a.behind").first
    law.wait_for()
    rested = evidence.of_law(study, study.laws["chinchilla"])
    law.click()
    page.wait_for_url("**/runs?filter=run_id**")
    count = f"{len(rested)} of {served.count} runs" if len(rested) < served.count else f"{served.count} runs"
    expect(page.locator("#runs-count")).to_contain_text(f"{count}. ")
    page.go_back()
    expect(page.locator("#answer-next")).to_contain_text("python -m analysis.design runs=")


@needs_chromium
def test_a_figure_hands_out_its_rows_and_itself(served, opened, tmp_path):
    following(served)
    page = opened("/laws?figure=residuals", color_scheme="dark")
    exports = page.locator("#laws-figure-exports")
    page.locator("#laws-figure-about", has_text="rows behind it").wait_for()
    (rows,) = [made.rows for made in served.live.view.pages if made.slug == "residuals"]
    read = {"CSV": pd.read_csv, "Parquet": pd.read_parquet}
    for kind in read:
        with page.expect_download() as download:
            exports.get_by_role("link", name=kind).click()
        path = tmp_path / kind
        download.value.save_as(path)
        assert_frame_equal(read[kind](path), rows.reset_index(drop=True), check_dtype=False, check_exact=True)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    for kind, begins in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            exports.get_by_role("button", name=kind).click()
        assert download.value.suggested_filename == f"residuals.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
        content = (tmp_path / kind).read_bytes()
        assert content.startswith(begins)
        assert b"rgb(20, 20, 20)" not in content, "a file is of the figure on white paper"
    exports.get_by_text("Python", exact=True).click()
    assert "study = api.study(StudySettings(" in exports.locator("code").text_content()


@needs_chromium
def test_rows_that_are_kept_no_longer_are_a_sentence_beside_the_page(served, opened, monkeypatch):
    following(served)
    page = opened("/laws?figure=residuals")
    monkeypatch.setattr(served.live.shelf, "get", lambda _: None)
    with page.expect_popup() as beside:
        page.locator("#laws-figure-exports").get_by_role("link", name="CSV").click()
    beside.value.get_by_text("the rows of this figure are kept no longer").wait_for()
    assert page.url.endswith("/laws?figure=residuals")


@needs_chromium
def test_a_token_is_typed_once(browser, isolated):
    at = Door(token="correct horse battery staple")
    server = dashboard.serve(live.Live(StudySettings(runs=str(isolated))), dashboard.listening(at, 0), at)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    for typed in ("wrong horse battery staple", at.token):
        page.goto(f"http://127.0.0.1:{server.port}/plan?days=3")
        page.get_by_label("The token").fill(typed)
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That is not the token." if typed != at.token else "starting").wait_for()
    assert page.url.endswith("/plan?days=3")
    page.goto(f"http://127.0.0.1:{server.port}/answer")
    page.get_by_text("There is no such page").wait_for()
    page.close()
    server.shutdown()


@pytest.mark.soak
@needs_chromium
@pytest.mark.parametrize("figure", ["frontier", "curves"])
def test_a_click_on_a_run_opens_it(served, opened, figure):
    following(served)
    page = opened(f"/laws?figure={figure}", viewport={"width": 1200, "height": 1800})
    page.locator("#laws-figure-about", has_text="A click on a run opens it.").wait_for()
    for last in ("#laws-cut-said", "#laws-command"):  # after which nothing above moves the figure
        page.locator(f"{last}:not(:empty)").wait_for()
    still(page, "laws-figure")
    page.mouse.move(*page.evaluate(A_RUN), steps=3)
    said = page.locator("#laws-figure .hovertext").first
    said.wait_for()
    hovered = said.text_content()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/runs?run=*")
    run = parse_qs(urlsplit(page.url).query)["run"][0]
    assert run in hovered
    page.locator("#runs-one h2", has_text=run).wait_for()
    page.go_back()
    page.locator("#laws-figure .main-svg").first.wait_for()


def following(served):
    """See that there is a study to show."""
    if not served.live.view.number:
        served.live.look()


def _hold(route, held, free):
    """Keep back requests for the cut of a backtest, as a fit of many runs would, until they are free."""
    if "laws-slider" in route.request.post_data and not free.is_set():
        held.append(route)
    else:
        route.continue_()


def _checked(page):
    """Which figure is chosen."""
    return page.locator("#page .tabs").first.get_by_role("radio", checked=True).get_attribute("value")


def _zoom(page):
    """Drag over the middle of the plot, and wait until its axes show it."""
    whole, box = _range(page), page.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()
    until(page, f"was => JSON.stringify({RANGE}) !== JSON.stringify(was)", whole)


def _range(page):
    """What the axes show."""
    return page.evaluate(RANGE)


@pytest.mark.soak
def test_a_fit_that_fails_is_said_and_the_last_pages_stay(isolated):
    root = isolated / "root"
    ids = make_store(root, evals=False)
    following = live.Live(StudySettings(runs=str(root), bootstrap=5))
    assert shell.said(following.view) == "starting"
    following.look()
    first = following.view
    assert first.pages
    following.look()
    assert following.view is first, "nothing is fitted again"
    for run_id in ids:
        (RunDir(root, run_id).path / "result.json").unlink()
    following.look()
    assert following.view.pages is first.pages
    assert "has no finished run yet" in shell.said(following.view)


def test_an_error_of_any_kind_is_said_and_ends_no_look(isolated, monkeypatch):
    make_store(isolated / "root", evals=False)
    following = live.Live(StudySettings(runs=str(isolated / "root"), bootstrap=5))
    monkeypatch.setattr(live.Live, "_fitted", lambda self: 1 / 0)
    following.look()
    assert shell.said(following.view).startswith("not fitted: ZeroDivisionError: division by zero (")


def test_a_port_that_is_taken_is_one_sentence(isolated):
    make_store(isolated / "root", evals=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port={port}: .*in use; give another"):
            dashboard.main([f"runs={isolated / 'root'}", f"port={port}"])


def test_a_bad_port_and_a_missing_store_are_one_sentence(isolated, capsys):
    with pytest.raises(ValueError, match="port=x: a number from 1 to 65535"):
        dashboard.main(["port=x"])
    with pytest.raises(Exception, match="holds no isoflop store"):
        dashboard.main([])
