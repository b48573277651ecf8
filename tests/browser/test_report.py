"""The report in a real browser, from disk: it draws, it says nothing to the network, it offers no upload."""

import shutil

import pytest

from analysis import api
from dashboards import report
from dashboards.figures import catalogue
from tests.analysis.synthetic import make_store

pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(180)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_every_page_draws_offline(isolated):
    from playwright.sync_api import expect, sync_playwright

    make_store(isolated / "root", noise=0.002)
    found = api.fit(isolated / "root", bootstrap=30)
    report.write(found, isolated / "report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for slug in ("index", *catalogue.SLUGS):
            page.goto((isolated / "report" / f"{slug}.html").as_uri())
            page.wait_for_selector(".plotly .main-svg")
            if slug in ("frontier", "isoflop", "residuals"):
                assert page.locator(".scatterlayer .points path").count() > 3, slug
            assert page.get_by_text("Share chart").count() == 0
            assert page.locator("[data-title*='loud']").count() == 0
        page.goto((isolated / "report" / "frontier.html").as_uri())
        point = page.locator(".scatterlayer .trace .points path").first
        point.hover(force=True)
        page.wait_for_selector(".hoverlayer .hovertext")
        assert "epochs" in (page.locator(".hoverlayer").text_content() or "")
        page.goto((isolated / "report" / "index.html").as_uri())
        number = page.get_by_role("heading", name="IsoFLOP minima").locator("xpath=following::a").first
        name = (number.get_attribute("href") or "").partition("#")[2]
        number.click()
        page.get_by_text("those that the number rests on").locator("visible=true").wait_for()
        assert 0 < page.locator("tbody tr:visible").count() == page.locator(f"tbody tr.{name}").count()
        page.get_by_role("link", name="All runs").locator("visible=true").click()
        expect(page.locator("tbody tr:visible")).to_have_count(len(found.everything))
        phone = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        for slug in ("index", *catalogue.SLUGS):
            phone.goto((isolated / "report" / f"{slug}.html").as_uri())
            phone.wait_for_selector(".plotly .main-svg")
            assert phone.evaluate("document.documentElement.scrollWidth") <= 390, f"{slug} runs off the page"
            assert phone.locator(".nsewdrag").first.bounding_box()["width"] > 175, slug
        paper = browser.new_page(viewport={"width": 718, "height": 1050})  # A4 within its margins
        paper.emulate_media(media="print")
        paper.goto((isolated / "report" / "index.html").as_uri())
        assert paper.evaluate("document.documentElement.scrollWidth") <= 718, "else all of it is made smaller"
        assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 20, 20)"
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
