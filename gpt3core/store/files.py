"""Atomic files and locks. A file is either absent or whole: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from gpt3core.errors import DiskFullError, StoreError

Fence = Callable[[Path, Path], None]  # given what was begun and its final path; raises LostError
ROOT = "ISOFLOP_ROOT"  # the environment variable that says where the store lies
OUT = "out="  # the key of a command that says where its files go
NO_FOLDER = (  # of the operating system's refusals those that another folder mends
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EINVAL),  # the latter of a pipe
)
RESUMED = ": finished runs stay, the others resume"
_setting: ContextVar[str] = ContextVar("setting", default=ROOT)  # of what is written now
TAIL_BYTES = 1 << 16  # of a log that is read for its last lines
LIVE_BYTES = 1 << 20  # of live lines before they are put behind: an hour's at two a second


def sync_folder(folder: Path) -> None:
    """Make renames and creations in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, setting: str | None = None) -> Path:
    """Create a folder and its parents, or say in one sentence why that cannot be; ``setting`` as of ``explained``."""
    with explained(folder, setting=setting):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def explained(path: Path, *, setting: str | None = None) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence: what was being written, and what to do.

    Args:
        setting: the environment variable or key that says where such files go; by default that of the block around
            this one, and without one the store's.
    """
    outer = _setting.get()
    setting = setting or outer
    _setting.set(setting)
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(
                f"no room to write {path} ({error.strerror}): what was there is as it was; free space there or set "
                f"{setting} to another disk, and start again{'' if setting == OUT else RESUMED}"
            ) from error
        if error.errno in NO_FOLDER:
            raise StoreError(f"cannot write {path} ({error.strerror}): name a writable folder by {setting}") from error
        raise
    finally:
        _setting.set(outer)


def only_looking(check: Callable[[], None] | None) -> Fence | None:
    """A fence that makes sure of the claim, and leaves the rest to a later commit."""
    return None if check is None else lambda *_: check()


class AlreadyWrittenError(Exception):
    """An exclusive write found the file there."""


def write_bytes(path: Path, data: bytes | memoryview, *, exclusive: bool = False, fence: Fence | None = None) -> None:
    """Write a whole file atomically and durably.

    Args:
        exclusive: never replace: the first writer wins, a later one raises AlreadyWrittenError.
        fence: raises LostError where this process may write here no more; asked when all but the rename is done, and
            given what was begun and what it becomes.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with explained(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with fenced(fence, temporary, path):
                if exclusive:
                    try:
                        os.link(temporary, path)
                    except FileExistsError:
                        raise AlreadyWrittenError(str(path)) from None
                else:
                    os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_streamed(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """The same of what a library writes to a stream, by way of memory: not all of them say that a disk is full."""
    buffer = io.BytesIO()
    write(buffer)
    write_bytes(path, buffer.getvalue())  # a view of it, kept by an error, ends Python 3.12.1 when it is collected


@contextlib.contextmanager
def fenced(fence: Fence | None, begun: Path, final: Path) -> Iterator[None]:
    """Commit within the block what was begun before it, unless another process has taken over.

    It may do so after this look too: then it clears what was begun here, the commit finds nothing, and says why.
    """
    if fence is None:
        yield
        return
    fence(begun, final)
    try:
        yield
    except FileNotFoundError:
        fence(begun, final)
        raise


def write_json(path: Path, data: Any, *, exclusive: bool = False, fence: Fence | None = None) -> None:
    """Write JSON atomically: sorted keys, NaN refused."""
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), exclusive=exclusive, fence=fence)


def is_there(path: Path) -> bool:
    """Whether a file exists, or say in one sentence why its folder cannot be opened."""
    try:
        return path.exists()
    except OSError as error:
        place = f"{path.parent} cannot be opened ({error.strerror})"
        raise StoreError(f"{place}: check its name, and your rights") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file to read from; of a pipe, which would be waited for until somebody writes it, an OSError as of a folder."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Is a pipe or a device", str(path))
        yield file


