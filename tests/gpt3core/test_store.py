"""The store: atomic files, versions, locks, checkpoints."""

import json
import multiprocessing
import os
import random
from pathlib import Path

import pytest

from gpt3core.store import files
from gpt3core.store.files import DiskFullError, StoreError
from gpt3core.store.rundir import RunDir, open_root


def save(run, step, content=b"weights"):
    return run.save_checkpoint(
        step, {"model.safetensors": lambda path: path.write_bytes(content)}, {"train_seconds": 1.0}
    )


def test_an_exclusive_write_never_replaces(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1}, exclusive=True)
    with pytest.raises(files.AlreadyWrittenError):
        files.write_json(tmp_path / "a.json", {"x": 2}, exclusive=True)
    assert files.read_json(tmp_path / "a.json") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_store_of_a_newer_version_is_refused_and_untouched(tmp_path):
    open_root(tmp_path, create=True)
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match=r"newer isoflop .store format 99"):
        open_root(tmp_path, create=True)
    assert json.loads((tmp_path / "store.json").read_text()) == {"format": 99}


def test_the_first_result_stays(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    assert not run.done
    run.finish({"loss": 1.0})
    run.finish({"loss": 2.0})
    assert run.result() == {"loss": 1.0}


def test_attempts_are_numbered_and_never_shared(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    assert [run.new_attempt().name for _ in range(3)] == ["attempt-001", "attempt-002", "attempt-003"]


def test_later_attempts_win_where_curves_overlap(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    first, second = run.new_attempt(), run.new_attempt()
    run.write_metrics(first, {"step": [1, 2, 3], "tokens": [8, 16, 24], "loss": [5.0, 4.0, 99.0]})
    run.write_metrics(second, {"step": [3, 4], "tokens": [24, 32], "loss": [3.0, 2.0]})
    assert list(run.curve().loss) == [5.0, 4.0, 3.0, 2.0]


def test_any_flipped_bit_is_found_and_the_run_goes_back_one_checkpoint(tmp_path, tiny_run):
    rng = random.Random(0)
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    for trial in range(20):
        save(run, 10)
        save(run, 20, content=rng.randbytes(200))
        newest = run.checkpoints / "step-00000020"
        victim = rng.choice(sorted(newest.iterdir()))
        raw = bytearray(victim.read_bytes())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        victim.write_bytes(raw)
        folder, damage = run.latest_checkpoint()
        assert folder is not None
        assert folder.name == "step-00000010", trial
        assert len(damage) == 1
        assert "damaged" in damage[0]
        assert not newest.exists()
    assert len(list(run.checkpoints.glob("damaged-*"))) == 20, "nothing is thrown away"


def test_only_the_newest_checkpoints_are_kept(tmp_path, tiny_run):
    run = RunDir(tmp_path, tiny_run.run_id)
    run.create(tiny_run)
    for step in (1, 2, 3, 4):
        save(run, step)
    assert run.checkpoint_steps() == [3, 4]


@pytest.mark.parametrize("fail_at", range(12))
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
    folder, damage = run.latest_checkpoint()
    assert damage == []
    assert folder is not None
    assert folder.name in ("step-00000010", "step-00000020")


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
