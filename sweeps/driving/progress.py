"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

PLAIN_SECONDS = 10.0


@dataclass(kw_only=True)
class Snapshot:
    """The state of a sweep at one moment."""

    name: str
    total: int
    done: int
    eta_seconds: float | None
    running: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # run_id -> live progress
    waiting: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason
    failed: Mapping[str, str] = field(default_factory=dict)  # run_id -> reason


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
    return _Terminal(console) if console.is_terminal else _Plain()


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03``."""
    if seconds is None:
        return "unknown"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _live(progress: Mapping[str, Any]) -> tuple[str, str, str]:
    """Progress, loss and speed of a running run, as text."""
    if not progress:
        return "starting", "", ""
    share = progress["step"] / progress["steps"]
    done = f"{100 * share:3.0f}%" if progress["phase"] == "training" else progress["phase"]
    loss = f"{progress['loss']:.3f}" if progress["loss"] is not None else ""
    return done, loss, f"{progress['tokens_per_second'] / 1000:.0f}k tok/s"


def _waiting(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Every waiting run's reason: runs that wait for the same are one entry, named by the first of them."""
    groups: dict[str, list[str]] = {}
    for run, reason in snapshot.waiting.items():
        groups.setdefault(reason, []).append(run)
    return [
        (runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more", reason)
        for reason, runs in groups.items()
    ]


class _Plain:
    """Lines, at every event and at most one summary every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PLAIN_SECONDS

    def say(self, line: str) -> None:
        print(line, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        live = ", ".join(f"{run} {' '.join(filter(None, _live(p)))}" for run, p in snapshot.running.items())
        failed = f", {len(snapshot.failed)} failed" if snapshot.failed else ""
        held = "".join(f"; {runs}: {reason}" for runs, reason in _waiting(snapshot))
        print(
            f"{snapshot.name}: {snapshot.done}/{snapshot.total} done{failed}, {len(snapshot.waiting)} waiting, "
            f"ETA {duration(snapshot.eta_seconds)}; running: {live or 'none'}{held}",
            flush=True,
        )

    def close(self) -> None:
        pass


class _Terminal:
    """A rich table that stays at the bottom while lines scroll above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        failed = f"  [red]{len(snapshot.failed)} failed[/red]" if snapshot.failed else ""
        title = (
            f"{snapshot.name}: {snapshot.done}/{snapshot.total} done{failed}, {len(snapshot.waiting)} waiting, "
            f"ETA {duration(snapshot.eta_seconds)}"
        )
        table = Table(title=title, title_justify="left", expand=False)
        for column in ("run", "progress", "loss", "speed", "why it waits or failed"):
            table.add_column(column, justify="right" if column in ("loss", "speed") else "left")
        for run, progress in snapshot.running.items():
            table.add_row(run, *_live(progress), "")
        for run, reason in snapshot.failed.items():
            table.add_row(run, "failed", "", "", reason, style="red")
        for runs, reason in _waiting(snapshot):
            table.add_row(runs, "waiting", "", "", reason, style="dim")
        self._live.update(table)

    def close(self) -> None:
        self._live.stop()
