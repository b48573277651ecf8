"""The store: atomic files, versions, locks, checkpoints."""

import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest

from gpt3core.errors import DiskFullError, StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.store import files, sweepdir
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord


def save(run, step, content=b"weights"):
    begun = run.begin_checkpoint(step, "attempt-001")
    files.write_bytes(begun / "model.safetensors", content)
    checksums = {"model.safetensors": hashlib.sha256(content).hexdigest()}
    return run.commit_checkpoint(step, begun, {"train_seconds": 1.0}, checksums)


def test_an_exclusive_write_never_replaces(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1}, exclusive=True)
    with pytest.raises(files.AlreadyWrittenError):
        files.write_json(tmp_path / "a.json", {"x": 2}, exclusive=True)
    assert files.read_json(tmp_path / "a.json") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_what_cannot_be_written_is_said_by_the_innermost_setting_that_was_named(tmp_path):
    (tmp_path / "file").touch()
    within = tmp_path / "file" / "a.json"

    def said():
        with pytest.raises(StoreError) as caught:
            files.write_json(within, {})
        return str(caught.value).rpartition(" by ")[2]

    with files.explained(tmp_path, setting=files.OUT):
        assert said() == "out="
        with files.explained(tmp_path, setting="ISOFLOP_CACHE"):
            assert said() == "ISOFLOP_CACHE"
        assert said() == "out="
    assert said() == "ISOFLOP_ROOT"


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ('{"format": 99}', "has store format 99, this isoflop reads and writes format 2: update isoflop"),
        ('{"format": 1}', "has store format 1, this isoflop reads and writes format 2: the isoflop that wrote it"),
        ('{"format": "2"}', "has store format 2, this isoflop"),
        ("{}", "where an object with fields is expected"),
        ("[]", "where an object with fields is expected"),
        ('{"form', "is not readable JSON"),
    ],
)
def test_a_store_of_another_version_is_refused_and_untouched(tmp_path, marker, sentence):
    open_root(tmp_path, create=True)
    (tmp_path / "store.json").write_text(marker)
    for create in (True, False):
        with pytest.raises(StoreError, match=sentence):
            open_root(tmp_path, create=create)
    assert (tmp_path / "store.json").read_text() == marker


