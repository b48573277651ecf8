"""What can go wrong that a user can mend, or that a driver must tell apart; each message is one sentence."""

from __future__ import annotations

import re

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
