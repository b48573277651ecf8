"""What a gang's ranks say together, and what a worker says of an entry that ends badly; no cluster is needed."""

import gc
import weakref

import pytest

from gpt3core.errors import BusyError, DiskFullError, PeerError, StoppedError
from sweeps.cluster import worker
from sweeps.cluster.gang import CAUSE_SECONDS, Team, combine
from sweeps.cluster.job import Assignment, Job, Progress, Report
from sweeps.cluster.pool import Member
from sweeps.scheduling.inventory import Resources
from tests.conftest import EVALS, make_run, write_corpus

ECHO = Report(state="failed", error="[/gloo/pair.cc] Connection closed by peer", collective=True)
FATAL = Report(state="failed", error="train.npy is damaged", fatal=True)
OWN = Report(state="failed", error="KeyError: 'x'")
LOST = Report(state="lost", error="its worker died")
RUNNING = Report(state="running", progress=Progress(phase="training", step=3, steps=9))
DONE = Report(state="done", result={"status": "done"})


@pytest.mark.parametrize(
    ("reports", "state", "error"),
    [
        ([ECHO, FATAL], "failed", FATAL.error),
        ([ECHO, LOST, FATAL], "failed", FATAL.error),
        ([ECHO, OWN, LOST], "failed", OWN.error),
        ([ECHO, LOST], "lost", LOST.error),
        ([ECHO, ECHO], "failed", ECHO.error),
        ([Report(state="busy", error="another has it"), ECHO], "busy", "another has it"),
        ([Report(state="stopped"), Report(state="stopped")], "stopped", ""),
        ([DONE, ECHO], "done", ""),
        ([DONE, RUNNING], "running", ""),
        ([RUNNING, FATAL], "failed", FATAL.error),
        ([RUNNING, LOST], "lost", LOST.error),
    ],
)
def test_the_cause_is_told_from_its_echoes(reports, state, error):
    found = combine("x", reports)
    assert (found.state, found.error) == (state, error)
    assert found.fatal == (error == FATAL.error)
    if state == "failed":
        assert [f"rank {i} {r.state}: {r.error}" for i, r in enumerate(reports)] == list(found.ranks)


def test_an_echo_alone_waits_a_little_for_the_rank_that_knows(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sweeps.cluster.gang.time.monotonic", lambda: now[0])
    members = [Member(actor=None, node="n", shape=Resources(cpus=1), report=r) for r in (ECHO, RUNNING)]
    team = Team(run_id="x", members=members)
    assert team.update().state == "running"
    now[0] += CAUSE_SECONDS / 2
    assert team.update().state == "running"
    members[1].report = FATAL
    assert team.update().error == FATAL.error
    members[1].report = RUNNING
    now[0] += CAUSE_SECONDS
    assert team.update().error == ECHO.error, "it does not wait for ever"


class OutOfMemoryError(RuntimeError):
    """As torch's, which this file does not import."""


def test_what_a_run_leaves_in_circles_is_gone_before_the_next_begins(tmp_path, monkeypatch):
    class Block:
        def forward(self):
            pass

    left = []

    def entry(assignment, report, stop):
        block = Block()
        block.forward = block.forward  # as ``recompute`` wraps it
        left.append(weakref.ref(block))

    monkeypatch.setattr(worker, "entry", entry, raising=False)
    job = Job(spec=make_run(write_corpus(tmp_path, documents=1)), evals=EVALS, root=tmp_path, device="cpu")
    work = Assignment(entry="sweeps.cluster.worker:entry", run_id="x", job=job, node="n", shape=Resources(cpus=1))
    here = worker.Worker(orphan_seconds=1e9)
    gc.disable()
    try:
        here._perform(work)
    finally:
        gc.enable()
    assert here.poll().state == "done"
    assert left[0]() is None


def fails(error):
    def entry(assignment, report, stop):
        raise error

    return entry


@pytest.mark.parametrize(
    ("error", "state", "fatal", "collective"),
    [
        (SystemExit("a library gave up"), "failed", False, False),
        (KeyboardInterrupt(), "failed", False, False),
        (StoppedError("asked"), "stopped", False, False),
        (BusyError("another has it"), "busy", False, False),
        (DiskFullError("no room"), "failed", True, False),
        (ValueError("a bad recipe"), "failed", True, False),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), "failed", False, True),
        (RuntimeError("NCCL error: remote process exited"), "failed", False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed", False, False),
        (MemoryError(), "failed", False, False),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "failed", False, False),
        (PeerError("another rank of this run failed"), "failed", False, True),
    ],
)
def test_a_worker_tells_every_end(tmp_path, monkeypatch, error, state, fatal, collective):
    monkeypatch.setattr(worker, "entry", fails(error), raising=False)
    job = Job(spec=make_run(write_corpus(tmp_path, documents=1)), evals=EVALS, root=tmp_path, device="cpu")
    work = Assignment(entry="sweeps.cluster.worker:entry", run_id="x", job=job, node="n", shape=Resources(cpus=1))
    found = worker.perform(work, lambda live: None, lambda: False)
    assert (found.state, found.fatal, found.collective) == (state, fatal, collective)
    assert found.assignment is work
