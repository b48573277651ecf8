"""A sweep written for TensorBoard, W&B and MLflow, and read back by each tool's own reader: the store's values."""

import errno
import itertools
import json
import math
import os
import shutil
import socket
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gpt3core.errors import DiskFullError, StoreError
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps import export
from sweeps.exporting import reading
from sweeps.exporting.reading import Exported
from tests.analysis.synthetic import make_store
from tests.commands import called

STEPS = 40


@pytest.fixture
def root(isolated):
    """A sweep of four runs: three finished, one under way, with every column that a curve may have."""
    found = isolated / "root"
    ids = make_store(found, asked="smoke")
    (RunDir(found, ids[0]).path / "result.json").unlink()
    for run_id in ids:
        grow(found, run_id, range(11, 21))
    return found


def grow(root, run_id, steps):
    run = RunDir(root, run_id)
    columns = {"step": list(steps), "tokens": [100 * s for s in steps], "loss": [3 + 1 / s for s in steps]}
    columns |= {"lr": [0.01 / s for s in steps], "grad_norm": [1.0 + s for s in steps]}
    columns["noise_scale"] = [1e4 * s if s % 5 == 0 else math.nan for s in steps]
    run.write_metrics(run.attempts()[-1], columns)


def exported(root):
    """What must be found again: run -> (what the store says of it)."""
    sweep = SweepDir(root, "smoke")
    run_ids, evals = reading.runs(sweep)
    found = {run_id: reading.read(sweep, run_id, evals) for run_id in run_ids}
    assert all(isinstance(run, Exported) for run in found.values())
    return found


def do(root, to, out, *more):
    done = called(export.main, [f"to={to}", f"out={out}", f"runs={root}", *more], root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(run, kind=float):
    """(tag, step) -> value, of curve and scores."""
    found = {(tag, step): kind(v) for i, step in enumerate(run.steps) for tag, v in run.row(i).items()}
    return found | {(tag, run.steps[-1]): kind(value) for tag, value in run.final.items()}


def read_tensorboard(out, run):
    """By TensorBoard's own reader, every event once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(out / run.run_id), size_guidance={"scalars": 0, "tensors": 0})
    seen.Reload()
    points = [((tag, e.step), np.float32(e.value)) for tag in seen.Tags()["scalars"] for e in seen.Scalars(tag)]
    assert len(points) == len(dict(points)), "nothing is there twice"
    (text,) = seen.Tensors("run/text_summary")
    told = json.loads(text.tensor_proto.string_val[0].decode().strip("`\n"))
    return dict(points), told["config"], {name: told[name] for name in ("sweep", "label", "run_id")}


def wandb_records(path):
    """The records of an offline file: by W&B's own reader, up to 0.30; its later ones read in Go alone."""
    try:
        from wandb.sdk.internal.datastore import DataStore
    except ImportError:
        yield from leveldb_log(path.read_bytes())
        return
    store = DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        yield data


def leveldb_log(data):
    """LevelDB's log format (github.com/google/leveldb, doc/log_format.md) after W&B's header of seven bytes."""
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(data):
        if (left := 32_768 - place % 32_768) < 7:
            place += left  # the end of a block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)  # after a checksum
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


def read_wandb(out, run):
    """By W&B's own records."""
    from wandb.proto import wandb_internal_pb2

    (path,) = out.glob(f"offline-run-*/run-{run.run_id}.wandb")
    points, summary, config, tags = {}, {}, {}, {}
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            points |= {(tag, row["_step"]): value for tag, value in row.items() if not tag.startswith("_")}
        elif kind == "summary":
            summary |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "run":
            config |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.run.config.update}
            tags = {"sweep": record.run.run_group, "run_id": record.run.run_id, "label": config["label"]}
    points |= {(tag, run.steps[-1]): summary[tag] for tag in run.final}
    return points, config, tags


