"""The gradient noise scale against gradients of single sequences, closed forms, and its absence."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt3core import run as runs
from gpt3core.model import registry
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout, noise_scale_problem
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, noise_scale
from tests.conftest import EVALS
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import outcome, run, stopped, weights
from tests.gpt3core.test_layouts import make_spec

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

N_CTX, SEQUENCES = 32, 4  # of a batch


def trainer(spec, root, micro_batch):
    RunDir(root, spec.run_id).create(spec)
    here = loop.Trainer(spec, root)
    here.batches = replace(here.batches, micro_batch=micro_batch)
    return here


def gradients(here):
    """The gradient of each sequence of the first batch alone, by autograd on a model of its own: (B, parameters)."""
    twin = registry.of(here.spec.model).build(here.spec.model, kernel="sdpa")
    twin.load_state_dict({name: p.detach() for name, p in here.model.state_dict().items()})
    found = []
    for row in torch.from_numpy(here.loader.batch(0, SEQUENCES).tokens):
        twin.zero_grad()
        torch.nn.functional.cross_entropy(twin(row[None, :-1])[0], row[1:]).backward()
        found.append(torch.cat([p.grad.flatten() for p in twin.parameters()]).double().numpy())
    return np.stack(found)


def expected(each, groups):
    """|G|^2 and tr(Sigma) a token, of sequences' gradients in groups of rows: McCandlish et al. 2018, A.2 and A.3."""
    big, inverse = np.square(each.mean(0)).sum(), 1 / (N_CTX * len(each))
    small = np.mean([np.square(each[rows].mean(0)).sum() for rows in groups])
    variance = (small - big) / (np.mean([1 / (N_CTX * len(rows)) for rows in groups]) - inverse)
    return big - variance * inverse, variance


@pytest.mark.parametrize(
    ("micro_batch", "groups"),
    [(1, [[0], [1], [2], [3]]), (2, [[0, 1], [2, 3]]), (3, [[0, 1, 2], [3]]), (4, [[0, 1], [2, 3]])],
)
def test_it_is_that_of_the_gradients_of_single_sequences(tiny_run, isolated, micro_batch, groups):
    """Micro-batches of one, of two, of three and one, and the halves of one of four."""
    here = trainer(replace(tiny_run, noise_scale_every=1), isolated, micro_batch)
    each = gradients(here)
    here._update(1e-3)
    square, variance = expected(each, groups)
    if micro_batch == 1:  # then it is the trace of the sample covariance
        assert variance == pytest.approx(N_CTX * np.square(each - each.mean(0)).sum() / (SEQUENCES - 1), rel=1e-9)
    assert here.noise.row["grad_var"] == pytest.approx(variance, rel=2e-4)
    assert here.noise.row["grad_sq"] == pytest.approx(square, abs=2e-5 * variance)
    assert here.noise.value == (None if square <= 0 else pytest.approx(variance / square, rel=5e-3))


def test_the_estimates_of_a_known_gradient_and_covariance_are_unbiased():
    """Gradients of a linear model's squared error, normal about G: batches of 8 and of 64 of them."""
    rng = np.random.default_rng(0)
    gradient, deviation = rng.normal(size=50) / 10, rng.uniform(0.5, 2, size=50)
    draws = []
    for _ in range(4000):
        small = gradient + deviation * rng.normal(size=50) / math.sqrt(8)
        rest = gradient + deviation * rng.normal(size=50) / math.sqrt(56)
        big = (8 * small + 56 * rest) / 64
        draws.append(noise_scale.estimates(small @ small, 1 / 8, big @ big, 1 / 64))
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0) / math.sqrt(len(draws))
    truth = gradient @ gradient, np.square(deviation).sum()
    assert (np.abs(mean - truth) < 4 * error).all()


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_measuring_changes_no_bit_of_the_weights_and_no_id(tiny_run, isolated, micro_batch, monkeypatch):
    monkeypatch.setattr("gpt3core.train.resume.micro_batch", lambda *_, **__: micro_batch)
    measured = replace(tiny_run, noise_scale_every=3)
    assert measured.run_id == tiny_run.run_id
    for spec, name in ((tiny_run, "plain"), (measured, "measured")):
        run(spec, isolated / name)
    assert weights(isolated / "plain", tiny_run) == weights(isolated / "measured", tiny_run)
    plain, curve = (RunDir(isolated / name, tiny_run.run_id).curve() for name in ("plain", "measured"))
    assert curve[plain.columns].equals(plain)
    assert (np.flatnonzero(curve.grad_var.notna()) + 1).tolist() == list(range(3, 31, 3))


