"""Which running runs may be pruned, on a simulated ladder whose whole sweep is known."""

import numpy as np
import pandas as pd
import pytest

from analysis.estimation import pruning
from analysis.estimation.curve_forecast import Curve, forecast_held_out
from tests.benchmarks import curve_forecast as routing

SHARE = 0.3
CELLS = ["run_id", "N", "D", "C", "U", "budget_flops"]


def ladder(seed=0, budgets=5, span=10.0, ratio=1.9, noise=0.001):
    """L = 1.7 + 400/N^.34 + 410/D^.28, sizes up to ``span`` on both sides of each budget's best."""
    rng, rows = np.random.default_rng(seed), []
    for c in np.geomspace(1e18, 1e20, budgets):
        best = (0.34 * 400 / (0.28 * 410)) ** (1 / 0.62) * (c / 6) ** (0.28 / 0.62)
        side = int(np.log(span) / np.log(ratio))
        for step in range(-side, side + 1):
            n = best * ratio ** (step + 0.2)
            d = c / 6 / n
            loss = (1.7 + 400 / n**0.34 + 410 / d**0.28) * np.exp(noise * rng.standard_normal())
            rows.append({"N": n, "D": d, "C": c, "U": d, "budget_flops": c, "off": abs(step + 0.2), "loss": loss})
    table = pd.DataFrame(rows)
    table.insert(0, "run_id", [f"r{i:03d}" for i in range(len(table))])
    return table


def forecasts(table, half=0.004, pruned=()):
    ends = {"low": table.loss * np.exp(-half), "middle": table.loss, "high": table.loss * np.exp(half)}
    return table[CELLS].assign(**ends, pruned=table.run_id.isin(list(pruned)))


def asked(table, under_way, waiting=(), share=SHARE, pruned=(), half=0.004):
    others = {*under_way, *waiting, *pruned}
    return pruning.prune(
        table[~table.run_id.isin(others)].drop(columns="off"),
        table[table.run_id.isin(list(waiting))][CELLS],
        forecasts(table[table.run_id.isin([*under_way, *pruned])], half, pruned),
        compute=1e21,
        share=share,
    )


@pytest.fixture(scope="module")
def table():
    return ladder()


@pytest.fixture(scope="module")
def top(table):
    """Of the highest budget: two of the farthest sizes, and the two nearest to the minimum."""
    ordered = table[table.budget_flops == table.budget_flops.max()].sort_values("off").run_id
    return [*ordered[:2], *ordered[-2:]]


@pytest.fixture(scope="module")
def verdict(table, top):
    return asked(table, top)


def test_far_runs_of_the_highest_budget_may_go_and_those_near_its_minimum_never(verdict, top):
    stopped = {p.run_id for p in verdict.stop}
    assert verdict.reason == ""
    assert stopped
    assert stopped <= set(top[2:])


def test_the_figures_are_within_the_share(verdict):
    for p in verdict.stop:
        assert 0 <= p.loss_change <= SHARE * p.loss_width
        assert 0 <= p.n_star_change <= SHARE * p.n_star_width
        assert p.low < p.middle < p.high


@pytest.mark.soak
def test_the_same_runs_in_any_order_give_the_same_verdict(table, top, verdict):
    assert asked(table.sample(frac=1.0, random_state=1), top) == verdict


def test_what_was_pruned_before_counts_with_what_is_pruned_now(table, top, verdict):
    """A share that one run spends is not there for the next."""
    first = verdict.stop[0]
    spent = first.loss_change / first.loss_width, first.n_star_change / first.n_star_width
    share = 1.02 * max(spent)
    others = [run_id for run_id in top if run_id != first.run_id]
    again = asked(table, others, share=share, pruned=[first.run_id])
    assert first.run_id not in {p.run_id for p in again.stop}
    for p in again.stop:
        assert p.loss_change <= share * p.loss_width
        assert p.n_star_change <= share * p.n_star_width


def test_a_forecast_that_tells_nothing_prunes_nothing(table, top):
    assert asked(table, top, half=0.5).stop == []


def test_too_few_runs_are_no_law(table, top):
    few = table[table.run_id.isin([*top, *table.run_id[: pruning.LEAST_FINISHED - 1]])]
    found = asked(few, top)
    assert found.stop == []
    assert "are needed for a law" in found.reason


def test_runs_along_one_line_tell_no_target():
    rows = [{"N": n, "D": 20 * n, "C": 120 * n * n, "U": 20 * n} for n in np.geomspace(1e7, 1e9, 16)]
    line = pd.DataFrame(rows).assign(loss=lambda t: 1.7 + 400 / t.N**0.34 + 410 / t.D**0.28)
    line.insert(0, "run_id", [f"r{i:02d}" for i in range(16)])
    cells = [name for name in CELLS if name != "budget_flops"]
    under_way = line[cells].iloc[5:6].assign(low=4.0, middle=4.1, high=4.2, pruned=False)
    found = pruning.prune(line.drop(index=5), line[cells].iloc[:0], under_way, compute=1e21, share=1.0)
    assert found.stop == []


# ----------------------------------------------------------------------------------------------------------- forecasts


def test_held_out_losses_are_forecast_from_curves_of_another_text():
    """Curves on C4 of Clark et al. 2022's routing runs, whose validation losses lie lower, and not all by as much."""
    training = routing.load("loss_c4")
    held_out = {run: loss for run, _, loss in routing.load("loss_validation")}
    known = [(curve, held_out[run]) for run, curve, _ in training[::2]][:40]
    covered, misses, apart = [], [], []
    for run, curve, last in training[1::2][:40]:
        low, middle, high = forecast_held_out(curve.until(0.5), known)
        covered.append(low <= held_out[run] <= high)
        misses.append(abs(middle / held_out[run] - 1))
        apart.append(abs(last / held_out[run] - 1))
    assert np.mean(covered) >= 0.9
    assert np.median(misses) < 0.25 * np.median(apart)


def test_a_curve_and_its_held_out_loss_by_hand():
    """All gaps are 2%: the forecast of the training loss is shifted by just that."""
    steps = np.arange(10.0, 101.0, 10)
    curves = [Curve(steps=steps, loss=3.0 + 0.1 * k + 5 / steps, lr=np.full(100, 0.1), cost=1e3 * k) for k in range(12)]
    low, middle, high = forecast_held_out(curves[5].until(0.6), [(c, float(c.loss[-1] * 1.02)) for c in curves])
    assert middle == pytest.approx(curves[5].loss[-1] * 1.02, rel=2e-3)
    assert low < middle < high
