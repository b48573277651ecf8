"""Anomalies: what is one, what is done about it, and that whoever is killed in between ends with the same bits."""

import contextlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpt3core import schedule, trunk
from gpt3core.anomaly import AnomalySpec
from gpt3core.errors import StoppedError, StoreError
from gpt3core.spec import Parent
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import interval, loop
from gpt3core.train.anomaly import Guard
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, run, stopped, weights
from tests.gpt3core.poison import poisoned

NAN = math.nan
SKIP = AnomalySpec(policy="skip")
BACK = AnomalySpec(policy="rollback", back=4, ahead=2)
BATCH = 4  # sequences of a step
STEPS = 20


def guarded(text, rule, steps=STEPS):
    return replace(make_run(text, steps=steps), anomaly=rule)


def at(*steps):
    """A sequence of each of these steps' batches, by the order of the text."""
    return [BATCH * step + 1 for step in steps]


def events(root, spec, what):
    """Events of all attempts, oldest first."""
    logs = (files.read_lines(attempt / "events.jsonl") for attempt in RunDir(root, spec.run_id).attempts())
    return [event for log in logs for event in log if event["event"] == what]


def written_down(spec, root, batches):
    """The weights after updates on these batches (step of the schedule, first sequence), without a guard."""
    plain = replace(spec, anomaly=AnomalySpec())
    RunDir(root, plain.run_id).create(plain)
    here = loop.Trainer(plain, root)
    for step, first in batches:
        here.guard.sequences = lambda _, first=first: (first, first + BATCH)
        here.step = step
        here._update(schedule.learning_rate(plain.optim, step))
    return {name: p.detach().numpy().tobytes() for name, p in here.model.named_parameters()}


# ----------------------------------------------------------------------------------------------------------- policies


def test_by_default_a_run_ends_as_diverged_at_a_loss_that_is_not_finite(tales, isolated):
    spec = make_run(tales, steps=STEPS)
    with poisoned(at(7), NAN):
        result = run(spec, isolated)
    assert (result["status"], result["steps"], result["skipped_steps"]) == ("diverged", 8, 0)
    assert "skipped" not in RunDir(isolated, spec.run_id).curve()
    assert not RunDir(isolated, spec.run_id).evaluation_path(EVALS.eval_id).exists()


def test_skip_leaves_an_update_out_and_its_text(tales, isolated, monkeypatch):
    spec, said = guarded(tales, SKIP), []
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    with poisoned(at(7, 12), NAN):
        result = run(spec, isolated, report=said.append)
    assert [live["step"] for live in said if live["phase"] == "training" and live["loss"] is None] == [8, 13]
    assert (result["status"], result["steps"], result["tokens"]) == ("done", STEPS, spec.tokens)
    assert (result["anomalies"], result["skipped_steps"], result["skipped_tokens"]) == (2, 2, 256)
    kept = [step for step in range(STEPS) if step not in (7, 12)]
    expected = written_down(spec, isolated / "plain", [(step, BATCH * step) for step in kept])
    assert weights(isolated, spec) == expected
    curve = RunDir(isolated, spec.run_id).curve()
    assert curve.step[curve.skipped].tolist() == [8, 13]
    assert curve.loss.isna().tolist() == curve.skipped.tolist()
    found = events(isolated, spec, "anomaly")
    assert [(e["step"], e["reason"], e["action"]) for e in found] == [
        (8, "the loss is nan", "skip"),
        (13, "the loss is nan", "skip"),
    ]


def test_a_roll_back_passes_over_the_text_around_the_anomaly(tales, isolated):
    spec = guarded(tales, BACK)
    with poisoned(at(7), NAN):
        result = run(spec, isolated)
    assert (result["status"], result["anomalies"], result["roll_backs"]) == ("done", 1, 1)
    assert (result["tokens"], result["skipped_tokens"]) == (spec.tokens, 0)
    passed = 4 + 1 + 2  # batches, of steps 3 to 9
    assert result["passed_tokens"] == 128 * passed
    order = [(step, BATCH * (step if step < 3 else step + passed)) for step in range(STEPS)]
    assert weights(isolated, spec) == written_down(spec, isolated / "plain", order)
    (back,) = events(isolated, spec, "rolled back")
    assert (back["step"], back["passed_tokens"], back["damage"]) == (0, 128 * passed, [])
    folder = RunDir(isolated, spec.run_id)
    curve = folder.curve()
    assert curve.step.tolist() == list(range(1, STEPS + 1))
    assert np.isfinite(curve.loss).all()
    assert folder.checkpoint_steps()[-1] == STEPS
    import pandas as pd

    gone = pd.read_parquet(folder.attempts()[0] / "rolled-back-001.parquet")
    assert gone.step.tolist() == list(range(1, 9))
    assert gone.step[gone.skipped].tolist() == [8]


