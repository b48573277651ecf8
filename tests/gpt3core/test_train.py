"""Training: the schedule's closed form, bit-exact resume, refusal to train twice, divergence, parents, damage."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core import run as runs
from gpt3core import schedule
from gpt3core import spec as specs
from gpt3core.data.loader import Batch, Loader
from gpt3core.errors import BusyError, StoppedError, StoreError
from gpt3core.model import registry
from gpt3core.numerics import Numerics
from gpt3core.sizes import nano
from gpt3core.spec import OptimSpec, Parent
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, objective, optimizer, process, timing
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, weights


def run(spec, root, **options):
    return runs.run(spec, EVALS, root, **options)


def stopped(spec, root, after, **options):
    """Train ``after`` steps and stop."""
    count = itertools.count(1)
    with pytest.raises(StoppedError):
        run(spec, root, stop=lambda: next(count) >= after, **options)
    return RunDir(root, spec.run_id)


def test_the_schedule_is_gpt3s():
    spec = OptimSpec(lr=6e-4, batch_tokens=100, warmup_tokens=1000, decay_tokens=11_000)
    rates = [schedule.learning_rate(spec, tokens) for tokens in range(0, 15_000, 100)]
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


# -------------------------------------------------------------------------------------------------- interrupted, busy


def test_a_run_interrupted_at_every_stage_ends_with_the_same_bits(tiny_run, isolated):
    whole = isolated / "whole"
    run(tiny_run, whole)
    for stops in ((1,), (7, 12), (29,), (3, 3, 3)):
        root = isolated / f"stopped-{'-'.join(map(str, stops))}"
        for after in stops:
            stopped(tiny_run, root, after)
        run(tiny_run, root)
        assert outcome(root, tiny_run) == outcome(whole, tiny_run), stops


def test_the_same_specification_is_never_trained_twice(tiny_run, isolated):
    first = run(tiny_run, isolated)
    assert run(tiny_run, isolated) == first
    assert len(RunDir(isolated, tiny_run.run_id).attempts()) == 1


def test_one_more_task_trains_nothing(tiny_run, isolated, monkeypatch):
    run(tiny_run, isolated)
    monkeypatch.setattr(loop.Trainer, "_update", lambda *_: pytest.fail("trained"))
    more = replace(EVALS, tasks=("addition_2", "cycle_letters"))
    runs.run(tiny_run, more, isolated)
    both = [RunDir(isolated, tiny_run.run_id).evaluation(evals.eval_id) for evals in (EVALS, more)]
    assert both[1]["task"].tolist() == [*both[0]["task"], "cycle_letters", "cycle_letters"]
    assert both[1]["loss"][0] == both[0]["loss"][0]


def test_a_run_in_the_hands_of_another_process_is_busy(tiny_run, isolated):
    folder = RunDir(isolated, tiny_run.run_id)
    folder.create(tiny_run)
    with files.locked(folder.path / "lock"), pytest.raises(BusyError, match="is being trained by another process"):
        run(tiny_run, isolated)


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, MemoryError])
def test_however_a_run_ends_it_leaves_no_lock(tiny_run, isolated, ending):
    def report(_):
        raise ending

    with pytest.raises(ending):
        run(tiny_run, isolated, report=report)
    with files.locked(RunDir(isolated, tiny_run.run_id).path / "lock") as free:
        assert free


def test_what_killed_attempts_left_is_removed_by_the_next(tiny_run, isolated):
    folder = stopped(tiny_run, isolated, 3)
    leftovers = [
        folder.path / ".result.json.0123abcd.tmp",
        folder.path / ".numerics.json.0123abcd.tmp",
        folder.checkpoints / ".step-00000007.attempt-001.tmp" / "model-00000.safetensors",
        folder.path / "evals" / f".{EVALS.eval_id}.parquet.0123abcd.tmp",
    ]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run(tiny_run, isolated)
    assert not list(folder.path.rglob("*.tmp"))


# ----------------------------------------------------------------------------------------------------------- damage


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(tiny_run, isolated):
    whole, hurt = isolated / "whole", isolated / "hurt"
    run(tiny_run, whole)
    stopped(tiny_run, hurt, 5)
    folder = stopped(tiny_run, hurt, 5)
    victim = folder.checkpoint(10) / "optimizer-00000.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 4
    victim.write_bytes(raw)
    result = run(tiny_run, hurt)
    assert len(result["damage"]) == 1
    assert "optimizer-00000.safetensors has sha256" in result["damage"][0]
    assert outcome(hurt, tiny_run) == outcome(whole, tiny_run)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"status"', '{"a": 1}'])
def test_a_damaged_result_is_made_again_from_the_last_checkpoint(tiny_run, isolated, monkeypatch, content):
    first = run(tiny_run, isolated)
    before = outcome(isolated, tiny_run)
    path = RunDir(isolated, tiny_run.run_id).path / "result.json"
    path.write_text(content)
    monkeypatch.setattr(loop.Trainer, "_update", lambda *_: pytest.fail("trained"))
    again = run(tiny_run, isolated)
    assert outcome(isolated, tiny_run) == before
    assert again["train_seconds"] == pytest.approx(first["train_seconds"], abs=1e-3)
    (sentence,) = again["damage"]
    assert "its result is damaged" in sentence
    assert len(list(path.parent.glob("damaged-result.json-*"))) == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"precision": "fp8", "kernel": "sdpa", "threads": 1}'])
def test_damaged_numerics_are_those_that_the_attempts_logged(tiny_run, isolated, content):
    spec = replace(tiny_run, precision="auto", kernel="auto")
    folder = stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"))
    (folder.path / "numerics.json").write_text(content)
    result = run(spec, isolated, suggested=Numerics(precision="bf16", kernel="softmax"))
    assert (result["precision"], result["kernel"]) == ("fp32", "sdpa")
    assert "numerics.json is damaged" in result["damage"][0]


def test_damaged_numerics_that_nothing_tells_are_not_guessed(tiny_run, isolated):
    folder = stopped(tiny_run, isolated, 3)
    (folder.path / "numerics.json").write_text("{}")
    (folder.attempts()[0] / "events.jsonl").unlink()
    for _ in range(2):  # trying again does not turn the refusal into a guess
        with pytest.raises(StoreError, match="no attempt logged what it said: bring it back"):
            run(tiny_run, isolated)


def test_lost_numerics_are_those_that_the_attempts_logged(tiny_run, isolated):
    spec = replace(tiny_run, kernel="auto")
    folder = stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"))
    (folder.path / "numerics.json").unlink()
    result = run(spec, isolated, suggested=Numerics(precision="fp32", kernel="softmax"))
    assert result["kernel"] == "sdpa"
    assert "numerics.json is missing" in result["damage"][0]


# ---------------------------------------------------------------------------------------------- numerics and threads


def test_numerics_recorded_with_a_run_win_over_what_a_resume_suggests(tiny_run, isolated):
    spec = replace(tiny_run, precision="auto", kernel="auto")
    stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"), threads=2)
    result = run(spec, isolated, suggested=Numerics(precision="bf16", kernel="softmax"), threads=1)
    assert (result["precision"], result["kernel"], result["threads"]) == ("fp32", "sdpa", 2)


def test_numerics_are_timed_once_and_remembered(tiny_run, monkeypatch):
    first = timing.choose(tiny_run.model)
    monkeypatch.setattr(timing, "_step_seconds", lambda *_: pytest.fail("timed again"))
    assert timing.choose(tiny_run.model) == first
    assert timing.choose(tiny_run.model, "fp32", "softmax") == Numerics(precision="fp32", kernel="softmax")


def test_a_run_trains_on_the_threads_it_was_given(tiny_run, isolated):
    seen = []
    count = itertools.count(1)

    def stop():
        seen.append(torch.get_num_threads())
        return next(count) >= 2

    with pytest.raises(StoppedError):
        run(tiny_run, isolated, threads=3, stop=stop)
    assert seen == [3, 3]
    process.settle_process("cpu")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, float("nan")])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(ValueError, match="threads="):
        process.settle_process("cpu", threads)


# ------------------------------------------------------------------------------------------------------------ diverged


def test_a_diverging_run_is_a_result_that_says_so(tales, isolated):
    spec = make_run(tales)
    spec = replace(spec, optim=replace(spec.optim, lr=1e30, warmup_tokens=0))
    result = run(spec, isolated)
    assert result["status"] == "diverged"
    assert result["steps"] < spec.steps
    folder = RunDir(isolated, spec.run_id)
    assert folder.result() == result
    assert not folder.evaluation_path(EVALS.eval_id).exists()


@pytest.mark.parametrize(("last", "reason"), [(math.inf, "the weights are"), (1e37, "the held-out loss is")])
def test_divergence_in_the_last_update_is_one(tiny_run, isolated, monkeypatch, last, reason):
    rate = schedule.learning_rate
    final = (tiny_run.steps - 1) * tiny_run.optim.batch_tokens
    monkeypatch.setattr(schedule, "learning_rate", lambda spec, tokens: last if tokens == final else rate(spec, tokens))
    result = run(tiny_run, isolated)
    assert result["status"] == "diverged"
    folder = RunDir(isolated, tiny_run.run_id)
    assert folder.result() == result
    assert not folder.evaluation_path(EVALS.eval_id).exists()
    (event,) = [e for e in files.read_lines(folder.attempts()[0] / "events.jsonl") if e["event"] == "diverged"]
    assert event["reason"].startswith(reason)
    assert event["step"] == tiny_run.steps
    assert len(folder.curve()) == tiny_run.steps
    for path in (*folder.path.rglob("*.json"), *folder.path.rglob("*.jsonl")):
        assert not {"NaN", "Infinity"} & set(path.read_text().replace(",", " ").replace("}", " ").split()), path


# ---------------------------------------------------------------------------------------------- objective and batches


def test_training_learns(tales, isolated):
    spec = make_run(tales, steps=150)
    run(spec, isolated)
    assert RunDir(isolated, spec.run_id).evaluation(EVALS.eval_id)["loss"][0] < 0.6 * math.log(300)


def trainer(spec, root):
    RunDir(root, spec.run_id).create(spec)
    return loop.Trainer(spec, root)


def test_micro_batches_add_up_to_one_batch(tiny_run, isolated, monkeypatch):
    one, many = (trainer(tiny_run, isolated / name) for name in ("one", "many"))
    rates = [schedule.learning_rate(tiny_run.optim, 128 * step) for step in range(5)]
    expected = [one._update(rate) for rate in rates]
    calls = []
    many.model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    monkeypatch.setattr(loop, "MICRO_BATCH_TOKENS", 3 * 32)
    found = [many._update(rate) for rate in rates]
    assert calls == [3, 1] * 5
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for (name, p), q in zip(one.model.named_parameters(), many.model.parameters(), strict=True):
        # a key's bias shifts all scores of a query alike: its gradient is rounding, which Adam enlarges
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(q, p, rtol=1e-3, atol=1e-6, msg=name)


def test_the_loss_is_the_mean_over_what_the_mask_leaves_of_the_whole_batch(tiny_run, isolated, monkeypatch):
    rng = np.random.default_rng(0)
    whole = Loader.batch(trainer(tiny_run, isolated).loader, 0)
    mask = (rng.random(whole.mask.shape) < [[0.9], [0.1], [0.5], [0.5]]).astype(np.float32)
    monkeypatch.setattr(Loader, "batch", lambda *_: Batch(tokens=whole.tokens, mask=mask))
    monkeypatch.setattr(loop, "MICRO_BATCH_TOKENS", 32)  # four micro-batches with other counts each
    here = trainer(tiny_run, isolated)
    with torch.no_grad():
        logits = here.model(torch.from_numpy(whole.tokens[:, :-1])).double()
    targets = torch.from_numpy(whole.tokens[:, 1:, None])
    losses = -torch.log_softmax(logits, -1).gather(-1, targets)[..., 0].numpy()
    loss, _ = here._update(1e-3)
    assert loss == pytest.approx(losses[mask == 1].mean(), rel=1e-6)


def test_a_token_that_the_mask_leaves_out_moves_no_weight():
    logits = torch.randn(2, 4, 9, requires_grad=True)
    mask = torch.ones(2, 4)
    mask[1, 2] = 0
    tokens = torch.arange(10).view(2, 5) % 9
    objective.loss_sum(logits, objective.next_token(tokens, mask)).backward()
    assert (logits.grad[1, 2] == 0).all()
    assert (logits.grad.abs().sum(-1) > 0).sum() == 7


# ------------------------------------------------------------------------------------------------------------- parents


@pytest.fixture
def family(tales):
    """A run, its first half as a run of its own, and its second half as that one's child."""
    whole = make_run(tales)
    half = replace(whole, tokens=whole.tokens // 2)
    return whole, half, replace(whole, parent=Parent(run_id=half.run_id, step=half.steps))


def test_a_child_goes_on_from_its_parent_to_the_bits_of_one_run(family, isolated):
    whole, half, child = family
    run(whole, isolated / "whole")
    run(half, isolated)
    stopped(child, isolated, 4)
    result = run(child, isolated)
    assert weights(isolated, child) == weights(isolated / "whole", whole)
    assert RunDir(isolated, child.run_id).curve()["step"].tolist() == list(range(16, 31))
    assert result["tokens"] == whole.tokens
    assert result["tokens_per_second"] * result["train_seconds"] == pytest.approx(whole.tokens / 2, rel=0.05)


def hide(run):
    run.checkpoint(15).rename(run.checkpoint(14))


def flip(run):
    path = run.checkpoint(15) / "model-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("hurt", "words"),
    [(hide, r"is not there \(checkpoints of it: 14\)"), (flip, "cannot go on from step 15 .* has sha256")],
)
def test_a_parent_that_cannot_be_gone_on_from_is_named(family, isolated, hurt, words):
    _, half, child = family
    run(half, isolated)
    hurt(RunDir(isolated, half.run_id))
    with pytest.raises(StoreError, match=words):
        run(child, isolated)


