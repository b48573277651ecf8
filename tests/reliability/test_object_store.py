"""Runs and sweeps in an object store that fails, repeats writes and lists late."""

import itertools
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import fsspec
import pytest

from gpt3core.errors import BusyError, LostError, StoppedError, StoreError, UsageError
from gpt3core.generate.trained import open_run
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.run import run
from gpt3core.store import boards, files, lease, places
from gpt3core.store.objects import Objects
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks
from tests.reliability import zombies
from tests.reliability.fake_store import Behaviour, FakeStore, installed

BAD = Behaviour(errors=0.05, duplicates=0.2, late=1.0, stale=1.0)
URI = "fake://bucket/runs"
SILENCE, RENEWALS = 30, 600  # often, and with time for a busy machine


@pytest.fixture
def fake(isolated, monkeypatch):
    """Makes the store behave as it is told to, in this process and in those that it starts."""
    fsspec.register_implementation("fake", FakeStore, clobber=True)
    monkeypatch.setenv(lease.SETTING, str(SILENCE))
    monkeypatch.setattr(lease, "RENEWALS", RENEWALS)
    monkeypatch.setattr(boards, "LISTED_SECONDS", 1.2)

    def behave(behaviour):
        for name, value in installed(isolated / "elsewhere", behaviour).items():
            monkeypatch.setenv(name, value)

    behave(Behaviour())
    return behave


@pytest.fixture
def machine(isolated, monkeypatch):
    """The working copy of a machine of that name: what another machine has is not there."""

    def root(name):
        monkeypatch.setenv("ISOFLOP_CACHE", str(isolated / name))
        return places.local(URI)

    yield root
    places._REMOTES.clear()


# ------------------------------------------------------------------------------------------------------------ objects


def test_objects_arrive_whole_and_once_however_often_they_are_sent(fake):
    fake(BAD)
    objects = Objects(URI)
    assert objects.creates
    for number in range(60):
        objects.put(f"a/{number}", b"x" * number)
    assert objects.create("a/once", b"mine")
    assert not objects.create("a/once", b"other")
    time.sleep(BAD.stale + BAD.late)
    assert objects.list("a") == {f"a/{n}": n for n in range(60)} | {"a/once": 4}
    assert objects.get("a/once") == b"mine"
    assert objects.get("a/nothing") is None
    assert objects._fs.calls["duplicate"] > 0  # of 61 writes a fifth comes twice: none in one of a million draws


def test_a_store_that_overwrites_where_it_should_create_is_found_out(fake):
    fake(Behaviour(creates=False))
    objects = Objects(URI)
    objects._fs.creates_exclusively = True  # it says so
    assert not objects.creates
    assert isinstance(boards.board(objects, "leases/a"), boards.VerifiedBoard)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://bucket/runs", r"s3:// needs a package that is not installed: pip install 'isoflop\[s3\]'"),
        ("nothing://bucket/runs", "Protocol not known: nothing.*known are a folder"),
        ("fake://", "names no bucket"),
        ("s3://bucket/runs.csv", "a table is read from a file of this machine"),
        ("memory://runs", "is seen by one process only"),
    ],
)
def test_a_uri_that_cannot_be_used_is_a_sentence(fake, monkeypatch, uri, sentence):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(UsageError, match=sentence):
        places.local(uri)


def test_a_store_that_does_not_answer_is_a_sentence(fake, machine, monkeypatch):
    fake(Behaviour(errors=1.0))
    monkeypatch.setattr("gpt3core.store.objects.TRY_SECONDS", 0.3)
    with pytest.raises(
        StoreError, match=r"cannot (read|write) fake://bucket/runs/store.json, for 0.3 s now .*credentials"
    ):
        open_root(machine("a"), create=True)