def test_the_first_result_stays(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    assert not run.trained
    run.finish({"loss": 1.0})
    run.finish({"loss": 2.0})
    assert run.result() == {"loss": 1.0}


def test_attempts_are_numbered_and_never_shared(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    assert [run.new_attempt().name for _ in range(3)] == ["attempt-001", "attempt-002", "attempt-003"]
    (run.path / "attempt-1000").mkdir()
    (run.path / "attempt-999").mkdir()
    assert [folder.name for folder in run.attempts()][-2:] == ["attempt-999", "attempt-1000"]
    assert run.new_attempt().name == "attempt-1001"


def test_later_attempts_win_where_curves_overlap(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    first, second = run.new_attempt(), run.new_attempt()
    run.write_metrics(first, {"step": [1, 2, 3], "tokens": [8, 16, 24], "loss": [5.0, 4.0, 99.0]})
    run.write_metrics(second, {"step": [3, 4], "tokens": [24, 32], "loss": [3.0, 2.0]})
    assert list(run.curve().loss) == [5.0, 4.0, 3.0, 2.0]


def test_a_damaged_checkpoint_is_set_aside_and_not_thrown_away(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    for step in (10, 20):
        save(run, step)
    said = run.set_checkpoint_aside(20, "model.safetensors is gone")
    assert "the checkpoint of step 20 is damaged (model.safetensors is gone)" in said
    assert run.checkpoint_steps() == [10]
    assert [(f / "model.safetensors").read_bytes() for f in run.checkpoints.glob("damaged-*")] == [b"weights"]


def test_only_the_newest_checkpoints_are_kept(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    for step in (1, 2, 3, 4):
        save(run, step)
    assert run.checkpoint_steps() == [3, 4]


@pytest.mark.parametrize("fail_at", range(10))
def test_a_failing_disk_never_leaves_half_a_checkpoint(tmp_path, tiny_run, monkeypatch, fail_at):
    """The n-th fsync fails with ENOSPC, for every n: the last good checkpoint is still the latest."""
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    save(run, 10)
    calls = 0
    real = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls > fail_at:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    try:
        save(run, 20)
    except DiskFullError as error:
        assert "free space" in str(error)
        assert "finished runs stay" in str(error)
    monkeypatch.setattr(os, "fsync", real)
    assert run.checkpoint_steps() in ([10], [10, 20])
    for step in run.checkpoint_steps():
        manifest = files.read_object(run.checkpoint(step) / "manifest.json")
        assert {name: files.sha256_file(run.checkpoint(step) / name) for name in manifest} == manifest
    save(run, 20, content=b"again")
    assert run.checkpoint_steps() == [10, 20], "what the failed attempt left is not in the way of the next"


def _hold(path, ready, release):
    with files.locked(Path(path)) as mine:
        ready.put(mine)
        release.wait(30)


def test_a_lock_has_one_holder_and_dies_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Queue(), context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path / "lock"), ready, release))
    holder.start()
    assert ready.get(timeout=30) is True
    with files.locked(tmp_path / "lock") as mine:
        assert not mine
    holder.kill()
    holder.join()
    with files.locked(tmp_path / "lock") as mine:
        assert mine


def test_a_torn_last_line_is_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    files.append_line(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2')
    assert files.read_lines(path) == [{"a": 1}]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a pipe or a device"), (os.mkdir, "a directory")])
def test_what_is_no_file_is_a_sentence_and_is_not_waited_for(tmp_path, make, what):
    run = RunDir(tmp_path, "d8-1")
    run.path.mkdir(parents=True)
    for name in ("spec.json", "result.json"):
        make(run.path / name)
    for read in (run.spec, run.result):
        with pytest.raises(StoreError, match=rf"\.json cannot be read now \(Is {what}\): .*move away what is no file"):
            read()
    for read in (files.read_lines, files.last_lines, files.sha256_file):
        with pytest.raises(OSError, match=f"Is {what}"):
            read(run.path / "spec.json")
    run.evaluation_path("aaa").parent.mkdir()
    make(run.evaluation_path("aaa"))
    assert not run.evaluated("aaa")
    with pytest.raises(StoreError, match=rf"not a readable table \(.*Is {what}.*: delete it"):
        run.evaluation("aaa")
    make(run.path / "lock")
    with pytest.raises(StoreError, match=r"cannot write .*lock"), files.locked(run.path / "lock"):
        pass


def test_evaluations_live_under_the_run_and_their_rows_can_be_used_again(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    assert run.evaluation("aaa") is None
    run.write_evaluation("aaa", {"task": ["copy"], "shots": [0], "accuracy": [None], "loss": [None]})
    run.write_evaluation("bbb", {"task": ["held_out"], "shots": [0], "accuracy": [None], "loss": [2.5]})
    assert list(run.evaluation("bbb").loss) == [2.5]
    assert run.measurements() == [
        {"task": "copy", "shots": 0, "accuracy": None, "loss": None},
        {"task": "held_out", "shots": 0, "accuracy": None, "loss": 2.5},
    ]
    run.evaluation_path("aaa").write_bytes(b"PAR1 torn")
    with pytest.raises(StoreError, match="delete it, and it is made again"):
        run.evaluation("aaa")
    assert [row["task"] for row in run.measurements()] == ["held_out"]


def test_what_a_sweep_was_asked_is_kept_and_has_one_driver(tmp_path):
    sweep = SweepDir(tmp_path, "mine")
    record = SweepRecord(
        runs=("b", "a"),
        evals=EvalSpec(tasks=("copy",)),
        numerics={"cpu": {"precision": "fp32", "kernel": "sdpa"}},
        min_tokens=4e5,
    )
    with sweep.owned():
        assert sweep.record() is None
        sweep.write_record(record)
        sweep.event("driver")
        with pytest.raises(StoreError, match="has a driver already"), SweepDir(tmp_path, "mine").owned():
            pass
    assert sweep.record() == record
    assert record.runs == ("a", "b")
    assert sweepdir.names(tmp_path) == ["mine"]
    assert sweep.status() is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "null",
        '{"runs": "a"',
        '{"runs": ["a"], "evals": []}',
        '{"run": []}',
        '{"runs": "abc"}',
        '{"runs": ["a"], "evals": null}',
        '{"runs": ["a"], "evals": {"tasks": [NaN]}}',
        '{"runs": ["a"], "evals": {"version": Infinity}}',
    ],
)
def test_a_sweeps_record_that_is_none_is_a_sentence(tmp_path, text):
    sweep = SweepDir(tmp_path, "mine")
    files.make_folder(sweep.path)
    (sweep.path / "sweep.json").write_text(text)
    with pytest.raises(StoreError, match=r"sweep.json"):
        sweep.record()


def test_what_a_killed_writer_left_is_removed_by_the_next_owner(tmp_path):
    sweep = SweepDir(tmp_path, "mine")
    with sweep.owned():
        (sweep.path / ".status.json.0a1b2c3d.tmp").write_text("torn")
        (sweep.path / ".grave.0a1b2c3d.tmp").mkdir()
    with sweep.owned():
        assert not list(sweep.path.glob(".*"))
