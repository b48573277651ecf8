"""How fast the app is with many runs: what a reader waits for, and what a server and a tab that are left open take.

  python -m tests.benchmarks.dashboards                      1,000 and 10,000 runs of 1,000 points: about ten minutes
  python -m tests.benchmarks.dashboards runs=1000 updates=30 fewer, and a shorter stretch of live updates
  python -m tests.benchmarks.dashboards runs=1000 updates=3600 every=30    an hour of them, a result each half a minute
  python -m tests.benchmarks.dashboards store=FOLDER         keep the stores there, and use those that are

The stores are written by what writes them in a sweep. The app is started as a user starts it, so that laws are fitted
behind the pages that are timed; a first view is that of a server that has just started. Needs Chromium.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dashboards.pages import shell
from gpt3core import cli
from tests.benchmarks.large_store import Written, made
from tests.benchmarks.target import target
from tests.browser.test_report import CHROMIUM, FLAGS
from tests.reliability.kill_sweep import descendants
from tests.test_house import CODE

UNDER_WAY = 4  # runs that are left for the live updates, at least
FIRST_VIEWS = 3
MORE_FITS = 2  # after the first one, at least
LOOKS, FIRST_LOOKS = 300, 60  # of a tab: ten minutes of them, after those in which its code is compiled
SETTLES = 2.0  # seconds from the end of a fit until what it took is given back
INTERACTIONS = 60
COUNTS_DRAWINGS = """(() => {
  window.drawn = 0;
  document.querySelector("#laws-figure .js-plotly-plot").on("plotly_afterplot", () => { window.drawn += 1; });
})()"""
PATIENCE, FIRST_FIT = 120_000, 900_000  # milliseconds
MEMORY = Path("/dev/shm")  # where writes are not waited for


@dataclass
class Settings:
    """What can be given as key=value."""

    runs: str = "1000,10000"
    updates: int = 100  # seconds, about
    every: int = 0  # seconds from one result to the next; 0: each as soon as the former is in the study
    store: str = ""


# -------------------------------------------------------------------------------------------------------- the store


@contextlib.contextmanager
def stores(given: str) -> Iterator[Path]:
    """A folder for the stores, in memory where there is room."""
    if given:
        yield Path(given).absolute()
        return
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="isoflop-app-", dir=MEMORY if roomy else None) as folder:
        yield Path(folder)


# -------------------------------------------------------------------------------------------------------- the server


@dataclass
class Served:
    """An app that listens."""

    address: str
    process: subprocess.Popen[bytes]
    began: float  # by the monotonic clock, when its process was started
    listens: float  # seconds from then until a connection was taken

    def mb(self) -> float:
        """Memory that it holds, and a process that fits for it."""
        held = 0.0
        for pid in (self.process.pid, *descendants(self.process.pid)):
            with contextlib.suppress(OSError):  # it has ended
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                held += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        return held

    def cpu(self) -> float:
        """Seconds of CPU that it took so far."""
        return _cpu(self.process.pid)


@contextlib.contextmanager
def served(root: Path) -> Iterator[Served]:
    """The app of a store, as a user starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "dashboards.app", f"runs={root}", f"port={port}"]
    began = time.monotonic()
    process = subprocess.Popen(words, cwd=CODE, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > began + 60:
                raise RuntimeError("the app does not start")
            time.sleep(0.005)
        yield Served(f"http://127.0.0.1:{port}", process, began, time.monotonic() - began)
    finally:
        process.kill()
        process.wait()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------------- the reader


def first_view(browser: Any, app: Served, runs: int) -> tuple[float, float]:
    """Seconds from the address to the first rows, and until all runs are counted."""
    page = browser.new_page()
    began = time.monotonic()
    page.goto(f"{app.address}/runs")
    _wait_for_rows(page)
    first = time.monotonic() - began
    page.get_by_text(f"{runs:,} runs. ").wait_for(timeout=PATIENCE)
    whole = time.monotonic() - began
    page.close()
    return first, whole


def _wait_for_rows(page: Any) -> None:
    page.locator("#runs-rows td[data-column=run_id]").first.wait_for(timeout=PATIENCE)


def interactions(browser: Any, app: Served) -> list[float]:
    """Seconds from a click or a key to the rows that it asks for."""
    page = browser.new_page()
    page.goto(f"{app.address}/runs")
    _wait_for_rows(page)
    box = page.locator("input[type=search]")

    def words(text: str) -> Callable[[], None]:
        return lambda: box.fill(text)

    sort = page.locator("th[data-column=loss] button")
    acts = [sort.click, words("size=d64"), words("d128 loss<20"), words("")]
    acts += [page.get_by_label("next page").click, page.get_by_label("previous page").click]
    found = []
    for i in range(INTERACTIONS):
        before = _rows(page)
        began = time.monotonic()
        acts[i % len(acts)]()
        page.wait_for_function("was => window.document.querySelector('#runs-rows')?.innerText !== was", arg=before)
        found.append(time.monotonic() - began)
        page.wait_for_timeout(150)
    page.close()
    return found


def _rows(page: Any) -> str:
    return str(page.evaluate("window.document.querySelector('#runs-rows')?.innerText"))


def live(browser: Any, app: Served, written: Written, updates: int, every: int) -> tuple[list[float], float]:
    """Memory of the server at rest after each fit, and the most that was seen, in MB, with its pages open.

    A run ends when nothing is fitted, so that the next fit begins and is waited for: amid a fit more is held for a
    moment, which is no growth. It lasts for so many updates and for MORE_FITS, while runs are left.
    """
    pages = [browser.new_page() for _ in range(2)]
    for page, path in zip(pages, ("runs", "sweep"), strict=True):
        page.goto(f"{app.address}/{path}")
    state = pages[0].locator("#state")
    state.get_by_text(re.compile("^as of [0-9:]+$")).wait_for(timeout=FIRST_FIT)  # study and curves are loaded once
    time.sleep(SETTLES)
    rest, peak, step = [app.mb()], 0.0, 0
    while written.ended < len(written.specs) and (step < updates or len(rest) <= MORE_FITS):
        was, began = state.inner_text(), time.monotonic()
        written.end(1)
        while (now := state.inner_text()) == was or "fitting" in now:
            written.tell(step)
            time.sleep(1.0)
            peak, step = max(peak, app.mb()), step + 1
            if time.monotonic() > began + FIRST_FIT / 1000:
                raise RuntimeError(f"a run that ended is not in the study: {now}")
        time.sleep(SETTLES)
        rest.append(app.mb())
        while time.monotonic() < began + every:
            written.tell(step)
            time.sleep(1.0)
            step += 1
    for page in pages:
        page.close()
    return rest, peak


def tab(browser: Any, app: Served, written: Written) -> float:
    """MB by which the heap of a tab on the page Sweep grows in an hour, by looks that come ten times a second."""
    page = browser.new_page()

    def often(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'"(every|hurried)": [0-9.]+', r'"\1": 0.1', answer.text()))

    page.route("**/sweep", often)
    page.goto(f"{app.address}/sweep")
    page.locator("#sweep-standing p").first.wait_for(timeout=PATIENCE)
    devtools, heap, began = page.context.new_cdp_session(page), [], time.monotonic()
    for looks in (FIRST_LOOKS, FIRST_LOOKS + LOOKS):
        while (seen := page.evaluate("window.dash_component_api.getLayout('tick').props.n_intervals ?? 0")) < looks:
            written.tell(seen)
            page.wait_for_timeout(200)
            if time.monotonic() > began + FIRST_FIT / 1000:
                raise RuntimeError(f"the page stands still after {seen} looks")
        devtools.send("HeapProfiler.collectGarbage")
        heap.append(devtools.send("Runtime.getHeapUsage")["usedSize"] / 1e6)
    page.close()
    return (heap[1] - heap[0]) * 3600 / shell.TICK_SECONDS / LOOKS


