"""What devices that share matrices send one another: as many bytes as the plan counts."""

import functools
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3core.model import parameters
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.train.objective import Examples
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

BLOCKS = 2
SHAPE = nano(32, n_layer=BLOCKS, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)


class Sent(TorchDispatchMode):
    """The collectives that ran, by name and type."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
            self.found[name, args[0].dtype] += 1
        return func(*args, **(kwargs or {}))


def _step(rank, size, address, precision):
    """What was sent in a step, and the gradients of this rank beside those of one process."""
    ids = torch.randint(301, (2, 33), generator=torch.Generator().manual_seed(0))
    examples = [Examples(inputs=ids[:, :-1], targets=ids[:, 1:], mask=None)]
    autocast = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    with mesh.joined(rank, size, address, "cpu", layout=Layout(tensor=size)) as here:
        gradients = []
        for place in (mesh.Mesh(), here):
            held = parallelize(SHAPE, place, kernel="softmax", device="cpu", autocast=autocast)
            held.model.init_weights(0, part_of)
            with Sent() as sent:
                held.backward(examples, 1 / ids.numel())
            gradients.append(
                {name: getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for name, p in parameters.named(held.model)}
            )
        one, cut = gradients
        away = max(float((one[name] - cut[name]).norm() / one[name].norm()) for name in one)
        return {(name, str(dtype)): count for (name, dtype), count in sent.found.items()}, away


@pytest.mark.parametrize(("precision", "rounding"), [("bf16", 2e-2), ("fp32", 1e-5)])
def test_devices_that_share_matrices_send_what_their_products_read(precision, rounding):
    """Twice there and twice back in a block, once for the head, and once for the embedding, whose rows are of fp32."""
    kind = {"bf16": "torch.bfloat16", "fp32": "torch.float32"}[precision]
    for sent, away in ranks.run(_step, 2, precision):
        expected = Counter(
            {("all_gather_into_tensor", kind): 4 * BLOCKS + 1, ("reduce_scatter_tensor", kind): 4 * BLOCKS + 1}
        )
        expected += Counter({(name, "torch.float32"): 1 for name, _ in expected})
        assert sent == expected
        assert away < rounding