@pytest.mark.parametrize(("rule", "passed"), [(SKIP, 0), (BACK, 3), (replace(BACK, back=1, ahead=0), 1)])
def test_the_first_and_the_last_step_may_be_anomalies(tales, isolated, rule, passed):
    spec = guarded(tales, rule)
    with poisoned(at(0, STEPS - 1 + passed), NAN):
        result = run(spec, isolated)
    assert (result["status"], result["steps"], result["anomalies"]) == ("done", STEPS, 2)
    assert [event["step"] for event in events(isolated, spec, "anomaly")] == [1, STEPS]
    assert len(RunDir(isolated, spec.run_id).curve()) == STEPS


def test_a_run_that_meets_too_many_is_diverged_and_says_so(tales, isolated):
    spec = guarded(tales, replace(SKIP, limit=2))
    with poisoned(at(5, 6, 7, 8), NAN):
        result = run(spec, isolated)
    assert (result["status"], result["steps"], result["skipped_steps"]) == ("diverged", 8, 2)
    (diverged,) = events(isolated, spec, "diverged")
    assert diverged["reason"] == "the loss is nan, and anomaly.limit=2 of them were met before"


def test_weights_that_the_last_update_spoilt_are_gone_back_from(tales, isolated, monkeypatch):
    spec = guarded(tales, BACK)
    rate, spoilt = schedule.learning_rate, []

    def once(optim, step):
        if step == STEPS - 1 and not spoilt:
            return spoilt.append(step) or math.inf
        return rate(optim, step)

    monkeypatch.setattr(schedule, "learning_rate", once)
    result = run(spec, isolated)
    assert (result["status"], result["anomalies"]) == ("done", 1)
    (event,) = events(isolated, spec, "anomaly")
    assert (event["step"], event["reason"]) == (STEPS, "the weights are not finite")


# --------------------------------------------------------------------------------------------------- to the same bits

SPIKED = {"spike": 8.0, "window": 8}


@pytest.mark.parametrize(
    ("rule", "factor", "bad"),
    [
        pytest.param(SKIP, NAN, (7, 12), marks=pytest.mark.soak),
        (BACK, NAN, (7, 9, 12)),  # the second lies in text that is passed over, the third is met on the way up again
        (replace(SKIP, **SPIKED), 1e4, (12, 15)),
        pytest.param(replace(BACK, **SPIKED), 1e4, (12, 26), marks=pytest.mark.soak),
    ],
)
def test_killed_anywhere_a_run_ends_with_the_bits_of_one_that_was_not(tales, isolated, monkeypatch, rule, factor, bad):
    spec, whole = guarded(tales, rule), isolated / "whole"
    with poisoned(at(*bad), factor, gradient=factor == 1e4):
        result = run(spec, whole)
        assert result["anomalies"] == 2
        assert result["status"] == "done"
        counts = {name: result[name] for name in ("anomalies", "skipped_tokens", "roll_backs", "passed_tokens")}
        for stops in ((8, 1, 1), (7, 1, 6)):
            root = isolated / "-".join(map(str, stops))
            for after in stops:
                stopped(spec, root, after)
            again = run(spec, root)
            assert {name: again[name] for name in counts} == counts
            assert outcome(root, spec) == outcome(whole, spec), stops
        monkeypatch.setattr(interval, "MOST_SHARE", 1.0)
        run(spec, isolated / "hurried", checkpoint_seconds=1e-9)  # a checkpoint a step: other ones to go back to
        assert outcome(isolated / "hurried", spec) == outcome(whole, spec)


