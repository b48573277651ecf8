"""The maximal-update parametrisation: its authors' package, closed forms, and activations against width."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core import schedule
from gpt3core.generate.choices import Sampling
from gpt3core.generate.decode import complete
from gpt3core.generate.sampling import Sampler
from gpt3core.model import native, products
from gpt3core.model.gpt import GPT
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.parameters import named
from gpt3core.numerics import BUILT
from gpt3core.spec import OptimSpec
from gpt3core.train import optimizer
from gpt3core.train.objective import loss_per_token, model_loss_sum, next_token
from tests.conftest import make_run
from tests.gpt3core.outcomes import outcome, run, stopped
from tests.gpt3core.test_update import trainer

VOCAB, N_CTX = 96, 16
BASE = 32
OPTIM = OptimSpec(lr=0.01, batch_tokens=64, warmup_tokens=0, decay_tokens=64)


def shape(width: int, *, d_head: int = 16, n_layer: int = 2, base: int = BASE, base_d_head: int = 16) -> GPTSpec:
    return GPTSpec(
        n_layer=n_layer,
        d_model=width,
        n_head=width // d_head,
        d_head=d_head,
        n_ctx=N_CTX,
        vocab_size=VOCAB,
        band=4,
        mup_base_width=base,
        mup_base_d_head=base_d_head if base else 0,
    )


def standard(spec: GPTSpec) -> GPTSpec:
    return replace(spec, mup_base_width=0, mup_base_d_head=0)


def built(spec: GPTSpec, kernel: str = "softmax", seed: int = 0) -> GPT:
    model = GPT(spec, kernel=kernel)
    model.init_weights(seed)
    return model


def batches(steps: int, rows: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(VOCAB, (rows, N_CTX + 1), generator=generator) for _ in range(steps)]


def step(model: GPT, adam: torch.optim.Optimizer, ids: torch.Tensor) -> float:
    loss = model_loss_sum(model, next_token(ids, None)) / ids[:, 1:].numel()
    loss.backward()
    adam.step()
    adam.zero_grad()
    return loss.item()


# -------------------------------------------------------------------------------------------------- against its authors


@pytest.mark.parametrize("width", [32, 96, 128])
def test_losses_and_weights_are_those_of_the_authors_package(width):
    """Five steps of our model with our optimizer, and of a plain one with mup's readout and mup's AdamW."""
    mup = pytest.importorskip("mup")
    spec = shape(width)
    optim = replace(OPTIM, eps=1e-30)  # mup leaves Adam's eps at all widths
    ours, theirs = built(spec), GPT(standard(spec), kernel="softmax")
    theirs.load_state_dict({name: p.clone() for name, p in ours.state_dict().items()})
    theirs.head = mup.MuSharedReadout(theirs.tokens.weight, bias=False)
    base, delta = (GPT(standard(shape(w))) for w in (BASE, 2 * BASE))
    for plain in (base, delta):
        plain.head = mup.MuSharedReadout(plain.tokens.weight, bias=False)
    mup.set_base_shapes(theirs, base, rescale_params=False, delta=delta)
    decays = [p for p in theirs.parameters() if p.dim() > 1], [p for p in theirs.parameters() if p.dim() < 2]
    groups = [{"params": found, "weight_decay": wd} for found, wd in zip(decays, (0.1, 0.0), strict=True)]
    their_adam = mup.MuAdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)
    adam = optimizer.build(ours, optim)
    for ids in batches(5):
        logits = theirs.head(theirs.hidden(ids[:, :-1]))
        loss = loss_per_token(logits, ids[:, 1:]).mean()
        loss.backward()
        their_adam.step()
        their_adam.zero_grad()
        assert step(ours, adam, ids) == pytest.approx(loss.item(), abs=2e-5)
    for (name, p), q in zip(named(ours), theirs.parameters(), strict=True):
        if not name.endswith("qkv.bias"):  # a key's bias moves no loss: its gradient is rounding, which Adam enlarges
            torch.testing.assert_close(p, q, rtol=2e-3, atol=2e-5, msg=name)


# ----------------------------------------------------------------------------------------------------- closed forms


def test_the_base_is_the_standard_parametrisation_to_the_bit():
    models = [built(spec) for spec in (shape(BASE), standard(shape(BASE)))]
    adams = [optimizer.build(model, OPTIM) for model in models]
    assert [len(adam.param_groups) for adam in adams] == [2, 2]
    for ids in batches(3):
        ours, plain = (step(model, adam, ids) for model, adam in zip(models, adams, strict=True))
        assert ours == plain
    assert all(torch.equal(p, q) for p, q in zip(*(model.parameters() for model in models), strict=True))


def test_initial_values_are_by_fan_in_for_hidden_matrices_only():
    spec = shape(512, n_layer=1)
    wide, plain = (dict(named(built(s))) for s in (spec, standard(spec)))
    hidden = {name for name, p in wide.items() if name.startswith("blocks.") and p.dim() == 2}
    assert len(hidden) == 4
    for name, p in wide.items():
        expected = plain[name] / math.sqrt(512 / BASE) if name in hidden else plain[name]
        torch.testing.assert_close(p, expected, rtol=1e-6, atol=0, msg=name)


def test_learning_rate_decay_and_eps_are_those_of_table_8():
    spec = shape(128)
    model = built(spec)
    adam = optimizer.build(model, replace(OPTIM, weight_decay=0.2, eps=1e-6))
    optimizer.set_rate(adam, 0.003)
    names = {p: name for name, p in named(model)}
    seen = {}
    for group in adam.param_groups:
        assert group["eps"] == 1e-6 / 4
        seen |= {names[p]: (group["lr"], group["weight_decay"]) for p in group["params"]}
    assert seen["blocks.1.attention.qkv.weight"] == seen["blocks.0.down.weight"] == (0.003 / 4, 0.2 * 4)
    assert seen["tokens.weight"] == seen["positions.weight"] == (0.003, 0.2)
    assert seen["blocks.0.up.bias"] == seen["norm.weight"] == seen["blocks.0.norm1.bias"] == (0.003, 0.0)
    assert len(seen) == len(names)


def test_an_update_is_adamws_with_the_factors(tiny_run, isolated):
    """The first step of Loshchilov and Hutter 2019, algorithm 2: the gradient's sign, and decay of lr x decay."""
    spec = replace(tiny_run, model=replace(tiny_run.model, mup_base_width=4, mup_base_d_head=16))  # m = 4
    here = trainer(spec, isolated)
    before = {name: p.detach().double().clone() for name, p in named(here.model)}
    ids = torch.from_numpy(here.loader.batch(0, 4).tokens)
    twin = built(spec.model)
    (model_loss_sum(twin, next_token(ids, None)) / ids[:, 1:].numel()).backward()
    lr = schedule.learning_rate(spec.optim, 7)
    here._update(lr)
    gradients = {name: p.grad.double() for name, p in named(twin)}
    for name, p in named(here.model):
        hidden = name.startswith("blocks.") and p.dim() == 2
        moved = lr / 4 if hidden else lr
        decayed = before[name] * (1 - (lr * 0.1 if p.dim() == 2 else 0))
        large = gradients[name].abs() > 1e-4  # far above Adam's eps, and not clipped to less
        expected = decayed - moved * gradients[name].sign()
        torch.testing.assert_close(p.detach().double()[large], expected[large], rtol=1e-3, atol=2e-6, msg=name)


