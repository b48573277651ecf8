"""Training: bit-exact resume, refusal to train twice, numerics, divergence, parents."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from gpt3core import costs, schedule
from gpt3core import run as runs
from gpt3core.data import tokenizer
from gpt3core.errors import BusyError, StoppedError, StoreError
from gpt3core.numerics import Numerics
from gpt3core.spec import TRAINER_VERSION, Parent
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, process, spent, timing
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, run, stopped, weights

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


def test_a_run_that_moved_to_other_devices_costs_what_each_attempt_did(tiny_run, isolated):
    folder = stopped(tiny_run, isolated, 15, usd_per_hour=3600.0, peak_flops=1e9)
    result = run(tiny_run, isolated, usd_per_hour=36.0, peak_flops=4e9)
    states = [files.read_object(folder.checkpoint(step) / "state.json") for step in (15, tiny_run.steps)]
    first, rest = states[0]["train_seconds"], states[1]["train_seconds"] - states[0]["train_seconds"]
    assert result["cost"] == pytest.approx(first + rest / 100)
    flops = costs.train_flops(tiny_run.model, tiny_run.tokens)
    assert result["mfu"] == pytest.approx(flops / (1e9 * first + 4e9 * rest))


def test_a_run_on_a_share_of_a_device_costs_that_share(tiny_run, isolated):
    result = run(tiny_run, isolated, usd_per_hour=3600.0, peak_flops=1e9, share=0.5)
    state = files.read_object(RunDir(isolated, tiny_run.run_id).checkpoint(tiny_run.steps) / "state.json")
    half = pytest.approx(state["train_seconds"] / 2)
    assert (result["cost"], state["device_seconds"]) == (half, half)
    assert result["mfu"] == pytest.approx(costs.train_flops(tiny_run.model, tiny_run.tokens) / (1e9 * half.expected))


def test_what_older_checkpoints_do_not_say_is_as_with_the_devices_of_now():
    now = spent.Devices(count=2, usd_per_hour=3600.0, peak_flops=10.0)
    assert spent.before({"train_seconds": 3.0}, now) == spent.Spent().plus(3.0, now)
    grown = spent.before({"train_seconds": 3.0, "device_seconds": 3.0}, now)
    assert vars(grown) == {"train_seconds": 3.0, "device_seconds": 3.0, "usd": 3.0, "possible_flops": 30.0}
    known = {**vars(grown), "usd": 0.5, "possible_flops": None}
    assert vars(spent.before({**known, "step": 1}, now).plus(1.0, now)) == {
        "train_seconds": 4.0,
        "device_seconds": 5.0,
        "usd": 2.5,
        "possible_flops": None,
    }


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


# ---------------------------------------------------------------------------------------------- numerics and threads


def test_numerics_recorded_with_a_run_win_over_what_a_resume_suggests(tiny_run, isolated):
    spec = replace(tiny_run, precision="auto", kernel="auto")
    stopped(spec, isolated, 3, suggested=Numerics(precision="fp32", kernel="sdpa"), threads=2)
    result = run(spec, isolated, suggested=Numerics(precision="bf16", kernel="softmax"), threads=1)
    assert (result["precision"], result["kernel"], result["threads"]) == ("fp32", "sdpa", 2)
    process.settle_process("cpu")


def test_numerics_are_timed_once_and_remembered(tiny_run, monkeypatch):
    first = timing.choose(tiny_run.model)
    monkeypatch.setattr(timing, "step_seconds", lambda *_: pytest.fail("timed again"))
    assert timing.choose(tiny_run.model) == first
    assert timing.choose(replace(tiny_run.model, n_layer=96)) == first  # more blocks of the same: 175B fits no host
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
    final = tiny_run.steps - 1
    monkeypatch.setattr(schedule, "learning_rate", lambda spec, step: last if step == final else rate(spec, step))
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
    deeper = replace(child, model=replace(child.model, n_layer=3))
    split = replace(child, data=replace(child.data, validation_fraction=0.2))
    larger = replace(child, optim=replace(child.optim, batch_tokens=256))
    shorter = replace(child, tokens=half.tokens)
    for spec, words in (
        (wider, "is another model than its parent .*model.d_model: 16 -> 32"),
        (deeper, r"is another model than its parent .*\(model.n_layer: 2 -> 3\)"),
        (split, "holds out 0.2 of the text and its parent .* 0.1"),
        (larger, "the same optim.batch_tokens"),
        (shorter, "more tokens"),
    ):
        with pytest.raises(StoreError, match=words):
            run(spec, isolated)


def test_a_parent_of_the_same_shape_that_computes_otherwise_is_refused_and_masks_are_no_matter(family, isolated):
    _, half, child = family
    run(half, isolated)
    for field, value, more in (
        ("mup_base_width", 8, {"mup_base_d_head": 8}),
        ("band", 5, {}),
        ("attention", "dense", {}),
    ):
        other = replace(child, model=replace(child.model, **{field: value}, **more))
        with pytest.raises(StoreError, match=rf"is another model than its parent .*\(.*model\.{field}: .* -> {value}"):
            run(other, isolated)
    end = tokenizer.end_of_text(child.data.tokenizer)
    assert run(replace(child, model=replace(child.model, document_end=end)), isolated)["status"] == "done"


def test_no_pickle_is_written(tiny_run, isolated):
    result = run(tiny_run, isolated)
    json.dumps(result, allow_nan=False)
    suffixes = {path.suffix for path in isolated.joinpath("runs").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".parquet", ".safetensors", ""}


def test_a_run_of_another_trainer_is_not_trained(tiny_run, isolated):
    with pytest.raises(StoreError, match=f"was specified for trainer version 1, this is version {TRAINER_VERSION}"):
        runs.run(replace(tiny_run, trainer_version=1), EVALS, isolated)


def test_what_another_trainer_trained_is_not_measured_by_this_one(tiny_run, isolated, monkeypatch):
    old = replace(tiny_run, trainer_version=1)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "TRAINER_VERSION", 1)
        result = run(old, isolated)
    assert runs.run(old, EVALS, isolated) == result, "nothing is left to do of it"
    with pytest.raises(StoreError, match="measure other losses"):
        runs.run(old, replace(EVALS, items=9), isolated)
