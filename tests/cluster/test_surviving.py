"""A rank of a real gang is stopped in the midst of training: it is named, and the run goes on to the same bits."""

import os
import signal
import time

import pytest

from gpt3core.store import files
from tests.cluster.surviving import Gang
from tests.gpt3core import ranks

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.mark.parametrize("bad", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_stopped_rank_is_noticed_within_its_limit_and_the_run_resumes_with_the_same_bits(
    launcher, tmp_path, isolated, bad
):
    gang, stopped = Gang(tmp_path, "placement.workers=2", "placement.hang_seconds=3"), []

    def chaos():
        os.kill(gang.ranks()[bad][0], signal.SIGSTOP)
        stopped.append(time.time())

    gang.drive(launcher, chaos)
    (failed,) = gang.events("failed")
    assert failed["cause"] == "hang"
    assert f"rank {bad} has shown no sign of life" in failed["error"]
    assert 2 < failed["time"] - stopped[0] < 10
    assert gang.sizes() == [2, 2]
    gang.assert_same_bits(tmp_path / "undisturbed", ranks.run)


@pytest.mark.soak
def test_a_worker_that_is_sent_sigterm_writes_a_checkpoint_and_its_run_goes_on(launcher, tmp_path, isolated):
    """As a batch system does, whose time is over."""
    gang = Gang(tmp_path, "placement.checkpoint_seconds=1000", steps=60)

    def chaos():
        os.kill(gang.ranks()[0][0], signal.SIGTERM)

    gang.drive(launcher, chaos, waits=True)
    told = [event["event"] for attempt in gang.run.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    assert told == ["start", "stopped", "start"], "its last words are that its checkpoint is written"
    gang.assert_same_bits(tmp_path / "undisturbed", ranks.run)
