"""Counts against GPT-3's tables and against torch's own counters."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt3core import costs, sizes
from gpt3core.model import blocks, registry

# Brown et al. 2020, Table D.1: parameters in millions, training FLOPs
TABLE_D1 = {
    "125M": (125, 2.25e20),
    "350M": (356, 6.41e20),
    "760M": (760, 1.37e21),
    "1.3B": (1320, 2.38e21),
    "2.7B": (2650, 4.77e21),
    "6.7B": (6660, 1.20e22),
    "13B": (12850, 2.31e22),
    "175B": (174600, 3.14e23),
}


@pytest.mark.parametrize("name", TABLE_D1)
def test_sizes_have_the_parameters_and_flops_of_table_d1(name):
    millions, flops = TABLE_D1[name]
    counts = costs.params(sizes.GPT3[name].model())
    assert counts.total == pytest.approx(millions * 1e6, rel=0.005)
    assert costs.six_nd(sizes.GPT3[name].params_printed, 300e9) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize("attention", ["dense", "alternating"])
def test_parameters_and_flops_are_torchs(attention):
    spec = sizes.nano(64, n_layer=3, n_ctx=32, vocab_size=300, attention=attention, band=4)
    model = registry.of(spec).build(spec, kernel="softmax")
    assert sum(p.numel() for p in model.parameters()) == costs.params(spec).total
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 32, dtype=torch.long)).sum().backward()
    # torch computes whole blocks of queries by keys; ours counts the pairs that the masks leave
    inner = spec.n_head * spec.d_head
    block = {"dense": 32, "banded": blocks.band_block(4) + 3}
    pairs = sum(block[p.kind] - p.mean_keys(32) for p in map(spec.pattern, range(3)))
    masked = 3 * 2 * 2 * inner * pairs * 2 * 32
    assert counter.get_total_flops() == pytest.approx(costs.train_flops(spec, 64) + masked, rel=1e-9)


def test_state_memory_is_18_bytes_a_parameter_on_one_gpu_and_shards():
    """Megatron-LM's figures for bf16 weights and fp32 gradients: 18 bytes a parameter, 6 + 12/d sharded."""
    model = sizes.GPT3["1.3B"].model()
    total = costs.params(model).total
    one = costs.memory_per_device(model, data=1, tensor=1, pipeline=1)
    eight = costs.memory_per_device(model, data=8, tensor=1, pipeline=1)
    assert one.weights_and_gradients + one.optimizer == pytest.approx(18 * total, rel=1e-3)
    assert eight.weights_and_gradients + eight.optimizer == pytest.approx((6 + 12 / 8) * total, rel=1e-3)


def test_activation_memory_is_korthikantis():
    """Korthikanti et al. 2022: s b h L 34/t bytes with selective recomputation, s b h L 2 with full."""
    model = sizes.GPT3["175B"].model()
    first = 2048 * 12288 * 96
    assert costs.memory_per_device(model, data=1, tensor=8, pipeline=8).activations == pytest.approx(34 * first / 8)
    full = costs.memory_per_device(model, data=1, tensor=1, pipeline=8, recompute="full")
    assert full.activations == pytest.approx(2 * first)
