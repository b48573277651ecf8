"""A lease: one holder at a time where locks do not hold, by numbered terms that are created once.

Each term is a record of its own, 1, 2, 3, ...; whoever creates the next one holds it, and its number is the fencing
token: it only grows. The holder renews its own record, and nobody else's. Another may create the next term when the
holder has released its, is a process of this machine that is gone, or has been seen unchanged for as long as it said
itself. That is measured on the observer's own monotonic clock: clocks of two machines are never compared.

A holder that was paused for longer than that has lost the lease without knowing. So it looks for the next term before
everything that counts, and whoever takes over clears what the earlier holder had begun (``files.remove_leftovers``)
before it reads: a commit is a file begun, a look, a rename, and one of the two fails.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gpt3core.errors import LostError, StoreError, UsageError
from gpt3core.store import files

SETTING = "ISOFLOP_LEASE_SECONDS"
SILENCE_SECONDS = 60.0  # of a holder, before another may take over
RENEWALS = 10  # within that time
LOOKS = 4  # of an observer between two renewals
SAY_SECONDS = 2.0  # of waiting, before it is said


@dataclass(frozen=True, kw_only=True)
class Term:
    """What the holder of a term says of itself."""

    host: str
    pid: int
    since: str  # for people
    silence: float  # seconds unchanged after which it may be taken for gone
    nonce: str  # tells two tries of one number apart
    process: str = ""  # boot, pid namespace, pid and start of the process: equal only where the kernel is the same
    beat: int = 0
    released: bool = False
    last: str = ""  # what it committed last, of a term that was released

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid} since {self.since}"


class Board(Protocol):
    """Where the terms of one lease lie."""

    def newest(self) -> int:
        """The highest number that is seen, 0 where there is none."""

    def read(self, number: int) -> Term | None:
        """A term, or None where it is not there (whatever is there but unreadable is a term of nobody)."""

    def create(self, number: int, term: Term) -> bool:
        """Write a term that is not there yet; of all who try one number, exactly one is told True."""

    def write(self, number: int, term: Term) -> None:
        """Renew one's own term."""


def silence_seconds() -> float:
    """How long a holder that starts here may be silent.

    Raises:
        UsageError: for a setting that is no number above 0.
    """
    text = os.environ.get(SETTING) or str(SILENCE_SECONDS)
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.05 <= found <= 86400:
        raise UsageError(f"{SETTING}={text:.40}: seconds of silence after which a holder is gone, from 0.05 to 86400")
    return found


def this_process() -> Term:
    """The term that this process would hold from now on."""
    return Term(
        host=os.uname().nodename,
        pid=os.getpid(),
        since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        silence=silence_seconds(),
        nonce=uuid.uuid4().hex,
        process=_process(os.getpid()),
    )


def _process(pid: int) -> str:
    """What names a process on this machine and on no other, or nothing where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
        start = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {space} {pid} {start}"


def gone(term: Term) -> bool:
    """Whether a holder was a process of this very machine, and is there no more."""
    mine = _process(os.getpid())
    if not term.process or not mine or term.process.split(" ")[:2] != mine.split(" ")[:2]:
        return False
    return _process(term.pid) != term.process


class Lease:
    """A term that is held, renewed by a thread until it is released."""

    mechanism = "lease"

    def __init__(self, board: Board, number: int, term: Term, what: str) -> None:
        self.token = number
        self._board, self._term, self._what = board, term, what
        self._guard = threading.Lock()  # renewals come from the thread and from ``check``
        self._over = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lease is still held.

        Its own record is written before the next one is looked for: on NFS that brings the folder up to date.

        Raises:
            LostError: when another has it.
            StoreError: when that cannot be told now.
        """
        assert not self._over.is_set(), "a lease that was released is not asked for"
        with self._guard:
            if not self._lost:
                try:
                    self._beat()
                except OSError as error:
                    raise StoreError(f"the lease of {self._what} cannot be renewed now ({error}): try again") from error
            if self._lost:
                raise LostError(self._lost)

    def release(self, last: str = "") -> None:
        """Let the next one have it at once, and know what was committed last."""
        self._over.set()
        self._thread.join()
        with self._guard, contextlib.suppress(OSError, StoreError):
            if not self._lost and self._successor() is None:
                self._board.write(self.token, replace(self._term, released=True, last=last))

    def _beat(self) -> None:
        self._term = replace(self._term, beat=self._term.beat + 1)
        self._board.write(self.token, self._term)
        if (taken := self._successor()) is not None:
            self._lost = (
                f"{self._what} was taken over by another process ({taken}) after this one was silent for "
                f"{self._term.silence:g} s: what it had begun is not counted"
            )

    def _successor(self) -> Term | None:
        return self._board.read(self.token + 1)

    def _renew(self) -> None:
        while not self._over.wait(self._term.silence / RENEWALS):
            with self._guard, contextlib.suppress(OSError, StoreError):  # the next beat may get through
                if not self._lost:
                    self._beat()


