"""Runs of two ranks, with real processes on gloo: the loss of one, resumes, failures, kills."""

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt3core import run as runs
from gpt3core.model import parameters
from gpt3core.parallel import mesh
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, resume, saving
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, trained_to

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all


@pytest.fixture
def spec(tales):
    return make_run(tales, steps=12)


def _train(rank, size, address, root, spec, stop_after=None, hurt=None, evals=EVALS):
    """Train as one of the ranks; ``hurt`` names what is to go wrong here."""
    if hurt:
        globals()[hurt](rank)
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    with mesh.joined(rank, size, address, "cpu") as here:
        return runs.run(spec, evals, Path(root), mesh=here, stop=stop, checkpoint_seconds=1000.0)


def _is_in_a_hurry(rank):
    """Rank 1 finds a checkpoint due at every step: its clock is its own."""
    if rank == 1:
        saving.Saves.due = lambda self: True


def test_two_data_parallel_ranks_reach_the_loss_of_one(spec, isolated):
    ranks.run(_train, 1, str(isolated / "one"), spec)
    result, nothing = ranks.run(_train, 2, str(isolated / "two"), spec)
    assert nothing is None
    assert result["devices"] == 2
    json.dumps(result, allow_nan=False)
    losses = [RunDir(isolated / root, spec.run_id).evaluation(EVALS.eval_id)["loss"][0] for root in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_checkpoint_that_one_rank_finds_due_is_written_by_both(spec, isolated):
    result, _ = ranks.run(_train, 2, str(isolated), spec, None, "_is_in_a_hurry")
    assert result["status"] == "done"
    parts = sorted(path.name for path in RunDir(isolated, spec.run_id).attempts()[0].glob("metrics/*"))
    assert parts == [f"part-{step:08d}.parquet" for step in range(1, spec.steps + 1)]


def test_a_resume_of_two_ranks_has_the_same_bits(spec, isolated):
    ranks.run(_train, 2, str(isolated / "whole"), spec)
    assert [kind for kind, _ in ranks.run(_train, 2, str(isolated / "cut"), spec, 5)] == ["StoppedError"] * 2
    ranks.run(_train, 2, str(isolated / "cut"), spec)
    assert outcome(isolated / "cut", spec) == outcome(isolated / "whole", spec)


def _killed_at_7(rank):
    update = loop.Trainer._update

    def update_or_die(self, lr):
        if rank == 1 and self.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, lr)

    loop.Trainer._update = update_or_die


def test_a_killed_rank_stops_the_other_and_the_run_goes_on_to_the_same_bits(spec, isolated):
    ranks.run(_train, 2, str(isolated / "whole"), spec)
    root = str(isolated / "killed")
    ranks.run(_train, 2, root, spec, 5)
    left, killed = ranks.run(_train, 2, root, spec, None, "_killed_at_7")
    assert killed is None
    assert left[0] == "PeerError"
    ranks.run(_train, 2, root, spec)
    assert outcome(Path(root), spec) == outcome(isolated / "whole", spec)


def _reads_badly(rank):
    """Rank 1's node flips a bit in everything it reads of step 10."""
    read = files.read_bytes

    def flipped(path):
        raw = bytearray(read(path))
        if rank == 1 and "step-00000010" in str(path) and path.suffix == ".safetensors":
            raw[-1] ^= 1
        return bytes(raw)

    files.read_bytes = flipped


def _lists_nothing(rank):
    """Rank 1's node shows an old listing, with one checkpoint less."""
    steps = RunDir.checkpoint_steps
    if rank == 1:
        RunDir.checkpoint_steps = lambda self: steps(self)[:-1]


