"""Programs that a model wrote, run with their tests, each in a process of its own. It is no sandbox.

What stops accidents: an isolated interpreter (``-I -S``) in an empty folder and without the environment; limits of
memory, processor, file size and wall time; and in the interpreter itself no other processes, signals, sockets or
foreign functions, and nothing written outside the folder. A program that means harm gets round the last of these.

The child runs this very file as a script, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

TOKEN_BYTES = 16  # of what a program does not know and its end says
ENDED = 10.0  # seconds in which a killed process is gone
# how audit events begin
REFUSED = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "sqlite3.", "signal.pthread_kill")
FILES = 64  # that a program may open to write: with the limit of each, what it may fill a disk with
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one program."""

    cpu_seconds: int = 5
    seconds: int = 20  # on the clock
    memory: int = 1 << 30  # bytes of address space
    file: int = 1 << 20  # bytes of each file that it writes


def passes(program: str, limits: Limits = Limits()) -> bool:
    """Whether a program reaches its end within the limits, without an exception and without leaving before."""
    token = secrets.token_bytes(TOKEN_BYTES)
    with tempfile.TemporaryDirectory(prefix="isoflop-program-", ignore_cleanup_errors=True) as folder:
        given = (limits.cpu_seconds, limits.seconds, limits.memory, limits.file)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", __file__, *map(str, given)],
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(token + program.encode(), timeout=limits.seconds + 1)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # what it started too
            child.wait(ENDED)
    return said == token


def _child(cpu_seconds: int, seconds: int, memory: int, file: int) -> None:
    """Run the program on stdin, which ends with its tests, and say on stdout that it came to its end."""
    given = sys.stdin.buffer.read()
    token, program = given[:TOKEN_BYTES], given[TOKEN_BYTES:]
    answer, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    signal.alarm(seconds)  # also where nobody is left to kill it
    for name, most in (
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_AS", memory),
        ("RLIMIT_FSIZE", file),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),  # not of root, who has the hook below
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS does not know all of them
            resource.setrlimit(getattr(resource, name), (most, most))
    code = compile(program, "program", "exec", dont_inherit=True)
    sys.addaudithook(_refuse_outside(os.path.realpath(os.curdir)))
    exec(code, {"__name__": "__main__"})  # noqa: S102  # what this process is for
    os.write(answer, token)


def _refuse_outside(folder: str) -> Any:
    """An audit hook (PEP 578) that lets a program read, compute, and write files in a folder."""

    opened = itertools.count(1)

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = args
            inside = isinstance(path, str) and os.path.realpath(path).startswith(folder + os.sep)
            if flags & WRITING and (not inside or next(opened) > FILES):
                raise PermissionError(f"a program may not write {path!r}")
        elif event.startswith(REFUSED) and event not in HARMLESS:
            raise PermissionError(f"a program may not use {event}")

    return refuse


if __name__ == "__main__":
    _child(*map(int, sys.argv[1:]))
