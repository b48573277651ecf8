"""A page that follows: read again every few seconds, until the sweep has ended or the reader leaves."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from gpt3core import terminal

EVERY_SECONDS = 2.0
PIPE_SECONDS = 10.0  # where no page can be drawn in place, one at most that often


def follow(
    console: Console,
    read: Callable[[int, int | None], tuple[RenderableType, bool]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show what ``read(width, lines)`` gives, until it says that there is no more to come.

    On a terminal the page is drawn in place, and the last one stays there; elsewhere one page follows another.
    """
    if not terminal.redraws(console):
        while True:
            page, over = read(console.width, None)
            console.print(page)
            if over:
                return
            sleep(PIPE_SECONDS)
            console.print()
    seen: RenderableType | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                page, over = read(console.size.width, console.size.height - 1)
                live.update(seen := page, refresh=True)
                if over:
                    break
                sleep(EVERY_SECONDS)
        except KeyboardInterrupt:
            pass
    if seen is not None:  # a reader may leave before the first was read
        console.print(seen)
