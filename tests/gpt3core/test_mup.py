"""The maximal-update parametrisation: its authors' package, closed forms, and activations against width."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core import schedule
from gpt3core.model import native
from gpt3core.model.gpt import GPT
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.parameters import named
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
    twin = GPT(standard(shape(width)), kernel="softmax")
    theirs.load_state_dict({name: p.clone() for name, p in ours.state_dict().items()})
    theirs.head = mup.MuSharedReadout(theirs.tokens.weight, bias=False)
    base, delta = (GPT(standard(shape(w))) for w in (BASE, 2 * BASE))
    for plain in (base, delta):
        plain.head = mup.MuSharedReadout(plain.tokens.weight, bias=False)
    mup.set_base_shapes(theirs, base, rescale_params=False, delta=delta)
    del twin
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
