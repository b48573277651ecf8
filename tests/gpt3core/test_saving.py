"""Checkpoints that are written while training goes on: what they hold, who waits for whom, failures, kills."""

import itertools
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from safetensors.torch import save as as_safetensors

from gpt3core import run as runs
from gpt3core import sizes
from gpt3core.errors import DiskFullError
from gpt3core.model import registry
from gpt3core.model.parameters import Part, whole
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.memory import snapshot_bytes
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, loop, optimizer, saving
from gpt3core.train.snapshot import Image, Staging, finite
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, run, stopped

pytestmark = pytest.mark.xdist_group("ranks")

# --------------------------------------------------------------------------------------------------- what is copied


def test_a_file_has_the_bytes_that_safetensors_gives_it():
    tensors = {
        "wide": torch.randn(3, 5),
        "b.step": torch.tensor(7.0),
        "counts": torch.arange(4),
        "ä half": torch.randn(2, 3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 5),
        "a": torch.randn(6, 4)[:, 1:3],  # strided, as a cut may be
    }
    staging = Staging("cpu")
    staging.begin({"x.safetensors": {name: whole(tensor) for name, tensor in tensors.items()}})
    staging.finish()
    data = bytes(staging.images["x.safetensors"].data)
    assert data == as_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert load(data)["a"].equal(tensors["a"])


def test_memory_is_kept_from_one_save_to_the_next_and_given_anew_to_another_form():
    staging, values = Staging("cpu"), torch.zeros(4)

    def saved(part):
        staging.begin({"f": {"x": part}})
        staging.finish()
        return staging.images["f"]

    first = saved(whole(values))
    values += 1
    assert saved(whole(values)) is first
    assert load(bytes(first.data))["x"].tolist() == [1.0] * 4
    moved = saved(Part(values=values, shape=(8,), start=(4,)))
    assert isinstance(moved, Image)
    assert moved is not first, "a file that is of another place has another index"


def test_the_memory_model_knows_what_a_save_holds(tales):
    """In place of headers and steps the bytes of values: weights and two moments in fp32."""
    spec = make_run(tales, width=64)
    model = registry.of(spec.model).build(spec.model, kernel="softmax")
    model.init_weights(0)
    adam = optimizer.build(model, spec.optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    staging = Staging("cpu")
    staging.begin(checkpoint.held(model, adam, mesh.Mesh()))
    tensors = [t for image in staging.images.values() for t in image.tensors.values() if t.dim()]
    assert snapshot_bytes(spec.model, Layout()) == sum(t.nbytes for t in tensors)
    held = sum(len(image.data) for image in staging.images.values())
    assert held == pytest.approx(snapshot_bytes(spec.model, Layout()), rel=0.05)
    assert snapshot_bytes(sizes.GPT3["175B"].model(), Layout(data=8, shard=8, pipeline=8, tensor=8)) == pytest.approx(
        12 * 174.6e9 / 512, rel=0.1
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -0.0])
@pytest.mark.parametrize("place", [0, 63, 500])
def test_a_number_that_is_none_is_found_wherever_it_stands(value, place):
    tensor = torch.randn(501)
    tensor[place] = value
    others = [torch.randn(3, 3), torch.zeros(0), torch.tensor(1.0)]
    assert finite([*others, tensor.requires_grad_()]) == bool(np.isfinite(value))


# -------------------------------------------------------------------------------------------------- who waits for whom


def due_at(monkeypatch, *steps):
    """Saves at these calls of ``due``, and no others."""
    calls = itertools.count(1)
    monkeypatch.setattr(saving.Saves, "due", lambda self: next(calls) in steps)


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(tiny_run, isolated, monkeypatch):
    """The writer of step 5 gets no further than its copy until step 9 is done, and the copy itself is slow."""
    expected = stopped(tiny_run, isolated / "waited", 5).checkpoint(5)
    due_at(monkeypatch, 5)
    asked, done_nine = threading.Event(), threading.Event()
    finish, release, update, write = Staging.finish, Staging.release, loop.Trainer._update, files.write_bytes

    def slow_copy(self):
        asked.wait(10)  # training has its gradients and wants to apply them
        finish(self)

    def asks(self):
        asked.set()
        release(self)

    def slow_write(path, data, **kwargs):
        if path.suffix == ".safetensors" and not path.parent.name.startswith(".step-00000030"):
            assert done_nine.wait(10), "training waits for its own writer"
        write(path, data, **kwargs)

    def watched(self, lr):
        found = update(self, lr)
        if self.step == 9:
            done_nine.set()
        return found

    monkeypatch.setattr(Staging, "finish", slow_copy)
    monkeypatch.setattr(Staging, "release", asks)
    monkeypatch.setattr(files, "write_bytes", slow_write)
    monkeypatch.setattr(loop.Trainer, "_update", watched)
    run(tiny_run, isolated / "went on")
    written = RunDir(isolated / "went on", tiny_run.run_id).checkpoint(5)
    for name in ("model-00000.safetensors", "optimizer-00000.safetensors"):
        assert (written / name).read_bytes() == (expected / name).read_bytes(), name


