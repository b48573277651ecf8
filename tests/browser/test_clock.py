"""A tab that is left open, in a real browser: hidden, behind a slow app, without one, and with another one."""

import shutil
import threading
import time
from dataclasses import replace

import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards.live import Live, View
from dashboards.pages import shell
from dashboards.security import Door
from gpt3core.store.rundir import RunDir
from sweeps.watching.run_table import RunTable
from tests.browser.conftest import still
from tests.browser.test_report import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.soak,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
TICK = 0.2


@pytest.fixture
def root(simulated, tmp_path):
    return shutil.copytree(simulated, tmp_path / "root")


@pytest.fixture
def serve(root, monkeypatch):
    """Starts an app that does not fit: on any port, or on one; gives its port, and what ends it."""
    monkeypatch.setattr(shell, "TICK_SECONDS", TICK)
    monkeypatch.setattr(shell, "HURRY_SECONDS", TICK / 2)
    ends = []

    def start(port=0, **view):
        live = Live(StudySettings(runs=str(root)))
        live.view = replace(View(number=1, problem="nothing is fitted here"), **view)
        listener = dashboard.listening(Door(), port)
        server = dashboard.serve(live, listener, Door())
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def end():
            server.shutdown()
            server.server_close()
            listener.close()

        ends.append(end)
        return server.port, end

    yield start
    for end in ends:
        end()


@pytest.fixture
def page(browser):
    """A page that counts what it asks of the app and notes what goes wrong."""
    opened = browser.new_page()
    opened.asked, opened.wrong = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
    opened.on("console", lambda said: opened.wrong.append(said.text) if said.type == "error" else None)
    yield opened
    opened.close()


def test_a_hidden_tab_asks_nothing_and_follows_again_when_it_is_seen(serve, page):
    port, _ = serve()
    page.goto(f"http://127.0.0.1:{port}/runs")
    page.locator("#runs-rows td").first.wait_for()
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.unseen, configurable: true })")
    page.evaluate("window.unseen = true")
    page.wait_for_timeout(1000 * 3 * TICK)  # what was asked is answered
    page.asked.clear()
    page.wait_for_timeout(1000 * 10 * TICK)
    assert page.asked == []
    page.evaluate("() => { window.unseen = false; document.dispatchEvent(new Event('visibilitychange')); }")
    page.wait_for_timeout(1000 * 3 * TICK)
    assert page.asked
    assert page.wrong == []


def test_a_figure_stays_while_a_reader_drags_in_it(serve, page, root):
    port, _ = serve()
    some = next(path for path in (root / "runs").iterdir())
    page.goto(f"http://127.0.0.1:{port}/runs?run={some.name}")
    still(page, "runs-curve")
    page.locator("#runs-curve .nsewdrag").first.hover()
    page.mouse.down()
    page.wait_for_timeout(1000 * 3 * TICK)  # what was asked is answered
    page.asked.clear()
    page.wait_for_timeout(1000 * 5 * TICK)
    assert {url.rpartition("/")[2] for url in page.asked} == {"beat"}
    page.mouse.up()
    page.wait_for_timeout(1000 * 3 * TICK)
    assert any("_dash-update-component" in url for url in page.asked)
    assert page.wrong == []


def test_a_page_follows_an_app_that_takes_longer_than_the_clock(serve, page, root, monkeypatch):
    look = RunTable.look

    def slow(self, **given):
        time.sleep(2 * TICK)
        return look(self, **given)

    monkeypatch.setattr(RunTable, "look", slow)
    port, _ = serve()
    some = next(path for path in (root / "runs").iterdir())
    page.goto(f"http://127.0.0.1:{port}/runs?run={some.name}")
    page.locator("#runs-one h2", has_text=some.name).wait_for()
    RunDir(root, some.name).event(RunDir(root, some.name).attempts()[-1], "anomaly", step=3, reason="it spiked")
    page.get_by_text("it spiked").first.wait_for(timeout=10_000)
    assert page.wrong == []


def test_what_is_asked_while_the_app_is_away_is_answered_when_it_is_back(serve, page):
    port, end = serve()
    page.goto(f"http://127.0.0.1:{port}/runs")
    page.locator("#runs-rows td").first.wait_for()
    app = page.evaluate("JSON.parse(document.getElementById('clock').textContent).app")
    end()
    page.get_by_text("No answer from the app since ").wait_for()
    page.locator("input[type=search]").fill("size=d64")
    page.asked.clear()
    page.wait_for_timeout(1000 * 20 * TICK)
    assert len(page.asked) < 8, "ever less often"
    more = [said for said in page.wrong if not said.startswith("Failed to load resource: net::")]
    assert more == [], "the browser says so, and nothing more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shell.secrets, "token_hex", lambda _: app)  # the same one: a tunnel to it was away
        serve(port)
    page.get_by_text(" of ").and_(page.locator("#runs-count")).wait_for()
    assert {text.split("-")[0] for text in page.locator("td[data-column=run_id]").all_text_contents()} == {"d64"}
    assert page.url.endswith("/runs?filter=size%3Dd64")
    page.get_by_text("nothing is fitted here").first.wait_for()


def test_another_app_at_the_same_place_is_shown_though_it_counts_alike(serve, page):
    port, end = serve(name="one", problem="the first study failed")
    page.goto(f"http://127.0.0.1:{port}/")
    page.get_by_text("The first study failed", exact=True).wait_for()
    end()
    serve(port, name="other", problem="the second study failed")
    page.get_by_text("The second study failed", exact=True).wait_for()
    page.get_by_text("isoflop: other").wait_for()
    page.wait_for_timeout(1000 * 5 * TICK)
    assert page.get_by_text("The second study failed", exact=True).is_visible()
