"""How a command prints: as wide as its terminal, sentences under their labels, tables of whole cells.

Imports rich when something is printed, and not before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from gpt3core.words import is_number

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

PIPE_WIDTH = 120  # where the output is no terminal and COLUMNS says nothing
INTERRUPTED = 130  # exit code after Ctrl-C, as a shell's
READABLE = 110  # columns of a sentence, on however wide a terminal
BAR = ("━", "╸", " ")  # a whole, a half and an empty cell of a bar
PLAIN_BAR = ("=", "-", " ")  # and where the output cannot spell these


def console(pipe: int = PIPE_WIDTH) -> Console:
    """Where to print: no colours and no cursor where it is no terminal, and no text is markup.

    Args:
        pipe: columns where it is none, and COLUMNS does not say.
    """
    from rich.console import Console, ConsoleDimensions

    class Whole(Console):
        def on_broken_pipe(self) -> None:
            raise  # for ``unwritten``; rich would end the process with 1

    known = Whole(highlight=False, markup=False)
    if known.is_dumb_terminal:  # rich takes 80 columns for granted
        known.size = ConsoleDimensions(*shutil.get_terminal_size())
    elif not known.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        known.width = pipe
    return known


def redraws(console: Console) -> bool:
    """Whether lines that stand can be written over: not on a pipe, nor where TERM is dumb (an editor's shell)."""
    return console.is_terminal and not console.is_dumb_terminal


def labelled(lines: Sequence[tuple[str, str]], width: int, whole: Collection[str] = ()) -> list[str]:
    """Sentences beside their labels, broken between words.

    Args:
        whole: labels of what is copied, a command or a path: it is never broken.
    """
    indent = 2 + max((len(label) for label, _ in lines), default=0)
    found = []
    for label, sentence in lines:
        room = max(20, min(width, READABLE) - indent)
        parts = (
            [sentence]
            if label in whole
            else textwrap.wrap(sentence, room, break_long_words=False, break_on_hyphens=False)
        )
        heads = [label, *[""] * (len(parts) - 1)]
        found += [f"{head:{indent}}{part}".rstrip() for head, part in zip(heads, parts, strict=True)]
    return found


def table(
    out: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Collection[str] | None = None,
    last: Sequence[str] = (),
) -> None:
    """A table of whole cells: where the terminal is too narrow, columns are left out, and named below.

    Args:
        words: columns that are set to the left, the others to the right; by default those that are not all numbers.
        last: columns that may be left out, the first one first.
    """
    from rich.table import Table
    from rich.text import Text

    if words is None:
        words = [name for i, name in enumerate(columns) if not all(is_number(row[i]) for row in rows)]
    width = {name: 3 + max(map(len, (name, *(row[i] for row in rows)))) for i, name in enumerate(columns)}
    whole, without = 1 + sum(width.values()), []
    for name in last:
        if 1 + sum(width.values()) > out.width:
            without.append(name)
            del width[name]
    drawn = Table(title=Text(title), title_justify="left")
    for name in width:
        drawn.add_column(Text(name), justify="left" if name in words else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for name, cell in zip(columns, row, strict=True) if name in width))
    out.print(drawn)
    if without:
        out.print(f"shown where there are {whole} columns: {', '.join(without)}", style="dim", markup=False)


def bar(share: float, cells: int) -> str:
    """A bar of so many cells, filled to a share of them in halves."""
    halves = round(2 * cells * min(1.0, max(0.0, share)))
    full, half = divmod(halves, 2)
    whole, halved, empty = BAR if _spells(*BAR) else PLAIN_BAR
    return whole * full + halved * half + empty * (cells - full - half)


def _spells(*signs: str) -> bool:
    try:
        "".join(signs).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unwritten(error: OSError) -> int:
    """The exit code of a command whose output cannot be written; any other error is raised again.

    A pipe that nobody reads any more is no mistake (141, as of SIGPIPE); of a store a full disk is a ``StoreError``.
    """
    if not isinstance(error, BrokenPipeError) and error.errno != errno.ENOSPC:
        raise error
    with contextlib.suppress(OSError, ValueError):  # what is held back would fail once more at the process's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141
    print(f"error: the output cannot be written ({error.strerror})", file=sys.stderr)
    return 2


def heed_interrupts() -> None:
    """Let Ctrl-C wait until an import is over: some compiled modules swallow, or die of, an exception in theirs."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background commands ignore it
    if heard and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(_: int, frame: FrameType | None) -> None:
    outermost = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            outermost = frame
        frame = frame.f_back
    if outermost is None or sys.getprofile() is not None:  # the second time it does not wait
        raise KeyboardInterrupt

    def look(left: FrameType, event: str, _: object) -> None:
        if left is outermost and event == "return":
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(look)
