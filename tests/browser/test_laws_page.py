"""Pages Laws and Compare in a real browser: a lasso, a fit behind the page, the slider of a cut, hover, axes."""

import json
import threading

import numpy as np
import pandas as pd
import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.pages import shell
from dashboards.security import Door
from tests.browser.conftest import still, until
from tests.browser.test_report import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.soak,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
WORTH, OUTLIER = 1.6, "books-3"


def table():
    """Two ladders that follow a law, the second with a multiplier of compute, and one run far above it."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    rng, arms = np.random.default_rng(0), []
    for text, gain in (("web", 1.0), ("books", WORTH)):
        loss = 1.7 + 400 / (n * gain**0.5) ** 0.34 + 400 / (d * gain**0.5) ** 0.28
        names = [f"{text}-{i}" for i in range(25)]
        arms.append(pd.DataFrame({"name": names, "N": n, "D": d, "loss": loss * np.exp(0.001 * rng.normal(size=25))}))
        arms[-1]["text"] = text
    found = pd.concat(arms, ignore_index=True)
    found.loc[found.name == OUTLIER, "loss"] *= 1.2
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """An app over a table, its first fit done."""
    path = tmp_path_factory.mktemp("laws") / "two.csv"
    table().to_csv(path, index=False)
    following = live.Live(StudySettings(runs=str(path), bootstrap=5, law="chinchilla", rules=["none"]), apart=True)
    following.look()
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("TICK_SECONDS", 0.5), ("HURRY_SECONDS", 0.2)):
            patch.setattr(shell, name, seconds)
        server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()


@pytest.fixture
def page(browser, address):
    """A page that may neither fail nor ask anybody else."""
    opened = browser.new_page(viewport={"width": 1200, "height": 1000})
    asked, errors = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    opened.close()


def query(page, name):
    """What the address says of an input, once it does."""
    until(page, f"new URLSearchParams(location.search).has('{name}')")
    return page.evaluate(f"new URLSearchParams(location.search).get('{name}')")


def place(page, run):
    """Where a run's point, or that of several, is on the page, in pixels."""
    return page.evaluate(
        """run => {
          const plot = document.querySelector('#laws-figure .js-plotly-plot'), l = plot._fullLayout;
          const is = one => JSON.stringify(one) === JSON.stringify(run);
          const trace = plot._fullData.find(t => (t.customdata || []).some(is)), i = trace.customdata.findIndex(is);
          const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
          return [box.x + l.xaxis.d2p(trace.x[i]), box.y + l.yaxis.d2p(trace.y[i])];
        }""",
        run,
    )


def draw_around(page, x, y, r=7):
    """A lasso around a point, no faster than the page draws: of moves within one frame the browser tells the last."""
    page.locator("#laws-figure [data-title='Lasso Select']").click()
    corners = [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r), (x - r, y - r)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
        page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    page.mouse.up()


def select(page, name, tries=4):
    """Point at a run and draw a lasso around it; again where the figure moved, as it does until all above is there."""
    from playwright.sync_api import expect

    for left in reversed(range(tries)):
        try:
            x, y = place(page, name)
            page.mouse.move(x + 40, y)
            page.mouse.move(x, y)
            expect(page.locator("#laws-figure .hoverlayer")).to_contain_text(name, timeout=10_000)
            draw_around(page, x, y)
            expect(page.get_by_text("1 run selected")).to_be_visible(timeout=10_000)
            return
        except AssertionError:
            if not left:
                raise


def test_a_lasso_leaves_a_run_out_for_a_reason_and_the_law_is_fitted_anew(page, address):
    page.goto(f"{address}/laws")
    page.get_by_text("As the app was started: chinchilla, 50 of 50 runs.").wait_for()
    page.locator("#laws-figure .scatterlayer .points path").first.wait_for()
    before = page.locator("#laws-answer").text_content()
    select(page, OUTLIER)
    page.get_by_role("button", name="Leave out").click()
    page.get_by_text("why are these runs left out?").wait_for()
    page.locator("#laws-reason").fill("its loader <b>stalled</b>")
    page.get_by_role("button", name="Leave out").click()
    page.get_by_text("chinchilla, 49 of 50 runs").wait_for()
    page.get_by_text(f"its loader <b>stalled</b>: {OUTLIER}", exact=True).wait_for()
    assert json.loads(query(page, "out")) == [["its loader <b>stalled</b>", [OUTLIER]]]
    assert f"exclude=[{OUTLIER}]" in page.locator("#laws-command").text_content()
    page.locator("#laws-answer .before").first.wait_for()
    assert page.locator("#laws-answer").text_content() != before
    link = page.evaluate("location.href")
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("As the app was started: chinchilla, 50 of 50 runs.").wait_for()
    until(page, "location.search === ''")
    page.goto(link)
    page.get_by_text("chinchilla, 49 of 50 runs").wait_for()
    page.get_by_text(f"its loader <b>stalled</b>: {OUTLIER}", exact=True).wait_for()


MARKERS = """() => document.querySelector("#laws-figure .js-plotly-plot").data
    .filter(trace => trace.mode === "markers" && trace.customdata).flatMap(trace => [...trace.customdata])"""


