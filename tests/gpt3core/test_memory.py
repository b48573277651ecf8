"""The memory model against what torch holds: state on built modules, saved tensors by hooks, peaks by the profiler."""

import functools
import gc
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from gpt3core import costs, sizes
from gpt3core.model import architecture, gpt, registry
from gpt3core.model.gpt_spec import GELU
from gpt3core.numerics import Numerics
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.memory import memory, require_room, stage_memory, stage_params
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import local, part_of
from gpt3core.spec import OptimSpec
from gpt3core.train import optimizer, timing
from gpt3core.train.objective import loss_sum, model_loss_sum, next_token
from sweeps.planning import hardware
from tests.gpt3core import ranks
from tests.gpt3core.test_cuts import SHAPE

BF16, FP32 = (Numerics(precision=p, kernel="sdpa") for p in ("bf16", "fp32"))
SOFTMAX = Numerics(precision="bf16", kernel="softmax")
ROWS = 4
# dense: on GPUs a banded layer keeps no more (FlexAttention), on CPUs it copies its blocks of keys and values
SHAPES = {
    "many tokens": sizes.nano(64, n_layer=2, n_ctx=64, vocab_size=1024, attention="dense", band=4, n_head=2),
    "deep": sizes.nano(64, n_layer=6, n_ctx=64, vocab_size=50, attention="dense", band=4, n_head=4),
    "many words": sizes.nano(96, n_layer=2, n_ctx=64, vocab_size=3000, attention="dense", band=4, n_head=2),
    "wide": sizes.nano(160, n_layer=3, n_ctx=32, vocab_size=300, attention="dense", band=8),
}
SHAPES["muP"] = replace(SHAPES["many tokens"], mup_base_width=32, mup_base_d_head=16)


def built(spec, kernel, recompute, patch):
    """A model whose blocks, or attentions, are computed again."""
    model = registry.of(spec).build(spec, kernel=kernel)
    model.init_weights(0)
    if recompute == "full":
        for block in model.blocks.values():
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    elif recompute == "selective":
        again = functools.partial(checkpoint, gpt.attend, use_reentrant=False)
        patch.setattr(gpt, "attend", again)
        patch.setattr(gpt.Attention, "attend", staticmethod(again), raising=False)
    return model


