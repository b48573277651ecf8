"""Data preparation that is stopped, or whose disk is full: what is done is kept, what is read no more is not."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter

import pytest
from pyarrow import parquet

from gpt3core.data.prepare import folder, parts, read, task
from gpt3core.errors import DiskFullError, StoreError
from tests.gpt3core import corpora
from tests.gpt3core.corpora import PLAIN, prepare


def test_a_command_stopped_after_any_task_goes_on_to_the_same_bytes(made, tmp_path):
    def stopping(after):
        def spread(tasks):
            for done, item in enumerate(task.one_by_one(tasks)):
                yield item
                count.append(done)
                if len(count) == after:
                    raise KeyboardInterrupt

        return lambda _: spread

    out = tmp_path / "out"
    for after in (1, 3, 2, 4, 1, 1):  # each goes on from where the last one stopped
        count: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            prepare(made[0], out, spread=stopping(after))
        assert len(count) == after
        assert not (out / "manifest.json").exists()
    count = []
    prepare(made[0], out, spread=stopping(-1))
    assert 0 < len(count) < 12, "what was done was not done again"
    assert corpora.shards(out) == corpora.shards(made[1])
    assert {p.name for p in out.iterdir()} == {p.name for p in made[1].iterdir()}, "nothing half made stays"


def rows(out):
    """How many documents each stage has on the disk."""
    found = Counter()
    for path in (out / ".work").rglob("*.parquet"):
        about = parquet.read_metadata(path)
        if "text" in about.schema.names:
            found[path.relative_to(out / ".work").parts[0].split("-")[1]] += about.num_rows
    return {stage: n for stage, n in found.items() if n and stage != "sample"}


def test_text_goes_from_the_disk_when_all_that_reads_it_is_done(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 30_000)
    monkeypatch.setattr(read, "FAN", 2)
    out, seen = tmp_path / "out", {}

    def spread(tasks):
        seen.setdefault(tasks[0].work.__name__, [*rows(out)])
        yield from task.one_by_one(tasks)

    prepare(made[0], out, spread=lambda _: spread)
    assert seen["merge"] == ["read"]
    assert seen["gather"] == ["merge"]
    for stage in ("sample", "train", "score", "sign", "compare", "count", "total", "clean"):
        assert seen[stage] == ["gather"]
    assert seen["tokenize"] == ["clean"]
    assert seen["shard"] == []
    assert corpora.shards(out) == corpora.shards(made[1])


@pytest.mark.parametrize("words", [(), ("quality.rule=none",)])
def test_text_that_went_is_read_again_where_it_is_needed_after_all(made, tmp_path, monkeypatch, words):
    monkeypatch.setattr(parts, "PART_BYTES", 30_000)
    out, stage = tmp_path / "out", {}

    def stopping(tasks):
        stage["now"] = tasks[0].work.__name__
        if stage["now"] == "tokenize":
            raise KeyboardInterrupt
        yield from task.one_by_one(tasks)

    with pytest.raises(KeyboardInterrupt):
        prepare(made[0], out, spread=lambda _: stopping)
    assert [*rows(out)] == ["clean"]
    if not words:  # somebody removes a file, as the command asks for one that is damaged
        shutil.rmtree(next((out / ".work").glob("10-clean-*")) / "part-00001")
    prepare(made[0], out, *words)
    anew = made[1]
    if words:
        prepare(made[0], anew := tmp_path / "anew", *words)
    assert corpora.shards(out) == corpora.shards(anew)
    assert len(list((out / "decisions").iterdir())) > 2


def test_who_comes_late_to_a_task_does_not_take_text_that_went_for_none(tmp_path):
    parts.write_documents(tmp_path / "part", parts.Part(ids=["a"], sources=["web"], texts=["one"]), {"n": 1})
    parts.empty(tmp_path / "part")
    assert parts.counts(tmp_path / "part") == {"n": 1}
    for late in (
        lambda: parts.documents(tmp_path / "part"),
        lambda: read.merge(tmp_path / "out", sorted_files=[tmp_path / "part"], number=0, of=1),
    ):
        with pytest.raises(StoreError, match="was emptied, since all that reads it was done"):
            late()


def test_a_part_that_cannot_be_read_is_named_by_whatever_opens_it(tmp_path):
    (part := tmp_path / "part").write_bytes(b"no table")
    for opened in (parts.read, parts.counts, parts.empty):
        with pytest.raises(StoreError, match=f"{part} cannot be read .*delete it and give the same command"):
            opened(part)


def test_a_disk_that_fills_at_any_write_is_one_sentence_and_the_same_command_goes_on(made, tmp_path, monkeypatch):
    sync, left, out = os.fsync, [0], tmp_path / "out"

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    stops = 0
    while True:
        left[0] = 4 + stops  # so that each task gets further, and at last through
        try:
            prepare(made[0], out)
            break
        except DiskFullError as error:
            said = str(error)
            assert "\n" not in said
            assert "no room to write" in said
            assert "give the same command again" in said
            stops += 1
            assert not (out / "manifest.json").exists()
    assert stops > 10
    assert corpora.shards(out) == corpora.shards(made[1])


@pytest.mark.parametrize("written", range(3))
def test_a_disk_that_fills_while_all_gets_its_name_is_one_sentence(made, tmp_path, monkeypatch, written):
    sync, finish, left = os.fsync, folder.finish, []

    def full(descriptor):
        left.append(descriptor)
        if len(left) > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def on_a_full_disk(*given):
        monkeypatch.setattr(os, "fsync", full)
        return finish(*given)

    monkeypatch.setattr(folder, "finish", on_a_full_disk)
    with pytest.raises(DiskFullError, match=r"no room to write .*/out: what was done before is kept; .* same command"):
        prepare(made[0], tmp_path / "out", *PLAIN)
    monkeypatch.undo()
    prepare(made[0], tmp_path / "out", *PLAIN, spread=lambda _: lambda _: pytest.fail("done again"))
