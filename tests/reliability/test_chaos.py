"""The short forms of driver_kills.py and write_faults.py; the long forms are the scripts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sweeps import line
from tests.reliability import driver_kills

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(300)]


def test_a_driver_killed_again_and_again_loses_nothing_and_does_nothing_twice(head, isolated):
    environment = {**head, "PYTHONPATH": str(line.CODE)}
    tally = driver_kills.torment(environment, isolated, kills=3, runs=10, per_sweep=3, seed=1)
    assert tally.kills == 3
    assert (tally.lost, tally.doubled, tally.twice) == ([], [], [])


def test_a_run_whose_writes_fail_or_kill_it_leaves_what_can_be_gone_on_with():
    command = [sys.executable, "-m", "tests.reliability.write_faults", "--every", "80"]
    said = subprocess.run(command, cwd=line.CODE, capture_output=True, text=True, check=False)
    assert "TARGET write_faults_wrong 0 == 0 met" in said.stdout, said.stdout + said.stderr
    assert "KILL killed" in said.stdout