def test_runs_under_one_marker_are_left_out_together_and_parted_by_a_closer_look(browser, tmp_path, monkeypatch):
    """With squares as large as a marker's neighbourhood, for fifty runs are too few to lie on one another."""
    from dashboards.figures import thinned

    monkeypatch.setattr(thinned, "MOST", 12)
    monkeypatch.setattr(thinned, "SIDES", (1, 150))
    monkeypatch.setattr(shell, "TICK_SECONDS", 0.3)
    table().to_csv(tmp_path / "two.csv", index=False)
    following = live.Live(StudySettings(runs=str(tmp_path / "two.csv"), bootstrap=5, law="chinchilla", rules=["none"]))
    following.look()
    server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page, errors = browser.new_page(viewport={"width": 1200, "height": 1600}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/laws?figure=frontier")
    page.locator("#laws-figure-about", has_text="lie under others").wait_for()
    page.locator("#laws-cut .scatterlayer").first.wait_for()
    page.locator("#laws-command:not(:empty)").wait_for()
    still(page, "laws-figure")
    whole = page.evaluate(MARKERS)
    names = sorted(name for one in whole for name in (one if isinstance(one, list) else [one]))
    assert (len(whole) < 40, names) == (True, sorted(table().name))
    several = next(one for one in whole if isinstance(one, list))
    box = page.locator("#laws-figure .nsewdrag").first.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.4, 0.4), (0.6, 0.8))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=5)
    page.mouse.up()
    until(page, f"was => JSON.stringify(({MARKERS})()) !== JSON.stringify(was)", whole)
    ranges = "JSON.stringify(document.querySelector('#laws-figure .js-plotly-plot').layout.xaxis.range)"
    closer = page.evaluate(ranges)
    names = sorted(name for one in page.evaluate(MARKERS) for name in (one if isinstance(one, list) else [one]))
    assert names == sorted(table().name)
    page.wait_for_timeout(1000)  # a few ticks
    assert page.evaluate(ranges) == closer, "the reader's zoom stays"
    page.mouse.dblclick(*at[0])
    until(page, f"was => JSON.stringify(({MARKERS})()) === JSON.stringify(was)", whole)
    x, y = place(page, several)
    draw_around(page, x, y, r=5)
    page.get_by_text(f"{len(several)} runs selected").wait_for()
    page.locator("#laws-reason").fill("they lie on one another")
    page.get_by_role("button", name="Leave out").click()
    page.get_by_text(f"chinchilla, {50 - len(several)} of 50 runs").wait_for()
    page.close()
    server.shutdown()
    assert errors == []


def test_the_cut_slides_and_the_axes_turn_linear(page, address):
    page.goto(f"{address}/laws?law=chinchilla")
    page.locator("#laws-cut-said").get_by_text("Fitted to").wait_for()
    page.locator("#laws-cut .scatterlayer .points path").first.wait_for()
    said = page.locator("#laws-cut-said").text_content()
    page.locator("#laws-slider [role=slider]").press("ArrowRight")
    until(page, "said => document.querySelector('#laws-cut-said').textContent !== said", said)
    now = page.locator("#laws-cut-said").text_content()
    assert int(now.split()[2]) > int(said.split()[2]), "a higher cut is fitted to more runs"
    cut = query(page, "cut")
    page.goto(f"{address}/laws?law=chinchilla&cut={cut}")
    page.get_by_text(now, exact=True).wait_for()
    types = "(() => { const l = document.querySelector('#laws-figure .js-plotly-plot')._fullLayout;"
    types += " return [l.xaxis.type, l.yaxis.type] })()"
    page.locator("#laws-figure .scatterlayer .points path").first.wait_for()
    assert page.evaluate(types) == ["log", "log"]
    page.get_by_text("linear axes").click()
    until(page, f'JSON.stringify({types}) === \'["linear","linear"]\'')
    assert query(page, "axes") == "linear"
    page.get_by_label("C from, FLOPs").fill("much")
    page.get_by_label("C from, FLOPs").press("Enter")
    page.get_by_text("from=much: FLOPs, positive, like 1e18.").wait_for()
    page.get_by_label("C from, FLOPs").fill("1e17")
    page.get_by_label("C from, FLOPs").press("Enter")
    page.get_by_text("chinchilla, 48 of 50 runs").wait_for()
    page.locator("#laws-command", has_text="min_compute=1e+17").wait_for()


def test_two_arms_are_compared_and_exchanged(page, address):
    page.goto(f"{address}/compare?A=web&B=books")
    page.get_by_text("A = web (25 runs), B = books (25 runs)").wait_for()
    page.locator("#compare-frontiers .scatterlayer .points path").first.wait_for()
    page.get_by_text("B is better").wait_for()
    assert "by=text arms=[web,books]" in page.locator("#compare-command").text_content().replace("'", "")
    for i, arm in enumerate(("books", "web"), start=1):
        page.locator(".chosen .dash-dropdown").nth(i).click()
        page.locator(".dash-dropdown-content").get_by_text(arm, exact=True).click()
        page.get_by_text("A and B are the same" if i == 1 else "B is worse").wait_for()
    words, other = page.locator("#compare-words").inner_text(), page.context.browser.new_page()
    for reader in (page, other):
        reader.goto(page.url)
        reader.get_by_text("B is worse").wait_for()
        assert reader.locator("#compare-words").inner_text() == words
        assert [box.inner_text() for box in reader.locator(".chosen .dash-dropdown").all()] == ["text", "books", "web"]
    other.close()