def test_a_run_stopped_before_any_update_was_applied_goes_on_from_there(tales, isolated):
    spec = guarded(tales, SKIP, steps=8)
    with poisoned(at(0, 1), NAN):
        run(spec, isolated / "whole")
        folder = stopped(spec, isolated / "parts", 2)
        assert folder.checkpoint_steps() == [2]
        run(spec, isolated / "parts")
    assert outcome(isolated / "parts", spec) == outcome(isolated / "whole", spec)
    assert folder.damage() == []
    assert [event["step"] for event in events(isolated / "parts", spec, "start")] == [0, 2]


def test_a_run_that_is_stopped_after_every_step_goes_back_once_and_ends(tales, isolated):
    """A checkpoint of where it went back to does not know of it, and the next attempt would meet the same again."""
    rule = AnomalySpec(policy="rollback", back=3, ahead=1, spike=9, window=8)
    spec = guarded(tales, rule)
    with poisoned(at(12), 1e4, gradient=True):
        run(spec, isolated / "whole")
        for _ in range(3 * STEPS):
            with contextlib.suppress(StoppedError):
                if run(spec, isolated, stop=lambda: True) is not None:
                    break
    assert outcome(isolated, spec) == outcome(isolated / "whole", spec)


def test_a_damaged_checkpoint_to_go_back_to_changes_no_bit(tales, isolated, monkeypatch):
    spec = guarded(tales, BACK)
    with poisoned(at(11), NAN):
        run(spec, isolated / "whole")
        stopped(spec, isolated / "hurt", 10)
        folder = RunDir(isolated / "hurt", spec.run_id)
        assert 4 in folder.checkpoint_steps()
        (folder.checkpoint(4) / "model-00000.safetensors").write_bytes(b"")
        run(spec, isolated / "hurt")
    (back,) = events(isolated / "hurt", spec, "rolled back")
    assert back["step"] == 0
    assert "the checkpoint of step 4 is damaged" in back["damage"][0]
    assert any("step 4 is damaged" in sentence for sentence in folder.result()["damage"])
    assert outcome(isolated / "hurt", spec) == outcome(isolated / "whole", spec)


