"""Noise of the learning rate, and options by ranks: the same for all of them, and after a resume."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt3core import run as runs
from gpt3core import schedule
from gpt3core.numerics import Numerics
from gpt3core.options import Options, rate_factor
from gpt3core.parallel import mesh
from gpt3core.store.rundir import STOPPED_EARLY, RunDir
from tests import conftest
from tests.conftest import make_run
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, run, stopped

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

EVALS = replace(conftest.EVALS, shots=(0,), items=2, validation_tokens=512)


def test_the_rate_is_multiplied_by_a_lognormal_of_mean_one():
    noisy = Options(lr_noise=0.3)
    factors = np.array([rate_factor(noisy, 5, step) for step in range(20_000)])
    error = factors.std() / math.sqrt(len(factors))
    assert factors.mean() == pytest.approx(1, abs=4 * error)
    logs = np.log(factors)
    assert logs.std() == pytest.approx(0.3, rel=0.03)
    standard = (logs - logs.mean()) / logs.std()
    assert abs((standard**3).mean()) < 0.1
    assert (standard**4).mean() == pytest.approx(3, abs=0.2)
    assert abs(np.corrcoef(standard[1:], standard[:-1])[0, 1]) < 4 / math.sqrt(len(logs))
    assert rate_factor(noisy, 6, 0) != rate_factor(noisy, 5, 0)
    assert {rate_factor(Options(), 5, step) for step in range(9)} == {1.0}


def test_a_noisy_run_trains_at_that_rate_and_resumes_to_the_bit(tales, isolated):
    spec = replace(make_run(tales, steps=8), options=Options(lr_noise=0.2))
    run(spec, isolated / "whole")
    stopped(spec, isolated / "parts", 3)
    run(spec, isolated / "parts")
    assert outcome(isolated / "parts", spec) == outcome(isolated / "whole", spec)
    rates = [schedule.learning_rate(spec.optim, step) * rate_factor(spec.options, 0, step) for step in range(8)]
    assert RunDir(isolated / "whole", spec.run_id).curve().lr.tolist() == rates


def test_attention_that_drops_is_planned_with_the_memory_of_its_probabilities():
    fused = Numerics(precision="bf16", kernel="sdpa")
    assert Options(attention_dropout=0.1).kept(fused) == Numerics(precision="bf16", kernel="softmax")
    assert Options(dropout=0.1).kept(fused) == fused, "masks of the stream are drawn again, not kept"


def _train(rank, size, address, root, spec, stop_after=None):
    """As one of the ranks, which are all told the same validation losses."""
    losses = iter([5.0, 4.0, 4.5, 4.5, 4.5])
    if spec.options.stop_every:
        runs._held_out = lambda here: here.mesh.spread(1, lambda _: next(losses))[0]
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    with mesh.joined(rank, size, address, "cpu") as here:
        return runs.run(spec, EVALS, Path(root), mesh=here, stop=stop, checkpoint_seconds=1000.0)


def test_all_ranks_stop_early_together_and_draw_alike(tales, isolated):
    """Two ranks with every option resume to the bits of two that were not interrupted."""
    every = Options(
        dropout=0.1, attention_dropout=0.1, label_smoothing=0.1, lr_noise=0.1, stop_every=256, stop_patience=2
    )
    spec = replace(make_run(tales, steps=12), options=every)
    found, nothing = ranks.run(_train, 2, str(isolated / "whole"), spec)
    assert nothing is None
    assert (found["status"], found["steps"]) == (STOPPED_EARLY, 8)
    plain = replace(spec, options=replace(every, stop_every=0, stop_patience=3))
    ranks.run(_train, 2, str(isolated / "plain"), plain)
    assert [kind for kind, _ in ranks.run(_train, 2, str(isolated / "cut"), plain, 5)] == ["StoppedError"] * 2
    ranks.run(_train, 2, str(isolated / "cut"), plain)
    places = [(isolated / name, run.run_id) for name, run in (("whole", spec), ("plain", plain), ("cut", plain))]
    curves = [RunDir(*place).curve().loss.tolist() for place in places]
    assert curves[1] == curves[2]
    assert curves[0] == curves[1][:8], "until it stops, a run that may stop is one that may not"
    weights = [RunDir(*place).checkpoint(12) / "model-00000.safetensors" for place in places[1:]]
    assert weights[0].read_bytes() == weights[1].read_bytes()
