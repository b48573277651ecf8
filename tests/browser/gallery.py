"""Pictures for README and docs: ``python -m tests.browser.gallery [runs=ROOT] [out=docs/gallery]``.

Every page of the app, light at 1200 pixels and dark at 390, and the README's law. Without runs= the laptop ladder
that the tests keep; with a store also the pages that need one. Needs Chromium.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pandas as pd

from analysis import api
from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import live, security
from dashboards.figures.frontier import frontier
from dashboards.figures.style import CONFIG, PALETTE
from dashboards.pages import shell
from tests.browser.test_report import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parent.parent.parent
LADDER = ROOT / "tests" / "analysis" / "data" / "laptop_ladder.csv"
MEASURED = (1e14, 2.970)  # FLOPs and loss of the runs that were trained after the ladder
SIZES = {"": (1200, 800, "light"), "-phone": (390, 844, "dark")}
MOST_BYTES = 150_000


def main(argv: list[str]) -> None:
    """Take them all, and say how large they are."""
    from playwright.sync_api import sync_playwright

    given = dict(word.split("=", 1) for word in argv)
    out = Path(given.get("out", ROOT / "docs" / "gallery"))
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        if "runs" not in given:
            _law(browser, ROOT / "docs" / "law.png")
        _pages(browser, given.get("runs", str(LADDER)), out)
        browser.close()


def _law(browser, path):
    """Loss against compute with its names on the lines, and what the prediction came to."""
    study = api.fit(pd.read_csv(LADDER), min_tokens=4e5, target_compute=[MEASURED[0]], bootstrap=1000)
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
    print(_size(path))


def _pages(browser, runs, out):
    """Every page of the app, once the laws are fitted."""
    following = live.Live(StudySettings(runs=runs, min_tokens=4e5 if runs == str(LADDER) else None))
    following.look()
    at = security.door(None, None)
    with dashboard.listening(at, 0) as listener:
        server = dashboard.serve(following, listener, at)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for page in shell.PAGES:
            name = page.PATH.strip("/") or "answer"
            for suffix, (width, height, scheme) in SIZES.items():
                shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                shown.goto(f"http://127.0.0.1:{server.port}{page.PATH}")
                shown.get_by_text("as of").wait_for()
                shown.wait_for_timeout(6000)
                path = out / f"{name}{suffix}.png"
                shown.screenshot(path=str(path))
                shown.close()
                print(_size(path))
        server.shutdown()


def _size(path):
    size = path.stat().st_size
    return f"{path}: {size / 1000:.0f} kB{', too large' if size > MOST_BYTES else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