def read_mlflow(out, run):
    """By MLflow's own client."""
    from mlflow.tracking import MlflowClient

    from sweeps.exporting.mlflow import address

    client = MlflowClient(tracking_uri=address(out))
    experiment = client.get_experiment_by_name("smoke")
    (found,) = client.search_runs([experiment.experiment_id], f"tags.run_id = '{run.run_id}'")
    points = [
        ((m.key, m.step), m.value)
        for key in found.data.metrics
        for m in client.get_metric_history(found.info.run_id, key)
    ]
    assert len(points) == len(dict(points)), "nothing is there twice"
    return dict(points), found.data.params, {name: found.data.tags[name] for name in ("sweep", "label", "run_id")}


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}
LIGHT = [
    "tensorboard",
    pytest.param("wandb", marks=pytest.mark.long),
    pytest.param("mlflow", marks=pytest.mark.long),
]


def check(root, to, out):
    kind = np.float32 if to == "tensorboard" else float
    for run in exported(root).values():
        points, config, tags = READERS[to](out, run)
        assert points == expected(run, kind)
        assert {k: str(v) for k, v in config.items()}.items() >= {k: str(v) for k, v in run.config.items()}.items()
        assert tags == {"sweep": "smoke", "label": run.label, "run_id": run.run_id}


@pytest.mark.parametrize("to", LIGHT)
def test_it_is_read_back_by_the_tools_own_reader_and_grows_without_repeating(root, tmp_path, to):
    pytest.importorskip(to)
    out = tmp_path / "out"
    assert "4 of 4 runs of smoke" in do(root, to, out)
    check(root, to, out)
    assert "0 with news" in do(root, to, out, "name=smoke")
    check(root, to, out)
    running = min(exported(root))
    grow(root, running, range(21, STEPS + 1))
    assert "1 with news" in do(root, to, out)
    check(root, to, out)
    RunDir(root, running).finish({"status": "done", "tokens_per_second": 1e4})
    do(root, to, out)
    check(root, to, out)
    # a look that was killed after it wrote, before it noted so
    note = json.loads((out / export.NOTE).read_text())
    (out / export.NOTE).write_text(json.dumps({**note, "runs": {}}))
    do(root, to, out)
    check(root, to, out)


@pytest.mark.parametrize("to", LIGHT)
def test_a_run_that_went_back_is_written_anew(root, tmp_path, to):
    pytest.importorskip(to)
    out, running = tmp_path / "out", min(exported(root))
    do(root, to, out)
    run = RunDir(root, running)
    run.forget_after(12, run.attempts()[-1].name, 1, {name: [] for name in ("step", "tokens", "loss")})
    do(root, to, out)
    check(root, to, out)


def test_a_torn_event_file_is_no_reason_to_lose_or_repeat_a_step(root, tmp_path):
    pytest.importorskip("tensorboard")
    out, running = tmp_path / "out", min(exported(root))
    do(root, "tensorboard", out)
    (path,) = (out / running).glob("events*")
    path.write_bytes(path.read_bytes()[:-37])
    grow(root, running, range(21, 31))
    do(root, "tensorboard", out)
    run = exported(root)[running]
    assert read_tensorboard(out, run)[0] == expected(run, np.float32)


@pytest.mark.parametrize("to", LIGHT)
def test_nothing_leaves_the_machine(root, tmp_path, to, monkeypatch):
    pytest.importorskip(to)

    def refuse(self, address, *rest):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a connection to {address}")
        return connect(self, address, *rest)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)
    do(root, to, tmp_path / "out")