@pytest.mark.parametrize("kernel", ["softmax", "sdpa", *BUILT])
@pytest.mark.parametrize("attention", ["alternating", "strided,fixed"])
def test_every_kernel_has_the_loss_and_gradients_of_weights_with_the_factors_in_them(kernel, attention):
    """A standard model whose query rows and last norm are multiplied by hand."""
    if kernel in BUILT and not (native.library() and products.there()):
        pytest.skip("no C compiler, or no oneDNN")
    spec = replace(shape(96, d_head=48), attention=attention)
    if "strided" in attention:
        spec = replace(spec, stride=5, summary=2)
    ours, plain = built(spec, kernel), built(standard(spec))
    (ids,) = batches(1)
    with torch.no_grad():
        for (name, p), q in zip(named(ours), plain.parameters(), strict=True):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
            q.copy_(p)
            if "qkv" in name:
                q.view(2, 3, 48, -1)[:, 0] *= math.sqrt(16) / math.sqrt(48)
            elif name.startswith("norm."):
                q *= 32 / 96
    losses = [model_loss_sum(model, next_token(ids, None)) for model in (ours, plain)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-4)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(ours.tokens.weight.grad, plain.tokens.weight.grad, rtol=1e-3, atol=1e-4)
    rows = ours.blocks["0"].attention.qkv.weight.grad.view(2, 3, 48, -1)
    plain_rows = plain.blocks["0"].attention.qkv.weight.grad.view(2, 3, 48, -1)
    torch.testing.assert_close(rows[:, 0], plain_rows[:, 0] * math.sqrt(16 / 48), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rows[:, 1:], plain_rows[:, 1:], rtol=1e-3, atol=1e-4)


def test_a_resumed_run_has_the_same_bits(tales, isolated):
    spec = make_run(tales, steps=12)
    spec = replace(spec, model=replace(spec.model, mup_base_width=4, mup_base_d_head=4))
    run(spec, isolated / "whole")
    stopped(spec, isolated / "cut", 5)
    run(spec, isolated / "cut")
    assert outcome(isolated / "cut", spec) == outcome(isolated / "whole", spec)


