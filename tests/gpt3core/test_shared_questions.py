"""Questions that the replicas of a gang share out: the table of one process, with real processes."""

import functools
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gpt3core import run as runs
from gpt3core.data import shards
from gpt3core.evals import answers, engine, runner, tasks
from gpt3core.evals.item import Item
from gpt3core.evals.spec import EvalSpec
from gpt3core.evals.tasks.generated import Generated
from gpt3core.evals.tasks.task import Task
from gpt3core.numerics import Numerics
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.parallel.whole import Whole
from gpt3core.store.rundir import RunDir
from tests.gpt3core import ranks, stores

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

FP32 = Numerics(precision="fp32", kernel="softmax")


def _choice(rng: random.Random, _: list[str]) -> Item:
    words = tuple(f" {rng.randrange(10 ** rng.randrange(1, 6))}" for _ in range(3))
    return Item(context=f"{rng.randrange(10**6)}", answer=words[0], choices=words)


def _written(rng: random.Random, _: list[str]) -> Item:
    return Item(context=f"{rng.randrange(10 ** rng.randrange(1, 7))} is", answer=f" {rng.randrange(100)}")


SHARED = {"source": Generated(make=_choice), "kind": "multiple_choice", "metric": "choice", "delimiter": "\n"}
WRITTEN = {"source": Generated(make=_written), "kind": "generate", "metric": "f1", "answer_tokens": 6}
ASKED = {
    "chosen": Task(**SHARED),
    "chosen_normalised": Task(**SHARED, score="normalised", answer_context="answer:"),
    "written": Task(**WRITTEN, stop="e", other_stops=("a", "i")),
    "searched": Task(**WRITTEN, beams=2),
}
SPEC = EvalSpec(tasks=("addition_2", *ASKED), shots=(0, 2), items=10, validation_tokens=1024)


def _built(here, spec, layout):
    """A model as evaluations ask it, and a list that grows with its passes."""
    tasks.TASKS.update(ASKED)
    engine.BATCH_TOKENS, answers.BATCH, passes = 128, 2, []
    held = parallelize(spec.model, here, kernel="softmax", device="cpu")
    held.model.init_weights(0, part_of)
    model = Whole(held, spec.model, here) if layout.shard * layout.model_parallel > 1 else held.model
    name = "_pass" if isinstance(model, Whole) else "hidden"
    made = getattr(model, name)

    @functools.wraps(made)
    def counted(ids, *past):
        passes.append(tuple(ids.shape))
        return made(ids, *past)

    setattr(model, name, counted)
    return model, passes


def _table(rank, size, address, spec, layout):
    """What is measured of a model that is cut so, and how many passes of it this rank made."""
    with mesh.joined(rank, size, address, "cpu", layout=layout, seconds=30) as here:
        model, passes = _built(here, spec, layout)
        return runner.evaluate(model, spec, SPEC, shards.prepare(spec.data), FP32, mesh=here), len(passes)


def test_whole_replicas_find_the_table_of_one_process_to_the_bit_with_their_share_of_its_passes(tiny_run):
    ((alone, passes),) = ranks.run(_table, 1, tiny_run, Layout())
    assert len(set(alone["accuracy"])) > 2
    told = ranks.run(_table, 3, tiny_run, Layout(data=3))
    assert [table for table, _ in told] == [alone] * 3
    assert max(made for _, made in told) < 1.25 * passes / 3


@pytest.mark.soak
@pytest.mark.parametrize(
    "layout",
    [
        Layout(data=2, shard=2),
        Layout(data=4, shard=2),
        Layout(data=2, tensor=2),
        Layout(data=2, shard=2, pipeline=2),
        Layout(data=3, shard=3),
    ],
    ids=Layout.describe,
)
def test_replicas_in_parts_find_the_table_of_one_process(tiny_run, layout):
    spec = replace(tiny_run, model=replace(tiny_run.model, n_head=2, d_head=8))
    ((alone, _),) = ranks.run(_table, 1, spec, Layout())
    told = ranks.run(_table, layout.world_size, spec, layout)
    assert [table for table, _ in told] == [told[0][0]] * len(told)
    for name, column in alone.items():
        assert told[0][0][name] == pytest.approx(column, abs=1e-5), name


MORE = EvalSpec(tasks=("addition_2", "subtraction_2"), shots=(0, 1), items=8, validation_tokens=2048)


def _in_parts(rank, size, address, root, spec, stops):
    """Ask a run that is trained; the ranks may be stopped after the first task."""
    with mesh.joined(rank, size, address, "cpu", seconds=30) as here:
        return runs.run(spec, MORE, Path(root), mesh=here, in_parts=True, stop=lambda: stops, suggested=FP32)


@pytest.mark.soak
def test_replicas_that_are_stopped_between_two_tasks_go_on_with_the_next_to_the_bits_of_one_process(store, tmp_path):
    root, done, _ = store
    one, two = (stores.copied(root, tmp_path / name) for name in ("one", "two"))
    runs.run(done, MORE, one, suggested=FP32)
    stopped = ranks.run(_in_parts, 2, str(two), done, True)
    assert [kind for kind, _ in stopped] == ["StoppedError"] * 2
    first, *_ = MORE.parts
    alone, together = (RunDir(root, done.run_id) for root in (one, two))
    assert together.evaluated(first.eval_id)
    assert not together.evaluated(MORE.eval_id)
    ranks.run(_in_parts, 2, str(two), done, False)
    assert together.evaluation(MORE.eval_id).equals(alone.evaluation(MORE.eval_id))


def _hurt(rank, size, address, spec):
    """What a replica hears of one that shares its state and fails after its first pass; how many passes it makes."""
    with mesh.joined(rank, size, address, "cpu", layout=Layout(data=size, shard=size), seconds=10) as here:
        model, passes = _built(here, spec, here.layout)

        def work(number):
            model.hidden(torch.zeros(2, 8, dtype=torch.long))
            if rank == 1:
                raise ValueError("logits that are not finite")

        try:
            here.spread(6, work, asks=model)
        except ValueError as error:
            return str(error), len(passes)


@pytest.fixture
def sharing(tiny_run, monkeypatch):
    """A model that two replicas share, of which the other has so many more passes to make, and its passes here."""

    def make(others):
        model = Whole(
            SimpleNamespace(model=torch.nn.Linear(1, 1)), tiny_run.model, SimpleNamespace(degree=lambda axis: 2)
        )
        monkeypatch.setattr(model, "_any_passes", lambda here: here or next(others, False))
        monkeypatch.setattr(model, "_pass", lambda ids: len(ids) or 1 // 0)
        return model

    return make


def test_who_only_passes_on_with_the_others_is_not_in_its_first_answers(sharing):
    model, other = sharing(iter([True])), sharing(iter([]))
    for one in (model, other):
        with one.in_step():
            pass
    assert (model._fresh, other._fresh) == (False, True)


def test_after_a_pass_that_failed_a_replica_passes_on_with_the_others_again(sharing):
    others = iter([True] * 3)
    model = sharing(others)
    with pytest.raises(ZeroDivisionError), model.in_step():
        model.hidden(torch.zeros(0, 8))
    assert next(others), "nobody goes on from it"
    with model.in_step():
        pass
    assert not list(others)


def test_a_replica_that_fails_where_another_goes_on_is_told_to_it(tiny_run):
    sentence = "logits that are not finite"
    assert ranks.run(_hurt, 2, tiny_run) == [(f"rank 1: {sentence}", 3), (sentence, 3)]