def test_follow_ends_with_the_driver(root, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    running, left = min(exported(root)), [2]

    def driving(sweep):
        left[0] -= 1
        return left[0] >= 0

    def sleep(seconds):
        assert seconds == 0.5
        more = 21 + 5 * (1 - left[0])
        grow(root, running, range(more, more + 5))

    monkeypatch.setattr(export, "_driving", driving)
    monkeypatch.setattr(export, "time", SimpleNamespace(sleep=sleep))  # not that of other threads
    said = do(root, "tensorboard", tmp_path / "out", "--follow", "every=0.5").splitlines()
    assert [line.partition(" in ")[2].rpartition(", ")[2] for line in said] == ["4 with news", *["1 with news"] * 2]


@pytest.mark.parametrize(("to", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_tool_that_is_not_there_is_named_with_its_extra(root, tmp_path, monkeypatch, to, module):
    monkeypatch.setitem(sys.modules, module, None)
    done = called(export.main, [f"to={to}", f"out={tmp_path / 'out'}", f"runs={root}"], tmp_path)
    assert done.returncode == 2
    assert f"pip install 'isoflop[{to}]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_words_are_one_sentence(root, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    notes = ('{"sweep": "smoke"}', '{"sweep": "smoke", "to": "tensorboard", "runs": {"x": 7}}')
    for i, note in enumerate(notes):
        (tmp_path / f"note-{i}").mkdir()
        (tmp_path / f"note-{i}" / export.NOTE).write_text(note)
    for words, said in (
        (["to=tensorboard"], "a folder out=DIR are needed\n"),
        (["to=tensorboard", f"out={tmp_path / 'file'}"], "is a file"),
        (["to=tensorboard", f"out={tmp_path / 'note-0'}"], "holds something else"),
        (["to=tensorboard", f"out={tmp_path / 'note-1'}"], "holds something else"),
        (["out=x"], "to= out=x: one of to=tensorboard, to=wandb, to=mlflow"),
        (["to=tensorbord", "out=x"], "did you mean tensorboard?"),
        (["to=tensorboard", "out=x", "name=smok"], "did you mean smoke?"),
        (["to=tensorboard", "out=x", "every=2"], "no effect without --follow"),
        (["to=tensorboard", "out=x", "every=0", "--follow"], "above 0"),
        (["to=tensorboard", f"out={tmp_path / 'mine'}"], "holds something else"),
        (["to=tensorboard", "out=x", "nam=smoke"], "did you mean name?"),
    ):
        done = called(export.main, [f"runs={root}", *words], tmp_path)
        assert (done.returncode, said in done.stderr) == (2, True), (words, done.stderr)


def test_a_full_disk_is_said_by_out(root, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"set out= to another disk, and start again$"):
        export.Export(SweepDir(root, "smoke"), "tensorboard", tmp_path / "out")


def test_a_folder_is_one_sweeps_for_one_tool(root, tmp_path):
    out = tmp_path / "out"
    do(root, "tensorboard", out)
    done = called(export.main, [f"runs={root}", "to=mlflow", f"out={out}"], tmp_path)
    assert "holds the sweep smoke for tensorboard" in done.stderr


def test_a_damaged_run_is_left_out_and_said(root, tmp_path):
    one = max(exported(root))
    (RunDir(root, one).path / "spec.json").write_text("{")
    assert f"left out {one}" in do(root, "tensorboard", tmp_path / "out")
    shutil.rmtree(RunDir(root, one).path)
    assert "3 of 4 runs" in do(root, "tensorboard", tmp_path / "out")


@pytest.mark.parametrize("nonsense", [None, [1], "x", -1, 1e300, math.inf])
def test_nonsense_in_a_runs_files_is_left_out(root, nonsense):
    one = max(exported(root))
    run, sweep = RunDir(root, one), SweepDir(root, "smoke")
    (run.attempts()[0] / "events.jsonl").write_text(
        json.dumps({"event": "start", "time": nonsense, "damage": nonsense})
    )
    assert reading.read(sweep, one, reading.runs(sweep)[1]).started == 0.0
    assert run.damage() == (["1"] if nonsense == [1] else [])
    (run.path / "result.json").write_text(json.dumps({"status": nonsense}))
    with pytest.raises(StoreError, match="status"):
        reading.read(sweep, one, reading.runs(sweep)[1])


def test_steps_are_in_order():
    run = exported_like([1, 2, 3])
    assert [run.row(i)["train/loss"] for i in range(3)] == list(itertools.repeat(1.0, 3))


def exported_like(steps):
    curve = {"train/loss": [1.0 for _ in steps], "train/noise_scale": [math.nan for _ in steps]}
    words = dict.fromkeys(("run_id", "sweep", "label", "status"), "x")
    return Exported(**words, started=0.0, config={}, steps=steps, curve=curve)
