"""Runs that are cut by a layout, with real processes on gloo: the losses and the norms of one process."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from gpt3core import run as runs
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all


@pytest.fixture
def spec(tales):
    """A run of GPT-3's shape: four layers, banded and dense, two heads, a vocabulary that two do not divide."""
    run = make_run(tales, steps=6)
    shape = nano(32, n_layer=4, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)
    return replace(run, model=shape, data=replace(run.data, tokenizer="gpt2:301"))


def train(rank, size, address, root, spec, layout=None, stop_after=None, seconds=30):
    """Train as one of the ranks."""
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    with mesh.joined(rank, size, address, "cpu", layout=layout, seconds=seconds) as here:
        return runs.run(spec, EVALS, Path(root), mesh=here, stop=stop, checkpoint_seconds=1000.0)


def curve(root, spec):
    """Losses and norms by step, and the held-out loss."""
    run = RunDir(root, spec.run_id)
    found = run.curve()
    return found["loss"].tolist(), found["grad_norm"].tolist(), run.evaluation(EVALS.eval_id)["loss"][0]


def assert_equal(cut, one, spec):
    """Losses to 1e-5; norms a little wider: Adam's first steps carry the last digits of the smallest gradients far."""
    (losses, norms, held_out), (expected, wide, whole) = curve(cut, spec), curve(one, spec)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert norms == pytest.approx(wide, rel=2e-4)
    assert held_out == pytest.approx(whole, abs=1e-5)


CUTS = [
    Layout(tensor=2, micro_batch=2),
    Layout(pipeline=2, micro_batch=1),
    Layout(data=2, shard=2, micro_batch=2),
    Layout(context=2, micro_batch=4),
    Layout(data=4, shard=2, micro_batch=1),
    Layout(pipeline=2, virtual=2, micro_batch=1),
    Layout(pipeline=2, virtual=2, zero_bubble=True, micro_batch=1),
    Layout(pipeline=2, zero_bubble=True, micro_batch=1),
    Layout(recompute="full", micro_batch=4),
    Layout(recompute="selective", micro_batch=4),
    Layout(tensor=2, pipeline=2, recompute="selective"),
    Layout(tensor=2, data=2, shard=2, recompute="full"),
    Layout(pipeline=2, data=2, shard=2),
    Layout(pipeline=2, virtual=2, zero_bubble=True, data=2),
    Layout(context=2, tensor=2),
    Layout(context=2, pipeline=2),
    Layout(context=2, data=2, shard=2),
]


@pytest.mark.parametrize("layout", CUTS, ids=lambda layout: layout.describe())
def test_a_cut_run_has_the_losses_of_one_process(spec, isolated, layout):
    ranks.run(train, 1, str(isolated / "one"), spec)
    result, *_ = ranks.run(train, layout.world_size, str(isolated / "cut"), spec, layout)
    assert isinstance(result, dict), result
    assert result["status"] == "done"
    assert_equal(isolated / "cut", isolated / "one", spec)
