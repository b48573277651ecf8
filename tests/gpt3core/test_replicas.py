"""Gradients that are averaged during the backward pass: the bits of those averaged after it, and earlier."""

import pytest
import torch
import torch.distributed as dist

from gpt3core.parallel import gradients, mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
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


def test_replicas_that_are_cut_or_share_their_state_average_otherwise():
    assert Layout(data=2).whole_replicas
    for layout in (Layout(), Layout(data=2, shard=2), Layout(data=2, tensor=2), Layout(data=2, context=2)):
        assert not layout.whole_replicas
