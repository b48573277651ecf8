"""Training: the schedule's closed form, bit-exact resume, refusal to train twice, divergence, several processes."""

import itertools
import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt3core.parallel import data as parallel
from gpt3core.sizes import nano
from gpt3core.spec import OptimSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, numerics, optimizer, schedule
from tests.conftest import make_run, write_corpus

RESULT = ("status", "loss", "loss_se", "bits_per_byte", "steps", "tokens", "epochs", "precision", "kernel")


def outcome(root: Path, run_id: str) -> tuple:
    """Everything of a run that must not depend on how often it was interrupted."""
    run = RunDir(root, run_id)
    result = run.result()
    weights = load_file(run.checkpoints / f"step-{result['steps']:08d}" / "model.safetensors")
    evals = (run.path / result["attempt"] / "evals" / "few_shot.parquet").read_bytes()
    curve = run.curve().drop(columns="attempt").to_csv()
    return tuple(result[name] for name in RESULT), {k: v.numpy().tobytes() for k, v in weights.items()}, evals, curve


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


def test_a_run_interrupted_at_every_stage_ends_with_the_same_bits(tiny_run, isolated):
    whole = isolated / "whole"
    loop.run(tiny_run, whole)
    for stops in ((1,), (7, 19), (29,), (3, 3, 3)):
        root = isolated / f"stopped-{'-'.join(map(str, stops))}"
        for after in stops:
            count = itertools.count(1)
            with pytest.raises(loop.StoppedError):
                loop.run(tiny_run, root, stop=lambda count=count, after=after: next(count) >= after)
        loop.run(tiny_run, root)
        assert outcome(root, tiny_run.run_id) == outcome(whole, tiny_run.run_id), stops


def test_the_same_specification_is_never_trained_twice(tiny_run, isolated):
    first = loop.run(tiny_run, isolated)
    assert loop.run(tiny_run, isolated) == first
    assert len(RunDir(isolated, tiny_run.run_id).attempts()) == 1


def test_a_run_in_the_hands_of_another_process_is_busy(tiny_run, isolated):
    run = RunDir(isolated, tiny_run.run_id)
    run.create(tiny_run)
    with files.locked(run.path / "lock"), pytest.raises(loop.BusyError, match="is being trained by another process"):
        loop.run(tiny_run, isolated)


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(tiny_run, isolated):
    whole, hurt = isolated / "whole", isolated / "hurt"
    loop.run(tiny_run, whole)
    for after in (5, 5):
        count = itertools.count(1)
        with pytest.raises(loop.StoppedError):
            loop.run(tiny_run, hurt, stop=lambda count=count, after=after: next(count) >= after)
    run = RunDir(hurt, tiny_run.run_id)
    victim = run.checkpoints / "step-00000010" / "optimizer.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 4
    victim.write_bytes(raw)
    result = loop.run(tiny_run, hurt)
    assert len(result["damage"]) == 1
    assert "optimizer.safetensors has sha256" in result["damage"][0]
    assert outcome(hurt, tiny_run.run_id) == outcome(whole, tiny_run.run_id)


def test_numerics_recorded_with_a_run_win_over_what_a_resume_suggests(tiny_run, isolated):
    run = replace(tiny_run, precision="auto", kernel="auto")
    first = numerics.Numerics(precision="fp32", kernel="sdpa")
    count = itertools.count(1)
    with pytest.raises(loop.StoppedError):
        loop.run(run, isolated, suggested=first, stop=lambda: next(count) >= 3)
    result = loop.run(run, isolated, suggested=numerics.Numerics(precision="bf16", kernel="softmax"))
    assert (result["precision"], result["kernel"]) == ("fp32", "sdpa")


def test_numerics_are_timed_once_and_remembered(tiny_run, monkeypatch):
    first = numerics.choose(tiny_run.model)
    monkeypatch.setattr(numerics, "_step_seconds", lambda *_: pytest.fail("timed again"))
    assert numerics.choose(tiny_run.model) == first
    assert numerics.choose(tiny_run.model, "fp32", "softmax") == numerics.Numerics(precision="fp32", kernel="softmax")


def test_a_diverging_run_is_a_result_that_says_so(tales, isolated):
    run = make_run(tales)
    run = replace(run, optim=replace(run.optim, lr=1e30, warmup_tokens=0))
    result = loop.run(run, isolated)
    assert result["status"] == "diverged"
    assert result["loss"] is None
    assert RunDir(isolated, run.run_id).done


def test_training_learns(tales, isolated):
    result = loop.run(make_run(tales, steps=150), isolated)
    assert result["loss"] < 0.6 * math.log(300)


def test_no_pickle_is_written(tiny_run, isolated):
    loop.run(tiny_run, isolated)
    suffixes = {path.suffix for path in isolated.joinpath("runs").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".parquet", ".safetensors", ""}


def _rank(rank: int, size: int, address: str, text: str, root: str) -> None:
    torch.set_num_threads(1)
    run = make_run(Path(text), steps=12)
    with parallel.joined(rank, size, address, "cpu") as group:
        loop.run(run, Path(root), group=group)


def test_two_data_parallel_processes_reach_the_loss_of_one(isolated, free_port):
    text = write_corpus(isolated / "text")
    run = make_run(text, steps=12)
    alone = loop.run(run, isolated / "one")
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_rank, args=(rank, 2, f"127.0.0.1:{free_port}", str(text), str(isolated / "two")))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    together = RunDir(isolated / "two", run.run_id).result()
    assert together["devices"] == 2
    assert together["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    json.dumps(together)
