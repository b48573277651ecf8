"""Ctrl-C ends the app at once, whatever goes on behind its pages, without a traceback and without half a file."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.analysis.synthetic import make_store
from tests.test_house import CODE

# a command of a shell in the background does not hear of Ctrl-C
WORK = (
    "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from dashboards import app, behind; from gpt3core import cli; "
    "behind.Behind().ask('a fit', 1, lambda: time.sleep(60)); "
)
FITS = (
    "from dashboards import live; fitted = live.Live._fitted; "
    "live.Live._fitted = lambda self: print('fits', flush=True) or fitted(self); "
)


def test_nothing_behind_a_page_is_waited_for():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", f"{WORK}app.leave()"], cwd=CODE, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - began < 30


def test_it_ends_in_silence_without_a_terminal():
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "from dashboards import app; app.leave()" >&-', sys.executable], cwd=CODE
    )
    assert done.returncode == 0


@pytest.mark.soak
def test_ctrl_c_ends_a_fit_in_its_midst(isolated):
    make_store(isolated / "root")
    there = sorted((isolated / "root").rglob("*"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [f"runs={isolated / 'root'}", f"port={port}", "bootstrap=1000000"]  # minutes, not to be waited for
    app = subprocess.Popen(
        [sys.executable, "-c", f"{WORK}{FITS}cli.run(app.main)", *words],
        cwd=CODE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert b"Ctrl-C ends it" in app.stdout.readline()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_dash-layout") as answer:
        answer.read()
    assert app.stdout.readline() == b"fits\n"
    time.sleep(1.0)  # into its native code
    os.kill(app.pid, signal.SIGINT)
    _, errors = app.communicate(timeout=50)
    assert (app.returncode, errors) == (0, b"")
    assert sorted((isolated / "root").rglob("*")) == there
