"""A model cut over real processes on gloo: logits, gradients and checkpoints are those of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from gpt3core.model import parameters, registry
from gpt3core.parallel import mesh
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, optimizer
from gpt3core.train.objective import loss_per_token
from gpt3core.train.saving import Saves
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

SHAPE = nano(64, n_layer=2, n_ctx=16, vocab_size=50, attention="alternating", band=4)


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


@pytest.mark.parametrize(
    ("how", "sharded"),
    [("cut_by_heads", 2 * 6), pytest.param("over_all_blocks", 2 + 2 + 2 * 12, marks=pytest.mark.soak)],
)
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
        saves = Saves(run, "attempt-001", model, adam, here)
        saves.begin(2, {"train_seconds": 0.0}, {"step": []})
        saves.wait()
        moments = {name: full(adam.state[p]["exp_avg"]) for name, p in parameters.named(model)}
        return {name: full(p).detach().numpy() for name, p in parameters.named(model)}, {
            name: value.numpy() for name, value in moments.items()
        }


def _loaded(rank, size, address, root, spec, how):
    """Load it into a model that is cut in another way."""
    with mesh.joined(rank, size, address, "cpu") as here:
        model = globals()[how](built(), here.devices) if how else built()
        adam = optimizer.build(model, spec.optim)
        folder, read = RunDir(Path(root), spec.run_id).checkpoint(2), []
        with pytest.MonkeyPatch.context() as patch:
            bytes_of = files.read_bytes
            patch.setattr(files, "read_bytes", lambda path: (read.append(path.name), bytes_of(path))[1])
            contents = checkpoint.read(folder, spec.run_id, model)
        checkpoint.load(contents, model, adam)
        if how == "over_all_blocks":  # its own files, and Adam's steps, which are rank 0's
            mine = {f"{kind}-{rank:05d}.safetensors" for kind in ("model", "optimizer")}
            assert {name for name in read if name.endswith("tensors")} == mine | {"optimizer-00000.safetensors"}
        moments = {name: full(adam.state[p]["exp_avg"]).numpy() for name, p in parameters.named(model)}
        return {name: full(p).detach().numpy() for name, p in parameters.named(model)}, moments


def test_a_checkpoint_written_by_two_ranks_is_read_whole_and_cut_otherwise(tiny_run, isolated):
    written = ranks.run(_saved, 2, str(isolated), tiny_run)[0]
    folder = RunDir(isolated, tiny_run.run_id).checkpoint(2)
    assert len(list(folder.glob("model-*.safetensors"))) == 2
    for size, how in ((1, None), (2, "over_all_blocks"), (2, "cut_by_heads")):
        for found in ranks.run(_loaded, size, str(isolated), tiny_run, how):
            for kind, expected in zip(found, written, strict=True):
                assert kind.keys() == expected.keys()
                for name, values in kind.items():
                    np.testing.assert_array_equal(values, expected[name], err_msg=f"{how} {name}")