def acquire(board: Board, what: str, *, say: Callable[[str], None] | None = None) -> Lease | Term:
    """Take a lease, or say who holds it. Waits until a holder is seen to renew, or is silent for long enough.

    Args:
        what: is leased, in words.
        say: is told once what is waited for.
    """
    mine, say = this_process(), say or _to_stderr
    seen: tuple[int, Term] | None = None
    since = began = time.monotonic()
    told = False
    while True:
        number = board.newest()
        term = board.read(number) if number else None
        if number and term is None:  # a listing of something that was taken away again
            time.sleep(0.01)
            continue
        now = time.monotonic()
        if term is None or term.released or gone(term):
            free = True
        elif seen is None or seen[0] != number or seen[1].nonce != term.nonce:
            seen, since, free = (number, term), now, False
        elif term.beat > seen[1].beat:
            return term  # it lives; a lower beat is a renewal that came late
        else:
            free = now - since > term.silence
        if free:
            if board.create(number + 1, mine):
                return Lease(board, number + 1, mine, what)
            if (faster := board.read(number + 1)) is not None:
                return faster
            continue
        assert term is not None
        if not told and now - began > SAY_SECONDS:
            told = True
            say(f"{what} is held by {term}: waiting up to {term.silence:g} s for a sign of life")
        time.sleep(term.silence / RENEWALS / LOOKS)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class FolderBoard:
    """The terms of a lease as files of a folder, ``00000001.json`` and so on; none is ever removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = files.make_folder(folder)

    def newest(self) -> int:
        """The highest number in the listing, and beyond it where that is old."""
        found = max((int(path.stem) for path in self.folder.glob("[0-9]*.json") if path.stem.isdecimal()), default=0)
        while self._path(found + 1).exists():
            found += 1
        return found

    def read(self, number: int) -> Term | None:
        """A term, or None where it is not there."""
        path = self._path(number)
        with files.explained(path):
            try:
                return parse(files.read_bytes(path))
            except FileNotFoundError:
                return None

    def create(self, number: int, term: Term) -> bool:
        """Link a whole file to the name; where the file system has no links, create it exclusively."""
        begun, path = self._begun(number, term), self._path(number)
        try:
            with files.explained(path):
                try:
                    os.link(begun, path)
                except FileExistsError:
                    return begun.stat().st_nlink == 2  # NFS: the first answer was lost, and the link is ours
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                        raise
                    return self._create_plainly(path, term)
            return True
        finally:
            begun.unlink(missing_ok=True)

    def write(self, number: int, term: Term) -> None:
        """Renew one's own term; not made durable, for a holder that the power left is gone."""
        begun = self._begun(number, term)
        try:
            os.replace(begun, self._path(number))
        finally:
            begun.unlink(missing_ok=True)

    def _create_plainly(self, path: Path, term: Term) -> bool:
        try:
            with open(path, "xb") as file:
                file.write(as_bytes(term))
        except FileExistsError:
            return False
        return True

    def _begun(self, number: int, term: Term) -> Path:
        path = self.folder / f".{number:08d}.{uuid.uuid4().hex[:8]}.tmp"
        path.write_bytes(as_bytes(term))
        return path

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"


def as_bytes(term: Term) -> bytes:
    """A term as JSON."""
    return (json.dumps(asdict(term), sort_keys=True) + "\n").encode()


def parse(data: bytes) -> Term:
    """A term from its bytes; what is no term is one of nobody, which ends like that of any silent holder."""
    try:
        found: dict[str, Any] = json.loads(data)
        silence = min(max(float(found["silence"]), 0.0), 86400.0)
        return Term(**{**found, "silence": silence, "pid": int(found["pid"])})
    except (ValueError, TypeError, KeyError):
        return Term(host="unknown", pid=0, since="an unknown time", silence=SILENCE_SECONDS, nonce=data.hex()[:64])
