"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gpt3core import terminal
from gpt3core.words import count, duration
from sweeps.cluster.job import Progress

DONE = "done    "  # how the line of a finished run begins
PLAIN_SECONDS = 10.0
MOST_PLAIN = 12  # runs under way that plain lines list
WIDE = 100  # columns from which a bar is ...
NARROW_BAR, WIDE_BAR = 8, 20  # ... so many cells
LIVE_SECONDS = 0.2  # the driver speaks at every end of a run, which may be many a second


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a sweep at one moment."""

    name: str
    total: int
    done: int
    eta_seconds: float | None
    running: Mapping[str, Progress | None] = field(default_factory=dict)  # run_id -> live progress, None at first
    resumed: Mapping[str, float] = field(default_factory=dict)  # run_id -> share of its steps that it went on from
    waiting: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason
    held: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason
    failed: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason
    pruned: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason
    avoided: Mapping[str, str] = field(default_factory=dict)  # node on which nothing new starts -> reason

    def grouped(self) -> list[tuple[list[str], str]]:
        """The waiting runs by their reason."""
        groups: dict[str, list[str]] = {}
        for run, reason in self.waiting.items():
            groups.setdefault(reason, []).append(run)
        return [(runs, reason) for reason, runs in groups.items()]

    def counts(self) -> str:
        """``2/9 done, 1 failed, 3 waiting``."""
        told = ((len(self.failed), "failed"), (len(self.held), "held"), (len(self.pruned), "pruned"))
        parts = [f"{self.done}/{self.total} done", *(f"{n} {what}" for n, what in told if n)]
        return ", ".join([*parts, f"{len(self.waiting)} waiting"])


class Display(Protocol):
    """Somewhere to show a sweep."""

    def say(self, line: str) -> None:
        """One lasting line."""

    def show(self, snapshot: Snapshot) -> None:
        """The state now; called a few times a second."""

    def close(self) -> None:
        """No more to show."""


def display() -> Display:
    """The display for where the output goes."""
    console = Console()
    return Sturdy(_Terminal(console) if terminal.redraws(console) else _Plain())


class Sturdy:
    """A display that cannot end a sweep: one that raises is dropped with a line, and plain lines go on."""

    def __init__(self, shown: Display) -> None:
        self._shown: Display | None = shown

    def say(self, line: str) -> None:
        """One lasting line."""
        self._try(lambda shown: shown.say(line))

    def show(self, snapshot: Snapshot) -> None:
        """The state now."""
        self._try(lambda shown: shown.show(snapshot))

    def close(self) -> None:
        """No more to show."""
        self._try(lambda shown: shown.close())

    def _try(self, act: Callable[[Display], None]) -> None:
        if self._shown is None:
            return
        try:
            act(self._shown)
        except Exception as error:  # whatever it is, the runs matter more
            broken, self._shown = self._shown, None if isinstance(self._shown, _Plain) else _Plain()
            with contextlib.suppress(Exception):
                print(f"the display broke ({type(error).__name__}: {error}); the sweep goes on", file=sys.stderr)
            with contextlib.suppress(Exception):
                broken.close()
            if self._shown is not None:
                self._try(act)


def _live(progress: Progress | None, cells: int = 0) -> tuple[str, str, str]:
    """Progress, loss and speed of a running run, as text; the progress with a bar of so many cells."""
    if progress is None:
        return "starting", "", ""
    share = progress.step / progress.steps
    drawn = f"{terminal.bar(share, cells)} " if cells else ""
    done = f"{drawn}{share:4.0%}" if progress.phase == "training" else progress.phase
    loss = f"{progress.loss:.3f}" if progress.loss is not None else ""
    return done, loss, f"{count(progress.tokens_per_second)} tok/s"


def _named(runs: list[str]) -> str:
    """Runs that wait for the same are one entry, named by the first of them."""
    return runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more"


def _whole_parts(line: str, width: int) -> str:
    """A run that is done, as far as a line has room: parts stand two spaces apart, and the first are needed most."""
    while len(line) > width and "  " in line[len(DONE) :]:
        line = line.rstrip().rpartition("  ")[0]
    return line.rstrip()


class _Plain:
    """Lines, at every event; and every few seconds how it stands, a line a run under way."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PLAIN_SECONDS
        told = os.environ.get("COLUMNS", "")
        self._width = (
            int(told) if told.isdecimal() and int(told) else None
        )  # of whoever reads them, where that is known

    def say(self, line: str) -> None:
        cut = self._width is not None and line.startswith(DONE)
        print(_whole_parts(line, self._width or 0) if cut else line, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        lines = [f"{snapshot.name}: {snapshot.counts()}, ETA {duration(snapshot.eta_seconds)}"]
        for run, progress in list(snapshot.running.items())[:MOST_PLAIN]:
            done, loss, speed = _live(progress, NARROW_BAR)
            lines.append(f"  {run:17}  {done:13}  {loss:>6}  {speed:>11}".rstrip())
        if (more := len(snapshot.running) - MOST_PLAIN) > 0:
            lines.append(f"  and {more:,} more under way")
        lines += [f"  waiting  {_named(runs)}: {reason}" for runs, reason in snapshot.grouped()]
        print("\n".join(lines), flush=True)

    def close(self) -> None:
        pass


class _Terminal:
    """A rich table that stays at the bottom while lines scroll above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()
        self._next = -math.inf

    def say(self, line: str) -> None:
        console = self._live.console
        console.print(
            _whole_parts(line, console.width) if line.startswith(DONE) else line, markup=False, highlight=False
        )

    def show(self, snapshot: Snapshot) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LIVE_SECONDS
        title = Text(f"{snapshot.name}: {snapshot.counts()}, ETA {duration(snapshot.eta_seconds)}")
        self._live.update(Group(title, *self._running(snapshot), *self._others(snapshot)))

    def _running(self, snapshot: Snapshot) -> list[Table]:
        """A line a run under way."""
        if not snapshot.running:
            return []
        table, cells = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False), self._cells()
        for column in ("run", "progress", "loss", "speed", ""):
            table.add_column(column, justify="right" if column in ("loss", "speed") else "left", no_wrap=True)
        on = {run: f"resumed at {share:.0%}" for run, share in snapshot.resumed.items()}
        for run, progress in snapshot.running.items():
            table.add_row(*map(Text, (run, *_live(progress, cells), on.get(run, ""))))
        return [table]

    def _others(self, snapshot: Snapshot) -> list[Text]:
        """A line a group of runs that waits, or a run that ended, cut to the width: failures were said in full."""
        rows = [(f"failed   {run}: {reason}", "red") for run, reason in snapshot.failed.items()]
        rows += [(f"held     {run}: {reason}", "yellow") for run, reason in snapshot.held.items()]
        rows += [(f"pruned   {run}: {reason}", "dim") for run, reason in snapshot.pruned.items()]
        rows += [(f"waiting  {_named(runs)}: {reason}", "dim") for runs, reason in snapshot.grouped()]
        lines = [Text(line, style=style) for line, style in rows]  # text, not markup: a reason may begin with "[/"
        for line in lines:
            line.truncate(self._live.console.width, overflow="ellipsis")
        return lines

    def _cells(self) -> int:
        return NARROW_BAR if self._live.console.width < WIDE else WIDE_BAR

    def close(self) -> None:
        self._live.stop()
