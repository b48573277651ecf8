"""The head of the whole line: nobody outside this machine can reach it, and nothing of it stays."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gpt3core.errors import UsageError
from sweeps import line

LISTEN = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # as /proc/net has it


def listening(pids):
    """(address, port) in hexadecimal of the sockets on which these processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                yield tuple(fields[1].split(":"))


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_local_head_listens_on_loopback_alone_and_leaves_nothing():
    def folders():
        return set(Path("/tmp").glob(f"{line.scratch.PREFIX}{os.getpid()}-*"))

    with line.head() as environment:
        (folder,) = folders()
        port = f"{int(environment['RAY_ADDRESS'].rpartition(':')[2]):04X}"
        deadline = time.monotonic() + 30
        found = set()
        while len(found) < 6 and time.monotonic() < deadline:  # GCS, raylet (two), dashboard, monitor, metrics
            pids = line._processes(str(folder), -1, environment["RAY_AUTH_TOKEN"])
            found = set(listening(pids))
            time.sleep(0.2)
        assert port in {p for _, p in found}
        assert len(found) >= 6
        assert {address for address, _ in found} <= LOOPBACK
        # a job has a session of its own, and nothing of the head's on its command line
        job = subprocess.Popen(["sleep", "300"], env=environment, start_new_session=True)
    assert job.wait(5) == -signal.SIGKILL
    assert not folders()
    assert not line._processes(str(folder), -1, environment["RAY_AUTH_TOKEN"])


def test_what_cannot_run_is_refused_before_a_head_is_started(known_text, monkeypatch):
    def started():
        raise AssertionError("a head was started")

    monkeypatch.setattr(line, "head", started)
    for words in (["budgets=[-1]"], ["recipe=gpt3"], ["recipe=smoke", "data.max_epochs=0.001"]):
        with pytest.raises((UsageError, ValueError)):
            line.main(words)
