"""What a reader has done with a page of a sweep that goes on: hidden in a legend, unfolded, selected, reached."""

import shutil
import threading
from dataclasses import replace

import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.figures import catalogue
from dashboards.pages import shell
from dashboards.security import Door
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.browser.conftest import still
from tests.browser.test_report import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.soak,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture
def serve(monkeypatch):
    """Starts an app over what is followed; gives its address."""
    monkeypatch.setattr(shell, "TICK_SECONDS", 0.2)
    servers = []

    def start(following):
        server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def page(browser):
    opened, wrong = browser.new_page(viewport={"width": 1200, "height": 1400}), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield opened
    opened.close()
    assert wrong == []


HIDDEN = """() => document.querySelector('#answer-picture .js-plotly-plot')._fullData
    .filter(trace => trace.visible === 'legendonly').map(trace => trace.name)"""


def test_a_new_study_leaves_the_legend_and_what_was_unfolded(serve, page, simulated, studied):
    from playwright.sync_api import expect

    following = live.Live(StudySettings(runs=str(simulated)))
    figures = catalogue.pages(studied, None)
    following.view = live.View(number=1, name="laptop", study=studied, pages=figures)
    page.goto(serve(following))
    still(page, "answer-picture")
    page.locator("#answer-picture .legendtoggle").first.click()
    page.wait_for_function(f"() => ({HIDDEN})().length")
    hidden = page.evaluate(HIDDEN)
    panel = page.locator("#answer-picture .nsewdrag").first.bounding_box()
    page.mouse.move(panel["x"] + 100, panel["y"] + 50)  # a zoom, after which Dash draws the figure once more
    page.mouse.down()
    page.mouse.move(panel["x"] + 500, panel["y"] + 250, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "() => !document.querySelector('#answer-picture .js-plotly-plot')._fullLayout.xaxis.autorange"
    )
    page.locator("#answer-picture-exports summary").click()
    more = figures[0].figure.to_plotly_json()
    more["data"].insert(0, {"type": "scatter", "x": [1e12], "y": [5.0], "name": "one that comes before all others"})
    changed = replace(figures[0], figure=type(figures[0].figure)(more), about="Another study.")
    following.view = live.View(number=2, name="laptop", study=studied, pages=[changed, *figures[1:]])
    expect(page.locator("#answer-picture-about")).to_contain_text("Another study.")
    page.wait_for_function("() => document.querySelector('.js-plotly-plot')._fullData[0].name.startsWith('one that')")
    assert page.evaluate(HIDDEN) == hidden
    expect(page.locator("#answer-picture-exports code")).to_be_visible()


def test_what_two_drawings_of_a_figure_have_in_common_is_held_once(serve, page, simulated, studied):
    following = live.Live(StudySettings(runs=str(simulated)))
    following.view = live.View(number=1, name="laptop", study=studied, pages=catalogue.pages(studied, None))
    page.goto(serve(following))
    page.locator("#answer-picture .legendtoggle").first.wait_for()
    runs = page.evaluate(
        "() => (window.was = document.querySelector('#answer-picture .js-plotly-plot').data)"
        ".flatMap(({ customdata }) => customdata ?? [])"
    )
    assert set(studied.table.run_id) <= {run for run in runs if isinstance(run, str)}
    following.view = replace(following.view, number=2)
    page.wait_for_function("() => document.querySelector('#answer-picture .js-plotly-plot').data !== window.was")
    assert page.evaluate(
        "() => document.querySelector('#answer-picture .js-plotly-plot').data"
        ".every(({ customdata }, i) => customdata === window.was[i].customdata)"
    )


def test_a_sweep_that_goes_on_leaves_what_is_selected_and_reached(serve, page, simulated, tmp_path):
    from playwright.sync_api import expect

    root = shutil.copytree(simulated, tmp_path / "root")
    sweep, ids = SweepDir(root, "laptop"), sorted(path.name for path in (root / "runs").iterdir())
    under = {"phase": "training", "step": 4, "steps": 10, "loss": 3.25, "tokens_per_second": 12_000.0}
    told = {"state": "driving", "host": "elsewhere", "pid": 1, "asked": len(ids), "done": len(ids) - 3}
    sweep.write_status({**told, "time": 4e9, "running": {ids[1]: under}, "failed": {ids[3]: "out of memory"}})
    page.goto(serve(live.Live(StudySettings(runs=str(root)))) + "/sweep")
    page.get_by_text("out of memory", exact=True).select_text()
    page.get_by_role("link", name=ids[1]).focus()
    now = {ids[0]: under, ids[1]: {**under, "loss": 3.125}}
    sweep.write_status({**told, "time": 4e9 + 1, "running": now, "failed": {ids[3]: "out of memory"}})
    page.get_by_text("3.125").wait_for()
    assert page.evaluate("String(getSelection())") == "out of memory"
    expect(page.get_by_role("link", name=ids[1])).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#runs-one h2", has_text=ids[1]).wait_for()
    assert page.url.endswith(f"/runs?run={ids[1]}")
    page.get_by_text("What was logged").click()
    page.get_by_text("What was logged").focus()
    RunDir(root, ids[1]).event(RunDir(root, ids[1]).attempts()[-1], "anomaly", step=3, reason="it spiked")
    page.get_by_text("Met on the way").wait_for()
    expect(page.locator("#runs-told pre")).to_be_visible()
    expect(page.locator("#runs-told summary")).to_be_focused()
    page.get_by_role("button", name="close").click()
    page.locator("#runs-one h2").wait_for(state="detached")
    page.wait_for_url("**/runs")
    page.go_back()
    page.locator("#runs-one h2", has_text=ids[1]).wait_for()
