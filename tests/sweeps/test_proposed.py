"""Runs that are asked of a sweep while its driver drives it: taken, answered, refused."""

import pytest

from gpt3core.errors import StoreError
from gpt3core.store.proposals import Proposals
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import driver, taking
from sweeps.driving.proposers import Proposal
from sweeps.driving.run_state import Phase
from sweeps.planning import grid
from tests.sweeps.fake_cluster import FakeCluster, Silent


class Once:
    """Takes what there is at first, and then nothing."""

    def __init__(self, over):
        self.over, self.asked = over, 0

    def propose(self, states, slots):
        self.asked += 1
        take = tuple(states) if self.asked == 1 else ()
        return Proposal(take=take, over="" if self.asked == 1 else self.over)


def drive(smoke, cluster, asks, *, patience=3.0, over=""):
    """A driver of two of the smoke recipe's runs, of which more are asked as ``asks`` says: tick -> runs."""
    chosen, cells, root = smoke
    sweep = SweepDir(root, chosen.name)
    proposals, first = Proposals(sweep), grid.Grid(runs=cells.runs[:2], left=[], evals=cells.evals)
    show = Silent.show

    class Asking(Silent):
        def show(self, snapshot):
            show(self, snapshot)
            for run in asks.get(len(self.snapshots), []):
                RunDir(root, run.run_id).create(run)
                proposals.ask(run.run_id, cells.evals.eval_id)

    display = Asking()
    with sweep.owned():
        taken = taking.take(chosen, first, sweep)
        made = driver.Driver(chosen, taken, cluster, display, entry="fake", patience_seconds=patience)
        if over:
            made.proposer = Once(over)
        return made, made.drive(), proposals


def test_a_driver_takes_what_is_asked_while_it_drives_and_ends_when_nobody_asks(smoke):
    runs = smoke[1].runs
    cluster = FakeCluster(smoke[2])
    _, outcome, proposals = drive(smoke, cluster, {6: [runs[2]], 14: [runs[3], runs[0]]})
    assert sorted(outcome.done) == sorted(run.run_id for run in runs)
    assert sorted(cluster.started) == sorted(run.run_id for run in runs), "one that is done is not done again"
    assert proposals.asked() == {}
    record = SweepDir(smoke[2], "smoke").record()
    assert record is not None
    assert set(record.runs) == {run.run_id for run in runs}, "the next driver knows them"


def test_a_driver_without_patience_leaves_as_before(smoke):
    made, outcome, _ = drive(smoke, FakeCluster(smoke[2]), {}, patience=0.0)
    assert len(outcome.done) == 2
    assert len(made.display._shown.snapshots) < 20


@pytest.mark.parametrize("asked", [1, 2])
def test_a_failure_is_answered_and_tried_anew_when_asked_again(smoke, asked):
    run = smoke[1].runs[2]
    cluster = FakeCluster(smoke[2], lambda run_id, n: "fatal" if run_id == run.run_id and n == 1 else "done")
    _, outcome, proposals = drive(smoke, cluster, {tick: [run] for tick in (6, 14)[:asked]})
    assert cluster.started.count(run.run_id) == asked
    if asked == 1:
        assert proposals.answered(run.run_id) == {"what": Phase.FAILED.value, "reason": "because"}
        assert outcome.failed == {run.run_id: "because"}
    else:
        assert proposals.answered(run.run_id) is None
        assert outcome.failed == {}


def test_another_evaluation_is_refused(smoke):
    chosen, cells, root = smoke
    run = cells.runs[3]
    sweep = SweepDir(root, chosen.name)
    open_root(root, create=True)
    RunDir(root, run.run_id).create(run)
    Proposals(sweep).ask(run.run_id, "another")
    _, outcome, proposals = drive(smoke, FakeCluster(root), {})
    assert len(outcome.done) == 2
    answer = proposals.answered(run.run_id)
    assert answer is not None
    assert "are not those of this sweep" in answer["reason"]


def test_a_damaged_question_is_refused_too(smoke):
    root = smoke[2]
    open_root(root, create=True)
    proposals = Proposals(SweepDir(root, "smoke"))
    proposals.ask("d8-000000000000", smoke[1].evals.eval_id)
    drive(smoke, FakeCluster(root), {})
    answer = proposals.answered("d8-000000000000")
    assert answer is not None
    assert "is not a specification" in answer["reason"]
    assert answer["what"] == "refused"
    with pytest.raises(StoreError):
        RunDir(root, "d8-000000000000").spec()


def test_a_folder_among_the_questions_is_none(smoke):
    folder = SweepDir(smoke[2], smoke[0].name).path / "asked" / "copies"
    folder.mkdir(parents=True)
    _, outcome, proposals = drive(smoke, FakeCluster(smoke[2]), {})
    assert len(outcome.done) == 2
    assert proposals.asked() == {}
    assert folder.is_dir(), "it is not ours"


def test_what_is_asked_is_started_though_the_proposer_has_ended(smoke):
    """An adaptive sweep says that there are no more runs; whoever asks for one gets it all the same."""
    made, outcome, _ = drive(smoke, FakeCluster(smoke[2]), {6: [smoke[1].runs[3]]}, over="enough is known")
    assert made.over == "enough is known"
    assert smoke[1].runs[3].run_id in outcome.done


def test_a_new_driver_answers_what_an_earlier_one_took(smoke):
    """The question is gone with the driver that took it, and whoever asked still waits."""
    run = smoke[1].runs[1]
    cluster = FakeCluster(smoke[2], lambda run_id, n: "fatal" if run_id == run.run_id else "done")
    _, outcome, proposals = drive(smoke, cluster, {})
    assert outcome.failed == {run.run_id: "because"}
    assert proposals.answered(run.run_id) == {"what": Phase.FAILED.value, "reason": "because"}