def test_what_was_measured_is_kept_by_a_resume(tiny_run, isolated):
    spec = replace(tiny_run, noise_scale_every=2)
    run(spec, isolated / "whole")
    for after in (3, 8):
        stopped(spec, isolated / "parts", after)
    run(spec, isolated / "parts")
    assert outcome(isolated / "parts", spec) == outcome(isolated / "whole", spec)
    results = [RunDir(isolated / name, spec.run_id).result() for name in ("whole", "parts")]
    assert results[0]["noise_scale"] == results[1]["noise_scale"] > 0
    smooth = RunDir(isolated / "whole", spec.run_id).curve()[["grad_sq", "grad_var"]].dropna()
    share = 0.9 ** np.arange(len(smooth))[::-1]
    assert results[0]["noise_scale"] == pytest.approx(share @ smooth.grad_var / (share @ smooth.grad_sq))


def test_a_ramp_says_from_which_step_its_batches_are_beyond_the_scale(tiny_run, isolated):
    scale = trainer(replace(tiny_run, noise_scale_every=1), isolated, 4).noise

    def see(step, tokens, variance):
        scale._small = 1 + variance / 50, 1 / 50  # |G|^2 is one
        scale.take(math.sqrt(1 + variance / tokens), tokens, step)

    for step, tokens in enumerate((100, 150, 2000, 4000), start=1):
        see(step, tokens, 200.0)
    assert scale.value == pytest.approx(200)
    assert scale.beyond == 3
    see(5, 4000, 1e6)
    assert scale.beyond is None, "the scale has outgrown the batch"


# ---------------------------------------------------------------------------------------------------------------- ranks


def _train(rank, size, address, root, spec, layout=None, stop_after=None):
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        return runs.run(spec, EVALS, Path(root), mesh=here, stop=stop, checkpoint_seconds=1000.0)


@pytest.mark.soak
def test_ranks_measure_their_shares_of_the_batch(tales, isolated):
    spec = replace(make_spec(tales, n_layer=2, steps=3), noise_scale_every=1)
    here = trainer(spec, isolated / "alone", 4)
    square, variance = expected(gradients(here), [[0, 2], [1, 3]])  # a rank takes every second row
    plain = replace(spec, noise_scale_every=0)
    cut = Layout(data=2, tensor=2, micro_batch=1)
    ranks.run(_train, 2, str(isolated / "plain"), plain)
    ranks.run(_train, 2, str(isolated / "two"), spec)
    ranks.run(_train, 4, str(isolated / "four"), spec, cut)
    for name in ("two", "four"):
        first = RunDir(isolated / name, spec.run_id).curve().iloc[0]
        assert first.grad_var == pytest.approx(variance, rel=2e-4)
        assert first.grad_sq == pytest.approx(square, abs=2e-5 * variance)
    assert weights(isolated / "two", spec) == weights(isolated / "plain", plain)


@pytest.mark.parametrize(
    "layout", [Layout(data=2, shard=2), Layout(tensor=2), Layout(data=2, context=2), Layout(pipeline=2)]
)
def test_where_no_rank_has_a_gradient_of_its_own_it_is_refused(layout, tiny_run, isolated):
    problem = noise_scale_problem(layout, 4)
    assert "leave it out" in problem
    here = mesh.Mesh(layout=layout)
    with pytest.raises(ValueError, match="noise_scale_every=5: it needs replicas"):
        runs.run(replace(tiny_run, noise_scale_every=5), EVALS, isolated, mesh=here)
    assert noise_scale_problem(Layout(data=2, tensor=2), 4) == noise_scale_problem(Layout(), 4) == ""
    assert "one sequence" in noise_scale_problem(Layout(), 1)
