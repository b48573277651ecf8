"""The processor's time that this process takes, with what it has started, such as compilers."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PROCESSES = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def seconds() -> float:
    """CPU seconds of this process and its descendants so far; where a system does not tell, as if it always worked."""
    if not (PROCESSES / "self/task" / str(os.getpid()) / "children").exists():  # nor do all Linux kernels
        return time.monotonic()
    return _ticks(os.getpid()) / TICKS


def _ticks(process: int) -> int:
    """Of a process and its descendants, those that have ended too; none of one that has just gone."""
    there, found = PROCESSES / str(process), 0
    with contextlib.suppress(OSError):
        found = sum(map(int, (there / "stat").read_text().rpartition(")")[2].split()[11:15]))
        for thread in (there / "task").iterdir():
            with contextlib.suppress(OSError):
                found += sum(_ticks(int(child)) for child in (thread / "children").read_text().split())
    return found
