"""The shapes of a compute multiplier: what each is exact for, and the derivatives behind its interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import laws
from analysis.estimation import multiplier, shift
from analysis.estimation.compare import compare
from analysis.output import comparison
from dashboards.figures.comparison import multipliers
from tests.analysis.test_compare import CLEAN, compared
from tests.benchmarks.compare_truth import ladders


@pytest.mark.parametrize(("paired", "floor"), [(True, 0.1), (False, -0.05)])
def test_another_irreducible_loss_gives_the_multiplier_that_it_is_worth(paired, floor):
    """Worth 2 to 3 times the compute on the ladder and 5 a decade beyond, where a bend in ln C says 4.5."""
    scenario = replace(CLEAN, multiplier=1.0, floor=floor, paired=paired)
    found = compared(scenario)
    assert found.shapes["floor"] > 0.99
    for at in (*found.at, *found.beyond):
        assert np.log(at.value) == pytest.approx(scenario.ln_m(np.array([at.compute]))[0], abs=2e-3)


@pytest.mark.parametrize("shape", shift.SHAPES)
def test_derivatives_are_differences(shape):
    a, b = ladders(replace(CLEAN, noise=0.002), 0)
    found = multiplier.fit(a, b, None, laws.CHINCHILLA)
    (i,) = (i for i, model in enumerate(found.models) if model.shape == shape)
    points = multiplier.points_of(pd.concat([a, b]), np.repeat([0.0, 1.0], [len(a), len(b)]), np.ones(len(a) + len(b)))
    at, compute = found.estimates[i].parameters, np.array([1e19, 1e22])
    at[-3:] += [0.1, 0.2, 0.05]
    jacobian = found.models[i].evaluate(at, points)[1]
    by = found.gradient(i, compute)[1]
    for j, step in enumerate(np.eye(len(at)) * 1e-5):
        up, down = (found.models[i].evaluate(at + sign * step, points)[0] for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, j], (up - down) / 2e-5, rtol=1e-3, atol=1e-6)
    for j, step in enumerate(np.eye(3) * 1e-4, len(at) - 3):
        ln_m = []
        for sign in (1, -1):
            at[-3:] += sign * step
            ln_m.append(found.gradient(i, compute)[0])
            at[-3:] -= sign * step
        np.testing.assert_allclose(by[:, j - len(at)], (ln_m[0] - ln_m[1]) / 2e-4, rtol=0.02, atol=1e-3)


def test_a_loss_below_what_the_other_can_reach_is_worth_no_number():
    """E of 1.5 for 1.69: from 1.2e24 on B's best loss is below A's irreducible one."""
    targets = [1e22, 1e23, 1e25, 1e26]
    found = compared(replace(CLEAN, multiplier=1.0, floor=0.19, noise=0.002, budgets=6), target_compute=targets)
    assert all(np.isfinite(m.value) for m in (*found.at, found.beyond[0]))
    never = found.beyond[-1]
    assert never.value == never.interval[1] == np.inf
    tops = [m.interval[1] for m in (*found.at, *found.beyond)]
    assert tops == sorted(tops)
    note = next(note for note in comparison.notes(found) if note.code == "out-of-reach")
    assert "1e+26 A reaches the loss of B at no compute" in note.message
    entry = comparison.to_json([found])["comparisons"][0]["beyond"][-1]
    assert (entry["value"], entry["interval95"][1], entry["never"]) == (None, None, True)
    page = multipliers([found])
    assert np.all(np.isfinite(page.figure.layout.yaxis.range)) and note.message in page.about
    assert page.figure.data[0].marker.symbol[-1] == "triangle-up-open"


def test_what_is_resolved_is_told_on_the_scale_of_multipliers():
    a, b = ladders(replace(CLEAN, multiplier=1.0, floor=0.1, noise=0.002), 0)
    found = multiplier.fit(a, b, None, laws.CHINCHILLA)
    assert found.models[found.best].shape == shift.FLOOR
    ln_m = np.array([-1.0, 0.0, 0.5, 20.0])
    np.testing.assert_allclose(found.unbent(found._bent(ln_m)[found.best]), ln_m, atol=1e-9)
    assert np.isinf(found.unbent(np.array([100.0])))


def test_ladders_that_never_meet_are_still_drawn():
    """As bits a byte beside nats a token: every multiplier is infinite, its interval's low end too."""
    a, b = ladders(replace(CLEAN, multiplier=1.0, floor=0.0, noise=0.002, budgets=6), 0)
    found = compare(a, b.assign(loss=0.3 * b.loss))
    assert all(np.isinf(m.interval[0]) for m in (*found.at, *found.beyond))
    drawn = multipliers([found]).figure
    assert np.all(np.isfinite(drawn.layout.yaxis.range)) and np.all(np.isnan(drawn.data[0].y))


def test_a_floor_that_is_only_possible_is_not_said_to_be():
    """A drop of the floor by .05 in runs that scatter by 2%: the high end is infinite by a share of the weight."""
    found = compared(replace(CLEAN, multiplier=1.0, floor=0.05, noise=0.02), seed=3, target_compute=[1e27])
    assert np.isfinite(found.beyond[0].value) and np.isinf(found.beyond[0].interval[1])
    (note,) = (note for note in comparison.notes(found) if note.code == "out-of-reach")
    assert note.message.startswith(f"{found.shapes['floor']:.0%} of the weight is of laws by which B's irreducible")
