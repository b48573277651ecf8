"""Who follows a page: one may leave at any moment, and a terminal may not draw over what stands."""

import io

from rich.console import Console

from sweeps.watching import follow


def test_who_leaves_before_the_first_page_was_read_leaves():
    def read(width, lines):
        raise KeyboardInterrupt

    console = Console(file=io.StringIO(), force_terminal=True)
    follow.follow(console, read)
    assert "\x1b[?1049l" in console.file.getvalue(), "the terminal is as it was"


def test_where_no_page_can_be_drawn_over_one_follows_another(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    pages = iter([("first", False), ("last", True)])
    console = Console(file=io.StringIO(), force_terminal=True)
    follow.follow(console, lambda width, lines: next(pages), sleep=lambda seconds: None)
    assert console.file.getvalue().split() == ["first", "last"]