def test_one_save_is_under_way_at_most_and_none_is_due_meanwhile(tiny_run, isolated, monkeypatch):
    go, seen = threading.Event(), []
    write, due = files.write_bytes, saving.Saves.due

    def slow_write(path, data, **kwargs):
        if path.name == "manifest.json" and "step-00000001" in str(path):
            assert go.wait(10)
        write(path, data, **kwargs)

    def watched(self):
        seen.append(due(self))
        if len(seen) == 20:
            go.set()
        return seen[-1]

    monkeypatch.setattr(files, "write_bytes", slow_write)
    monkeypatch.setattr(saving.Saves, "due", watched)
    monkeypatch.setattr("gpt3core.train.interval.MOST_SHARE", 1.0)
    run(tiny_run, isolated, checkpoint_seconds=0.0)
    assert seen[:20] == [True] + [False] * 19


@pytest.mark.parametrize("step", [7, 30])
def test_a_step_that_others_start_from_and_the_last_are_there_when_training_goes_on(
    tiny_run, isolated, monkeypatch, step
):
    there = []
    run_dir, update = RunDir(isolated, tiny_run.run_id), loop.Trainer._update

    def watched(self, lr):
        there.append(run_dir.checkpoint_steps())
        return update(self, lr)

    monkeypatch.setattr(loop.Trainer, "_update", watched)
    monkeypatch.setattr("gpt3core.run._evaluate", lambda *_: there.append(run_dir.checkpoint_steps()) or "done")
    run(tiny_run, isolated, keep=(7,))
    assert [step in steps for steps in there] == [False] * step + [True] * (31 - step)


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_writer_that_fails_fails_the_run_at_its_next_step_and_the_checkpoint_before_stays(
    tiny_run, isolated, monkeypatch
):
    run(tiny_run, isolated / "whole")
    folder = stopped(tiny_run, isolated / "full", 5)
    steps = []
    with monkeypatch.context() as patch:
        write, update = files.write_bytes, loop.Trainer._update

        def full(path, data, **kwargs):
            with files.explained(path):
                if path.name.startswith("optimizer"):
                    raise OSError(28, "No space left on device")
            write(path, data, **kwargs)

        def watched(self, lr):
            if self.saves._now is not None:
                self.saves._now.thread.join()  # so that "next" is certain
            steps.append(self.step)
            return update(self, lr)

        patch.setattr(files, "write_bytes", full)
        patch.setattr(loop.Trainer, "_update", watched)
        due = saving.Saves.due
        patch.setattr(saving.Saves, "due", lambda self: due(self) or (self._now is None and len(steps) == 5))
        with pytest.raises(DiskFullError, match="no room to write"):
            run(tiny_run, isolated / "full")
    assert steps == [5, 6, 7, 8, 9, 10], "step 10 was to be saved, and step 11 said that it was not"
    assert folder.checkpoint_steps() == [5]
    assert not list(folder.checkpoints.glob(".*"))
    run(tiny_run, isolated / "full")
    assert outcome(isolated / "full", tiny_run) == outcome(isolated / "whole", tiny_run)


def test_however_training_ends_its_writer_has_ended_and_committed(tiny_run, isolated, monkeypatch):
    due_at(monkeypatch, 3)
    update = loop.Trainer._update

    def fails(self, lr):
        if self.step == 4:
            raise ArithmeticError("of step 5")
        return update(self, lr)

    monkeypatch.setattr(loop.Trainer, "_update", fails)
    with pytest.raises(ArithmeticError, match="of step 5"):
        run(tiny_run, isolated)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("save-")]
    assert RunDir(isolated, tiny_run.run_id).checkpoint_steps() == [3]


# --------------------------------------------------------------------------------------------------------------- kills


def _train(rank, size, address, root, spec, hurt=None, nth=0, layout=None):
    """Train as one of the ranks, with a save at every second step; ``hurt`` names what is to go wrong here."""
    calls = itertools.count(1)
    saving.Saves.due = lambda self: next(calls) % 2 == 0
    if hurt:
        globals()[hurt](rank, nth)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        return runs.run(spec, EVALS, Path(root), mesh=here)


def _dies_writing(rank, nth):
    """SIGKILL before the n-th change of the disk that this attempt's second save makes."""
    count, writers = itertools.count(), set()

    def deadly(work):
        def wrapped(*args, **kwargs):
            if (name := threading.current_thread().name).startswith("save-"):
                writers.add(name)
                if len(writers) == 2 and next(count) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
            return work(*args, **kwargs)

        return wrapped

    os.replace, os.rename, os.fsync = map(deadly, (os.replace, os.rename, os.fsync))


def sound(root, spec):
    """The steps whose checkpoints are whole; any that is there must be."""
    folder = RunDir(root, spec.run_id)
    for step in folder.checkpoint_steps():
        contents = checkpoint.read(folder.checkpoint(step), spec.run_id)
        assert contents.state["step"] == step
        assert len(folder.curve()) >= step, "the curve up to a checkpoint is there before it"
    return folder.checkpoint_steps()


