"""Pictures for README and docs: ``python -m tests.browser.gallery [runs=ROOT] [out=docs/gallery]``.

The README's law, and every page of the app, light at 1200 pixels, and some of them dark at 390. Without runs= the
pages of laws are of the laptop ladder that the tests keep, those that need a store of simulated runs, and what is
compared are two of the texts of Gadre et al. 2024. Needs Chromium.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd

from analysis import api
from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live
from dashboards.figures.frontier import frontier
from dashboards.figures.look import CONFIG, GREY, PALETTE
from dashboards.pages import shell
from dashboards.security import Door
from tests.analysis.synthetic import make_store
from tests.browser.test_report import CHROMIUM, FLAGS
from tests.browser.under_way import put_under_way

ROOT = Path(__file__).resolve().parent.parent.parent
LADDER = ROOT / "tests" / "analysis" / "data" / "laptop_ladder.csv"
MEASURED = (1e14, 2.974)  # FLOPs of the runs that were trained after the ladder, and the loss of the better one
GADRE = ROOT / "tests" / "benchmarks" / "data" / "gadre2024_models.csv"
OF_STORES, SWEEP, COMPARE = ("/runs", "/fewshot"), "/sweep", "/compare?A=rpj&B=rw_original"
TALL = {"/": 980, SWEEP: 960, COMPARE: 1080, "/runs": 760}  # pixels, where not as SIZES has them
LOWER = {SWEEP: ("h2:has(+ #sweep-timeline-about)", 1850)}  # what stands at the top of a second picture, and its pixels
SIZES = {"": (1200, 800, "light"), "-phone": (390, 844, "dark")}
ON_PHONES = ("/", "/plan")
LOOK_MS, MOST_LOOKS = 3000, 12  # between looks at a page that is not ready
AT_WORK = ("being computed", "drawn anew", "being fitted", "fitting")
MOST_BYTES = 150_000


def main(argv: list[str]) -> None:
    """Take them all, and say how large they are."""
    from playwright.sync_api import sync_playwright

    given = dict(word.split("=", 1) for word in argv)
    out = Path(given.get("out", ROOT / "docs" / "gallery"))
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        every = [page.PATH for page in shell.PAGES]
        if "runs" in given:
            _pages(browser, StudySettings(runs=given["runs"]), every, out)
        else:
            _law(browser, ROOT / "docs" / "law.png")
            ladder = StudySettings(runs=str(LADDER), min_tokens=4e5)
            _pages(browser, ladder, [path for path in every if path not in (*OF_STORES, SWEEP, "/compare")], out)
            columns = {"C": "flops", "loss": "loss_c4_val"}
            _pages(browser, StudySettings(runs=str(GADRE), columns=columns), [COMPARE], out)
            simulated = Path(folder) / "simulated"
            make_store(simulated, noise=0.002)
            _pages(browser, StudySettings(runs=str(simulated)), OF_STORES, out)
            put_under_way(simulated)
            _pages(browser, StudySettings(runs=str(simulated)), [SWEEP], out)
        browser.close()


def _law(browser, path):
    """Loss against compute with its names on the lines, and what the prediction came to."""
    study = api.fit(pd.read_csv(LADDER), min_tokens=4e5)
    figure, (p,) = frontier(study).figure, study.predictions
    low, high = p.interval_new_run
    figure.layout.annotations[-1].text = f"predicted: {p.loss:.3f} ({low:.2f} to {high:.2f})"
    figure.add_scatter(x=MEASURED[:1], y=MEASURED[1:], mode="markers", marker={"size": 9, "color": PALETTE[0]})
    said = {
        "text": f"trained afterwards: {MEASURED[1]:.3f}",
        "ax": -10,
        "ay": -80,
        "font": {"color": PALETTE[0], "size": 13},
    }
    _point_at(figure, *MEASURED, **said)
    lowest = study.minima.used[len(study.minima.used) // 2]
    _point_at(figure, lowest.budget, lowest.loss_star, text="the best size of a budget", ax=-90, ay=45)
    worst = study.table.loc[study.table.C.idxmin()]
    _point_at(figure, worst.C, worst.loss, text="a run", ax=50, ay=-5)
    dotted = next(trace for trace in figure.data if trace.line.dash == "dot")
    at = len(dotted.x) * 3 // 4
    floor = {"color": GREY, "size": 13}
    _point_at(figure, dotted.x[at], dotted.y[at], text="the same with a floor E", ax=-75, ay=45, font=floor)
    figure.update_layout(showlegend=False, margin={"b": 50, "t": 10}, height=460)
    path.write_bytes(drawn(browser, figure, 900, 480))
    print(_size(path), flush=True)


def drawn(browser, figure, width, height):
    """A figure as a PNG."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.set_content(figure.to_html(include_plotlyjs=True, config={**CONFIG, "displayModeBar": False}))
    page.wait_for_selector(".scatterlayer")
    page.wait_for_timeout(1500)
    picture = page.screenshot()
    page.close()
    return picture


def _point_at(figure, x, y, **words):
    """A word with an arrow to a point, on axes that are both logarithmic."""
    words = {"font": {"size": 13}, "showarrow": True, "arrowwidth": 1, "arrowhead": 0, "standoff": 8, **words}
    figure.add_annotation(x=math.log10(x), y=math.log10(y), **words)


def _pages(browser, given, paths, out):
    """Pages of an app, once the laws are fitted."""
    following = live.Live(given)
    server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    following.look()
    for path in paths:
        for suffix, (width, height, scheme) in SIZES.items():
            if suffix and path not in ON_PHONES:  # what differs there
                continue
            size = {"width": width, "height": TALL.get(path, height)}
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{server.port}{path}")
            page.get_by_text("as of").wait_for()
            _settle(page)
            name = path.partition("?")[0].strip("/") or "answer"
            _take(page, out / f"{name}{suffix}.png")
            if path in LOWER:
                top, height = LOWER[path]
                page.set_viewport_size({"width": width, "height": height})
                page.locator(top).evaluate("it => it.scrollIntoView()")
                page.wait_for_timeout(LOOK_MS)
                _take(page, out / f"{name}-figures.png")
            page.close()
    server.shutdown()


def _take(page, picture):
    page.screenshot(path=str(picture))
    print(_size(picture), flush=True)


def _settle(page):
    """Wait until a page says the same for a while, and nothing of work behind it."""
    before = ""
    for _ in range(MOST_LOOKS):
        page.wait_for_timeout(LOOK_MS)
        now = page.inner_text("main")
        if now and now == before and not any(word in now for word in AT_WORK):
            return
        before = now


def _size(path):
    size = path.stat().st_size
    return f"{path}: {size / 1000:.0f} kB{', too large' if size > MOST_BYTES else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