def test_a_child_goes_on_with_what_its_parent_passed_over(tales, isolated):
    whole = guarded(tales, BACK)
    half = replace(whole, tokens=whole.tokens // 2)
    child = replace(whole, parent=Parent(run_id=half.run_id, step=half.steps))
    with poisoned(at(5), NAN):
        run(whole, isolated / "whole")
        run(half, isolated)
        ended = RunDir(isolated, half.run_id).path / "result.json"
        ended.rename(ended.with_suffix(".aside"))
        with pytest.raises(StoreError, match="may yet roll back to before it"):
            run(child, isolated)
        ended.with_suffix(".aside").rename(ended)
        result = run(child, isolated)
    assert result["passed_tokens"] == 128 * 7
    assert weights(isolated, child) == weights(isolated / "whole", whole)


def test_runs_that_may_go_back_share_no_trunk_and_those_that_skip_do(tales, isolated):
    def of(rule, steps):
        spec = guarded(tales, rule, steps=steps)
        stable = (steps - 4) * 128
        optim = replace(spec.optim, schedule="wsd", warmup_tokens=256, stable_tokens=stable)
        return replace(spec, optim=optim)

    assert trunk.steps_in_common(of(BACK, 12), of(BACK, 20)) == 0
    long, short = of(SKIP, 20), of(SKIP, 12)
    step = trunk.steps_in_common(long, short)
    assert step == 8
    with poisoned(at(5), NAN):
        run(short, isolated / "alone")
        run(long, isolated, keep=(step,))
        result = run(short, isolated, prefix=trunk.Prefix(run_id=long.run_id, step=step))
    assert result["skipped_tokens"] == 128, "the trunk's counts for the branch"
    assert weights(isolated, short) == weights(isolated / "alone", short)


# -------------------------------------------------------------------------------------------------------------- spikes


def test_a_spike_is_what_scipys_deviations_say(tiny_run):
    rule = AnomalySpec(policy="skip", spike=9.0, window=16, limit=1000)
    guard, rng = Guard(replace(tiny_run, anomaly=rule), {}), np.random.default_rng(0)
    losses, norms = 3 + 0.1 * rng.standard_t(2, 400), np.abs(rng.standard_t(2, 400))
    found = []
    for step, pair in enumerate(zip(losses.tolist(), norms.tolist(), strict=True)):
        found.append(guard.judge(step, *pair) is not None)
    for step in range(400):
        expected = False
        for values in (losses, norms):
            past = values[max(0, step - 16) : step]
            if len(past) == 16:
                deviation = stats.median_abs_deviation(past)
                expected |= bool(values[step] > np.median(past) + 9 * deviation)
        assert found[step] == expected, step
    assert 5 < sum(found) < 100


def test_a_spike_is_left_out_and_a_lasting_change_is_none_in_time(tiny_run):
    rule = AnomalySpec(policy="skip", spike=9.0, window=16, limit=1000)
    guard, rng = Guard(replace(tiny_run, anomaly=rule), {}), np.random.default_rng(0)
    losses = np.concatenate([3 + 0.01 * rng.normal(size=40), 5 + 0.01 * rng.normal(size=40)])
    left_out = [guard.judge(step, loss, 1.0) is not None for step, loss in enumerate(losses.tolist())]
    assert not any(left_out[:40])
    assert all(left_out[40:44])
    assert not any(left_out[56:])


# ------------------------------------------------------------------------------------------------------- passing over


@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_what_was_passed_over_is_never_trained_on_and_nothing_else_is_lost(gaps, back, ahead, ramped):
    spec = make_run_of_shape(AnomalySpec(policy="rollback", back=back, ahead=ahead), ramped)
    guard, passed, step = Guard(spec, {}), set(), 0
    for gap in gaps:
        step += gap  # the next anomaly: no earlier than where the last one went back to
        target, end = guard.target(step), guard.sequences(step + ahead)[1]
        passed |= set(range(guard.sequences(target)[0], end))
        guard.met(step, "")
        step = target
        places = [guard.sequences(s) for s in range(step + 40)]
        trained = list(itertools.chain.from_iterable(range(*place) for place in places))
        assert len(set(trained)) == len(trained)
        assert set(trained) | {p for p in passed if p < trained[-1]} == set(range(trained[-1] + 1))
        assert not set(trained) & passed
        sizes = [last - first for first, last in places]
        assert sizes == [spec.optim.ramp.batch_at(s) // spec.model.n_ctx for s in range(step + 40)]


def make_run_of_shape(rule, ramped):
    from gpt3core.sizes import nano
    from gpt3core.spec import DataSpec, OptimSpec, RunSpec

    ramp = {"ramp_start": 64, "ramp_tokens": 1024} if ramped else {}
    optim = OptimSpec(lr=0.01, batch_tokens=128, warmup_tokens=0, decay_tokens=12800, **ramp)
    model = nano(16, n_layer=1, n_ctx=32, vocab_size=300, attention="dense", band=4)
    return RunSpec(model=model, data=DataSpec(corpus="", corpus_sha256=""), optim=optim, tokens=12800, anomaly=rule)


# ------------------------------------------------------------------------------------------------------ specification


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policy": "ignore"}, "allowed are stop, skip, rollback"),
        ({"limit": 3}, "anomaly.limit=3 has no effect with anomaly.policy=stop"),
        ({"policy": "skip", "back": 3}, "anomaly.back=3 has no effect with anomaly.policy=skip"),
        ({"policy": "skip", "window": 16}, "anomaly.window=16 has no effect with anomaly.spike=0"),
        ({"spike": 1.0}, "anomaly.spike=1.0: median absolute deviations, 3 or more"),
        ({"spike": NAN}, "anomaly.spike=nan"),
        ({"spike": 9.0, "window": 3}, "anomaly.window=3: it must lie from 8"),
        ({"policy": "rollback", "back": 0}, "anomaly.back=0"),
    ],
)
def test_rules_that_mean_nothing_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        AnomalySpec(**given)


def test_a_rule_is_part_of_what_a_run_is(tiny_run):
    assert replace(tiny_run, anomaly=AnomalySpec()).run_id == tiny_run.run_id
    ids = {replace(tiny_run, anomaly=rule).run_id for rule in (SKIP, BACK, AnomalySpec(spike=9.0))}
    assert len(ids | {tiny_run.run_id}) == 4
