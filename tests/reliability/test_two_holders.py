"""The short forms of two_drivers.py and zombies.py; the latter with real training too."""

import os

import pytest

from gpt3core.errors import LostError
from gpt3core.run import run
from gpt3core.store import lease, soundness
from gpt3core.store.rundir import RunDir
from tests.conftest import EVALS
from tests.reliability import two_drivers, zombies


@pytest.mark.parametrize("mechanism", [soundness.LOCK, soundness.LEASE])
def test_of_two_drivers_one_wins_and_the_other_says_who(tmp_path, mechanism):
    tally = two_drivers.races(25, mechanism, tmp_path, killed=6)
    assert (tally.one_winner, tally.unnamed) == (25, 0)
    assert tally.killed


MORE = [pytest.param(moment, marks=pytest.mark.long) for moment in ("evaluation", "curve", "random")]


@pytest.mark.parametrize("moment", ["checkpoint", "result", *MORE])
def test_a_worker_stopped_for_longer_than_its_lease_writes_nothing_that_counts(tmp_path, tiny_run, moment):
    assert zombies.trial(tmp_path, tiny_run, moment, 0.1) == "sound"


def train(root, spec, moment, pipe, _):
    os.environ[soundness.SETTING], os.environ[lease.SETTING] = "lease", "1"
    os.environ["ISOFLOP_CACHE"] = f"{root}/cache"
    pipe.send("attempt-001" if moment != "none" else "attempt-002")
    zombies.stop_before(moment)
    try:
        run(spec, EVALS, zombies.Path(root), checkpoint_seconds=0.0)
        pipe.send("done")
    except LostError:
        pipe.send("lost")


@pytest.mark.long
@pytest.mark.parametrize("moment", ["checkpoint", "evaluation", "result"])
def test_a_trainer_stopped_before_it_commits_leaves_the_bits_of_its_successor(tmp_path, tiny_run, moment):
    assert zombies.trial(tmp_path, tiny_run, moment, 0.0, train) == "sound"
    assert len(RunDir(tmp_path, tiny_run.run_id).attempts()) == 2