@pytest.mark.parametrize("apart", [4, pytest.param(1, marks=pytest.mark.long)])
def test_a_run_killed_at_every_write_of_a_save_ends_with_the_same_bits(tales, isolated, apart):
    spec = make_run(tales, steps=60 if apart == 1 else 24)
    ranks.run(_train, 1, str(isolated / "whole"), spec)
    root, steps, killed = isolated / "killed", [], 0
    for nth in range(apart - 1, 100, apart):
        (found,) = ranks.run(_train, 1, str(root), spec, "_dies_writing", nth)
        if found is not None:
            break
        killed += 1
        steps.append(max(sound(root, spec)))
    assert killed >= 16 // apart, "three files and what commits them, each with its fsyncs"
    assert steps == sorted(steps)
    assert RunDir(root, spec.run_id).curve()["step"].tolist() == list(range(1, spec.steps + 1))
    assert outcome(root, spec) == outcome(isolated / "whole", spec)


def _last_dies(rank, nth):
    """The last rank's files of step 4 are there, and it dies before it says so: there is no such checkpoint."""
    saving.LAST_SECONDS = 0.2
    _dies_at(os, "replace", lambda path, to: rank == nth and f"rank-{rank:05d}" in str(to) and "00000004" in str(to))


def _first_dies(rank, nth):
    """Rank 0 dies when all have written, before it commits."""
    saving.LAST_SECONDS = 0.2
    _dies_at(os, "rename", lambda path, to: rank == 0 and str(to).endswith("step-00000004"))


def _dies_at(module, name, when):
    work = getattr(module, name)

    def deadly(*args, **kwargs):
        if when(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **kwargs)

    setattr(module, name, deadly)


@pytest.mark.parametrize(("size", "hurt"), [(2, "_last_dies"), pytest.param(4, "_first_dies", marks=pytest.mark.soak)])
def test_sharded_ranks_killed_while_they_write_go_on_to_the_same_bits(tales, isolated, size, hurt):
    spec, layout = make_run(tales, steps=8), Layout(data=size, shard=size)
    assert ranks.run(_train, size, str(isolated / "whole"), spec, None, 0, layout)[1:] == [None] * (size - 1)
    root = isolated / "killed"
    found = ranks.run(_train, size, str(root), spec, hurt, size - 1, layout)
    dead = size - 1 if hurt == "_last_dies" else 0
    assert [rank for rank, said in enumerate(found) if said is None] == [dead]
    assert {said[0] for said in found if said is not None} == {"PeerError"}
    assert sound(root, spec) == [2]
    if size == 4:
        _goes_on_cut_otherwise(root, isolated, spec)
    ranks.run(_train, size, str(root), spec, None, 0, layout)
    assert not list(RunDir(root, spec.run_id).checkpoints.glob(".*")), "what the killed ranks left is gone"
    here, there = (RunDir(folder, spec.run_id) for folder in (root, isolated / "whole"))
    assert here.curve().drop(columns="attempt").equals(there.curve().drop(columns="attempt"))
    parts = [f"{kind}-{rank:05d}.safetensors" for kind in ("model", "optimizer") for rank in range(size)]
    for name in parts:
        assert (here.checkpoint(8) / name).read_bytes() == (there.checkpoint(8) / name).read_bytes(), name


def _goes_on_cut_otherwise(root, isolated, spec):
    """By two ranks that have a layer each: the losses of four to 1e-5."""
    shutil.copytree(root, isolated / "resharded")
    ranks.run(_train, 2, str(isolated / "resharded"), spec, None, 0, Layout(pipeline=2, micro_batch=2))
    losses = [RunDir(isolated / name, spec.run_id).curve()["loss"].tolist() for name in ("resharded", "whole")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def _cannot_write(rank, nth):
    """The disk of the last rank is full from step 4 on."""
    write = files.write_bytes

    def full(path, data, **kwargs):
        with files.explained(path):
            if rank == nth and "step-00000004" in str(path):
                raise OSError(28, "No space left on device")
        write(path, data, **kwargs)

    files.write_bytes = full


def test_a_rank_whose_disk_is_full_stops_all_at_once_with_the_reason(tales, isolated):
    spec = make_run(tales, steps=40)
    for kind, sentence in ranks.run(_train, 2, str(isolated), spec, "_cannot_write", 1):
        assert kind == "DiskFullError"
        assert "no room to write" in sentence
    assert sound(isolated, spec) == [2]
    folder = RunDir(isolated, spec.run_id)
    assert not list(folder.checkpoints.glob(".*"))
    assert len(folder.curve()) < 40, "not at the end only"


def _is_unseen(rank, nth):
    """Rank 0's node does not see what the other wrote."""
    saving.VISIBLE_SECONDS = 0.3
    exists = Path.exists
    if rank == 0:
        Path.exists = lambda path, **kwargs: path.name != "rank-00001.json" and exists(path, **kwargs)


def test_files_that_rank_0_does_not_see_are_never_committed(tales, isolated):
    spec = make_run(tales, steps=6)
    said = ranks.run(_train, 2, str(isolated), spec, "_is_unseen")
    assert [kind for kind, _ in said] == ["StoreError"] * 2
    assert all("do all nodes share this file system" in sentence for _, sentence in said)
    assert sound(isolated, spec) == []
