"""The page Plan in a real browser: a slider and a field that say the same, the address, and how long a click takes."""

import threading

import pandas as pd
import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.security import Door
from tests.analysis.test_minima import FORMER
from tests.browser.test_report import CHROMIUM, FLAGS

pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(240)]


@pytest.fixture
def address(isolated):
    """Of a live app over a former laptop ladder."""
    pd.read_csv(FORMER).to_csv(isolated / "ladder.csv", index=False)
    following = live.Live(StudySettings(runs=str(isolated / "ladder.csv"), min_tokens=4e5, bootstrap=20))
    server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    following.look()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_plan_is_a_link_and_a_slider_is_what_is_typed(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(f"{address}plan?compute=3e15&gpu=A100")
        page.get_by_text("decades beyond the computes that were run").wait_for()
        assert "1 A100" in page.locator("#plan-answer").text_content()
        handle = page.locator("#plan-compute-slider [role=slider]").first
        assert float(handle.get_attribute("aria-valuenow")) == pytest.approx(2.48, abs=0.05)
        handle.press("ArrowRight")
        page.wait_for_url(lambda url: "compute=3e15" not in url)
        field = page.locator("input[type=text]").first
        moved = field.input_value()
        assert float(moved) > 3e15
        assert f"compute={moved}" in page.url
        page.locator("#plan-again", has_text=f"target_compute={float(moved):g}").wait_for()
        again = page.locator("div.copied", has=page.locator("#plan-again"))
        copy, said = again.get_by_role("button", name="copy the command"), again.get_by_role("status")
        copy.press("Enter")
        said.get_by_text("copied").wait_for()
        assert page.evaluate("() => window.getSelection().toString()") == page.locator("#plan-again").text_content()
        page.evaluate("() => { document.execCommand = () => false; }")
        copy.press("Enter")
        said.get_by_text("select and copy by hand").wait_for()
        field.fill("2e14")
        field.press("Enter")
        page.wait_for_url(lambda url: "compute=2e14" in url)
        page.get_by_text("1.3 decades beyond").wait_for()
        page.wait_for_selector("#plan-figure .scatterlayer")
        other = browser.new_page()
        other.goto(page.url)
        other.get_by_text("1.3 decades beyond").wait_for()
        assert other.locator("#plan-answer").text_content() == page.locator("#plan-answer").text_content()
        assert page.get_by_text("Share chart").count() == 0
        browser.close()
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
