"""A sharded state whose blocks are gathered in 16 bits: the bits of one that autocast casts, with half as much sent."""

import contextlib
import functools

import pytest
import torch
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather

from gpt3core.options import Options
from gpt3core.parallel import compiled, mesh, parallelize
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parts import part_of
from gpt3core.parallel.whole import Whole
from gpt3core.sizes import nano
from gpt3core.train.objective import Examples
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

SHAPE = nano(32, n_layer=4, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)
BLOCKS = SHAPE.n_layer * (12 * 32 * 32 + 9 * 32)  # weights of their matrices
NORMS = SHAPE.n_layer * 4 * 32
AROUND = (302 + 32 + 2) * 32  # weights around the blocks, in two equal parts
SHARDED = {"data": 2, "shard": 2}


@contextlib.contextmanager
def gathered():
    """Bytes of each gathering in the block; a dispatch mode would keep blocks from being compiled."""
    found, gather = [], DefaultAllGather.__call__

    def counted(self, output_tensor, *args, **words):
        found.append(output_tensor.nbytes)
        return gather(self, output_tensor, *args, **words)

    DefaultAllGather.__call__ = counted
    yield found
    DefaultAllGather.__call__ = gather


def _trained(rank, size, address, layout, words, *, low=True):
    """Losses, sums of gradients and what an evaluation says, of three steps; and bytes gathered in the last of each."""
    words = {"kernel": "sdpa", "kind": torch.bfloat16, "compiled": "none", "options": Options()} | words
    graphs = []
    if not low:
        parallelize._kind = lambda *_: None
    if words["compiled"] != "none":
        compiled.torch.compile = functools.partial(torch.compile, backend=lambda g, _: graphs.append(g) or g.forward)
    autocast = functools.partial(torch.autocast, "cpu", words.pop("kind"))
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        held = parallelize.parallelize(SHAPE, here, device="cpu", autocast=autocast, **words)
        held.model.init_weights(0, part_of)
        optimizer = torch.optim.AdamW(held.model.parameters(), 1e-2, foreach=False)
        ids = torch.randint(301, (4, 33), generator=torch.Generator().manual_seed(here.data_rank))
        own = range(here.place("context"), layout.context)[0] * 32 // layout.context
        parts = ids[:, own : own + 32 // layout.context + 1]
        examples = [Examples(inputs=row[None, :-1], targets=row[None, 1:], mask=None) for row in parts]
        model = Whole(held, SHAPE, here)
        said = [model.head(model.hidden(ids[:, :-1])).double().sum().item()]  # of weights that were not trained yet
        held.reshard()
        for _ in range(3):
            with gathered() as step:
                said.append(held.backward(examples, 0.1).item())
            said += [(str(p.grad.dtype), p.grad.full_tensor().double().sum().item()) for p in held.model.parameters()]
            optimizer.step()
            optimizer.zero_grad()
            with gathered() as evaluation:
                said.append(model.head(model.hidden(ids[:, :-1])).double().sum().item())
            held.reshard()
        return said, sum(step), sum(evaluation), len(graphs)


def _without(rank, size, address, layout, words):
    return _trained(rank, size, address, layout, words, low=False)


def test_blocks_are_gathered_in_the_type_of_products_but_for_an_evaluation_and_all_else_in_fp32():
    layout = Layout(**SHARDED)
    for (said, step, evaluation, _), (exact, whole, before, _) in zip(
        ranks.run(_trained, 2, layout, {}), ranks.run(_without, 2, layout, {}), strict=True
    ):
        assert said == exact
        assert evaluation == before == 4 * (BLOCKS + NORMS + AROUND), "an evaluation is of the weights themselves"
        assert step == 4 * (2 * 2 * BLOCKS + 4 * (NORMS + AROUND)), "micro-batches; blocks there and back"
        assert whole == 4 * (2 * 4 * (BLOCKS + NORMS) + 4 * AROUND)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(**SHARDED), {"kernel": "wide"}),
        (Layout(**SHARDED), {"kernel": "softmax", "kind": torch.float16}),
        (Layout(**SHARDED), {"compiled": "blocks"}),
        (Layout(**SHARDED, recompute="full"), {}),
        (Layout(**SHARDED, recompute="selective"), {"options": Options(label_smoothing=0.1)}),
        (Layout(data=4, shard=2), {}),
        (Layout(**SHARDED, tensor=2), {}),
        (Layout(**SHARDED, context=2), {}),
        (Layout(**SHARDED, pipeline=2, virtual=2), {}),
    ],
    ids=str,
)
def test_a_state_that_is_gathered_in_16_bits_trains_to_the_same_bits(layout, words):
    size = layout.world_size
    for (said, *_, graphs), (exact, *_, before) in zip(
        ranks.run(_trained, size, layout, words), ranks.run(_without, size, layout, words), strict=True
    ):
        assert said == exact
        assert graphs == before
        assert bool(graphs) == bool(words.get("compiled"))
