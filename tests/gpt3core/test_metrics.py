"""The loss curve's parts and an attempt's live lines: few files, no row lost, none twice, whoever reads or kills."""

import itertools
import json
import os
import signal
from pathlib import Path

import pytest

from gpt3core.store import files, metrics
from gpt3core.store.rundir import RunDir
from tests.gpt3core import ranks

ROWS = 3  # of a part


def rows(first, value=0.0):
    steps = list(range(first, first + ROWS))
    return {"step": steps, "tokens": [8 * s for s in steps], "loss": [value + 1 / s for s in steps]}


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of small files: a busy disk would take minutes
    run = RunDir(tmp_path, "d16-0")
    files.make_folder(run.path)
    return run.new_attempt()


def curve(attempt, columns=None):
    return RunDir(attempt.parent.parent.parent, attempt.parent.name).curve(columns)


def names(attempt):
    return sorted(path.name for path in (attempt / "metrics").iterdir())


def test_many_parts_become_one_with_the_same_rows_and_types(attempt):
    parts = [rows(first) for first in range(1, 301, ROWS)]
    for part in parts:
        metrics.write(attempt, {**part, "note": [None, "a", "b"]})
    before = curve(attempt)
    metrics.compact(attempt, most=101)
    assert len(names(attempt)) == 100, "not many enough"
    metrics.compact(attempt, most=100)
    assert names(attempt) == ["part-00000001-00000300.parquet"]
    after = curve(attempt)
    assert after.equals(before)
    assert after.dtypes.equals(before.dtypes)
    assert after["loss"].tolist() == [1 / step for step in range(1, 301)]
    assert curve(attempt, ("step", "loss")).columns.tolist() == ["step", "loss"]


def test_a_run_of_thousands_of_saves_has_few_files_at_any_time(attempt):
    most = 0
    for first in range(1, 1 + 200 * ROWS, ROWS):
        metrics.write(attempt, rows(first))
        metrics.compact(attempt, most=16)
        most = max(most, len(names(attempt)))
    assert most < 16
    assert curve(attempt)["step"].tolist() == list(range(1, 1 + 200 * ROWS))


def test_a_part_that_is_written_again_wins_over_what_was_made_one(attempt):
    for first in (1, 4, 7):
        metrics.write(attempt, rows(first))
    metrics.compact(attempt, most=3)
    metrics.write(attempt, rows(4, value=9.0))
    expected = [value + 1 / step for step, value in zip(range(1, 10), [0, 0, 0, 9, 9, 9, 0, 0, 0], strict=True)]
    assert curve(attempt)["loss"].tolist() == expected
    metrics.compact(attempt, most=2)
    assert curve(attempt)["loss"].tolist() == expected
    assert names(attempt) == ["part-00000001-00000009.parquet"]


# ------------------------------------------------------------------------------------------------------------ readers


def _writes(folder, parts, read):
    """Every fourth part waits for one more read."""
    os.fsync = lambda _: None
    for number, first in enumerate(range(1, 1 + parts * ROWS, ROWS)):
        assert number % 4 or read.acquire(timeout=30)
        metrics.write(Path(folder), rows(first))
        metrics.compact(Path(folder), most=4)


def test_who_reads_while_another_process_writes_never_misses_a_row(attempt):
    """Every curve that is read has all steps up to its last, and what was read before stays."""
    read, seen = ranks.CONTEXT.Semaphore(0), 0
    writer = ranks.CONTEXT.Process(target=_writes, args=(str(attempt), 40, read))
    writer.start()
    while writer.is_alive():
        steps = curve(attempt, ("step",))["step"].tolist()
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= seen
        seen = len(steps)
        read.release()
    assert writer.exitcode == 0
    assert curve(attempt)["step"].tolist() == list(range(1, 1 + 40 * ROWS))


def test_a_listing_that_has_neither_the_old_nor_the_new_is_made_again(attempt, monkeypatch):
    """readdir promises nothing of files that come and go meanwhile."""
    for first in (1, 4, 7):
        metrics.write(attempt, rows(first))
    listings = iter([["part-00000007.parquet"], ["part-00000001-00000006.parquet", "part-00000007.parquet"]])
    listed = metrics._names
    monkeypatch.setattr(metrics, "_names", lambda folder: next(listings, None) or listed(folder))
    assert len(curve(attempt)) == 9


def test_a_folder_that_never_holds_still_is_a_sentence_and_no_endless_loop(attempt, monkeypatch):
    metrics.write(attempt, rows(1))
    count = itertools.count()
    monkeypatch.setattr(metrics, "_names", lambda _: [f"part-{next(count):08d}.parquet"])
    with pytest.raises(metrics.StoreError, match="change faster than they can be read"):
        curve(attempt)


# -------------------------------------------------------------------------------------------------------------- kills


def _compacts_and_dies(folder, nth):
    count = itertools.count()

    def deadly(work):
        def wrapped(*args, **kwargs):
            if next(count) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*args, **kwargs)

        return wrapped

    os.replace, os.fsync, Path.unlink = map(deadly, (os.replace, os.fsync, Path.unlink))
    metrics.compact(Path(folder), most=4)


def test_a_kill_in_the_middle_loses_nothing(attempt):
    for first in (1, 4, 7, 10):
        metrics.write(attempt, rows(first))
    whole, killed = curve(attempt), 0
    for nth in range(20):
        child = ranks.CONTEXT.Process(target=_compacts_and_dies, args=(str(attempt), nth))
        child.start()
        child.join(30)
        assert curve(attempt).equals(whole), nth
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
        metrics.write(attempt, rows(4))  # what is left may be too few to be made one
        metrics.write(attempt, rows(7))
        metrics.write(attempt, rows(10))
    assert killed >= 6, "two fsyncs, a rename, the removals"
    metrics.compact(attempt, most=2)
    assert curve(attempt).equals(whole)


# ---------------------------------------------------------------------------------------------------------- live lines


def test_live_lines_are_bounded_and_whole_and_the_newest_stay(tmp_path):
    path = tmp_path / "tail.jsonl"
    for step in range(2000):
        files.append_bounded(path, {"step": step}, most=1000)
        assert path.stat().st_size <= 1000 + 20
    behind = path.with_name("tail.jsonl.1")
    assert sorted(tmp_path.iterdir()) == [path, behind]
    kept = [json.loads(line)["step"] for file in (behind, path) for line in file.read_text().splitlines()]
    assert kept == list(range(2000 - len(kept), 2000))
    assert len(kept) * 15 > 1000


def test_events_are_never_cut(tmp_path):
    for number in range(3000):
        files.append_event(tmp_path / "events.jsonl", "saved", {"number": number})
    assert [event["number"] for event in files.read_lines(tmp_path / "events.jsonl")] == list(range(3000))
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]