def test_a_parent_of_another_shape_batch_or_length_is_refused(family, tales, isolated):
    _, half, child = family
    run(half, isolated)
    wider = replace(make_run(tales, width=32), parent=child.parent)
    larger = replace(child, optim=replace(child.optim, batch_tokens=256))
    shorter = replace(child, tokens=half.tokens)
    for spec, words in ((wider, "of another shape"), (larger, "the same optim.batch_tokens"), (shorter, "more tokens")):
        with pytest.raises(StoreError, match=words):
            run(spec, isolated)


def test_no_pickle_is_written(tiny_run, isolated):
    result = run(tiny_run, isolated)
    json.dumps(result, allow_nan=False)
    suffixes = {path.suffix for path in isolated.joinpath("runs").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".parquet", ".safetensors", ""}


def test_three_updates_are_those_of_adamw_written_down(tiny_run, isolated):
    """Loshchilov and Hutter 2019, algorithm 2, with the gradient clipped to a norm of one and decay on matrices."""
    spec = tiny_run.optim
    here = trainer(tiny_run, isolated)
    before = {name: p.detach().double().clone() for name, p in here.model.named_parameters()}
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in before.items()}
    for step in range(1, 4):
        batch = torch.from_numpy(here.loader.batch(step - 1).tokens)
        twin = registry.of(tiny_run.model).build(tiny_run.model, kernel="softmax")
        twin.load_state_dict({name: p.detach() for name, p in here.model.state_dict().items()})
        objective.loss_per_token(twin(batch[:, :-1]), batch[:, 1:]).mean().backward()
        gradients = {name: p.grad.double() for name, p in twin.named_parameters()}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        lr = schedule.learning_rate(spec, (step - 1) * spec.batch_tokens)
        here.step = step - 1
        _, found = here._update(lr)
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


def test_a_trained_run_without_its_checkpoint_is_not_trained_again(tiny_run, isolated):
    runs.run(tiny_run, EVALS, isolated)
    for folder in RunDir(isolated, tiny_run.run_id).checkpoints.iterdir():
        files.remove_folder(folder)
    more = replace(EVALS, items=9)
    with pytest.raises(StoreError, match="is trained, but its last checkpoint is gone"):
        runs.run(tiny_run, more, isolated)


def test_a_damaged_evaluation_is_made_again(tiny_run, isolated):
    runs.run(tiny_run, EVALS, isolated)
    table = RunDir(isolated, tiny_run.run_id).evaluation_path(EVALS.eval_id)
    whole = table.read_bytes()
    table.write_bytes(whole[:-3])
    runs.run(tiny_run, EVALS, isolated)
    assert table.read_bytes() == whole


def test_a_run_of_another_trainer_is_not_trained(tiny_run, isolated):
    with pytest.raises(StoreError, match="was specified for trainer version 1, this is version 2"):
        runs.run(replace(tiny_run, trainer_version=1), EVALS, isolated)


def test_the_objectives_of_a_specification_are_those_that_can_be_trained():
    assert specs.OBJECTIVES == tuple(objective.OBJECTIVES)
