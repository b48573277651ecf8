"""What a driver shows and keeps for others to read, and that nothing it shows ends it."""

import time
from dataclasses import replace
from unittest.mock import Mock

import pytest

from gpt3core.errors import StoreError
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import failures, status, view
from sweeps.driving.run_state import RunState
from sweeps.watching import said, standing
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids


class Broken(Silent):
    def show(self, snapshot):
        raise RuntimeError("[/tmp/x] markup")

    say = show


def test_a_display_that_breaks_ends_nothing(smoke, capsys):
    assert len(drive(smoke, FakeCluster(smoke[2]), Broken()).done) == 4
    printed = capsys.readouterr()
    assert printed.err.count("the display broke") == 1
    assert printed.out.count("done    ") >= 3, "plain lines go on"


def test_the_status_is_kept_for_those_without_a_cluster(smoke, monkeypatch):
    monkeypatch.setattr(status, "WRITE_SECONDS", 0.0)
    chosen, _, root = smoke
    sweep, seen = SweepDir(root, chosen.name), []
    cluster = FakeCluster(root, lambda run_id, n: "fatal" if run_id == ids(smoke)[0] else "done", cpus=1.0)
    display = Silent()
    display.show = lambda snapshot: seen.append(sweep.status())
    drive(smoke, cluster, display)
    during = [said for said in seen if said is not None and said["running"] and said["waiting"]]
    assert during
    assert all(said["state"] == "driving" for said in seen[1:])
    group = during[0]["waiting"][0]
    assert group["count"] >= 1
    assert group["reason"]
    assert during[0]["eta_seconds"] > 0
    assert during[0]["one_driver_by"] == "lock"
    after = sweep.status()
    assert after["state"] == "ended"
    assert (after["asked"], after["done"], list(after["failed"])) == (4, 3, [ids(smoke)[0]])


def test_a_driver_that_ends_in_an_error_says_so_and_is_not_called_dead(smoke, monkeypatch):
    """Its preparation, for one: text that is missing on the worker ends the sweep."""
    chosen, _, root = smoke
    monkeypatch.setattr(status, "WRITE_SECONDS", 0.0)
    cluster = FakeCluster(root)
    monkeypatch.setattr(cluster, "poll", Mock(side_effect=[[], [], StoreError("no text")]))
    with pytest.raises(StoreError, match="no text"):
        drive(smoke, cluster)
    said = SweepDir(root, chosen.name).status()
    assert (said["state"], said["damage"]) == ("failed", ["no text"])
    assert standing.driver_of({**said, "pid": 2**22 + 1}, time.time()) == "failed"


def test_runs_that_were_asked_more_are_listed_once_and_are_not_all_of_their_sweep(smoke):
    """fewshot.py writes of its jobs' ends into the sweep's log, and how they stand in place of its status."""
    chosen, _, root = smoke
    drive(smoke, FakeCluster(root, lambda run_id, n: "done" if run_id == ids(smoke)[0] else "fatal"))
    sweep = SweepDir(root, chosen.name)
    for _ in range(2):
        sweep.event("finished", run_id=ids(smoke)[0], loss=4.0, status="done")
    sweep.write_status({**(sweep.status() or {}), "asked": 1, "done": 1, "failed": {}, "counts": {}})
    found = standing.look(root, chosen.name)
    assert [run.run_id for run in found.finished] == ids(smoke)[:1]
    assert (found.done, found.asked) == (1, 4), "a sweep half done was said to be done"


@pytest.mark.parametrize("driver", ["interrupted", "failed", standing.DEAD])
def test_what_a_driver_expected_is_not_told_once_it_is_gone(driver):
    group = standing.Group(reason="first in the queue, needs 1 core, expected in 12 s", count=1, runs=("d8",))
    told = standing.Standing(name="s", time=0.0, driver="driving", waiting=(group,))
    assert [other.reason for other in said.others(told)] == [group.reason]
    (other,) = said.others(replace(told, driver=driver))
    assert "expected in" not in other.reason
    assert "start the same command again" in other.reason, "it says how to go on where it says why not"
    failed = replace(group, reason="starts again after: CUDA out of memory")
    (again,) = said.others(replace(told, driver=driver, waiting=(failed,)))
    assert again.reason == f"{failed.reason}; {other.reason}", "what failed is no expectation"
    assert said.others(replace(told, driver=driver, waiting=(replace(failed, reason=again.reason),))) == [again]


def test_an_interrupt_leaves_the_cause_of_a_run_that_failed_and_waits(smoke):
    first, second = (RunState(spec=run) for run in smoke[1].runs[:2])
    first.wait("first in the queue, needs 1 core, expected in 12 s")
    second.failed(failures.Verdict(tally=second.tally, wait=3.0, reason="CUDA out of memory"), 1.0)
    for _ in range(2):
        view.interrupt({"first": first, "second": second})
    assert first.reason == said.GONE["interrupted"]
    assert second.reason == f"starts again after: CUDA out of memory; {first.reason}"