def read_bytes(path: Path) -> bytes:
    """What a file holds; an OSError of what is no file."""
    with opened(path) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is unreadable."""
    try:
        return json.loads(read_bytes(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        wrong = f"{path} cannot be read now ({error.strerror})"
        raise StoreError(f"{wrong}: check that disk, or move away what is no file") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not readable JSON ({error}): restore it from a copy or move it away") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that is not empty, or say which file holds something else."""
    found = read_json(path)
    if not isinstance(found, dict) or not found:
        raise StoreError(
            f"{path} holds {found!r:.40} where an object with fields is expected: restore it from a copy or move it "
            "away"
        )
    return found


def find_object(path: Path) -> dict[str, Any] | None:
    """The same, or None where there is no such file."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return None


def append_event(path: Path, what: str, details: dict[str, Any]) -> None:
    """Append what happened, and when, to a log."""
    append_line(path, {"time": round(time.time(), 3), "event": what, **details})


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line and flush it. A torn last line (after a crash) is skipped by ``read_lines``."""
    with explained(path), open(path, "ab") as file:
        file.write(json.dumps(record, sort_keys=True).encode() + b"\n")


def append_bounded(path: Path, record: dict[str, Any], *, most: int = LIVE_BYTES) -> None:
    """Append one JSON line to a file of live lines, of which the newest are kept: at most twice ``most`` bytes.

    A full file becomes ``NAME.1``, in place of the one before; ``tail -F`` follows.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size >= most:
            with explained(path):
                os.replace(path, path.with_name(f"{path.name}.1"))
    append_line(path, record)


def read_lines(path: Path, having: Sequence[bytes] = ()) -> list[dict[str, Any]]:
    """The whole JSON lines of a file; none when it does not exist.

    Args:
        having: only lines with one of these in them, which saves reading the others.
    """
    return list(each_line(path, having))


def each_line(path: Path, having: Sequence[bytes] = ()) -> Iterator[dict[str, Any]]:
    """The same one by one: of a long log all at once take ten times its size."""
    with contextlib.suppress(FileNotFoundError), opened(path) as file:
        yield from _parsed(file, having)


def number(value: object) -> float | None:
    """What a file tells, if it is a finite number (JSON's readers take NaN and 1e400 too); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def last_lines(path: Path, most: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """The whole JSON lines among the last bytes of a file; none when it does not exist."""
    try:
        with opened(path) as file:
            beyond = file.seek(0, os.SEEK_END) - most
            file.seek(max(0, beyond))
            data = file.read()
    except FileNotFoundError:
        return []
    return parsed(data.partition(b"\n")[2] if beyond > 0 else data)


def parsed(data: bytes, having: Sequence[bytes] = ()) -> list[dict[str, Any]]:
    """The whole JSON lines of some bytes."""
    return list(_parsed(io.BytesIO(data), having))


def _parsed(lines: Iterable[bytes], having: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if having and not any(word in line for word in having):
            continue
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(record := json.loads(line), dict):
                yield record


def sha256_file(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a crash cannot leave half of it under its own name."""
    grave = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, grave)
        shutil.rmtree(grave, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder; only for whoever holds the claim of its writers.

    A writer that was only paused, and goes on, finds nothing to commit: a folder loses its name before its content.
    """
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir():
            grave = leftover.with_name(f".grave.{uuid.uuid4().hex[:8]}.tmp")
            with contextlib.suppress(FileNotFoundError):
                os.rename(leftover, grave)
            shutil.rmtree(grave, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder out of the way, for whoever wants to look at it; returns its new path."""
    aside = path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:8]}")
    os.rename(path, aside)
    return aside


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False, setting: str | None = None) -> Iterator[bool]:
    """Hold an exclusive lock on a file for the block; yields whether it was obtained.

    The kernel releases the lock when its holder dies, however it dies, so there is no stale lock to break.
    ``setting`` is as of ``explained``.
    """
    make_folder(path.parent, setting=setting)
    with explained(path, setting=setting):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        with explained(path, setting=setting):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.uname().nodename} pid {os.getpid()}\n".encode())
        yield True
    finally:
        os.close(descriptor)
