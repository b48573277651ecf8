"""The report in a real browser, from disk: it draws, it says nothing to the network, it offers no upload."""

import re
import shutil

import pytest

from dashboards import report
from dashboards.figures import catalogue

pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(180)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_every_page_draws_offline(isolated, studied):
    from playwright.sync_api import expect, sync_playwright

    report.write(studied, isolated / "report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        asked, errors = [], []

        def opened(slugs, **options):
            """Open some pages, one after another: each draws and offers no upload."""
            page = browser.new_page(**options)
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            for slug in slugs:
                page.goto((isolated / "report" / f"{slug}.html").as_uri())
                page.wait_for_selector(".plotly .main-svg")
                assert page.get_by_text("Share chart").count() == 0
                assert page.locator("[data-title*='loud']").count() == 0
                yield slug, page

        for slug, page in opened(("index", "isoflop", "residuals", "frontier")):
            if slug != "index":
                page.locator(".scatterlayer .points path").nth(3).wait_for(state="attached")
        point = page.locator(".scatterlayer .trace .points path").first
        point.hover(force=True)
        page.wait_for_selector(".hoverlayer .hovertext")
        assert "epochs" in (page.locator(".hoverlayer").text_content() or "")
        page.goto((isolated / "report" / "contours.html").as_uri())
        drag = page.locator(".nsewdrag").first.bounding_box()
        page.mouse.move(drag["x"] + 0.6 * drag["width"], drag["y"] + 0.6 * drag["height"], steps=3)
        power = "(\\d\\.\\d\\d\u202f×\u202f)?10[⁰¹²³⁴⁵⁶⁷⁸⁹]+"  # as on paper, which plotly does not know
        expect(page.locator(".hovertext")).to_contain_text(re.compile(f"^C {power} FLOPsN {power}loss by the law"))
        page.goto((isolated / "report" / "index.html").as_uri())
        number = page.get_by_role("heading", name="IsoFLOP minima").locator("xpath=following::a").first
        name = (number.get_attribute("href") or "").partition("#")[2]
        number.click()
        page.get_by_text("those that the number rests on").locator("visible=true").wait_for()
        assert 0 < page.locator("tbody tr:visible").count() == page.locator(f"tbody tr.{name}").count()
        page.get_by_role("link", name="All runs").locator("visible=true").click()
        expect(page.locator("tbody tr:visible")).to_have_count(len(studied.everything))
        dark = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
        for slug, phone in opened(("index", *catalogue.SLUGS), **dark):
            assert phone.evaluate("document.documentElement.scrollWidth") <= 390, f"{slug} runs off the page"
            assert phone.locator(".nsewdrag").first.bounding_box()["width"] > 175, slug
        paper = browser.new_page(viewport={"width": 718, "height": 1050})  # A4 within its margins
        paper.emulate_media(media="print")
        paper.goto((isolated / "report" / "index.html").as_uri())
        assert paper.evaluate("document.documentElement.scrollWidth") <= 718, "else all of it is made smaller"
        _, page = next(opened(["isoflop"], viewport={"width": 1200, "height": 900}))
        widths = []
        for event in ("", "beforeprint", "afterprint"):  # no browser lays a figure out anew for paper
            page.evaluate(f"window.dispatchEvent(new Event({event!r}))")
            widths.append(page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.width"))
        assert widths[0] == widths[2] > 718 > widths[1]
        assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 20, 20)"
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
