"""Pictures for README and docs: ``python -m tests.browser.gallery [runs=ROOT] [out=docs/gallery]``.

The README's law, and every page of the app, light at 1200 pixels, and some of them dark at 390. Without runs= the
pages of laws are of the laptop ladder that the tests keep, and those that need a store of simulated runs. Needs
Chromium.
"""

from __future__ import annotations

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
from dashboards.figures.style import CONFIG, PALETTE
from dashboards.pages import shell
from dashboards.security import Door
from tests.analysis.synthetic import make_store
from tests.browser.test_report import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parent.parent.parent
LADDER = ROOT / "tests" / "analysis" / "data" / "laptop_ladder.csv"
MEASURED = (1e14, 2.970)  # FLOPs and loss of the runs that were trained after the ladder
OF_STORES = ("/runs", "/sweep", "/fewshot")
SIZES = {"": (1200, 800, "light"), "-phone": (390, 844, "dark")}
ON_PHONES = ("/", "/plan")
SETTLED_MS = 4000  # until what is made behind a page is there
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
            _pages(browser, ladder, [path for path in every if path not in OF_STORES], out)
            make_store(Path(folder) / "simulated", noise=0.002)
            simulated = StudySettings(runs=str(Path(folder) / "simulated"))
            _pages(browser, simulated, [path for path in every if path in OF_STORES], out)
        browser.close()


def _law(browser, path):
    """Loss against compute with its names on the lines, and what the prediction came to."""
    study = api.fit(pd.read_csv(LADDER), min_tokens=4e5, target_compute=[MEASURED[0]])
    figure = frontier(study).figure
    figure.add_scatter(
        x=[MEASURED[0]],
        y=[MEASURED[1]],
        mode="markers+text",
        text=["trained afterwards: 2.97 "],
        textposition="bottom left",
        marker={"symbol": "circle", "size": 9, "color": PALETTE[0]},
        textfont={"color": PALETTE[0], "size": 13},
    )
    figure.update_layout(showlegend=False, margin={"b": 50, "t": 10}, height=460)
    page = browser.new_page(viewport={"width": 900, "height": 480}, color_scheme="light")
    page.set_content(figure.to_html(include_plotlyjs=True, config={**CONFIG, "displayModeBar": False}))
    page.wait_for_timeout(1500)
    page.screenshot(path=str(path))
    page.close()
    print(_size(path))


def _pages(browser, given, paths, out):
    """Pages of an app, once the laws are fitted."""
    following = live.Live(given)
    server = dashboard.serve(following, dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    following.look()
    for path in paths:
        for suffix, (width, height, scheme) in SIZES.items():
            if suffix and path not in ON_PHONES:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{server.port}{path}")
            page.get_by_text("as of").wait_for()
            page.wait_for_timeout(SETTLED_MS)
            picture = out / f"{path.strip('/') or 'answer'}{suffix}.png"
            page.screenshot(path=str(picture))
            page.close()
            print(_size(picture))
    server.shutdown()


def _size(path):
    size = path.stat().st_size
    return f"{path}: {size / 1000:.0f} kB{', too large' if size > MOST_BYTES else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