@pytest.mark.parametrize(
    ("hurt", "damaged"), [("_reads_badly", 1), pytest.param("_lists_nothing", 0, marks=pytest.mark.soak)]
)
def test_ranks_never_start_from_different_checkpoints(spec, isolated, hurt, damaged):
    ranks.run(_train, 2, str(isolated / "whole"), spec)
    root = isolated / "hurt"
    trained_to(spec, root, 5, lambda stop: ranks.run(_train, 2, str(root), spec, stop))
    trained_to(spec, root, 10, lambda stop: ranks.run(_train, 2, str(root), spec, stop - 5))
    result, _ = ranks.run(_train, 2, str(root), spec, None, hurt)
    assert len(result["damage"]) == damaged
    if damaged:
        assert "seen by rank 1: model-00000.safetensors has sha256" in result["damage"][0]
    assert outcome(root, spec) == outcome(isolated / "whole", spec)


def _sees_nothing(rank):
    resume.VISIBLE_SECONDS = 0.3
    exists = Path.exists
    if rank == 1:
        Path.exists = lambda path, **kwargs: "step-" not in path.name and exists(path, **kwargs)


def test_a_checkpoint_that_one_rank_does_not_see_stops_both(spec, isolated):
    ranks.run(_train, 2, str(isolated), spec, 5)
    (here, said), (there, seen) = ranks.run(_train, 2, str(isolated), spec, None, "_sees_nothing")
    assert (here, there) == ("PeerError", "TimeoutError")
    assert "rank 1: rank 0 resumes from" in said
    assert "is not seen here" in seen
    assert RunDir(isolated, spec.run_id).checkpoint_steps() == [5], "nothing was set aside"


def _draws_otherwise(rank):
    normal = parameters.normal
    if rank == 1:
        parameters.normal = lambda *args: normal(*args) * np.float32(1 + 2**-23)


def test_ranks_with_different_weights_do_not_train(spec, isolated):
    for kind, sentence in ranks.run(_train, 2, str(isolated), spec, None, "_draws_otherwise"):
        assert kind == "StoreError"
        assert "rank 1 holds other weights than rank 0" in sentence


def _cannot_write(rank):
    from gpt3core.store import files

    if rank == 0:  # the rank that writes the weights
        write = files.write_bytes

        def full(path, data, **kwargs):
            if path.suffix == ".safetensors":
                with files.explained(path):
                    raise OSError(28, "No space left on device")
            write(path, data, **kwargs)

        files.write_bytes = full


def _cannot_evaluate(rank):
    from gpt3core.evals import runner

    def fails(*_):
        raise ValueError("no such task")

    if rank == 1:
        runner._made = fails


@pytest.mark.parametrize(
    ("hurt", "kind", "words"),
    [("_cannot_write", "DiskFullError", "no room to write"), ("_cannot_evaluate", "ValueError", "no such task")],
)
def test_what_fails_on_one_rank_fails_on_both_with_the_reason(spec, isolated, hurt, kind, words):
    for found, sentence in ranks.run(_train, 2, str(isolated), spec, None, hurt):
        assert found == kind
        assert words in sentence
    run = RunDir(isolated, spec.run_id)
    assert not run.trained
    assert not list(run.checkpoints.glob(".*")), "no half checkpoint is left"
    result, _ = ranks.run(_train, 2, str(isolated), spec)
    assert result["status"] == "done"


def test_a_busy_run_is_busy_for_all_ranks_and_a_finished_one_is_finished(spec, isolated):
    from gpt3core.store import files

    run = RunDir(isolated, spec.run_id)
    run.create(spec)
    with files.locked(run.path / "lock"):
        assert [kind for kind, _ in ranks.run(_train, 2, str(isolated), spec)] == ["BusyError"] * 2
    first, _ = ranks.run(_train, 2, str(isolated), spec)
    assert ranks.run(_train, 2, str(isolated), spec) == [first, None]
    assert len(run.attempts()) == 1
    more = replace(EVALS, shots=(0,))
    ranks.run(_train, 2, str(isolated), spec, None, None, more)
    assert run.evaluation_path(more.eval_id).exists()
