"""Approach 1 on simulated training curves whose law is known in closed form, and in stores that hold odd ones.

A curve follows Tissue et al. 2024 (arXiv 2408.11029): L = E + A/N^alpha + B/S1^beta + G (1 - S2/S2_end), S1 the sum of
the learning rates and S2 the area that the schedule's fall has covered. Runs of one shape of schedule have S1 in
proportion to D, so that their ends follow L(N, D) exactly and a = beta/(alpha + beta); the middle of a run lies above.
"""

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation import training_curves
from analysis.estimation.approaches import CURVES
from analysis.runs import conventions, selection, store
from analysis.runs import curves as reading
from analysis.runs.curves import BINS, FROM, PROGRESS, TrainingCurve, TrainingCurves
from analysis.runs.ratio import per_6nd, tokens
from analysis.settings import RunSettings
from gpt3core import costs
from gpt3core.schedule import learning_rate
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store, true_loss

ALPHA, BETA = 0.34, 0.28
A_OPT = BETA / (ALPHA + BETA)
STEPS, WARM_UP = 1000, 0.1


def cosine(share, end=0.1):
    fall = np.clip((share - WARM_UP) / (1 - WARM_UP), 0, 1)
    return np.minimum(share / WARM_UP, 1) * (end + (1 - end) * 0.5 * (1 + np.cos(np.pi * fall)))


def annealing(rate, memory=0.998):
    """S1 and S2 of every step, both one at the end; a warm-up anneals nothing."""
    fallen, area = 0.0, []
    for before, now in zip([rate[0], *rate[:-1]], rate, strict=True):
        fallen = memory * fallen + max(before - now, 0.0)
        area.append(fallen)
    s1, s2 = np.cumsum(rate), np.cumsum(area)
    return s1 / s1[-1], s2 / s2[-1]


def curve(n, d, c, rng, *, noise=0.0, batch=0.0, gain=0.35, rates=None):
    share = np.arange(1, STEPS + 1) / STEPS
    rate = cosine(share) if rates is None else rates(share)
    s1, s2 = annealing(rate) if rates is None else (np.cumsum(rate) / rate.sum(), np.ones(STEPS))
    loss = 1.7 + 400 / n**ALPHA + 410 / (d * s1) ** BETA + gain * (1 - s2)
    level = np.exp(noise * rng.standard_normal())
    y = np.log(loss * level) + batch * rng.standard_normal(STEPS)
    kept = share >= FROM
    at = np.clip((BINS * (1 - np.log(share[kept]) / np.log(FROM))).astype(int), 0, BINS - 1)
    count = np.bincount(at, minlength=BINS)
    full = count > 0
    return TrainingCurve(
        run_id=f"{n:.6g}-{d:.6g}",
        n=n,
        d=d,
        c=c,
        loss=float(loss[-1] * level),
        progress=np.exp(np.bincount(at, np.log(share[kept]))[full] / count[full]),
        ln_loss=np.bincount(at, y[kept])[full] / count[full],
        steps=count[full].astype(float),
        rate=np.interp(PROGRESS, share, rate) / rate.max(),
    )


def best(c):
    return (ALPHA * 400 / (BETA * 410)) ** (1 / (ALPHA + BETA)) * (c / 6) ** A_OPT


def ladder(seed=0, budgets=5, decades=2.0, ratio=1.6, span=4.0, **kinds):
    rng = np.random.default_rng(seed)
    at = 1e18 * 10 ** np.linspace(0, decades, budgets)
    sizes = best(at[0]) / span * ratio ** np.arange(90)
    cells = [(n, c) for c in at for n in sizes if best(c) / span <= n <= best(c) * span]
    found = [curve(n, c / 6 / n, c, rng, **kinds) for n, c in cells]
    return TrainingCurves(found=found, repeated=[], without=[])


def as_table(curves):
    return pd.DataFrame([{"run_id": c.run_id, "N": c.n, "D": c.d, "C": c.c, "loss": c.loss} for c in curves.found])


# --------------------------------------------------------------------------------------------------------- known laws


def test_the_exponents_of_a_known_law_are_found():
    found = training_curves.envelope_of(ladder())
    assert found.reason == ""
    assert found.a == pytest.approx(A_OPT, abs=0.01)
    assert found.b == pytest.approx(1 - A_OPT, abs=0.01)
    n = found.k * 1e19**found.a
    assert n == pytest.approx(best(1e19), rel=0.1)
    assert found.pairs >= training_curves.PAIRS_FOR_ALL


