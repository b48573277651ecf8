"""One browser for the tests of a file."""

import pytest

from tests.browser.test_report import CHROMIUM, FLAGS


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, headless."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a busy machine takes more than Playwright's five seconds
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()
