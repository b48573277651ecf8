"""One browser for the tests of a file, and what they wait for in it."""

import pytest

from tests.browser.test_report import CHROMIUM, FLAGS

STILL = """figure => new Promise(done => {
  let timer;
  const wait = () => { clearTimeout(timer); timer = setTimeout(done, 1000); };
  document.querySelector(`#${figure} .js-plotly-plot`).on("plotly_afterplot", wait);
  wait();
})"""


def still(page, figure):
    """Wait until a figure was not drawn for a second: Dash lays each out once more when it is there.

    What a reader has begun with the mouse by then, a click or a drag, is lost.
    """
    page.locator(f"#{figure} .main-svg").first.wait_for()
    page.evaluate(STILL, figure)


def until(page, expression, argument=None):
    """Wait for JavaScript to say so; asked from outside, for the pages allow no code of strings."""
    for _ in range(600):
        if page.evaluate(expression, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came: {expression}")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, headless."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a busy machine takes more than Playwright's five seconds
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()