def test_the_lowest_size_as_it_was_trained_is_biased_where_the_correction_is_not(monkeypatch):
    """Three budgets: within each the middle of the runs favours other sizes than their ends."""
    curves = ladder(budgets=3, decades=1.0)
    found = abs(training_curves.envelope_of(curves).a - A_OPT)
    monkeypatch.setattr(training_curves, "_at_the_end", lambda cells, kept: (cells.ln_loss, 0 * cells.ln_loss))
    as_trained = abs(training_curves.envelope_of(curves).a - A_OPT)
    assert found < 0.01
    assert as_trained > 1.8 * found


@pytest.mark.soak
def test_the_interval_covers_what_noise_leaves_open():
    """Of 30 ladders of noisy runs and batches, 95% intervals cover a."""
    covered, widths = 0, []
    for seed in range(30):
        found = training_curves.envelope_of(ladder(seed, budgets=4, decades=1.5, noise=0.003, batch=0.02))
        covered += found.interval_a[0] <= A_OPT <= found.interval_a[1]
        widths.append(found.interval_a[1] - found.interval_a[0])
    assert covered >= 26
    assert np.median(widths) < 0.3, "the estimates of such ladders have a standard deviation of 0.05"


def test_a_constant_rate_needs_no_correction():
    found = training_curves.envelope_of(ladder(gain=0.0, rates=lambda share: np.ones_like(share)))
    assert found.a == pytest.approx(A_OPT, abs=0.01)
    assert found.correction < 1e-6


def test_without_runs_of_one_size_and_two_lengths_only_the_ends_are_read():
    rng = np.random.default_rng(0)
    at = np.geomspace(1e18, 1e20, 5)
    cells = [(best(c) * f * (1 + 0.01 * i), c) for i, c in enumerate(at) for f in np.geomspace(0.25, 4, 7)]
    curves = TrainingCurves(found=[curve(n, c / 6 / n, c, rng) for n, c in cells], repeated=[], without=[])
    found = training_curves.envelope_of(curves)
    assert found.pairs == 0
    assert found.correction == 0.0
    assert found.a == pytest.approx(A_OPT, abs=0.02)


def test_the_order_of_runs_changes_nothing():
    curves = ladder(noise=0.003, batch=0.02)
    turned = TrainingCurves(found=curves.found[::-1], repeated=[], without=[])
    a, b = training_curves.envelope_of(curves), training_curves.envelope_of(turned)
    assert (a.a, a.interval_a) == (b.a, b.interval_a)


def test_a_budget_is_foreseen_by_the_runs_below_it_alone():
    curves = ladder()
    top = max(c.c for c in curves.found)
    lower = training_curves.below(curves, top / 2)
    assert {c.c for c in lower.found} == {c.c for c in curves.found} - {top}
    assert training_curves.foreseen(lower, top) == pytest.approx(best(top), rel=0.1)


# --------------------------------------------------------------------------------------------------- too little to say


def test_one_size_has_no_best_size():
    rng = np.random.default_rng(0)
    found = [curve(1e7, d, 6e7 * d, rng) for d in np.geomspace(1e9, 1e11, 8)]
    assert (
        "0 sizes are lowest" in training_curves.envelope_of(TrainingCurves(found=found, repeated=[], without=[])).reason
    )


def test_one_budget_of_too_few_runs_is_no_envelope():
    found = training_curves.envelope_of(ladder(budgets=1, ratio=2.0, span=2.0))
    assert "are needed" in found.reason
    assert np.isnan(found.a)


# -------------------------------------------------------------------------------------------------------------- stores


def written(root, *, odd=()):
    """The laptop's sweep as finished runs with whole curves of a known law, in two attempts where the id is odd."""
    ids = make_store(root, evals=False, noise=0.001)
    rng = np.random.default_rng(1)
    for run_id in ids:
        folder = RunDir(root, run_id)
        spec = folder.spec()
        n = costs.params(spec.model).nonembedding
        step = np.arange(1, spec.steps + 1)
        rate = np.array([learning_rate(spec.optim, int(s - 1)) for s in step])
        s1, s2 = annealing(rate)
        loss = true_loss(n, spec.tokens * s1) + 0.2 * (1 - s2) + 0.05 * rng.standard_normal(spec.steps)
        for part in (folder.path / "attempt-001" / "metrics").iterdir():
            part.unlink()
        half = spec.steps // 2 if run_id in odd else spec.steps
        rows = {"step": step, "tokens": step * spec.optim.batch_tokens, "loss": loss}
        first = {name: list(values[: half + 20]) for name, values in rows.items()}
        if half < spec.steps:
            first["loss"][-20:] = [99.0] * 20  # an attempt that was killed: what it did beyond its checkpoint is redone
        folder.write_metrics(folder.attempts()[0], first)
        if half < spec.steps:
            folder.write_metrics(folder.new_attempt(), {name: list(values[half:]) for name, values in rows.items()})
    return ids


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("curves") / "root"
    return root, written(root)


