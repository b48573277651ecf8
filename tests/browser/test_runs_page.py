"""The pages Runs and Sweep in a real browser: sort, filter, compare, open, and the address that brings it all back."""

import shutil
import threading
import urllib.error
import urllib.request

import pytest

from analysis.settings import StudySettings
from dashboards import app as dashboard
from dashboards import writing
from dashboards.live import Live
from dashboards.pages import runs, shell
from dashboards.pages.sweep import FIGURES
from dashboards.run_sets import RunSets
from dashboards.security import Door
from gpt3core.store import run_sets
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.watching.run_table import RunTable
from tests.browser.test_report import CHROMIUM, FLAGS
from tests.browser.under_way import put_under_way

pytestmark = [
    pytest.mark.browser,
    pytest.mark.soak,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
HOSTILE = "<img src=x onerror=alert(1)>-aaaaaaaaaaaa"
CELLS = "#runs-rows td[data-column={}]"


@pytest.fixture(scope="module")
def root(simulated, tmp_path_factory):
    """A finished sweep, and beside it a run whose name and log are not kind."""
    root = shutil.copytree(simulated, tmp_path_factory.mktemp("pages") / "root")
    some = next((root / "runs").iterdir())
    hostile = RunDir(root, HOSTILE)
    hostile.path.mkdir()
    shutil.copy(some / "spec.json", hostile.path)
    hostile.event(hostile.new_attempt(), "anomaly", step=3, reason="<script>alert(2)</script>", action="skip")
    return root


@pytest.fixture(scope="module")
def opened(root):
    """A page of a browser over an app that does not fit: its address, and what went wrong in it."""
    from playwright.sync_api import sync_playwright

    server = dashboard.serve(Live(StudySettings(runs=str(root))), dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page, wrong = browser.new_page(), []
        address = f"http://127.0.0.1:{server.port}"
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
        yield page, address, wrong
        browser.close()
    server.shutdown()
    assert wrong == []


def test_a_sweep_under_way_is_drawn(opened, simulated, tmp_path):
    root = shutil.copytree(simulated, tmp_path / "root")
    put_under_way(root)
    server = dashboard.serve(Live(StudySettings(runs=str(root))), dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = opened[0].context.browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/sweep")
    page.get_by_text("16 of 24 done, 4 running, 4 waiting").wait_for()
    for figure in FIGURES:
        page.locator(f"#sweep-{figure} .main-svg").first.wait_for()
    page.locator("#sweep-spending-about", has_text="90%: in ").wait_for()
    page.locator("#sweep-spending .legendtext", has_text="90%").wait_for()
    page.close()
    server.shutdown()


def first(page, column):
    return page.locator(CELLS.format(column)).first


def test_the_table_sorts_filters_and_groups_and_the_address_keeps_it(opened, root):
    page, address, _ = opened
    rows = RunTable(root).look().rows
    page.goto(f"{address}/runs")
    first(page, "run_id").wait_for()
    assert page.locator(CELLS.format("run_id")).count() == len(rows)
    page.locator("th[data-column=loss] button").click()
    lowest = min(row.loss for row in rows if row.loss is not None)
    page.get_by_text(f"{lowest:.4f}").first.wait_for()
    page.wait_for_url("**sort=loss**")
    assert first(page, "loss").text_content() == f"{lowest:.4f}"
    page.locator("input[type=search]").fill("size=d64 loss<8")
    kept = [row for row in rows if row.size == "d64" and row.loss and row.loss < 8]
    page.get_by_text(f"{len(kept)} of {len(rows)} runs").wait_for()
    page.wait_for_url("**filter=size**")
    page.reload()
    page.get_by_text(f"{len(kept)} of {len(rows)} runs").wait_for()
    assert page.locator("input[type=search]").input_value() == "size=d64 loss<8"
    page.goto(f"{address}/runs?group=size&sort=-loss")
    page.get_by_text("lowest loss").wait_for()
    shown = [label for label in page.locator(CELLS.format("size")).all_text_contents() if label.startswith("d")]
    assert shown == sorted(shown, key=lambda label: int(label[1:]))
    page.get_by_text("d64", exact=True).click()
    first(page, "run_id").wait_for()
    assert {text.split("-")[0] for text in page.locator(CELLS.format("run_id")).all_text_contents()} == {"d64"}


def test_the_table_is_used_by_the_keyboard_alone(opened, root, monkeypatch):
    from playwright.sync_api import expect

    page, address, _ = opened
    monkeypatch.setattr(runs, "PAGE_ROWS", 10)
    pages = -(-len(RunTable(root).look().rows) // 10)
    page.goto(f"{address}/runs?sort=size")
    order = page.get_by_role("button", name="order by loss")
    first(page, "run_id").wait_for()
    order.focus()
    for sort, said in (("size,loss", "ascending"), ("size,-loss", "descending"), ("size", None)):
        page.keyboard.press("Enter")
        page.wait_for_url(f"**sort={sort.replace(',', '%2C')}")
        cell = page.locator("th[data-column=loss]")
        expect(cell).to_have_js_property("ariaSort", said)
        expect(order).to_be_focused()
    page.get_by_label("last page").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**page={pages}**")
    number = page.get_by_label("page", exact=True)
    for typed in ("99", ""):
        number.fill(typed)
        number.press("Enter")
        expect(number).to_have_value(f"{pages}")
    name = first(page, "run_id").text_content()
    box = page.get_by_label(f"choose {name}")
    box.focus()
    page.keyboard.press("Space")
    page.get_by_text(f"{name} is chosen").wait_for()
    expect(box).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#runs-one h2", has_text=name).wait_for()
    page.locator("#runs-pages input").fill("1")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "page=" not in url)
    assert first(page, "run_id").text_content() != name


def test_runs_stand_beside_each_other_and_open_by_a_click(opened, root):
    page, address, _ = opened
    page.goto(f"{address}/runs")
    first(page, "run_id").wait_for()
    boxes = page.locator("#runs-rows input[type=checkbox]")
    boxes.nth(0).check()
    page.get_by_text("with another one").wait_for()
    boxes.nth(5).check()
    page.get_by_text("2 runs beside each other").wait_for()
    page.wait_for_url("**chosen=**")
    name = page.locator(CELLS.format("run_id")).nth(2).text_content()
    page.locator(CELLS.format("run_id")).nth(2).locator("a").click()
    page.locator("#runs-one h2", has_text=name).wait_for()
    page.get_by_text("trains this run alone").wait_for()
    page.reload()
    page.get_by_text("2 runs beside each other").wait_for()
    page.locator("#runs-one h2", has_text=name).wait_for()
    assert page.locator("#runs-rows input[type=checkbox]:checked").count() == 2


def test_the_browsers_back_goes_to_what_was_open_before(opened, root):
    page, address, _ = opened
    one, other = sorted(row.run_id for row in RunTable(root).look().rows if row.loss is not None)[:2]
    page.goto(f"{address}/sweep")
    page.goto(f"{address}/runs?sort=run_id")
    for run_id in (one, other):
        page.locator(CELLS.format("run_id")).get_by_text(run_id).click()
        page.locator("h2", has_text=run_id).wait_for()
        page.wait_for_url(f"**run={run_id}**")
    page.locator("input[type=search]").fill("size=d8")  # a filter is no place to come back to
    page.wait_for_url("**filter=size**")
    page.go_back()
    page.locator("h2", has_text=one).wait_for()
    page.go_back()
    page.wait_for_url("**/runs?sort=run_id")
    page.locator("h2", has_text=one).wait_for(state="detached")
    page.go_forward()
    page.locator("h2", has_text=one).wait_for()


def test_what_the_page_fills_in_is_no_place_to_come_back_to(opened, simulated, tmp_path):
    root = shutil.copytree(simulated, tmp_path / "root")
    (root / "sweeps").rename(tmp_path / "later")
    server = dashboard.serve(Live(StudySettings(runs=str(root))), dashboard.listening(Door(), 0), Door())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = opened[0].context.browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/sweep")
    page.get_by_text("This store has no sweeps yet").click()
    length = page.evaluate("history.length")
    (tmp_path / "later").rename(root / "sweeps")
    page.wait_for_url("**/sweep?sweep=**")
    assert page.evaluate("history.length") == length
    page.close()
    server.shutdown()


def test_a_number_leads_to_its_runs_for_good(opened, root):
    page, address, _ = opened
    ids = [row.run_id for row in RunTable(root).look().rows if row.size == "d64"]
    many = [*ids, *(f"gone-{i:012x}" for i in range(10_000))]
    sets = RunSets(root)
    path = sets.address(many)
    page.goto(f"{address}{path}")
    page.get_by_text("no number rests on these runs now").wait_for()
    sets.find(run_sets.name_of(many))
    page.get_by_text(f"{len(ids)} of ").wait_for()  # without another click
    page.reload()
    page.get_by_text(f"{len(ids)} of ").wait_for()
    with urllib.request.urlopen(f"{address}{path.replace('/runs?', '/runs/curves.csv?')}") as answer:
        assert {line.split(b",")[0].strip(b'"').decode() for line in answer.read().splitlines()[1:]} == set(ids)


def test_a_run_writes_when_it_is_asked_to(opened, root, monkeypatch):
    page, address, _ = opened
    name = next(row.run_id for row in RunTable(root).look().rows if row.status == "done")
    asked, written = [], writing.Written(text=" <img src=x onerror=alert(3)>\nEnd", notes=("It <b>ends</b> there.",))
    monkeypatch.setattr(
        writing,
        "write",
        lambda _, row, prompt: asked.append((row.run_id, prompt)) or written,
    )
    page.goto(f"{address}/runs?run={name}&prompt=Once")
    page.get_by_text("Write 64 tokens").wait_for()
    page.wait_for_timeout(1000 * shell.TICK_SECONDS)
    assert asked == [], "an address starts nothing"
    page.locator(".prompt input").fill("Once <b>more")
    page.get_by_text("Write 64 tokens").click()
    page.get_by_text("Once <b>more <img src=x onerror=alert(3)>").wait_for()
    page.get_by_text("It <b>ends</b> there.").wait_for()
    assert asked == [(name, "Once <b>more")]
    page.wait_for_url("**prompt=Once+%3Cb%3Emore**")
    page.goto(f"{address}/runs")
    first(page, "run_id").wait_for()
    assert not page.locator("#runs-text").is_visible()


def test_names_and_logs_are_text_and_an_address_opens_no_path(opened, root):
    page, address, _ = opened
    page.goto(f"{address}/runs?filter=onerror")
    page.get_by_text(HOSTILE, exact=True).first.wait_for()
    page.locator(CELLS.format("run_id")).first.locator("a").click()
    page.get_by_text("<script>alert(2)</script>").first.wait_for()
    for wanted in ("../../etc/passwd", "nobody<b>"):
        page.goto(f"{address}/runs?run={wanted}&chosen={wanted}&sort=x,-y&page=-3&columns=7&group=z")
        page.get_by_text(f"No run of this store is called {wanted}").first.wait_for()
        page.get_by_text("sort=x,-y: there is no column x").wait_for()
    page.goto(f"{address}/sweep?sweep=../x")
    page.get_by_text("sweep=../x: there are laptop").wait_for()
    page.get_by_text("done").first.wait_for()
    page.wait_for_timeout(1000 * 2 * shell.TICK_SECONDS)
    assert "sweep=../x" in page.locator("#unread").text_content(), "it outlives the clock"


def test_curves_are_handed_out_whole_and_a_filter_that_is_none_is_refused(opened, root):
    _, address, _ = opened
    with urllib.request.urlopen(f"{address}/runs/curves.csv?filter=size%3Dd64") as answer:
        lines = answer.read().decode().splitlines()
    rows = [row for row in RunTable(root).look().rows if row.size == "d64" and row.loss is not None]
    assert len(lines) == 1 + 10 * len(rows)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{address}/runs/curves.csv?filter=los%3C3")


def test_a_sweep_is_followed_while_it_goes_on(opened, root):
    page, address, _ = opened
    sweep, ids = SweepDir(root, "laptop"), [path.name for path in (root / "runs").iterdir() if path.name != HOSTILE]
    live = {"phase": "training", "step": 4, "steps": 10, "loss": 3.25, "tokens_per_second": 12_000.0}
    said = {"state": "driving", "host": "elsewhere", "pid": 1, "asked": len(ids), "done": len(ids) - 1}
    sweep.write_status({**said, "time": 4e9, "running": {ids[0]: live}, "failed": {ids[1]: "<b>out</b> of memory"}})
    page.goto(f"{address}/sweep")
    page.get_by_text(f"{len(ids) - 1} of {len(ids)} done").wait_for()
    page.get_by_text("<b>out</b> of memory").wait_for()
    assert page.locator("img.spark").count() == 1
    sweep.write_status({**said, "time": 4e9 + 1, "running": {ids[0]: {**live, "loss": 3.125}}})
    page.get_by_text("3.125").wait_for()
    page.get_by_role("link", name=ids[0]).click()
    page.locator("#runs-one h2", has_text=ids[0]).wait_for()