def figures(browser: Any, app: Served) -> list[tuple[float, str]]:
    """Seconds from a click on the name of a figure, on the page Laws, until it is drawn, twice each."""
    page = browser.new_page()
    page.goto(f"{app.address}/laws")
    about, names = page.locator("#laws-figure-about"), page.locator("#page .tabs").first.get_by_role("radio")
    about.get_by_text("behind it").wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1000 * SETTLES)
    page.evaluate(COUNTS_DRAWINGS)
    found = []
    for name in 2 * names.all():
        if name.is_checked():
            continue
        before, drawn, began = about.text_content(), page.evaluate("window.drawn"), time.monotonic()
        name.click()
        while about.text_content() == before or page.evaluate("window.drawn") == drawn:
            page.wait_for_timeout(5)
            if time.monotonic() > began + PATIENCE / 1000:
                raise RuntimeError(f"the figure {name.get_attribute('value')} is not drawn")
        found.append((time.monotonic() - began, str(name.get_attribute("value"))))
        page.wait_for_timeout(500)
    page.close()
    return sorted(found)


def exported(app: Served, kind: str) -> tuple[float, int, Path]:
    """Seconds, bytes and file of the export of all curves."""
    path = Path(tempfile.mkstemp(prefix="isoflop-curves-", dir=MEMORY if MEMORY.is_dir() else None)[1])
    began = time.monotonic()
    with urllib.request.urlopen(f"{app.address}/runs/curves.{kind}") as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)
    return time.monotonic() - began, path.stat().st_size, path


