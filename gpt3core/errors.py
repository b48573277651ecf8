"""What can go wrong that a user can mend, or that a driver must tell apart; each message is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGES = ("analysis", "dashboards", "gpt3core", "sweeps")  # all of isoflop
CODE = Path(__file__).parents[1]  # where they lie
NO_THREAD = (
    "this machine starts no further thread (its memory, ulimit -u, or a container's limit of processes): make room, "
    "and start the same command again"
)
NO_HOME = "a folder is given as ~NAME, and this machine knows no home of that name: write the folder out, from / on"
# what torch and its transports say of a collective that broke, or a send to a rank that is gone
COLLECTIVE = re.compile(
    r"gloo|nccl|process group|connection (was )?(closed|reset|refused)|broken pipe|rendezvous|socket timeout"
    r"|timed out waiting",
    re.I,
)


class UsageError(ValueError):
    """Something the user typed cannot be used; the message says what, what is allowed, and what to do."""


class StoreError(Exception):
    """Something about the store that its user must know."""


class DiskFullError(StoreError):
    """There is no room left for a write; whatever was there before is untouched."""


class StoppedError(Exception):
    """The run was asked to stop; its checkpoint is written."""


class BusyError(Exception):
    """Another live process is training this run."""


class LostError(BusyError):
    """This process was the one to write a run or a sweep, and another has taken over since."""


class PeerError(Exception):
    """Another rank of this run failed, died or stopped answering."""


def of_machine(error: RuntimeError) -> str:
    """What to say of an error of Python's own that the machine, or a ~NAME, is behind; empty for any other."""
    known = {"can't start new thread": NO_THREAD, "Could not determine home directory": NO_HOME}
    return next((words for text, words in known.items() if text in str(error)), "")


def from_library(error: BaseException) -> bool:
    """Whether an error was raised outside isoflop, wherever that is installed: a defect, not a user's mistake."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    path = Path("" if frame is None else frame.tb_frame.f_code.co_filename)
    return "site-packages" in path.parts and not any(path.is_relative_to(CODE / name) for name in PACKAGES)
