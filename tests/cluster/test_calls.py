"""A worker's calls: the one that gives it a run is answered at the run's end, and holds up no other. No Ray here."""

import asyncio
import gc
import os
import platform
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.cluster import pool, worker
from sweeps.cluster.job import Assignment, Job, Report
from sweeps.scheduling.inventory import Resources
from tests.conftest import EVALS, make_run, write_corpus


@pytest.fixture
def here():
    found = worker.Worker(orphan_seconds=1e9)
    yield found
    gc.unfreeze()


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
def test_ranks_meet_at_a_free_port_of_an_address_of_either_version(here, monkeypatch, host, written):
    monkeypatch.setattr(worker.ray.util, "get_node_ip_address", lambda: host)
    told = here.address()
    assert told.startswith(written)
    assert int(told.removeprefix(written)) > 0


def test_a_worker_whose_imports_take_long_is_no_orphan(monkeypatch):
    """It ended itself before it was given its run, where they took longer than that."""
    clock = SimpleNamespace(now=0.0)

    def imports(entry):
        clock.now += 60.0

    monkeypatch.setattr(worker, "preload", imports)
    born = alone(monkeypatch, clock)
    assert not born._orphaned()
    clock.now += 21.0
    assert born._orphaned()


def alone(monkeypatch, clock):
    """A worker by this clock, which watches nothing of itself."""
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(worker.threading, "Thread", lambda **how: SimpleNamespace(start=lambda: None))
    return worker.Worker(orphan_seconds=20.0)


def test_a_worker_that_was_not_asked_for_long_is_no_orphan_the_moment_its_run_ends(monkeypatch, work):
    """Its driver was paused, or asks many in turns: it ended itself before it could be given another."""
    clock, (assignment, _) = SimpleNamespace(now=0.0), work
    monkeypatch.setattr(worker, "preload", lambda entry: None)
    monkeypatch.setattr(worker, "perform", lambda *about: Report(state="done"))
    here = alone(monkeypatch, clock)
    clock.now += 30.0
    here._perform(assignment)
    clock.now += 19.0
    assert not here._orphaned()
    here.clear("x")
    clock.now += 19.0
    assert not here._orphaned(), "its driver keeps it for the next run"
    clock.now += 2.0
    assert here._orphaned()


def test_a_worker_that_a_driver_keeps_does_not_end_itself_meanwhile():
    """As one of a thousand it may not be asked for longer than half a minute."""
    assert pool.ORPHAN_SECONDS > pool.IDLE_SECONDS


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An assignment whose entry goes on until the test lets it go."""
    go = threading.Event()

    def entry(assignment, report, stop):
        report({"phase": "training", "step": 3, "steps": 9, "loss": None, "tokens_per_second": 0.0})
        assert go.wait(30)
        return {"run": assignment.run_id}

    monkeypatch.setattr(worker, "entry", entry, raising=False)
    job = Job(spec=make_run(write_corpus(tmp_path, documents=1)), evals=EVALS, root=tmp_path, device="cpu")
    found = Assignment(entry="sweeps.cluster.worker:entry", run_id="x", job=job, node="n", shape=Resources(cpus=1))
    return found, go


def test_the_end_answers_who_gave_the_run_and_who_found_it(here, work):
    assignment, go = work

    async def drivers():
        first = asyncio.create_task(here.run(assignment))
        while here.poll().progress is None:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(here.ended())
        await asyncio.sleep(0)
        assert not first.done() and not second.done()
        assert here.work() is not None
        go.set()
        return await first, await second

    for report in asyncio.run(drivers()):
        assert (report.state, report.result) == ("done", {"run": "x"})


def test_who_listens_long_is_answered_meanwhile(here, work, monkeypatch):
    monkeypatch.setattr(worker, "LISTEN_SECONDS", 0.01)
    assignment, go = work

    async def driver():
        early = await here.run(assignment)
        go.set()
        while (late := await here.ended()).state == "running":
            pass
        return early.state, late.state

    assert asyncio.run(driver()) == ("running", "done")


def test_an_end_that_was_taken_note_of_is_forgotten_and_no_other(here, work):
    assignment, go = work
    go.set()
    assert asyncio.run(here.ended()).state == "idle"
    asyncio.run(here.run(assignment))
    here.clear("y")
    assert here.work() is not None
    here.stop("x")  # which comes too late for this attempt, and is of no later one
    here.clear("x")
    assert here.work() is None
    assert here._stopping == ""
    assert asyncio.run(here.ended()).state == "idle"


def test_what_an_entry_needs_is_imported_at_birth(monkeypatch):
    asked = []
    monkeypatch.setattr(worker.importlib, "import_module", lambda name: asked.append(name) or worker)
    monkeypatch.setattr(worker.gc, "freeze", lambda: asked.append("freeze"))
    worker.preload("sweeps.cluster.worker:train")
    assert asked == ["sweeps.cluster.worker", *worker.PRELOAD, "freeze"]


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="gives back by a call of GNU's libc")
def test_memory_of_a_run_goes_back_to_the_system():
    blocks = [bytearray(2000) for _ in range(100_000)]
    last = blocks.pop()  # above all others on the heap: what lies under it stays, unless it is asked back
    blocks.clear()
    before = resident()
    worker.free_memory()
    assert resident() < before - 100e6
    assert len(last) == 2000


def test_memory_of_a_run_goes_back_to_the_gpu(monkeypatch):
    emptied = []
    cuda = SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: emptied.append(True))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    worker.free_memory()
    assert emptied == [True]