def measure(browser: Any, written: Written, updates: int, every: int) -> dict[str, Any]:
    """One store."""
    found: dict[str, Any] = {"view": [], "whole": [], "listens": [], "answers": []}
    written.tell(0)
    for _ in range(FIRST_VIEWS):
        with served(written.root) as app:
            found["listens"].append(app.listens)
            with urllib.request.urlopen(f"{app.address}/_dash-layout") as answer:
                answer.read()
            found["answers"].append(time.monotonic() - app.began)
            for name, seconds in zip(("view", "whole"), first_view(browser, app, len(written.specs)), strict=True):
                found[name].append(seconds)
    with served(written.root) as app:
        found["act"] = interactions(browser, app)
        cpu = app.cpu()
        found["export"], size, path = exported(app, "parquet")
        found["rows"] = pq.ParquetFile(path).metadata.num_rows
        path.unlink()
        print(f"  {found['rows']:,} rows: {size / 1e6:.0f} MB of Parquet in {found['export']:.1f} s, ", end="")
        print(f"{app.cpu() - cpu:.1f} s CPU of the server")
        found["csv"], size, path = exported(app, "csv")
        path.unlink()
        print(f"  as CSV: {size / 1e6:.0f} MB in {found['csv']:.1f} s")
        rest, peak = live(browser, app, written, updates, every)
        found["figures"] = figures(browser, app)
        found["tab"] = tab(browser, app, written)
        found["grown"] = rest[-1] - rest[0] if len(rest) > MORE_FITS else None
    median = {name: statistics.median(found[name]) for name in ("listens", "answers", "view", "whole")}
    print(
        f"  listens after {median['listens']:.2f} s, answers after {median['answers']:.2f}; first rows "
        f"{median['view']:.2f} s ({', '.join(f'{v:.2f}' for v in found['view'])}), all runs {median['whole']:.2f} s; "
        f"interaction median {statistics.median(found['act']):.3f}, p95 {np.quantile(found['act'], 0.95):.3f} s; "
        f"memory at rest after each fit {', '.join(f'{mb:.0f}' for mb in rest)} MB, at most {peak:.0f} MB in one; "
        f"a tab {found['tab']:+.1f} MB an hour; "
        f"figures drawn in {', '.join(f'{name} {seconds:.2f}' for seconds, name in found['figures'])} s",
        flush=True,
    )
    return found


def main(argv: list[str]) -> int:
    """The script."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(Settings(), argv)
    sizes, found = sorted(int(word) for word in given.runs.split(",")), dict[int, dict[str, Any]]()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    if CHROMIUM is not None:
        from playwright.sync_api import sync_playwright

        with stores(given.store) as folder, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            for runs in sizes:
                written = made(folder, runs, UNDER_WAY + given.updates // (given.every or 4))
                print(f"{runs:,} runs, load {os.getloadavg()[0]:.1f}:", flush=True)
                found[runs] = measure(browser, written, given.updates, given.every)
            browser.close()
    few, many = found.get(1000), found.get(10_000)
    for name, which, goal in (("1000", few, 2.0), ("10000", many, 5.0)):
        target(f"first_view_{name}_runs_seconds", which and statistics.median(which["whole"]), "<=", goal)
    for name, which in (("1000", few), ("10000", many)):
        target(f"interaction_p95_{name}_runs_seconds", which and float(np.quantile(which["act"], 0.95)), "<=", 0.3)
    for name, which in (("1000", few), ("10000", many)):
        drawn = which and float(np.quantile([seconds for seconds, _ in which["figures"]], 0.95))
        target(f"figure_p95_{name}_runs_seconds", drawn, "<=", 0.3)
    whole = many if many and many["rows"] >= 9.9e6 else None
    target("export_1e7_rows_parquet_seconds", whole and whole["export"], "<=", 15.0)
    target("export_1e7_rows_csv_seconds", whole and whole["csv"], "<=", 15.0)
    last = found[sizes[-1]] if found else None
    grown = [which["grown"] for which in found.values()]
    target("memory_growth_mb", max(grown) if grown and None not in grown else None, "<=", 30.0)
    target("tab_growth_mb_per_hour", max((which["tab"] for which in found.values()), default=None), "<=", 10.0)
    target("listens_seconds", last and statistics.median(last["listens"]), "<=", 1.0)
    return 0


if __name__ == "__main__":
    cli.run(main)
