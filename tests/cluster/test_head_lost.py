"""A head that goes away: a driver hears of it in seconds, in the call it makes or, caught in another, from a thread."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps import line
from sweeps.cluster.head import CAUGHT_SECONDS, HEAD_SECONDS, LEAVES, Head, HeadLostError
from tests.cluster.surviving import Gang
from tests.reliability import kill_sweep


@pytest.fixture
def port():
    with socket.socket() as listens:
        listens.bind(("127.0.0.1", 0))
        listens.listen()
        yield listens


@pytest.mark.parametrize(
    ("local", "said"),
    [
        (False, r"the head of the Ray cluster at .*; start the head again \(ray start --head\), then the same command"),
        (True, "the local Ray of this sweep has not .*; start the same command, which goes on from the store"),
    ],
)
def test_a_head_that_answers_again_in_time_is_no_matter_and_one_that_does_not_is_lost(port, local, said):
    address = f"127.0.0.1:{port.getsockname()[1]}"
    watch = Head(address, local=local, seconds=0.5, leave_by=lambda said: None)
    watch.require()
    port.close()
    time.sleep(0.3)  # an answer counts for a quarter of a second
    began = time.monotonic()
    with pytest.raises(HeadLostError, match=said):
        watch.require()
    assert 0.5 < time.monotonic() - began < 10  # not Ray's minute; a busy machine takes its time
    assert watch.lost
    watch.close()


CAUGHT = """
import sys, time
from sweeps.cluster.head import Head
watch = Head(sys.argv[1], seconds=0.5, caught=0.5)
print("waits", flush=True)
time.sleep(60)
"""


def test_a_driver_that_is_caught_in_a_call_to_a_dead_head_leaves_with_the_sentence(port):
    command = [sys.executable, "-c", CAUGHT, f"127.0.0.1:{port.getsockname()[1]}"]
    caught = subprocess.Popen(command, cwd=line.CODE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert caught.stdout.readline() == "waits\n"
    port.close()
    _, said = caught.communicate(timeout=20)
    assert caught.returncode == LEAVES
    assert "start the head again (ray start --head), then the same command" in said


def gcs_of(environment):
    """The process of a head's GCS."""
    for folder in Path("/tmp").glob(f"{line.scratch.PREFIX}{os.getpid()}-*"):
        for pid in line._processes(str(folder), -1, environment["RAY_AUTH_TOKEN"]):
            if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]:
                return pid
    raise AssertionError("no GCS")


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_head_that_is_killed_is_told_of_within_seconds_and_the_same_command_ends_the_sweep(tmp_path, isolated):
    gang = Gang(tmp_path, steps=4000)
    words = [f"recipe={tmp_path / 'gang.yaml'}"]
    with line.head() as environment:
        driver = kill_sweep.start(gang.root, environment, words)
        log = gang.root.parent / f"{gang.root.name}.log"
        while not gang.run.checkpoint_steps():
            assert driver.poll() is None, log.read_text()
            time.sleep(0.05)
        os.kill(gcs_of(environment), signal.SIGKILL)
        killed = time.monotonic()
        code = driver.wait(60)
        seconds = time.monotonic() - killed
    assert "has not answered for 5 s: this driver leaves" in log.read_text()
    assert code == LEAVES
    assert seconds < HEAD_SECONDS + CAUGHT_SECONDS + 3
    assert not gang.run.trained
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    assert kill_sweep.start(gang.root, alone, words).wait() == 0, log.read_text()
    assert gang.run.trained