@pytest.mark.parametrize("attention", ["alternating", "dense"])
def test_a_text_is_the_same_with_and_without_the_cache(attention):
    model = built(replace(shape(64, d_head=32), attention=attention)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    how = Sampling(temperature=0.0)
    texts = [
        complete(model, [[1, 2, 3], [4]], tokens=10, choose=Sampler(how), end=VOCAB - 1, cached=cached)
        for cached in (True, False)
    ]
    assert texts[0] == texts[1]
    assert len({token for text in texts[0] for token in text.tokens}) > 4, "a text that could differ"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mup_base_d_head": 0}, "mup_base_width=32, model.mup_base_d_head=0: both of the base model"),
        ({"mup_base_width": 0}, "both 0 for the standard parametrisation"),
        ({"mup_base_width": -1}, "mup_base_width=-1"),
        ({"n_head": 3}, "3 heads of 16 do not make up d_model=64"),
    ],
)
def test_half_a_base_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(shape(64), **changes)


# ------------------------------------------------------------------------------------------------- coordinate check


def coordinates(spec: GPTSpec, seed: int, steps: int = 4) -> dict[str, float]:
    """Mean absolute activations after some steps at a learning rate of 0.01; of scores and logits, how far they moved.

    What a layer computes at first and what training adds are of one size; of scores and logits the first part vanishes
    with the width (Yang et al. 2022, figure 5 shows differences).
    """
    model = built(spec, seed=seed)
    adam = optimizer.build(model, OPTIM)
    seen: dict[str, torch.Tensor] = {}

    def note(name):
        return lambda module, inputs, output: seen.__setitem__(name, output.detach())

    def scored(name, attend):
        def noting(q, k, v, **words):
            seen[name] = (q @ k.transpose(-2, -1)).detach() / math.sqrt(q.size(-1))
            return attend(q, k, v, **words)

        return noting

    for layer, block in model.blocks.items():
        for name, module in {"attention": block.attention, "up": block.up, "down": block.down, "stream": block}.items():
            module.register_forward_hook(note(f"{layer}.{name}"))
        block.attention.attend = scored(f"{layer}.scores", block.attention.attend)
    probe = torch.arange(4 * N_CTX).view(4, N_CTX) % VOCAB

    def answers():
        with torch.no_grad():
            logits = model(probe)
        return {**seen, "logits": logits}

    first = answers()
    for ids in batches(steps):
        step(model, adam, ids)
    after = answers()
    moved = {name: after[name] - first[name] if name.endswith(("scores", "logits")) else after[name] for name in after}
    return {name: float(x.abs().mean()) for name, x in moved.items()}


def slopes(widths: tuple[int, ...], **words: int) -> dict[str, float]:
    """By what power of the width each activation grows; heads of 16 unless their number is given."""
    n_head = words.pop("n_head", None)
    specs = [shape(w, base=words["base"], d_head=w // n_head if n_head else 16) for w in widths]
    found = [[coordinates(spec, seed) for seed in range(SEEDS)] for spec in specs]
    means = {name: [np.mean([c[name] for c in seeds]) for seeds in found] for name in found[0][0]}
    return {name: float(np.polyfit(np.log(widths), np.log(sizes), 1)[0]) for name, sizes in means.items()}


SEEDS = 2
FLAT, GROWING = 0.35, 0.4  # powers of the width; what grew did so by 0.49 to 2.0


@pytest.mark.parametrize(
    ("widths", "words"),
    # a width of 512 takes seconds: the point of the check is a wide range
    [pytest.param((64, 128, 256, 512), {}, marks=pytest.mark.soak), ((64, 128, 256), {"n_head": 4})],
    ids=["more heads", "wider heads"],
)
def test_activations_keep_their_size_at_every_width_and_in_the_standard_parametrisation_they_do_not(widths, words):
    flat = slopes(widths, base=64, **words)
    assert len(flat) == 2 * 5 + 1
    # how much q and k agree is learned, so scores need not grow at once: they may be anything but larger
    falling = {name: power for name, power in flat.items() if power < -FLAT and "scores" not in name}
    assert (falling, {name: power for name, power in flat.items() if power > FLAT}) == ({}, {})
    growing = slopes(widths, base=0, **words)
    assert {name: power for name, power in growing.items() if power < GROWING} == {}


def test_all_gradients_fall_with_the_width_as_adams_eps_does():
    sizes = {}
    for width in (64, 256):
        model = built(shape(width, base=64))
        (ids,) = batches(1)
        (model_loss_sum(model, next_token(ids, None)) / ids[:, 1:].numel()).backward()
        sizes[width] = {name: p.grad.square().mean().sqrt().item() for name, p in named(model)}
    for name, size in sizes[64].items():
        if not name.endswith("qkv.bias"):
            assert math.log2(sizes[256][name] / size) / 2 == pytest.approx(-1, abs=0.35), name
