"""The time of a step against published runs, and what each part of it must do."""

from dataclasses import replace

import pytest

from gpt3core import sizes
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.speed import step
from sweeps.planning.hardware import GPUS
from tests.benchmarks import plan_published as published

FUSED = Numerics(precision="bf16", kernel="sdpa")
GPT3_175B, A100, H100 = sizes.GPT3["175B"].model(), GPUS["A100"], GPUS["H100"]


@pytest.mark.parametrize("row", [*published.narayanan(), *published.korthikanti()], ids=lambda row: row.name)
def test_published_runs_take_the_time_that_was_published(row):
    """Narayanan et al. 2021, the ten rows of Table 1, and Korthikanti et al. 2022, Table 5, within 15%."""
    assert row.ratio == pytest.approx(1, abs=0.15)


def test_gpt3_on_1024_a100s_takes_34_days_and_a_third_of_the_peak():
    """Section 5.1 of Narayanan et al. 2021; their 140 TFLOP/s count recomputation, which the model's FLOPs do not."""
    taken, days = published.gpt3_on_1024_a100s()
    assert days == pytest.approx(34, rel=0.15)
    assert taken.hfu(1024, A100.peak_flops) == pytest.approx(140 / 312, rel=0.15)
    assert taken.mfu(1024, A100.peak_flops) == pytest.approx(140 / 312 * 3 / 4, rel=0.15)  # 34%
    assert taken.hfu(1024, 1.0) / taken.mfu(1024, 1.0) == pytest.approx(4 / 3, rel=0.02)


def of(layout, sequences=1536, device=A100, model=GPT3_175B, **words):
    return step(model, layout, sequences=sequences, device=device, numerics=FUSED, **words)


def test_the_bubble_is_the_share_of_the_pipelines_length():
    """(p - 1) / (v m) of the time that a device works, and what stages send one another."""
    for layout in (Layout(data=128, tensor=8, pipeline=4), Layout(data=16, tensor=8, pipeline=8, virtual=3)):
        taken = of(layout)
        works = taken.model + taken.recompute + taken.tensor
        assert taken.bubble / works == pytest.approx(layout.bubble(1536), abs=0.03)
    assert of(Layout(data=16, tensor=8)).bubble == 0


def test_three_micro_batches_in_a_pipeline_of_four_wait_for_half_of_the_time():
    taken = of(Layout(data=512, tensor=8, pipeline=4), device=H100, utilisation=0.4)
    assert taken.bubble / (taken.model + taken.recompute) == pytest.approx(1, abs=0.05)
    assert taken.mfu(512 * 32, H100.peak_flops) < 0.2


def test_full_recomputation_is_a_third_more_work_and_selective_little():
    """A block is 24 h^2 FLOPs forward and its causal attention 2 s h, once of three passes (half of all pairs)."""
    dense = replace(GPT3_175B, attention="dense")
    shape = {"data": 16, "tensor": 8, "pipeline": 8}
    none, selective, full = (
        of(Layout(**shape, recompute=how), model=dense, utilisation=0.5) for how in ("none", "selective", "full")
    )
    assert full.recompute / none.model == pytest.approx(1 / 3, rel=0.03)  # less the head
    assert selective.recompute / none.model == pytest.approx(2048 / (12 * 12288) / 3, rel=0.06)
    assert none.recompute == 0


def test_a_measured_utilisation_is_kept():
    taken = of(Layout(data=8), sequences=512, model=sizes.GPT3["1.3B"].model(), utilisation=0.43)
    assert taken.flops / (taken.model * 8 * A100.peak_flops) == pytest.approx(0.43, rel=1e-6)
    assert taken.mfu(8, A100.peak_flops) == pytest.approx(0.43, rel=0.03)


def test_messages_inside_a_node_are_faster_than_between_nodes():
    small = sizes.GPT3["1.3B"].model()
    inside, between = (of(Layout(data=data), sequences=512, model=small) for data in (8, 16))
    assert between.data > 5 * inside.data
    assert of(Layout(data=8, tensor=8)).tensor > 0 == of(Layout(data=8)).tensor


def test_whole_replicas_send_gradients_while_the_last_backward_pass_goes_on():
    """Over a network: a micro-batch of 8 sequences hides the messages of 1.3B, one sequence does not."""
    small = sizes.GPT3["1.3B"].model()
    one, many = (of(Layout(data=64, micro_batch=size), device=H100, model=small, sequences=512) for size in (1, 8))
    assert one.data - many.data == pytest.approx(2 / 3 * (many.model - one.model / 8), rel=0.01)


def test_a_state_that_a_node_shares_is_gathered_over_its_links():
    """Two nodes that each hold one copy: only sums go between them. Stages of a pipeline may have a node each."""
    model = sizes.GPT3["6.7B"].model()
    one, two, far = (
        of(Layout(data=data, shard=shard, micro_batch=2), sequences=64 * data, device=H100, model=model).data
        for data, shard in ((8, 8), (16, 8), (16, 16))
    )
    sums = 4 * 6.66e9 / 8 / (0.7 * H100.network_speed)  # of an eighth, over two nodes
    assert two - one == pytest.approx(sums, rel=0.05)
    assert far > 10 * two
    apart = of(Layout(data=8, pipeline=2), sequences=512, device=H100, model=model).data
    assert apart < 1.2 * of(Layout(data=4, pipeline=2), sequences=256, device=H100, model=model).data


def test_devices_that_share_positions_send_one_another_keys_and_values():
    """(c - 1) n_ctx / c positions of two 16-bit vectors each, there and as gradients back, by the fewest links."""
    model, sequences = sizes.GPT3["1.3B"].model(), 16
    two, four, eight, sixteen = (
        of(Layout(context=c, micro_batch=2), sequences=sequences, model=model).tensor for c in (2, 4, 8, 16)
    )
    received = sequences * 2048 / 2 * 2 * 2 * 2048  # bytes a block and pass, of two devices
    assert two * A100.link_speed == pytest.approx(received * 2 * 24, rel=0.5)  # links reach a share of their speed
    assert (four / two, eight / two) == pytest.approx((3 / 2, 7 / 4))
    assert sixteen / two > 2 * 15 / 8  # over two nodes
