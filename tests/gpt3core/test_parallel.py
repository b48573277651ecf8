"""What ranks do together, with real processes on gloo: cuts against one process, resumes, failures, kills."""

import itertools
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from gpt3core import run as runs
from gpt3core.errors import StoppedError, StoreError
from gpt3core.model import parameters, registry
from gpt3core.parallel import mesh
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, loop, optimizer, resume
from gpt3core.train.objective import loss_per_token
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, trained_to

SHAPE = nano(64, n_layer=2, n_ctx=16, vocab_size=50, attention="alternating", band=4)


@pytest.fixture
def spec(tales):
    return make_run(tales, steps=12)


# ------------------------------------------------------------------------------------------------------- the model cut


def example():
    ids = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def built():
    model = registry.of(SHAPE).build(SHAPE, kernel="softmax")
    model.init_weights(0)
    return model


def logits_and_gradients(model):
    inputs, targets = example()
    logits = model(inputs)
    loss_per_token(logits, targets).mean().backward()
    return logits.detach(), {name: p.grad for name, p in parameters.named(model)}


def full(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def cut_by_heads(model, devices):
    """Apply the architecture's cuts by torch's own tensor parallelism."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    cuts = registry.of(SHAPE).cuts
    plan = {f"{cuts.layers}.*.{name}": ColwiseParallel() for name in cuts.columns}
    plan |= {f"{cuts.layers}.*.{name}": RowwiseParallel() for name in cuts.rows}
    return parallelize_module(model, devices, plan)


def over_all_blocks(model, devices):
    from torch.distributed.fsdp import fully_shard  # only ranks use it, and they have it from the fork server

    for block in getattr(model, registry.of(SHAPE).cuts.layers).values():
        fully_shard(block, mesh=devices)
    return fully_shard(model, mesh=devices)


def _cut(rank, size, address, how):
    with mesh.joined(rank, size, address, "cpu"):
        devices = init_device_mesh("cpu", (size,))
        expected, gradients = logits_and_gradients(built())
        model = globals()[how](built(), devices)
        sharded = sum(hasattr(p, "placements") and p.placements[0].is_shard() for p in model.parameters())
        found, cut = logits_and_gradients(model)
        torch.testing.assert_close(full(found), expected, atol=1e-5, rtol=1e-5)
        assert cut.keys() == gradients.keys()
        for name, gradient in cut.items():
            torch.testing.assert_close(full(gradient), gradients[name], atol=1e-6, rtol=1e-4, msg=name)
        # drawing only what this rank holds gives what cutting the whole gives
        before = {name: part_of(p).values.clone() for name, p in parameters.named(model)}
        with torch.no_grad():
            for p in model.parameters():
                part_of(p).values.fill_(9.0)
        model.init_weights(0, part_of)
        assert all(torch.equal(part_of(p).values, before[name]) for name, p in parameters.named(model))
        return int(sharded)


@pytest.mark.parametrize(("how", "sharded"), [("cut_by_heads", 2 * 6), ("over_all_blocks", 2 + 2 + 2 * 12)])
def test_a_cut_model_has_the_logits_and_gradients_of_one_process(how, sharded):
    assert ranks.run(_cut, 2, how) == [sharded] * 2


def _nested(rank, size, address):
    """Cut by heads, and each cut over the data-parallel ranks: what a rank draws is what it should hold."""
    with mesh.joined(rank, size, address, "cpu"):
        devices = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        model = over_all_blocks(cut_by_heads(built(), devices["tensor"]), devices["data"])
        expected = {name: p.detach().clone() for name, p in parameters.named(built())}
        nested = 0
        for name, p in parameters.named(model):
            torch.testing.assert_close(full(p).detach(), expected[name], atol=0, rtol=0, msg=name)
            part = part_of(p)
            ends = zip(part.start, part.values.shape, strict=True)
            here = expected[name][tuple(slice(start, start + length) for start, length in ends)]
            torch.testing.assert_close(part.values, here, atol=0, rtol=0, msg=name)
            nested += part.values.numel() * 4 == p.numel()
        return nested


def test_cuts_nest_and_every_rank_knows_its_part():
    assert ranks.run(_nested, 4) == [2 * 6] * 4  # of each block: qkv and up with their biases, out and down


def _saved(rank, size, address, root, spec):
    """Train a sharded model for two steps, write it by all ranks, and hand out what it should be."""
    with mesh.joined(rank, size, address, "cpu") as here:
        model = over_all_blocks(built(), here.devices)
        adam = optimizer.build(model, spec.optim)
        for _ in range(2):
            logits_and_gradients(model)
            adam.step()
            adam.zero_grad()
        run = RunDir(Path(root), spec.run_id)
        checkpoint.save(run, 2, "attempt-001", model, adam, {"train_seconds": 0.0}, here)
        moments = {name: full(adam.state[p]["exp_avg"]) for name, p in parameters.named(model)}
        return {name: full(p).detach().numpy() for name, p in parameters.named(model)}, {
            name: value.numpy() for name, value in moments.items()
        }


def _loaded(rank, size, address, root, spec, how):
    """Load it into a model that is cut in another way."""
    with mesh.joined(rank, size, address, "cpu") as here:
        model = globals()[how](built(), here.devices) if how else built()
        adam = optimizer.build(model, spec.optim)
        checkpoint.load(checkpoint.read(RunDir(Path(root), spec.run_id).checkpoint(2), spec.run_id), model, adam)
        moments = {name: full(adam.state[p]["exp_avg"]).numpy() for name, p in parameters.named(model)}
        return {name: full(p).detach().numpy() for name, p in parameters.named(model)}, moments


def test_a_checkpoint_written_by_two_ranks_is_read_whole_and_cut_otherwise(spec, isolated):
    written = ranks.run(_saved, 2, str(isolated), spec)[0]
    folder = RunDir(isolated, spec.run_id).checkpoint(2)
    assert len(list(folder.glob("model-*.safetensors"))) == 2
    for size, how in ((1, None), (2, "over_all_blocks"), (2, "cut_by_heads")):
        for found in ranks.run(_loaded, size, str(isolated), spec, how):
            for kind, expected in zip(found, written, strict=True):
                assert kind.keys() == expected.keys()
                for name, values in kind.items():
                    np.testing.assert_array_equal(values, expected[name], err_msg=f"{how} {name}")


# ------------------------------------------------------------------------------------------------------- what mesh says


def _mesh(rank, size, address):
    with mesh.joined(rank, size, address, "cpu", seconds=20) as here:
        values = torch.tensor([float(rank), 1.0])
        here.mean_([values])
        failures = []
        for kind, failing in ((StoreError, 1), (StoppedError, 0), (KeyError, 1)):

            def work(kind=kind, failing=failing):
                if rank == failing:
                    raise kind("because")

            try:
                here.together(work)
            except Exception as error:
                failures.append((type(error).__name__, str(error)))
        return {
            "place": (here.rank, here.size, here.data_rank, here.data_size),
            "rows": here.rows(np.arange(6)).tolist(),
            "mean": values.tolist(),
            "agree": [here.agree(rank == 1), here.agree(False)],
            "broadcast": here.broadcast({"from": rank}),
            "gather": here.gather([rank, "é" * rank, math.inf]),
            "first": here.first(lambda: [rank]),
            "failures": failures,
        }


def test_what_ranks_tell_one_another():
    one, two = ranks.run(_mesh, 2)
    assert (one["place"], two["place"]) == ((0, 2, 0, 2), (1, 2, 1, 2))
    assert (one["rows"], two["rows"]) == ([0, 2, 4], [1, 3, 5])
    for found in (one, two):
        assert found["mean"] == [0.5, 1.0]
        assert found["agree"] == [True, False]
        assert found["broadcast"] == {"from": 0}
        assert found["gather"] == [[0, "", math.inf], [1, "é", math.inf]]
        assert found["first"] == [0]
    store, stopped, unknown = zip(one["failures"], two["failures"], strict=True)
    assert store == (("StoreError", "rank 1: because"), ("StoreError", "because"))
    assert stopped == (("StoppedError", "because"), ("StoppedError", "rank 0: because"))
    assert unknown == (("PeerError", "rank 1: 'because'"), ("KeyError", "'because'"))


def _silent(rank, size, address, told):
    """Rank 1 stays away, its connections open, until rank 0 has told that it waits no longer."""
    with mesh.joined(rank, size, address, "cpu", seconds=2) as here:
        try:
            while rank == 1 and not told.exists():
                time.sleep(0.05)
            return here.agree(False)
        finally:
            told.touch()


def test_a_rank_that_does_not_come_is_not_waited_for_for_ever(isolated):
    kind, sentence = ranks.run(_silent, 2, isolated / "told", seconds=30)[0]
    assert kind == "PeerError"
    assert "stopped answering" in sentence


# ------------------------------------------------------------------------------------------------------ runs of 2 ranks


def _train(rank, size, address, root, spec, stop_after=None, hurt=None, evals=EVALS):
    """Train as one of the ranks; ``hurt`` names what is to go wrong here."""
    if hurt:
        globals()[hurt](rank)
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    seconds = 0.0 if hurt == "_is_in_a_hurry" and rank == 1 else 1000.0
    with mesh.joined(rank, size, address, "cpu", seconds=20) as here:
        return runs.run(spec, evals, Path(root), mesh=here, stop=stop, checkpoint_seconds=seconds)


def _is_in_a_hurry(rank):
    """Rank 1 finds a checkpoint due at every step: its clock is its own."""


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
    read = Path.read_bytes

    def flipped(path):
        raw = bytearray(read(path))
        if rank == 1 and "step-00000010" in str(path) and path.suffix == ".safetensors":
            raw[-1] ^= 1
        return bytes(raw)

    Path.read_bytes = flipped


def _lists_nothing(rank):
    """Rank 1's node shows an old listing, with one checkpoint less."""
    steps = RunDir.checkpoint_steps
    if rank == 1:
        RunDir.checkpoint_steps = lambda self: steps(self)[:-1]


@pytest.mark.parametrize(("hurt", "damaged"), [("_reads_badly", 1), ("_lists_nothing", 0)])
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
        runner.evaluate = fails


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
