"""The app in a real browser: it draws, it stays on loopback, and it shows a result that arrives later."""

import threading

import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store
from tests.browser.test_report import CHROMIUM, FLAGS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_new_results_appear_by_themselves(isolated, monkeypatch):
    from playwright.sync_api import sync_playwright
    from werkzeug.serving import make_server

    monkeypatch.setattr(dashboard, "POLL_SECONDS", 1)
    root = isolated / "root"
    ids = make_store(root)
    late = RunDir(root, ids[0]).path / "result.json"
    content = late.read_bytes()
    late.unlink()
    app = dashboard.build(StudySettings(runs=str(root), bootstrap=10))
    server = make_server("127.0.0.1", 0, app.server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector(".plotly .main-svg")
        page.get_by_text(f"{len(ids) - 1} rows behind it").wait_for()
        late.write_bytes(content)
        page.get_by_text(f"{len(ids)} rows behind it").wait_for()
        page.get_by_text("IsoFLOP curves").click()
        page.get_by_text("One colour a budget").wait_for()
        assert page.get_by_text("Share chart").count() == 0
        browser.close()
    server.shutdown()
    assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "data:", "blob:")) for url in asked)


def test_a_bad_port_and_a_missing_store_are_one_sentence(isolated, capsys):
    with pytest.raises(ValueError, match="port=x: a number from 1 to 65535"):
        dashboard.main(["port=x"])
    with pytest.raises(Exception, match="holds no isoflop store"):
        dashboard.main([])
