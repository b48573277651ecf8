"""fp16: the losses of fp32, a loss scale that finds its place, and the same bits whoever is killed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt3core.anomaly import AnomalySpec
from gpt3core.numerics import CANDIDATES, Numerics
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, loss_scale, timing
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, run, stopped
from tests.gpt3core.poison import poisoned
from tests.gpt3core.test_anomaly import at, events


@pytest.fixture
def half(tales):
    return replace(make_run(tales, steps=20), precision="fp16")


def losses(root, spec):
    folder = RunDir(root, spec.run_id)
    return folder.curve().loss.to_numpy(), folder.evaluation(EVALS.eval_id)["loss"][0]


def scale_of(root, spec):
    folder = RunDir(root, spec.run_id)
    return checkpoint.read(folder.checkpoint(spec.steps), spec.run_id).state["loss_scale"]


def test_a_run_in_fp16_has_the_losses_of_fp32(half, isolated):
    full = replace(half, precision="fp32")
    assert run(half, isolated)["precision"] == "fp16"
    run(full, isolated)
    (found, measured), (expected, whole) = losses(isolated, half), losses(isolated, full)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert measured == pytest.approx(whole, rel=2e-3)
    assert not np.array_equal(found, expected)
    assert scale_of(isolated, half) == {"value": 2.0**16, "held": 20}
    result = RunDir(isolated, half.run_id).result()
    assert (result["overflows"], result["anomalies"], result["skipped_steps"]) == (0, 0, 0)


def test_a_gradient_that_fp16_could_not_hold_is_there_with_a_scale(half, isolated, monkeypatch):
    """At scale 2**-12 what arrives in the blocks is below the smallest number of fp16."""
    norms = {}
    for name, first in (("scaled", 2.0**16), ("small", 2.0**-12)):
        monkeypatch.setattr(loss_scale, "FIRST", first)
        run(replace(half, tokens=128, optim=replace(half.optim, warmup_tokens=0)), isolated / name)
        norms[name] = RunDir(isolated / name, next((isolated / name / "runs").iterdir()).name).curve().grad_norm[0]
    full = replace(half, precision="fp32", tokens=128, optim=replace(half.optim, warmup_tokens=0))
    run(full, isolated / "full")
    exact = RunDir(isolated / "full", full.run_id).curve().grad_norm[0]
    assert norms["scaled"] == pytest.approx(exact, rel=2e-3)
    assert norms["small"] != pytest.approx(exact, rel=2e-3)


def test_an_overflow_lowers_the_scale_and_is_no_anomaly(half, isolated, monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**34)
    monkeypatch.setattr(loss_scale, "STEPS", 5)
    result = run(half, isolated / "whole")
    folder = RunDir(isolated / "whole", half.run_id)
    curve, found = folder.curve(), events(isolated / "whole", half, "overflow")
    assert result["status"] == "done"
    assert result["anomalies"] == 0
    assert result["overflows"] == result["skipped_steps"] == curve.skipped.sum() == len(found) > 2
    assert result["skipped_tokens"] == 128 * result["overflows"]
    assert curve.skipped[0], "it began too high"
    assert np.isfinite(curve.loss).all(), "the loss is fp32 and has no scale"
    assert (~np.isfinite(curve.grad_norm) == curve.skipped).all()
    assert (
        found[0]["reason"] == f"the gradient overflows fp16 at loss scale {2.0**34:g}, which is lowered to {2.0**33:g}"
    )
    value = 2.0**34
    held = 0
    for overflow in curve.skipped:  # torch's GradScaler, in words
        value, held = (value / 2, 0) if overflow else (value, held + 1)
        value, held = (value * 2, 0) if held == 5 else (value, held)
    assert scale_of(isolated / "whole", half) == {"value": value, "held": held}
    for stops in ((1, 1, 3), (8, 4)):
        root = isolated / "-".join(map(str, stops))
        for after in stops:
            stopped(half, root, after)
        run(half, root)
        assert outcome(root, half) == outcome(isolated / "whole", half)
        assert scale_of(root, half) == scale_of(isolated / "whole", half)


def test_the_scale_is_that_of_torchs_gradscaler(monkeypatch):
    """The same overflows, the same scale at every step."""
    monkeypatch.setattr(loss_scale, "STEPS", 50)
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=50)
    ours, rng = loss_scale.LossScale(), np.random.default_rng(0)
    theirs.scale(torch.ones(()))  # it begins at its first use
    for overflow in [*(rng.random(40) < 0.2), *[False] * 51, True, *[False] * 50]:
        parameter.grad = torch.full((3,), math.inf if overflow else 1.0)
        theirs.step(optimizer)
        theirs.update()
        ours.overflows() if overflow else ours.fits()
        assert ours.value == theirs.get_scale()
    assert loss_scale.LossScale(ours.state).state == ours.state


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_gradient_that_overflows_at_the_least_scale_is_a_divergence(half, isolated, monkeypatch, policy):
    monkeypatch.setattr(loss_scale, "FIRST", 4.0)
    spec = replace(half, anomaly=AnomalySpec(policy=policy))
    with poisoned(at(3, 4, 5, 6), math.inf, gradient=True):
        result = run(spec, isolated)
    assert (result["status"], result["steps"], result["overflows"]) == ("diverged", 6, 2)
    (event,) = events(isolated, spec, "diverged")
    assert event["reason"].startswith("the gradient overflows fp16 at loss scale 1, the least there is: train in bf16")


def test_a_loss_that_is_not_finite_is_an_anomaly_in_fp16_too(half, isolated):
    spec = replace(half, anomaly=AnomalySpec(policy="skip"))
    with poisoned(at(3), math.nan):
        result = run(spec, isolated)
    assert (result["status"], result["anomalies"], result["overflows"], result["skipped_steps"]) == ("done", 1, 0, 1)
    assert scale_of(isolated, spec) == {"value": 2.0**16, "held": 19}


def test_auto_is_never_fp16(tiny_run, monkeypatch):
    monkeypatch.setattr(timing, "step_seconds", lambda _, tried, __: {c: float(c.precision != "fp16") for c in tried})
    assert timing.choose(tiny_run.model).precision != "fp16"
    assert timing.choose(tiny_run.model, "fp16").precision == "fp16"
    chosen = Numerics(precision="fp16", kernel="sdpa")
    assert chosen in CANDIDATES
    assert not chosen.satisfies("auto", "auto"), "nor is a sweep's choice of it"
    assert chosen.element_bytes == 2
    bf16 = replace(chosen, precision="bf16")
    assert bf16.satisfies("auto", "sdpa") and not bf16.satisfies("fp16", "auto")