def test_a_folder_imports_nothing_of_it(isolated):
    code = (
        "import sys; from gpt3core.store import rundir, sweepdir, places; import pathlib;"
        "sweep = sweepdir.SweepDir(rundir.default_root(), 's')\n"
        "with sweep.owned(): sweep.write_status({'a': 1})\n"
        "assert not {'fsspec', 'gpt3core.store.remote', 'gpt3core.store.objects'} & set(sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, __import__("sys").executable, ["python", "-c", code]) == 0


# ------------------------------------------------------------------------------------------------------------- leases


@pytest.mark.parametrize("creates", [True, False])
def test_of_many_that_claim_one_run_one_gets_it(fake, monkeypatch, creates):
    fake(Behaviour(errors=0.05, stale=0.2, creates=creates))
    monkeypatch.setattr(boards, "LISTED_SECONDS", 0.4)
    monkeypatch.setattr(boards, "WRITTEN_SECONDS", 0.5)
    for number in range(3):
        found = []

        def claim(prefix=f"leases/{number}", found=found):
            found.append(lease.acquire(boards.board(Objects(URI), prefix), "it"))

        threads = [threading.Thread(target=claim) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = [one for one in found if isinstance(one, lease.Lease)]
        assert len(held) == 1
        held[0].release()


# --------------------------------------------------------------------------------------------------------------- runs


def until_step(step):
    def report(live):
        if live["step"] >= step:
            raise StoppedError

    return report


def curve(root, spec):
    return RunDir(root, spec.run_id).curve().drop(columns="attempt").to_csv()


def test_a_run_goes_on_elsewhere_to_the_same_bits(fake, machine, tiny_run, isolated, monkeypatch):
    """Killed on one machine, ended on another, read on a third, beside the same run in a folder."""
    whole = isolated / "whole"
    expected = run(tiny_run, EVALS, whole)
    fake(BAD)
    stops = iter([False] * 12 + [True])
    with pytest.raises(StoppedError):
        run(tiny_run, EVALS, open_root(machine("first"), create=True), checkpoint_seconds=0.0, stop=lambda: next(stops))
    assert not RunDir(machine("first"), tiny_run.run_id).trained
    shutil.rmtree(isolated / "first")
    result = run(tiny_run, EVALS, machine("second"), checkpoint_seconds=0.0)
    third, deadline = RunDir(machine("third"), tiny_run.run_id), time.monotonic() + 30
    while third.result() != result and time.monotonic() < deadline:  # a listing may be a second old
        open_root(machine("third"), create=False)
    assert third.result() == result
    assert len(third.attempts()) == 2
    assert curve(machine("third"), tiny_run) == curve(whole, tiny_run)
    there = RunDir(whole, tiny_run.run_id)
    assert third.evaluation(EVALS.eval_id).equals(there.evaluation(EVALS.eval_id))
    assert {**result, **dict.fromkeys(expected)}.keys() == expected.keys()
    last = f"checkpoints/step-{tiny_run.steps:08d}"
    assert not list((third.path / last).glob("*.safetensors")), "weights are fetched by whoever reads them"
    assert open_run(tiny_run.run_id, root=machine("third")).step == tiny_run.steps
    manifest = files.read_object(third.path / last / "manifest.json")
    mine = files.read_object(there.path / last / "manifest.json")
    tensors = [name for name in manifest if name.endswith("safetensors")]
    assert {name: manifest[name] for name in tensors} == {name: mine[name] for name in tensors}


def test_a_run_has_one_writer_among_machines(fake, machine, tiny_run):
    first, second = RunDir(machine("first"), tiny_run.run_id), RunDir(machine("second"), tiny_run.run_id)
    with first.claimed(tiny_run):
        words = r"being trained by another process \(\S+ pid \d+ since .*, by a lease by conditional writes\)"
        with pytest.raises(BusyError, match=words), second.claimed(tiny_run):
            pass
        first.finish({"status": "done", "by": 1})
    with second.claimed(tiny_run):
        assert second.result() == {"status": "done", "by": 1}


def stop_before_a_head_is_written():
    """After the last look at the lease, with the request on its way."""
    armed, put = [True], FakeStore._write

    def paused(self, path, value, only_new):
        if armed[0] and "/heads/runs/" in path and path.endswith("-00000004.json"):
            armed[0] = False
            os.kill(os.getpid(), zombies.signal.SIGSTOP)
        put(self, path, value, only_new)

    FakeStore._write = paused


def write(root, spec, moment, pipe, seconds):
    if moment == "head":
        stop_before_a_head_is_written()
    os.environ["ISOFLOP_CACHE"] = str(Path(root) / ("first" if moment != "none" else "second"))
    fsspec.register_implementation("fake", FakeStore, clobber=True)
    zombies.write_run(str(places.local(URI)), spec, moment, pipe, seconds)


MOMENTS = [pytest.param("head", marks=pytest.mark.soak), pytest.param("result", marks=pytest.mark.long)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_stopped_for_longer_than_its_lease_commits_nothing(fake, machine, tiny_run, isolated, moment):
    fake(Behaviour(errors=0.02, duplicates=0.2, late=0.5))
    context = multiprocessing.get_context("spawn")

    def begin(moment):
        pipe, end = context.Pipe()
        process = context.Process(target=write, args=(str(isolated), tiny_run, moment, end, 0.0), daemon=True)
        process.start()
        return process, pipe

    first, heard = begin(moment)
    while not zombies._stopped(first.pid):
        time.sleep(0.01)
    assert heard.recv() == "attempt-001"
    second, others = begin("none")
    assert zombies._next_word(others) == "done"
    open_root(machine("reader"), create=True)
    reader = RunDir(machine("reader"), tiny_run.run_id)
    reader.refresh()
    before = zombies.what_counts(reader, "nothing")
    os.kill(first.pid, zombies.signal.SIGCONT)
    said = zombies._hear(heard)
    first.join(30)
    reader.refresh()
    assert zombies.what_counts(reader, "nothing") == before
    # its result was committed before it stopped; the name in its own working copy is all that came later
    assert said == ("lost" if moment == "head" else "done")
    second.join(30)


def test_a_head_of_an_earlier_term_that_comes_late_does_not_count(fake, machine, tiny_run):
    first, second = RunDir(machine("first"), tiny_run.run_id), RunDir(machine("second"), tiny_run.run_id)
    with first.claimed(tiny_run):
        first.finish({"status": "done", "by": 1})
    objects = Objects(URI)
    late = list(objects.list(f"heads/runs/{tiny_run.run_id}"))
    with second.claimed(tiny_run):
        attempt = second.new_attempt()
        second.event(attempt, "start")
        second.fence(attempt / "events.jsonl", attempt / "events.jsonl")
        for key in late:
            term, number = key.rpartition("/")[2].removesuffix(".json").split("-")
            objects.put(f"{key.rpartition('/')[0]}/{term}-{int(number) + 7:08d}.json", b'{"files": {}}')
    reader = RunDir(machine("reader"), tiny_run.run_id)
    reader.refresh()
    assert reader.result() == {"status": "done", "by": 1}
    assert [folder.name for folder in reader.attempts()] == ["attempt-001"]


def test_what_only_old_states_name_is_cleared(fake, machine, tiny_run):
    run = RunDir(machine("first"), tiny_run.run_id)
    objects = Objects(URI)
    for _ in range(2):
        with run.claimed(tiny_run):
            attempt = run.new_attempt()
            for step in range(6):
                run.event(attempt, "step", step=step)
                run.write_evaluation("e", {"step": [step]})
        assert len(objects.list(f"heads/runs/{tiny_run.run_id}")) == 2
        assert len(objects.list(f"runs/{tiny_run.run_id}/evals")) == 2
    assert RunDir(machine("first"), tiny_run.run_id).evaluation("e").step.tolist() == [5]


def test_a_damaged_working_copy_is_mended_and_a_damaged_object_is_said(fake, machine, tiny_run):
    root = open_root(machine("first"), create=True)
    run(tiny_run, EVALS, root)
    folder = RunDir(root, tiny_run.run_id)
    weights = folder.checkpoint(tiny_run.steps) / "model-00000.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(b"rotten")
    assert open_run(tiny_run.run_id, root=root).step == tiny_run.steps
    assert weights.read_bytes() == sound
    for place in Path(os.environ["ISOFLOP_FAKE_FOLDER"]).glob("objects/*model-00000*"):
        place.write_bytes(b"rotten")
    with pytest.raises(StoreError, match=r"the checkpoint of step 30 .* is damaged"):
        open_run(tiny_run.run_id, root=machine("second"))


def _rank(rank, size, address, spec, where, stop_after):
    fsspec.register_implementation("fake", FakeStore, clobber=True)
    if isinstance(where, list):
        os.environ["ISOFLOP_CACHE"] = where[rank]
    root = open_root(places.local(URI) if isinstance(where, list) else Path(where), create=True)
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    layout = Layout(data=2, shard=2, micro_batch=2)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        return run(spec, EVALS, root, mesh=here, stop=stop, checkpoint_seconds=0.0)


@pytest.mark.long
@pytest.mark.xdist_group("ranks")
def test_ranks_on_machines_of_their_own_hand_over_their_parts_through_the_store(fake, isolated, tales):
    """Each writes the half of the weights that it holds; the gang goes on with its ranks on one another's machines."""
    spec = make_run(tales, steps=6)
    fake(Behaviour(errors=0.02, duplicates=0.1, late=0.5, stale=0.5))
    nodes = [str(isolated / "node-0"), str(isolated / "node-1")]
    stopped = ranks.run(_rank, 2, spec, nodes, 3)
    assert [kind for kind, _ in stopped] == ["StoppedError"] * 2
    result, _ = ranks.run(_rank, 2, spec, nodes[::-1], None)
    assert (result["status"], result["attempts"]) == ("done", 2)
    ranks.run(_rank, 2, spec, str(isolated / "shared"), None)
    there = RunDir(isolated / "shared", spec.run_id)
    os.environ["ISOFLOP_CACHE"] = nodes[0]
    here = RunDir(open_root(places.local(URI), create=False), spec.run_id)
    places._REMOTES.clear()
    here.refresh()
    assert here.evaluation(EVALS.eval_id).equals(there.evaluation(EVALS.eval_id))
    assert here.curve().drop(columns="attempt").equals(there.curve().drop(columns="attempt"))


# ------------------------------------------------------------------------------------------------------------- sweeps


def test_a_sweep_has_one_driver_among_machines_and_others_see_how_it_stands(fake, machine, monkeypatch):
    monkeypatch.setattr("gpt3core.store.remote.FRESH_SECONDS", 0.1)
    fake(BAD)
    first, second = SweepDir(machine("first"), "mine"), SweepDir(machine("second"), "mine")
    with first.owned():
        assert first.mechanism == "lease"
        first.write_record(SweepRecord(runs=("b", "a")))
        first.write_status({"done": 1})
        with pytest.raises(StoreError, match=f"the sweep mine in {URI} has a driver already"), second.owned():
            pass
        second.request_stop("a")
        deadline = time.monotonic() + 30
        while first.stop_requests() != {"a"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second.withdraw_stop("a")
        while first.stop_requests():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with second.owned():
        assert second.record() == SweepRecord(runs=("a", "b"))
        assert second.status() == {"done": 1}


def test_a_request_that_arrives_again_after_it_was_withdrawn_asks_for_nothing(fake, machine):
    fake(Behaviour(duplicates=1.0, late=0.3))
    sweep = SweepDir(machine("first"), "mine")

    def asked() -> set[str]:
        sweep._remote.fetch_requests("mine")
        return sweep.stop_requests()

    sweep.request_stop("a")
    sweep.request_stop("b")
    sweep.withdraw_stop("a")
    assert asked() == {"b"}
    time.sleep(0.35)
    asked()  # with this call comes what comes twice
    assert sweep._remote.objects._fs.calls["duplicate"] >= 2
    assert asked() == {"b"}
    sweep._remote.objects.put("sweeps/mine/stop/a", b"")  # as a user does it
    assert asked() == {"a", "b"}


def test_a_driver_that_lost_its_lease_writes_nothing(fake, machine, monkeypatch):
    monkeypatch.setattr("gpt3core.store.remote.FRESH_SECONDS", 0.1)
    sweep = SweepDir(machine("first"), "mine")
    with sweep.owned():
        sweep.write_record(SweepRecord(runs=("a",)))
        Objects(URI).put("leases/sweeps/mine/00000002.json", lease.as_bytes(lease.this_process()))
        with pytest.raises(LostError, match="the sweep mine was taken over by another process"):
            sweep.write_record(SweepRecord(runs=("b",)))
        deadline = time.monotonic() + 30
        with pytest.raises(LostError):
            while time.monotonic() < deadline:
                sweep.write_status({"done": 1})
                time.sleep(0.05)
    other = SweepDir(machine("second"), "mine")
    open_root(machine("second"), create=False)
    assert other.record() == SweepRecord(runs=("a",))