def loss_of(model, spec, numerics):
    ids = torch.randint(spec.vocab_size, (ROWS, spec.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    examples = next_token(ids, None)
    with timing.autocast(numerics):
        logits = model(examples.inputs)
    return loss_sum(logits, examples), logits  # which the loop holds until the gradients are there


def saved_bytes(model, spec, numerics):
    """Bytes that the backward pass of a batch keeps, each storage once, weights not."""
    own = {local(p).untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = tensor  # alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss, _logits = loss_of(model, spec, numerics)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def fused_loss(model, spec, numerics):
    """As a model in one stage is trained: the head and the loss in one."""
    ids = torch.randint(spec.vocab_size, (ROWS, spec.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    with timing.autocast(numerics):
        return model_loss_sum(model, next_token(ids, None))


def peak_bytes(backward):
    """The most that a forward and backward pass holds beside weights and gradients."""
    backward()  # so that the gradients are there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        backward()
    events = sorted((e.start_ns(), e.nbytes()) for e in run.profiler.kineto_results.events() if e.name() == "[memory]")
    held = most = 0
    for _, size in events:
        held += size
        most = max(most, held)
    return most


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("numerics", [FP32, BF16, SOFTMAX], ids=repr)
def test_what_is_kept_for_the_backward_pass_is_what_torch_saves(name, recompute, numerics, monkeypatch):
    """Within 2%: blocks, last norm, head, log-softmax, and the casts of the weights."""
    spec, e = SHAPES[name], numerics.element_bytes
    block = registry.of(spec).activation_bytes(spec, numerics, 1, 1)
    kept = {"none": block.all, "selective": block.entry + block.rest, "full": block.entry}[recompute]
    around = (4 + e) * spec.d_model + 4 * spec.vocab_size
    counts = costs.params(spec)
    cast = counts.total if recompute != "full" else spec.vocab_size * spec.d_model  # the head is no part of a block
    expected = ROWS * spec.n_ctx * (spec.n_layer * kept + around) + (2 * cast if e == 2 else 0)
    model = built(spec, numerics.kernel, recompute, monkeypatch)
    assert saved_bytes(model, spec, numerics) == pytest.approx(expected, rel=0.02)


@pytest.fixture
def one_gelu(monkeypatch):
    """As on a GPU, in one kernel: on CPUs it is computed in fp32 with tensors of its own."""
    monkeypatch.setattr(gpt, "gelu", lambda x, kernel: F.gelu(x, approximate=GELU))


@pytest.mark.parametrize("name", ["deep", "wide", pytest.param("many words", marks=pytest.mark.soak)])
@pytest.mark.parametrize("recompute", ["none", "selective", pytest.param("full", marks=pytest.mark.soak)])
@pytest.mark.parametrize("numerics", [FP32, BF16, SOFTMAX], ids=repr)
def test_the_peak_of_a_step_is_the_one_that_torch_reaches(name, recompute, numerics, monkeypatch, one_gelu):
    """Never more than 2% below it, and 10% above: what is refused does not fit, what is planned does."""
    spec = SHAPES[name]
    monkeypatch.setattr(architecture, "CHUNK_BYTES", dict.fromkeys(architecture.CHUNK_BYTES, 1))
    monkeypatch.setattr(architecture, "CHUNK_ROWS", 48)  # several chunks
    model = built(spec, numerics.kernel, recompute, monkeypatch)
    said = memory(spec, Layout(micro_batch=ROWS, recompute=recompute), sequences=ROWS, numerics=numerics)
    peak = peak_bytes(lambda: fused_loss(model, spec, numerics).backward())
    # a CPU casts a chunk's bf16 gradient of the head whole before it is added
    cast = 4 * spec.vocab_size * spec.d_model if numerics.precision == "bf16" else 0
    assert 0.90 <= peak / (said.total - said.state + cast) <= 1.02


@pytest.mark.parametrize("name", [pytest.param("deep", marks=pytest.mark.soak), "wide", "many words"])
@pytest.mark.parametrize("recompute", ["none", pytest.param("full", marks=pytest.mark.soak)])
@pytest.mark.parametrize("numerics", [FP32, BF16], ids=repr)
def test_the_peak_of_a_pipelines_last_stage_is_the_one_that_torch_reaches(
    name, recompute, numerics, monkeypatch, one_gelu
):
    """There the logits are whole."""
    spec = replace(SHAPES[name], n_layer=6)
    model = built(spec, numerics.kernel, recompute, monkeypatch)
    model.tokens = model.positions = None
    for layer in range(3):
        del model.blocks[str(layer)]
    ids = torch.randint(spec.vocab_size, (ROWS, spec.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    examples = next_token(ids, None)

    def step():
        stream = torch.zeros(ROWS, spec.n_ctx, spec.d_model, requires_grad=True)
        with torch.autocast("cpu", enabled=False):
            with timing.autocast(numerics):
                logits = model(stream)
            loss_sum(logits, examples).backward()

    layout = Layout(pipeline=2, micro_batch=ROWS, recompute=recompute)
    said = stage_memory(spec, layout, 1, sequences=ROWS, numerics=numerics)
    outputs = 4 * spec.d_model * ROWS * spec.n_ctx  # the last stage gives logits
    assert 0.90 <= peak_bytes(step) / (said.total - said.state - outputs) <= 1.02


def test_the_state_is_what_a_module_and_its_optimizer_hold():
    spec = SHAPES["many tokens"]
    model = built(spec, "sdpa", "none", None)
    adam = optimizer.build(model, OptimSpec(lr=1e-3, batch_tokens=512, warmup_tokens=0, decay_tokens=512))
    loss_of(model, spec, FP32)[0].backward()
    adam.step()
    said = memory(spec, Layout(micro_batch=ROWS), sequences=ROWS, numerics=FP32)
    assert said.weights == sum(p.nbytes for p in model.parameters())
    assert said.gradients == sum(p.grad.nbytes for p in model.parameters())
    assert said.optimizer == sum(m.nbytes for s in adam.state.values() for name, m in s.items() if name != "step")
    assert said.copies == 0


@pytest.mark.parametrize("pipeline", [1, 2])
def test_a_stage_has_the_parameters_of_the_module_cut_so(pipeline):
    layout = Layout(pipeline=pipeline)
    each = SHAPE.n_layer // pipeline
    for place in range(pipeline):
        model = registry.of(SHAPE).build(SHAPE, kernel="sdpa")
        for layer in range(SHAPE.n_layer):
            if layer // each != place:
                del model.blocks[str(layer)]
        if place > 0:
            model.tokens = model.positions = None
        if place < pipeline - 1:
            model.norm = model.head = None
        assert stage_params(SHAPE, layout, place) == sum(p.numel() for p in model.parameters())


def test_sixteen_bytes_a_parameter_are_shared_by_the_ranks_that_shard():
    model = sizes.GPT3["1.3B"].model()
    total = costs.params(model).total
    one = memory(model, Layout(), sequences=512, numerics=BF16)
    eight = memory(model, Layout(data=8, shard=8), sequences=512, numerics=BF16)
    hybrid = memory(model, Layout(data=8, shard=4), sequences=512, numerics=BF16)
    assert one.state == 16 * total
    assert (eight.state, hybrid.state) == (2 * total, 4 * total)
    assert one.copies == 2 * 24 * registry.of(model).layer_params(model)  # autocast's; the head casts its own
    assert memory(model, Layout(data=8), sequences=512, numerics=BF16).state == 16 * total


def test_2_7b_is_not_for_one_h100():
    """16 bytes a parameter alone are 42 GB, micro-batches of 16,384 tokens without recomputation 48 more."""
    model = sizes.GPT3["2.7B"].model()
    said = memory(model, Layout(micro_batch=8), sequences=512, numerics=BF16)
    assert said.state == pytest.approx(42.4e9, rel=0.01)
    assert said.activations == pytest.approx(36 * 2560 * 32 * 16384, rel=0.02)
    assert said.total > 80e9
    assert memory(sizes.GPT3["6.7B"].model(), Layout(recompute="full"), sequences=1024, numerics=BF16).total > 100e9


def casts(rank, size, address, layout):
    """How often a step of 2 and one of 6 micro-batches cast a weight to bf16, and how many are cast at all."""
    weights, found = set(), []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            if op is torch.ops.aten._to_copy.default and local(args[0]).untyped_storage().data_ptr() in weights:
                found.append(local(args[0]).untyped_storage().data_ptr())
            return op(*args, **(kwargs or {}))

    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        autocast = functools.partial(timing.autocast, BF16)
        held = parallelize(replace(SHAPE, n_layer=4), here, kernel="sdpa", device="cpu", autocast=autocast)
        held.model.init_weights(0)
        weights |= {p.untyped_storage().data_ptr() for p in held.model.parameters()}
        counts = []
        for rows in (2, 6):
            ids = torch.randint(SHAPE.vocab_size, (rows, SHAPE.n_ctx + 1), generator=torch.Generator().manual_seed(0))
            found.clear()
            with Casts():
                held.backward([next_token(row, None) for row in torch.split(ids, 1)], 1.0)
            counts.append(len(found))
        return counts, len(set(found))


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("words", [{}, {"virtual": 2}, {"recompute": "full"}], ids=str)
def test_the_micro_batches_of_a_pipeline_share_their_casts(words):
    for counts, weights in ranks.run(casts, 2, Layout(pipeline=2, **words)):
        assert counts == [weights, weights]
        assert weights >= 16  # eight a block


@pytest.mark.parametrize(("recompute", "shared"), [("none", True), ("selective", True), ("full", False)])
def test_micro_batches_share_their_casts_where_these_stay_until_the_backward_pass_in_any_case(recompute, shared):
    (few, many), weights = casts(0, 1, "", Layout(recompute=recompute))
    blocks = 4 * 8
    assert weights == blocks + 1
    again = 1 if shared else 2  # forward passes
    assert few == (blocks if shared else again * 2 * blocks) + 2, "the head casts its own"
    assert many == (blocks if shared else again * 6 * blocks) + 6


def buffers(rank, size, address, layout, steps):
    """Bytes of all tensors here after each step of so many micro-batches, parameters and gradients left out."""

    def living():
        gc.collect()
        found = [x for x in gc.get_objects() if torch.is_tensor(x) and x.device.type == "cpu"]
        return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in found}.values())

    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        held = parallelize(replace(SHAPE, n_layer=6), here, kernel="sdpa", device="cpu")
        held.model.init_weights(0)
        found = []
        for rows in steps:
            ids = torch.randint(SHAPE.vocab_size, (rows, SHAPE.n_ctx + 1), generator=torch.Generator().manual_seed(0))
            held.backward([next_token(row, None) for row in torch.split(ids, 1)], 1.0)
            found.append(living())
        return found


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize(
    "layout",
    [Layout(pipeline=3), pytest.param(Layout(pipeline=2, virtual=3), marks=pytest.mark.soak)],
    ids=lambda cut: cut.describe(),
)
def test_a_pipeline_has_buffers_for_every_micro_batch_of_a_step_and_of_one_step_only(layout):
    spec, small, large = replace(SHAPE, n_layer=6), 6, 18
    measured = ranks.run(buffers, layout.pipeline, layout, (small, large, small))
    for place, (before, grown, again) in enumerate(measured):
        said = [stage_memory(spec, layout, place, sequences=n, numerics=FP32).total for n in (small, large)]
        tokens = 3 * (large - small) * spec.n_ctx * 8  # and the ids themselves
        assert grown - before == pytest.approx(said[1] - said[0], abs=tokens)
        assert again == pytest.approx(before, abs=tokens), "what a larger batch had is given back"
    model = sizes.GPT3["175B"].model()
    buffered = memory(model, Layout(pipeline=8, tensor=8, micro_batch=1), sequences=1536, numerics=BF16)
    assert buffered.arriving > 30e9, "without replicas the batch is 1,536 micro-batches"


def kept_of_a_share(rank, size, address, spec, numerics, layout):
    """Bytes that a rank keeps of its positions of a batch for the backward pass."""
    held, autocast = {}, functools.partial(timing.autocast, numerics)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        model = parallelize(spec, here, kernel=numerics.kernel, device="cpu", autocast=autocast).model
        model.init_weights(0, part_of)
        own = {local(p).untyped_storage().data_ptr() for p in model.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = tensor
            return tensor

        length = spec.n_ctx // layout.context
        ids = torch.randint(spec.vocab_size, (ROWS, length + 1), generator=torch.Generator().manual_seed(0))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast():
            model_loss_sum(model, next_token(ids, None))
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("numerics", [FP32, BF16], ids=repr)
def test_devices_that_share_positions_keep_all_keys_and_values(numerics):
    spec, e, degree = SHAPES["deep"], numerics.element_bytes, 2
    tokens, total = ROWS * spec.n_ctx / degree, costs.params(spec).total
    block = registry.of(spec).activation_bytes(spec, numerics, 1, degree).all
    head = tokens * (4 + e) * spec.d_model + e * spec.vocab_size * spec.d_model  # the norm's, and two gradients
    casts = 2 * (total - (spec.vocab_size + spec.n_ctx) * spec.d_model) if e == 2 else 0
    found = ranks.run(kept_of_a_share, degree, spec, numerics, Layout(context=degree))

    assert max(found) == pytest.approx(tokens * spec.n_layer * block + head + casts, rel=0.03)


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("numerics", [FP32, BF16], ids=repr)
def test_blocks_of_a_sharded_state_are_gathered_as_products_are_and_nothing_of_them_stays(numerics):
    spec, e = SHAPES["deep"], numerics.element_bytes
    tokens, around = ROWS * spec.n_ctx, (spec.vocab_size + spec.n_ctx + 2) * spec.d_model
    block = registry.of(spec).activation_bytes(spec, numerics, 1, 1).all
    head = tokens * (4 + e) * spec.d_model + e * spec.vocab_size * spec.d_model
    found = ranks.run(kept_of_a_share, 2, spec, numerics, Layout(data=2, shard=2))

    assert max(found) == pytest.approx(tokens * spec.n_layer * block + head + 4 * around, rel=0.03)


def test_a_device_smaller_than_planned_is_one_sentence():
    model, layout = sizes.GPT3["1.3B"].model(), Layout(data=8, shard=8, micro_batch=4)
    words = {"sequences": 512, "numerics": BF16}
    require_room(model, layout, **words, memory_bytes=40e9)
    with pytest.raises(ValueError, match=r"state over 8 of them, micro-batch 4: \d+ GB a device are needed"):
        require_room(model, layout, **words, memory_bytes=16e9)


@pytest.mark.parametrize("name", ["125M", "1.3B"])
def test_the_weight_of_the_head_is_read_seldom_beside_its_products_on_a_gpu(name):
    """A chunk of positions reads it twice in bf16, and once more with its gradient of bf16 and the sum in fp32."""
    model, h100 = sizes.GPT3[name].model(), hardware.GPUS["H100"]
    rows, weight = architecture.head_rows(model.vocab_size, "cuda"), model.vocab_size * model.d_model
    moved = (2 * 2 + 2 * 2 + 4 * 2) * weight / h100.memory_speed
    assert moved < 0.2 * 6 * rows * weight / h100.peak_flops
    assert 10 * rows * model.vocab_size < 4e9, "bytes of a chunk's logits: a small part of a device's memory"


def test_what_the_pipeline_of_the_largest_model_casts():
    model = sizes.GPT3["175B"].model()
    blocks = 96 * registry.of(model).layer_params(model) / 64
    for how in ("none", "full"):
        layout = Layout(pipeline=8, tensor=8, recompute=how)
        assert memory(model, layout, sequences=1536, numerics=BF16).copies == pytest.approx(2 * blocks)
    assert memory(model, Layout(pipeline=8, tensor=8), sequences=1536, numerics=FP32).copies == 0


def test_the_first_device_of_a_pipeline_keeps_p_micro_batches_and_interleaving_more():
    """Korthikanti et al. 2022, section 4.2.3: p micro-batches of L/p layers, times 1 + (p-1)/(p v) interleaved."""
    model, n = sizes.GPT3["175B"].model(), 2048 * 12288
    block = 32 + 4  # theirs 34 of a 16-bit stream with dropout
    for layout, factor in ((Layout(pipeline=8), 1), (Layout(pipeline=8, virtual=3), 1 + 7 / 24)):
        said = stage_memory(model, layout, 0, sequences=1536, numerics=BF16)
        outputs = 4 * n * layout.pipeline * layout.virtual * factor  # of each stage, until its gradient comes
        inside = (4 * 2 + 4) * n + 6 * 4 * 12288**2  # gradients while one block goes back
        assert said.activations - outputs - inside == pytest.approx(96 * block * n * factor, rel=0.01)
    # with full recomputation each of the 96 blocks keeps its input, and one block at work the rest
    full = stage_memory(model, Layout(pipeline=8, recompute="full"), 0, sequences=1536, numerics=BF16)
    assert full.activations == pytest.approx((96 * 4 + 8 * 4 + block - 4) * n + inside, rel=0.01)
