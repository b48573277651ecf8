"""Gradients that are averaged during the backward pass: the bits of those averaged after it, and earlier."""

import pytest
import torch
import torch.distributed as dist

from gpt3core.data import shards
from gpt3core.evals import held_out
from gpt3core.parallel import gradients, mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.parallel.whole import Whole
from gpt3core.sizes import nano
from gpt3core.train.objective import Examples
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

SHAPE = nano(32, n_layer=3, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)


def _both(rank, size, address, micro_batches):
    """Whether both ways give the same bits, and how many sums began while the first parameter had no gradient yet."""
    mesh.BUCKET = 4096  # the embedding is larger
    ids = torch.randint(301, (micro_batches, 33), generator=torch.Generator().manual_seed(rank))
    examples = [Examples(inputs=row[None, :-1], targets=row[None, 1:], mask=None) for row in ids]
    found, early, all_reduce = [], [], dist.all_reduce
    with mesh.joined(rank, size, address, "cpu", layout=Layout(data=size)) as here:
        for average in (False, True):
            held = parallelize(SHAPE, here, kernel="softmax", device="cpu")
            held.model.init_weights(0)
            first = next(held.model.parameters())

            def counted(*args, first=first, **words):
                early.append(first.grad is None)
                return all_reduce(*args, **words)

            dist.all_reduce = counted if average else all_reduce
            loss = held.backward(examples, 1.0, average=average)
            assert held.averaged == average
            gradients.finish(held.model, here, loss, 1e9, averaged=held.averaged)
            found.append([p.grad.clone() for p in held.model.parameters()])
        held.backward(examples, 1.0, average=False)
        assert not held.averaged, "of the last backward pass"
        count = len(list(mesh.buckets(held.model.parameters())))
    return all(map(torch.equal, *found)), sum(early), len(early) - 1, count  # the last one is the loss's and the norm's


def test_sums_begin_while_the_first_layers_have_no_gradient_yet():
    for same, early, sums, count in ranks.run(_both, 3, 1):
        assert same
        assert count > 4
        assert sums == count
        assert early == count - 1, "all but the one with the embedding, whose gradient comes last"


def test_only_the_last_micro_batch_is_summed():
    for same, _, sums, count in ranks.run(_both, 2, 3):
        assert same
        assert sums == count


def _measured(rank, size, address, spec, layout):
    """What held-out text says of a model that is cut so, and how many passes of it this rank made."""
    held_out.BATCH_TOKENS, passes = 256, []
    with mesh.joined(rank, size, address, "cpu", layout=layout or Layout(data=size)) as here:
        data = shards.prepare(spec.data)
        held = parallelize(spec.model, here, kernel="softmax", device="cpu")
        held.model.init_weights(0, part_of)
        model = Whole(held, spec.model, here) if layout is not None else held.model
        hidden = model.hidden
        model.hidden = lambda ids: passes.append(len(ids)) or hidden(ids)
        return held_out.measure(model, data, spec.model.n_ctx, 32 * 40, mesh=here), len(passes)


def test_replicas_share_held_out_text_to_the_bits_of_one_process(tiny_run):
    (alone,) = ranks.run(_measured, 1, tiny_run, None)
    assert alone[1] == 5, "batches of eight windows"
    for size in (2, 3):
        for found, passes in ranks.run(_measured, size, tiny_run, None):
            assert found == alone[0]
            assert passes <= -(-5 // size)
    for layout in (Layout(data=2, shard=2), Layout(data=2, pipeline=2)):
        for found, passes in ranks.run(_measured, layout.world_size, tiny_run, layout):
            assert found == pytest.approx(alone[0], abs=1e-6)
            assert 2 <= passes <= 3


def test_replicas_that_are_cut_or_share_their_state_average_otherwise():
    assert Layout(data=2).whole_replicas
    for layout in (Layout(), Layout(data=2, shard=2), Layout(data=2, tensor=2), Layout(data=2, context=2)):
        assert not layout.whole_replicas