def points(root):
    table = store.load(root).table
    return conventions.points(table, conventions.chosen(table, None, None))


def exponent(table, compute):
    """Of the sizes that the store's law puts lowest at the runs' own FLOPs a token, which their heads add to."""
    ln_n, cost, at = np.linspace(np.log(1e3), np.log(3e6), 3001), per_6nd(table), np.geomspace(*compute, 9)
    best_n = [ln_n[true_loss(np.exp(ln_n), tokens(cost, ln_n, c)).argmin()] for c in at]
    return np.polyfit(np.log(at), best_n, 1)[0]


def test_a_store_shows_approach_1_beside_the_others(stored):
    study = api.fit(stored[0], bootstrap=10)
    found = study.training_curves
    assert len(found.runs) == len(stored[1])
    assert found.a == pytest.approx(exponent(study.table, found.compute), abs=0.06)
    from analysis.output import documents, text

    entry = documents.to_json(study)["laws"]["training_curves"]
    assert entry["params"]["a"] == found.a
    assert entry["interval95"]["a"] == found.interval_a
    (row,) = [row.words for row in text.optimum(study).rows if row.words[0].startswith(CURVES)]
    assert f"{found.a:.3g}" in row
    (note,) = [n.message for n in study.notes if n.code == "training-curves"]
    assert f"{len(found.runs)} runs" in note
    assert f"{found.pairs} pairs" in note


@pytest.mark.soak
def test_a_store_of_too_few_curves_says_so_in_the_place_of_the_numbers(simulated):
    study = api.fit(simulated, bootstrap=10)
    assert "0 points of N and D have a training curve" in study.training_curves.reason
    from analysis.output import documents, text

    assert documents.to_json(study)["laws"]["training_curves"]["status"] == "too few runs"
    (row,) = [row.words for row in text.optimum(study).rows if row.words[0] == CURVES]
    assert row[1:] == ["-", "-", "-", study.training_curves.reason]
    assert CURVES not in study.advice.misses


def test_a_table_has_no_curves():
    study = api.fit(as_table(ladder()).drop(columns="run_id"), bootstrap=10)
    assert study.training_curves is None
    from analysis.output import documents, text

    assert "training_curves" not in documents.to_json(study)["laws"]
    assert not any(row.words[0].startswith(CURVES) for row in text.optimum(study).rows)


def test_resumed_runs_count_by_their_latest_attempts(stored, tmp_path):
    table = points(stored[0])
    ids = written(tmp_path / "root", odd=stored[1][::2])
    whole, resumed = (reading.read(root, table) for root in (stored[0], tmp_path / "root"))
    assert [c.run_id for c in resumed.found] == ids
    for a, b in zip(whole.found, resumed.found, strict=True):
        assert a.ln_loss == pytest.approx(b.ln_loss, abs=1e-12)


def test_runs_without_a_curve_and_runs_of_repeated_text_stay_out_and_are_named(stored, tmp_path):
    ids = written(tmp_path / "root")
    for part in (tmp_path / "root" / "runs" / ids[0] / "attempt-001" / "metrics").iterdir():
        part.unlink()
    for part in (tmp_path / "root" / "runs" / ids[1] / "attempt-001" / "metrics").iterdir():
        part.write_bytes(b"PAR1 torn")
    table = points(stored[0])
    table.loc[table.run_id == ids[2], "epochs"] = 1.5
    found = reading.read(tmp_path / "root", table)
    assert found.without == ids[:2]
    assert found.repeated == [ids[2]]
    assert len(found.found) == len(ids) - 3
    assert training_curves.envelope_of(found).reason == ""


def test_diverged_runs_stay_out(stored, tmp_path):
    ids = written(tmp_path / "root")
    path = RunDir(tmp_path / "root", ids[3]).path / "result.json"
    path.write_text(path.read_text().replace('"done"', '"diverged"'))
    chosen = selection.select(RunSettings(runs=str(tmp_path / "root")))
    found = reading.read(tmp_path / "root", chosen.table)
    assert [c.run_id for c in found.found] == [i for i in ids if i != ids[3]]


def test_the_rates_read_are_those_of_the_whole_schedule(stored):
    run_id = stored[1][0]
    whole, _ = store.schedule(stored[0], run_id)
    tokens, rates = store.rates(stored[0], run_id, np.arange(1, len(whole) + 1) / len(whole))
    assert tokens == RunDir(stored[0], run_id).spec().tokens
    assert rates == pytest.approx(whole / whole.max())
