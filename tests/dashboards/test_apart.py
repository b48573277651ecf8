"""A fit in a process of its own says what one here would, and ends with its command."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from analysis import laws
from analysis.settings import StudySettings
from dashboards import apart, made
from dashboards.figures import published
from dashboards.figures.linear import linear
from dashboards.figures.packed import opened
from gpt3core.errors import StoreError, UsageError
from tests.reliability.kill_sweep import alive, descendants
from tests.test_house import CODE

# a command of a shell in the background does not hear of Ctrl-C
COMMAND = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from analysis.settings import StudySettings
from dashboards import apart
settings = StudySettings(runs=sys.argv[1], bootstrap=1_000_000)  # minutes
threading.Thread(target=apart.make, args=(settings,)).start()
try:
    signal.pause()
except KeyboardInterrupt:
    os._exit(0)
"""


@pytest.mark.soak
def test_what_is_made_apart_is_the_same(simulated):
    settings = StudySettings(runs=str(simulated), bootstrap=50)
    here, there = made.make(settings), apart.make(settings)
    assert there.answer == here.answer
    assert there.study.receipt == here.study.receipt
    named = [choice.law for choice in there.study.ensemble.choices if choice.law.name in laws.LAWS]
    assert named and all(law is laws.LAWS[law.name] for law in named)
    for page, same in zip(there.pages, here.pages, strict=True):
        assert page.figure.to_plotly_json() == json.loads(same.figure.to_json())
        pd.testing.assert_frame_equal(page.rows, same.rows)
        assert page.summary is None, "only a report prints it"
        for drawn in (linear, partial(published.over, study=here.study)):
            assert alike(drawn(page).figure) == alike(drawn(same).figure), page.slug
    with pytest.raises(UsageError, match="law=nonesuch"):
        apart.make(StudySettings(runs=str(simulated), law="nonesuch"))


def alike(figure):
    """What a browser is told of it."""
    return json.loads(opened(figure).to_json())


def fits(pid, seconds=30):
    """The process that one has started to fit in, once there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for child in descendants(pid):
            if b"dashboards.apart" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.01)
    raise AssertionError("no process was started")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("killed", "stopped"), [(signal.SIGINT, False), (signal.SIGKILL, False), (signal.SIGKILL, True)]
)
def test_it_ends_with_its_command_in_silence(simulated, killed, stopped):
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(simulated)], cwd=CODE, stderr=subprocess.PIPE, start_new_session=True
    )
    fit = fits(command.pid)
    time.sleep(0.05 if killed == signal.SIGINT else 3.0)  # while it imports; while it computes
    if stopped:
        os.kill(fit, signal.SIGSTOP)
        while ") T " not in Path(f"/proc/{fit}/stat").read_text():
            time.sleep(0.01)
    if killed == signal.SIGINT:
        os.killpg(command.pid, killed)  # as a terminal does
    else:
        command.kill()
    assert command.communicate(timeout=30)[1] == b""
    until = time.monotonic() + 30
    while alive([fit]):
        assert time.monotonic() < until, "the fit goes on"
        time.sleep(0.05)


@pytest.mark.soak
def test_that_it_was_killed_is_said(simulated, monkeypatch):
    def kill(pid):
        os.kill(fits(pid), signal.SIGKILL)

    threading.Thread(target=kill, args=(os.getpid(),)).start()
    with pytest.raises(StoreError, match="ended with status -9, perhaps for want of memory"):
        apart.make(StudySettings(runs=str(simulated), bootstrap=1_000_000))
