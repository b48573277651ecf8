"""The head of the whole line: nobody outside this machine can reach it, and nothing of it stays."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sweeps import line

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LISTEN = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # as /proc/net has it
PARTS = ("gcs_server", "raylet/raylet", "dashboard/dashboard.py")


def listening(pid):
    """(address, port) in hexadecimal of the sockets on which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                yield tuple(fields[1].split(":"))


def listeners(environment):
    """The listening sockets of all of a head's processes, by the processes' command lines."""
    found = {}
    for folder in Path("/tmp").glob(f"{line.scratch.PREFIX}{os.getpid()}-*"):
        pids = line._processes(str(folder), -1, environment["RAY_AUTH_TOKEN"])
        found |= _by_command(pids)
    return found


def _by_command(pids):
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[Path(f"/proc/{pid}/cmdline").read_text()] = set(listening(pid))
    return found


def heard(found, part):
    return any(part in words and sockets for words, sockets in found.items())


@pytest.mark.soak
def test_it_listens_on_loopback_alone(head):
    deadline, found = time.monotonic() + 180, {}
    while not all(heard(found, part) for part in PARTS):
        assert time.monotonic() < deadline, f"not all parts listen: {[p for p in PARTS if not heard(found, p)]}"
        time.sleep(0.2)
        found = listeners(head)
    sockets = set().union(*found.values())
    for address in (head["RAY_ADDRESS"], head["RAY_API_SERVER_ADDRESS"]):
        assert f"{int(address.rpartition(':')[2]):04X}" in {port for _, port in sockets}
    assert {address for address, _ in sockets} <= LOOPBACK


def test_stopping_it_ends_its_jobs_too(tmp_path):
    """They have sessions of their own, and nothing of the head's on their command lines: they inherit its token."""
    token = f"token-of-{tmp_path.name}"
    child = subprocess.Popen(["sleep", "300"])
    job = subprocess.Popen(["sleep", "300"], env={**os.environ, "RAY_AUTH_TOKEN": token}, start_new_session=True)
    line._stop(child, str(tmp_path), token)
    assert child.returncode == -signal.SIGTERM
    assert job.wait(5) == -signal.SIGKILL
