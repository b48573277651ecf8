"""Runs that are cut by a layout, with real processes on gloo: the losses and the norms of one process."""

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed import distributed_c10d

from gpt3core import run as runs
from gpt3core.model import parameters, registry
from gpt3core.options import Options
from gpt3core.parallel import gradients, mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop
from gpt3core.train.objective import Examples
from tests import conftest
from tests.conftest import make_run, write_corpus
from tests.gpt3core import ranks
from tests.gpt3core.conftest import built, onednn

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

STEPS = 6
EVALS = replace(conftest.EVALS, shots=(0,), items=2, validation_tokens=512)


def make_spec(text, *, n_layer=4, steps=STEPS):
    """A run of GPT-3's shape: banded and dense layers, two heads, a vocabulary that two do not divide."""
    run = make_run(text, steps=steps)
    shape = nano(32, n_layer=n_layer, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)
    return replace(run, model=shape, data=replace(run.data, tokenizer="gpt2:301"))


def train(rank, size, address, root, spec, layout=None, stop_after=None, hurt=None, seconds=mesh.COLLECTIVE_SECONDS):
    """Train as one of the ranks; ``hurt`` names what is to go wrong on the last of them."""
    if hurt and rank == size - 1:
        spec, layout = globals()[hurt](spec, layout)
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    with mesh.joined(rank, size, address, "cpu", layout=layout, seconds=seconds) as here:
        how = {"stop": stop, "checkpoint_seconds": 1000.0, "usd_per_hour": 3600.0}
        return runs.run(spec, EVALS, Path(root), mesh=here, **how)


def cut(root, spec, layout, *args, **words):
    """Train by as many processes as a layout has."""
    return ranks.run(train, layout.world_size, str(root), spec, layout, *args, **words)


def curve(root, spec):
    """Losses and norms by step, and the held-out loss."""
    run = RunDir(root, spec.run_id)
    found = run.curve()
    evaluation = run.evaluation(EVALS.eval_id)
    assert evaluation is not None, "a rank has failed: what `ranks.run` returned has its error"
    return found["loss"].tolist(), found["grad_norm"].tolist(), evaluation["loss"][0]


def assert_equal(root, one, spec):
    """Losses to 1e-5; norms a little wider: Adam's first steps carry the last digits of the smallest gradients far."""
    (losses, norms, held_out), (expected, wide, whole) = curve(root, spec), curve(one, spec)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert norms == pytest.approx(wide, rel=2e-4)
    assert held_out == pytest.approx(whole, abs=1e-5)


