"""The short form of kill_sweep.py: a few kills in every test run, the long form by hand."""

import subprocess
import sys

import pytest


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_killed_sweep_ends_with_the_same_bits(isolated, monkeypatch):
    monkeypatch.delenv("ISOFLOP_CACHE")  # the starter corpus is fetched once, not for every test
    command = [sys.executable, "-m", "tests.reliability.kill_sweep", "--kills", "2", "--per-sweep", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-identical: True; processes left behind: 0" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_kills():
    done = subprocess.run([sys.executable, "-m", "tests.reliability.kill_sweep", "--kills", "30"], check=False)
    assert done.returncode == 0
