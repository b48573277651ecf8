"""One update: the schedule's closed form, the objective over micro-batches, AdamW written down."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core import schedule
from gpt3core import spec as specs
from gpt3core.data.loader import Batch, Loader
from gpt3core.model import registry
from gpt3core.sizes import nano
from gpt3core.spec import OptimSpec
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, objective, optimizer
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import run


def test_the_schedule_is_gpt3s():
    spec = OptimSpec(lr=6e-4, batch_tokens=100, warmup_tokens=1000, decay_tokens=11_000)
    rates = [schedule.learning_rate(spec, step) for step in range(150)]
    assert rates[0] == pytest.approx(6e-5)
    assert rates[4] == pytest.approx(3e-4)
    assert max(rates) == pytest.approx(6e-4)
    assert rates.index(max(rates)) == 9
    halfway = rates[59]  # after 6,000 tokens: the middle of the cosine
    assert halfway == pytest.approx(6e-4 * (0.1 + 0.9 * 0.5))
    assert rates[109:] == pytest.approx([6e-5] * 41)


def test_decay_is_on_matrices_only():
    from gpt3core.model.gpt import GPT

    model = GPT(nano(16, n_layer=1, n_ctx=8, vocab_size=300, attention="dense", band=4))
    spec = OptimSpec(lr=1e-3, batch_tokens=8, warmup_tokens=0, decay_tokens=8)
    decayed, free = optimizer.build(model, spec).param_groups
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_training_learns(tales, isolated):
    spec = make_run(tales, steps=150)
    run(spec, isolated)
    assert RunDir(isolated, spec.run_id).evaluation(EVALS.eval_id)["loss"][0] < 0.6 * math.log(300)


def trainer(spec, root):
    RunDir(root, spec.run_id).create(spec)
    return loop.Trainer(spec, root)


def test_micro_batches_add_up_to_one_batch(tiny_run, isolated):
    one, many = (trainer(tiny_run, isolated / name) for name in ("one", "many"))
    rates = [schedule.learning_rate(tiny_run.optim, step) for step in range(5)]
    expected = [one._update(rate).tolist() for rate in rates]
    calls = []
    many.model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    many.batches = replace(many.batches, micro_batch=3)
    found = [many._update(rate).tolist() for rate in rates]
    assert calls == [3, 1] * 5
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for (name, p), q in zip(one.model.named_parameters(), many.model.parameters(), strict=True):
        # a key's bias shifts all scores of a query alike: its gradient is rounding, which Adam enlarges
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(q, p, rtol=1e-3, atol=1e-6, msg=name)


def test_the_loss_is_the_mean_over_what_the_mask_leaves_of_the_whole_batch(tiny_run, isolated, monkeypatch):
    rng = np.random.default_rng(0)
    whole = Loader.batch(trainer(tiny_run, isolated).loader, 0, 4)
    mask = (rng.random(whole.mask.shape) < [[0.9], [0.1], [0.5], [0.5]]).astype(np.float32)
    monkeypatch.setattr(Loader, "batch", lambda *_: Batch(tokens=whole.tokens, mask=mask))
    here = trainer(tiny_run, isolated)
    here.batches = replace(here.batches, micro_batch=1)  # four of them with other counts each
    with torch.no_grad():
        logits = here.model(torch.from_numpy(whole.tokens[:, :-1])).double()
    targets = torch.from_numpy(whole.tokens[:, 1:, None])
    losses = -torch.log_softmax(logits, -1).gather(-1, targets)[..., 0].numpy()
    loss = here._update(1e-3)[0].item()
    assert loss == pytest.approx(losses[mask == 1].mean(), rel=1e-6)


def test_a_token_that_the_mask_leaves_out_moves_no_weight():
    logits = torch.randn(2, 4, 9, requires_grad=True)
    mask = torch.ones(2, 4)
    mask[1, 2] = 0
    tokens = torch.arange(10).view(2, 5) % 9
    objective.loss_sum(logits, objective.next_token(tokens, mask)).backward()
    assert (logits.grad[1, 2] == 0).all()
    assert (logits.grad.abs().sum(-1) > 0).sum() == 7


def test_three_updates_are_those_of_adamw_written_down(tiny_run, isolated):
    """Loshchilov and Hutter 2019, algorithm 2, with the gradient clipped to a norm of one and decay on matrices."""
    spec = tiny_run.optim
    here = trainer(tiny_run, isolated)
    before = {name: p.detach().double().clone() for name, p in here.model.named_parameters()}
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in before.items()}
    for step in range(1, 4):
        batch = torch.from_numpy(here.loader.batch(4 * (step - 1), 4 * step).tokens)
        twin = registry.of(tiny_run.model).build(tiny_run.model, kernel="softmax")
        twin.load_state_dict({name: p.detach() for name, p in here.model.state_dict().items()})
        objective.loss_per_token(twin(batch[:, :-1]), batch[:, 1:]).mean().backward()
        gradients = {name: p.grad.double() for name, p in twin.named_parameters()}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        lr = schedule.learning_rate(spec, step - 1)
        here.step = step - 1
        found = here._update(lr)[1].item()
        assert found == pytest.approx(norm, rel=1e-4)
        for name, p in before.items():
            g = gradients[name] * min(1.0, spec.clip / (norm + 1e-6))
            first, second = moments[name]
            first.mul_(spec.beta1).add_(g, alpha=1 - spec.beta1)
            second.mul_(spec.beta2).add_(g * g, alpha=1 - spec.beta2)
            p *= 1 - lr * (spec.weight_decay if p.dim() > 1 else 0.0)
            p -= lr * (first / (1 - spec.beta1**step)) / ((second / (1 - spec.beta2**step)).sqrt() + spec.eps)
            torch.testing.assert_close(
                dict(here.model.named_parameters())[name].detach().double(), p, atol=3e-5, rtol=1e-3
            )


def test_the_objectives_of_a_specification_are_those_that_can_be_trained():
    assert specs.OBJECTIVES == tuple(objective.OBJECTIVES)
