"""The right to write what counts of a run or a sweep: one holder at a time, by a lock or by a lease."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from gpt3core.errors import LostError
from gpt3core.store import files, soundness
from gpt3core.store.lease import FolderBoard, Lease, acquire, as_bytes, gone, parse, this_process

SIGNED_SECONDS = 1.0


class Claim(Protocol):
    """Held for the time of a block."""

    mechanism: str  # lock | lease
    token: int  # of a lease: grows with every holder; 0 of a lock

    def check(self) -> None:
        """Raise LostError where the claim is held no more."""


class HeldError(Exception):
    """Another has it; the message says who, since when, and by what."""


@contextlib.contextmanager
def claimed(path: Path, root: Path, what: str, *, say: Callable[[str], None] | None = None) -> Iterator[Claim]:
    """Hold a claim for the block.

    Args:
        path: of the lock file; a lease is a folder beside it.
        root: of the store, whose file system decides between the two.
        what: is claimed, in words.
        say: is told what is waited for; by default standard error is.

    Raises:
        HeldError: when another has it.
    """
    if soundness.choose(root, writes=True).kind == soundness.LOCK:
        with _locked(path, what) as lock:
            yield lock
        return
    lease = acquire(FolderBoard(path.with_name(f"{path.stem}.lease")), what, say=say)
    if not isinstance(lease, Lease):
        raise HeldError(f"{lease}, by a lease")
    try:
        yield lease
    finally:
        lease.release()


class Lock:
    """A lock that the kernel holds for this process."""

    mechanism, token = "lock", 0

    def __init__(self, descriptor: int, path: Path, what: str) -> None:
        self._descriptor, self._path, self._what = descriptor, path, what

    def held(self) -> bool:
        """Whether the locked file is still the one of that name: another may have locked a new one."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise LostError where the lock's file was deleted or replaced."""
        if not self.held():
            raise LostError(
                f"{self._path} was deleted or replaced while {self._what} was held by it: what was begun since is not "
                "counted; start again"
            )


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[Lock]:
    files.make_folder(path.parent)
    while True:
        with files.explained(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HeldError(f"{_holder(path)}, by a lock") from None
            lock = Lock(descriptor, path, what)
            if lock.held():  # it may have been replaced between the two calls
                with files.explained(path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, as_bytes(this_process()), 0)
                try:
                    yield lock
                finally:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, 0)
                return
        finally:
            os.close(descriptor)


def _holder(path: Path) -> str:
    """Who has the lock, by its file, which a new holder signs a moment after the kernel gave it."""
    deadline = time.monotonic() + SIGNED_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            data = files.read_bytes(path)
            if data and not gone(term := parse(data)):
                return str(term)
        time.sleep(SIGNED_SECONDS / 100)
    return "a process that has not signed it"
