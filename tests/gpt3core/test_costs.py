"""Counts against GPT-3's tables and against torch's own counters."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt3core import costs, sizes
from gpt3core.model import blocks, parameters, registry

AROUND = ("tokens", "positions", "head")
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


@pytest.mark.parametrize("name", TABLE_D1)
def test_every_convention_counts_the_module_as_built(name):
    """All eight sizes on the meta device: total, without embeddings, and the matrices that Kaplan et al. 2020 count."""
    spec = sizes.GPT3[name].model()
    with torch.device("meta"):
        model = registry.of(spec).build(spec, kernel="sdpa")
    held = dict(parameters.named(model))
    layers = [p for path, p in held.items() if path.startswith("blocks.")]
    counts = costs.params(spec)
    assert counts.total == sum(p.numel() for p in held.values())
    assert counts.nonembedding == sum(p.numel() for path, p in held.items() if path.split(".")[0] not in AROUND)
    assert counts.kaplan == sum(p.numel() for p in layers if p.dim() == 2)
    assert registry.of(spec).layer_params(spec) * spec.n_layer == sum(p.numel() for p in layers)
    if name == "175B":
        assert counts.total == 174_604_259_328
        assert counts.kaplan == 12 * 96 * 12288**2


@pytest.mark.soak
@pytest.mark.parametrize("name", ["125M", "1.3B"])
def test_forward_flops_of_a_whole_size_are_torchs(name):
    """On the meta device: linear layers, head and attention, of which torch counts whole blocks of pairs."""
    spec = replace(sizes.GPT3[name].model(), attention="dense")
    with torch.device("meta"):
        model = registry.of(spec).build(spec, kernel="softmax")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 2048, dtype=torch.long))
    unseen = counter.get_total_flops() / 2048 - costs.forward_flops_per_token(spec)
    assert 0 <= unseen <= 2 * 2 * spec.n_layer * spec.n_head * spec.d_head * 64 / 2  # half of a block's 64 keys


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
