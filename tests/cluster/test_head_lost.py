"""A head that goes away: a driver hears of it in seconds, in the call it makes or, caught in another, from a thread."""

import socket
import subprocess
import sys
import time

import pytest

from sweeps import line
from sweeps.cluster.head import LEAVES, Head, HeadLostError


@pytest.fixture
def port():
    with socket.socket() as listens:
        listens.bind(("127.0.0.1", 0))
        listens.listen()
        yield listens


def test_a_head_that_answers_again_in_time_is_no_matter_and_one_that_does_not_is_lost(port):
    address = f"127.0.0.1:{port.getsockname()[1]}"
    watch = Head(address, seconds=0.5, leave_by=lambda said: None)
    watch.require()
    port.close()
    time.sleep(0.3)  # an answer counts for a quarter of a second
    began = time.monotonic()
    with pytest.raises(HeadLostError, match="nothing is lost but what runs have done since their checkpoints"):
        watch.require()
    assert 0.5 < time.monotonic() - began < 2.0
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