def files_of(root, spec):
    """The last checkpoint, by file."""
    folder = RunDir(root, spec.run_id).checkpoint(spec.steps)
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def taken(root, spec):
    """Seconds of training and of devices, by the last checkpoint."""
    run = RunDir(root, spec.run_id)
    state = json.loads((run.checkpoint(max(run.checkpoint_steps())) / "state.json").read_text())
    return state["train_seconds"], state["device_seconds"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run, and the store in which one process trained it."""
    place = tmp_path_factory.mktemp("one")
    spec = make_spec(write_corpus(place / "text"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(place / "cache"))
        ranks.run(train, 1, str(place), spec)
    return spec, place


CUTS = [
    Layout(tensor=2, micro_batch=2),
    Layout(pipeline=2, micro_batch=2),
    Layout(data=2, shard=2, recompute="full"),
    Layout(data=4, shard=2),
    Layout(context=2, micro_batch=4, recompute="selective"),
    Layout(pipeline=2, virtual=2),
    Layout(pipeline=2, virtual=2, zero_bubble=True),
]
MORE = [
    Layout(tensor=2, pipeline=2, data=2, micro_batch=1),
    Layout(tensor=2, data=2, shard=2, recompute="full"),
    Layout(tensor=2, context=2, recompute="selective"),
    Layout(tensor=2, pipeline=2, virtual=2, recompute="full"),
    Layout(tensor=2, pipeline=2, zero_bubble=True, recompute="selective"),
    Layout(tensor=2, pipeline=2, data=2, shard=2, micro_batch=1),
    Layout(pipeline=2, zero_bubble=True),
    Layout(pipeline=2, zero_bubble=True, recompute="full"),
    Layout(pipeline=2, virtual=2, data=2, shard=2),
    Layout(pipeline=2, context=2),
    Layout(context=2, data=2, shard=2),
    Layout(context=4, micro_batch=4),
    Layout(pipeline=4),
    Layout(recompute="full"),
    Layout(recompute="selective"),
]


@pytest.mark.parametrize(
    "layout",
    [
        *CUTS[:2],
        *(pytest.param(layout, marks=pytest.mark.soak) for layout in CUTS[2:]),
        *(pytest.param(layout, marks=pytest.mark.long) for layout in MORE),
    ],
    ids=lambda layout: layout.describe(),
)
def test_a_cut_run_has_the_losses_of_one_process(one, isolated, layout):
    spec, place = one
    result, *others = cut(isolated, spec, layout)
    assert isinstance(result, dict), result
    assert (result["status"], others) == ("done", [None] * (layout.world_size - 1))
    assert_equal(isolated, place, spec)


@pytest.mark.soak
@built
@onednn
@pytest.mark.parametrize("layout", [*CUTS[:3], CUTS[4]], ids=lambda layout: layout.describe())
@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_the_wide_kernel_has_the_losses_of_one_process_too(one, isolated, layout, precision, off):
    """Cut by tensor its layers are DTensors, which torch multiplies."""
    spec, place = one
    wide = replace(spec, kernel="wide", precision=precision)
    cut(isolated, wide, layout)
    losses, _, held_out = curve(isolated, wide)
    expected, _, whole = curve(place, spec)
    assert losses == pytest.approx(expected, abs=off)
    assert held_out == pytest.approx(whole, abs=off)


@pytest.mark.soak
def test_a_checkpoint_after_a_look_at_the_validation_loss_has_all_moments_of_a_sharded_state(one, isolated):
    """The look leaves what is around the blocks gathered, and no backward pass follows that gives it back."""
    spec, _ = one
    looks = Options(stop_every=2 * spec.optim.batch_tokens, stop_patience=1, stop_validation_tokens=512)
    spec = replace(spec, options=looks)
    cut(isolated, spec, Layout(data=2, shard=2))
    run = RunDir(isolated, spec.run_id)
    assert run.curve().validation_loss.notna().sum() == STEPS // 2
    index = json.loads((run.checkpoint(STEPS) / "state.json").read_text())["index"]
    parts = sorted(name for there in index.values() for name in there if not name.endswith(".step"))
    (held,) = ranks.run(_parameters, 1, spec)
    assert parts == sorted([name + kind for name in held for kind in ("", ".exp_avg", ".exp_avg_sq")] * 2)


def _parameters(rank, size, address, spec):
    return [name for name, _ in parameters.named(registry.of(spec.model).build(spec.model, kernel="softmax"))]


@pytest.mark.soak
def test_a_resume_has_the_same_bits_by_the_same_layout_and_the_same_losses_by_another(one, isolated):
    spec, place = one
    layout = Layout(pipeline=2, data=2, shard=2)
    cut(isolated / "whole", spec, layout)
    assert [kind for kind, _ in cut(isolated / "cut", spec, layout, 3)] == ["StoppedError"] * 4
    seconds, spent = taken(isolated / "cut", spec)
    assert spent == pytest.approx(4 * seconds)
    for name, other in (("alone", Layout()), ("tensor", Layout(tensor=2, micro_batch=2))):
        shutil.copytree(isolated / "cut", isolated / name)
        result = cut(isolated / name, spec, other)[0]
        assert_equal(isolated / name, place, spec)
        after, in_all = taken(isolated / name, spec)
        assert in_all - spent == pytest.approx(other.world_size * (after - seconds))
        assert result["cost"] == pytest.approx(in_all, rel=0.05)  # at a dollar a second
    cut(isolated / "cut", spec, layout)
    assert len(files_of(isolated / "cut", spec)) == 8, "two kinds, two stages, two shards"
    assert files_of(isolated / "cut", spec) == files_of(isolated / "whole", spec)
    assert curve(isolated / "cut", spec) == curve(isolated / "whole", spec)


# ------------------------------------------------------------------------------------------------------ what goes wrong


def _at_step_3(act):
    update = loop.Trainer._update

    def update_or_act(self, lr):
        if self.step == 3:
            act()
        return update(self, lr)

    loop.Trainer._update = update_or_act


def _dies(spec, layout):
    _at_step_3(lambda: os.kill(os.getpid(), signal.SIGKILL))
    return spec, layout


def _hangs(spec, layout):
    _at_step_3(_until_rank_0_has_left)
    return spec, layout


def _until_rank_0_has_left():
    """The store of the ranks is in its process."""
    store = distributed_c10d._get_default_store()
    with contextlib.suppress(RuntimeError):
        while True:
            store.check(["anything"])
            time.sleep(0.05)


@pytest.mark.parametrize("hurt", ["_dies", pytest.param("_hangs", marks=pytest.mark.soak)])
def test_a_stage_that_dies_or_hangs_stops_the_others_with_a_sentence(one, isolated, hurt):
    spec, _ = one
    found = cut(isolated, spec, Layout(pipeline=2, virtual=2), None, hurt, 3)
    kind, sentence = found[0]
    assert kind == "PeerError"
    assert "another rank of this run failed, died or stopped answering" in sentence
    assert not list(RunDir(isolated, spec.run_id).checkpoints.glob("*")), "nothing half is left"


def test_a_divergence_is_one_on_all_ranks(one, isolated):
    spec, _ = one
    wild = replace(spec, optim=replace(spec.optim, lr=1e30))
    result, other = cut(isolated, wild, Layout(pipeline=2))
    assert (result["status"], other) == ("diverged", None)


def _another_seed(spec, layout):
    return replace(spec, seed=1), layout


def _another_layout(spec, layout):
    return spec, replace(layout, micro_batch=2)


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        ("_another_seed", "disagree about its specification (seed 0 and 1"),
        ("_another_layout", "disagree about its layout (micro_batch 1 and 2)"),
    ],
)
def test_ranks_that_disagree_do_not_start(one, isolated, hurt, words):
    spec, _ = one
    for kind, sentence in cut(isolated, spec, Layout(pipeline=2), None, hurt):
        assert kind == "ValueError"
        assert f"rank 0 and rank 1 of this run {words}" in sentence
    assert not list(isolated.glob("runs/*")), "nothing was begun"


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(tensor=3), "tensor=3 does not divide model.n_head=2"),
        (Layout(pipeline=3), "do not share n_layer=4 blocks evenly"),
        (Layout(data=3), "a batch of 4 sequences does not divide over them"),
        (Layout(context=3), "model.n_ctx=32 does not divide by 6"),
    ],
    ids=lambda value: value.describe() if isinstance(value, Layout) else "",
)
def test_a_layout_that_does_not_divide_is_refused(one, isolated, layout, words):
    spec, _ = one
    for kind, sentence in cut(isolated, spec, layout):
        assert kind == "ValueError"
        assert words in sentence


def _compiled(rank, size, address, spec):
    """Gradients of compiled blocks, recomputed and sharded, beside the plain model's."""
    ids = torch.randint(spec.model.vocab_size, (4, spec.model.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    examples = [Examples(inputs=ids[:, :-1], targets=ids[:, 1:], mask=None)]
    with mesh.joined(rank, size, address, "cpu", layout=Layout(data=2, shard=2, recompute="full")) as here:
        found = {}
        for name, place, compiled in (("plain", mesh.Mesh(), False), ("cut", here, True)):
            held = parallelize(
                spec.model, place, kernel="softmax", device="cpu", compiled="all" if compiled else "none"
            )
            held.model.init_weights(0, part_of)
            held.backward(examples, 1.0)
            gradients = {n: p.grad for n, p in parameters.named(held.model)}
            found[name] = {n: g.full_tensor() if compiled else g for n, g in gradients.items()}
        for name, gradient in found["plain"].items():
            torch.testing.assert_close(found["cut"][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
        return len(found["plain"])


@pytest.mark.long  # the C++ compiler takes a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_have_the_gradients_of_plain_ones(one):
    spec, _ = one
    assert ranks.run(_compiled, 2, spec, seconds=400) == [2 + 2 + 4 * 12] * 2


def _traced(rank, size, address, spec, layout):
    """The same of blocks that are cut, traced as for any compiler and run as they are: graphs, and what broke one."""
    compile_, counters = torch.compile, torch._dynamo.utils.counters
    torch.compile = functools.partial(compile_, backend="aot_eager")
    ids = torch.randint(spec.model.vocab_size, (4, spec.model.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    examples = [Examples(inputs=some[:, :-1], targets=some[:, 1:], mask=None) for some in ids.split(1)]
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        found = []
        for place, compiled in ((mesh.Mesh(), "none"), (here, "blocks")):
            held = parallelize(spec.model, place, kernel="softmax", device="cpu", compiled=compiled)
            held.model.init_weights(0, part_of)
            loss = held.backward(examples, 1.0)
            gradients.finish(held.model, place, loss, 1e9, averaged=held.averaged)
            found.append(
                {n: getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for n, p in parameters.named(held.model)}
            )
        one, cut = found
        for name, gradient in cut.items():
            torch.testing.assert_close(gradient, one[name], atol=1e-5, rtol=1e-4, msg=name)
        return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


@pytest.mark.soak
@pytest.mark.parametrize(
    ("layout", "kinds"),  # of two stages in turn one has the dense layers and one the banded ones
    [(Layout(pipeline=2, virtual=2), 1), (Layout(tensor=2, recompute="full"), 2)],
    ids=["two stages in turn", "tensor 2"],
)
def test_blocks_that_are_cut_are_compiled_whole_and_have_the_gradients_of_plain_ones(one, layout, kinds):
    spec, _ = one
    assert ranks.run(_traced, 2, spec, layout) == [(kinds, {})] * 2, "a graph a kind of layer"


def _four(rank, size, address):
    with mesh.joined(rank, size, address, "cpu", layout=Layout(data=4)):
        pass


def test_a_layout_of_another_number_of_ranks_is_refused():
    for kind, sentence in ranks.run(_four, 2):
        assert kind == "ValueError"
        assert "is of 4 ranks, and this run has 2" in sentence


# ------------------------------------------------------------------------------------------------------------ as 175B's


@pytest.mark.long  # eight processes of 48 layers each: a quarter of an hour on two cores
@pytest.mark.timeout(7200)
def test_the_layout_of_175b_at_tiny_width_has_the_losses_of_one_process_and_resumes(tmp_path):
    """Tensor 2 x pipeline 2 x data 2, 96 layers, 20 steps; killed in the middle, resumed by it, another and alone."""
    run = make_spec(write_corpus(tmp_path / "text"), n_layer=96, steps=40)  # by half of the batch
    shape = nano(16, n_layer=96, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=4)
    spec = replace(run, model=shape, optim=replace(run.optim, lr=0.002, batch_tokens=256))
    layout = Layout(tensor=2, pipeline=2, data=2, micro_batch=2)
    words = {"seconds": 3000.0}
    ranks.run(train, 1, str(tmp_path / "one"), spec, **words)
    assert not [said for said in cut(tmp_path / "whole", spec, layout, None, None, 300, **words) if type(said) is tuple]
    assert_equal(tmp_path / "whole", tmp_path / "one", spec)
    cut(tmp_path / "cut", spec, layout, 10, None, 300, **words)
    for name, other in (("alone", Layout()), ("other", Layout(pipeline=4, data=2, shard=2))):
        shutil.copytree(tmp_path / "cut", tmp_path / name)
        cut(tmp_path / name, spec, other, None, None, 300, **words)
        assert_equal(tmp_path / name, tmp_path / "one", spec)
    cut(tmp_path / "cut", spec, layout, None, None, 300, **words)
    assert files_of(tmp_path / "cut", spec) == files_of(tmp_path / "whole", spec)
