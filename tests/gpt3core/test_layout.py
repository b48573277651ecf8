"""Degrees of parallelism: what can be cut, and the sentence where it cannot."""

import pytest

from gpt3core.parallel.layout import Layout, check
from gpt3core.sizes import GPT3, nano

TINY = nano(64, n_layer=4, n_ctx=32, vocab_size=300, attention="alternating", band=4, n_head=4)
GPT3_175B = GPT3["175B"].model()


def test_the_published_layout_of_the_175b_is_one():
    """Narayanan et al. 2021, section 5.1: tensor 8, pipeline 8, 1,024 GPUs, batch 1,536."""
    layout = Layout(data=16, shard=16, tensor=8, pipeline=8, recompute="full")
    check(layout, GPT3_175B, 1536)
    assert layout.world_size == 1024
    assert layout.model_parallel == 64
    assert layout.micro_batches(1536) == 96
    assert layout.bubble(1536) == pytest.approx(7 / 96)
    assert Layout(data=16, tensor=8, pipeline=8, virtual=3).bubble(1536) == pytest.approx(7 / 96 / 3)
    assert "data 16 x tensor 8 x pipeline 8" in layout.describe()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"data": 4, "shard": 3}, "shard=3 does not divide data=4: give one of 1, 2, 4"),
        ({"tensor": 0}, "tensor=0: a whole number"),
        ({"tensor": True}, "tensor=True: a whole number"),
        ({"data": 2.0}, "data=2.0: a whole number"),
        ({"recompute": "all"}, "allowed are none, selective, full"),
        ({"virtual": 2}, "virtual=2 without a pipeline"),
        ({"zero_bubble": True}, "zero_bubble=True without a pipeline"),
        ({"pipeline": 2, "data": 2, "shard": 2, "zero_bubble": True}, "zero_bubble=True with shard=2: .* give shard=1"),
    ],
)
def test_a_layout_that_is_none_is_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Layout(**given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tensor": 3}, "tensor=3 does not divide model.n_head=4: allowed are 1, 2, 4"),
        ({"pipeline": 3}, "n_layer=4 blocks evenly: give a product among 1, 2, 4"),
        ({"data": 3}, "a batch of 8 sequences does not divide"),
        ({"data": 4, "micro_batch": 4}, "data=4 x micro_batch=4"),
        ({"data": 4, "pipeline": 4}, "2 micro-batches a step, and a pipeline needs one a stage"),
        ({"data": 8, "pipeline": 2}, "has 1 micro-batch a step"),
        ({"data": 2, "micro_batch": 1, "pipeline": 2, "virtual": 4}, "give a product among 1, 2, 4"),
        ({"context": 3}, "model.n_ctx=32 does not divide by 6"),
        ({"context": 16, "tensor": 4}, "model.n_ctx=32 does not divide by 64"),
    ],
)
def test_a_model_that_cannot_be_cut_so_is_one_sentence(given, sentence):
    check(Layout(data=2, tensor=4, pipeline=2, virtual=2, context=2), TINY, 8)
    with pytest.raises(ValueError, match=sentence):
        check(Layout(**given), TINY, 8)


@pytest.mark.parametrize("kind", [{"virtual": 2}, {"zero_bubble": True}])
def test_interleaved_stages_and_those_without_a_bubble_take_micro_batches_by_rounds(kind):
    """torch's schedules refuse these too, in the middle of a step."""
    with pytest.raises(ValueError, match="by rounds of pipeline=2, and there are 5 a step"):
        check(Layout(pipeline=2, **kind), TINY, 5)
    check(Layout(pipeline=2), TINY, 5)


def test_a_vocabulary_of_fewer_rows_than_devices_is_refused():
    small = nano(64, n_layer=2, n_ctx=32, vocab_size=9, attention="dense", band=4, n_head=8)
    check(Layout(tensor=2), small, 8)
    with pytest.raises(ValueError, match="a vocabulary of 9 leaves a device without rows"):
        check(Layout(tensor=4), small, 8)  # 3, 3, 3 and none
