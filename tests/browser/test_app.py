"""The app in a real browser: it draws, it stays on loopback, and it shows a result that arrives later."""

import socket
import threading

import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.pages import shell
from dashboards.security import Door
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store
from tests.browser.test_report import CHROMIUM, FLAGS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture
def served(isolated, monkeypatch):
    """The address of a live app over a store, whose first run's result comes later: its path and its bytes."""
    monkeypatch.setattr(live, "POLL_SECONDS", 0.5)
    monkeypatch.setattr(shell, "TICK_SECONDS", 0.5)
    root = isolated / "root"
    ids = make_store(root)
    late = RunDir(root, ids[0]).path / "result.json"
    content = late.read_bytes()
    late.unlink()
    following = live.Live(StudySettings(runs=str(root), bootstrap=10))
    server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}/", following, len(ids), lambda: late.write_bytes(content)
    server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_it_answers_before_it_has_fitted_and_new_results_appear_by_themselves(served):
    from playwright.sync_api import sync_playwright

    address, following, count, arrive = served
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_text("starting").wait_for()
        following.follow()
        page.get_by_text(f"{count - 1} rows behind it").wait_for()
        assert page.locator("dt").first.text_content() == "runs"
        page.get_by_text("IsoFLOP curves").click()
        page.get_by_text("One colour a budget").wait_for()
        assert page.locator("dt").count() == 0
        _zoom(page)
        before = _range(page)
        arrive()
        page.get_by_text(f"{count} rows behind it").wait_for()
        assert _range(page) == before, "a reader's zoom survives an update"
        assert page.get_by_text("Share chart").count() == 0
        browser.close()
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def _zoom(page):
    """Drag over the middle of the plot."""
    box = page.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)


def _range(page):
    """What the axes show."""
    return page.evaluate(
        "(() => { const l = document.querySelector('.js-plotly-plot')._fullLayout;"
        " return [l.xaxis.range, l.yaxis.range] })()"
    )


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
    assert shell.said(following.view) == "not fitted: ZeroDivisionError: division by zero"


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
