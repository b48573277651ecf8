"""Context parallelism without processes: what each device has to do, and what it makes of it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt3core.model.attention import attend
from gpt3core.model.patterns import Pattern
from gpt3core.parallel import context
from gpt3core.parallel.positions import parts, runs, whole

HEADS, WIDTH = 2, 4


def made(monkeypatch, degree, t, **how):
    """What the devices of a group make of random queries, keys and values, and of each the FLOPs; all of it at once."""
    q, k, v = (torch.randn(1, HEADS, t, WIDTH, generator=torch.Generator().manual_seed(n)) for n in range(3))
    monkeypatch.setattr(context, "gather_over", lambda *_: lambda *_: (k, v))
    found, flops = [], []
    for place, own in enumerate(parts(q, degree, dim=2)):
        with FlopCounterMode(display=False) as counter:
            found.append(context.attend_over(None, place, degree)(own, k, v, n_ctx=t, **how))
        flops.append(counter.get_total_flops())
    return whole(found, dim=2), flops, attend(q, k, v, n_ctx=t, **how)


@pytest.mark.parametrize("degree", [2, 3, 8])
def test_every_position_is_of_one_device_and_comes_back_to_its_place(degree):
    ids = torch.arange(12 * degree)[None]
    each = parts(ids, degree)
    assert torch.equal(whole(each), ids)
    assert [part[0].tolist() for part in each] == [
        [n for run in runs(ids.size(1), place, degree) for n in run] for place in range(degree)
    ]


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_in_a_dense_layer_all_devices_do_the_same_and_little_more_than_the_causal_half(monkeypatch, degree):
    t = 128
    _, flops, _ = made(monkeypatch, degree, t, window=t, kernel="softmax")
    assert len(set(flops)) == 1
    causal = 4 * HEADS * WIDTH * t * (t + 1) / 2  # of two products, a multiplication and an addition a value
    assert sum(flops) < (1 + 1 / (2 * degree)) * causal


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize(
    "sees",
    [
        {"window": 64},
        {"window": 5},
        {"window": 64, "sparse": Pattern(kind="strided", size=8)},
        {"window": 64, "sparse": Pattern(kind="fixed", size=8, summary=2)},
    ],
    ids=["dense", "banded", "strided", "fixed"],
)
def test_devices_find_what_one_finds(monkeypatch, kernel, sees):
    found, _, alone = made(monkeypatch, 4, 64, kernel=kernel, **sees)
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
