"""The analysis of a whole sweep, on simulated sweeps whose law is known."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit, laws
from analysis.accuracy.trends import trends
from analysis.estimation import isoflop, solve, unfinished
from analysis.output import documents, text
from analysis.output.answer import answer
from analysis.output.receipt import receipt
from analysis.runs import conventions, rules
from analysis.runs import store as runs
from analysis.runs.conventions import Compute, Convention, Parameters
from analysis.runs.selection import chosen
from analysis.settings import FitSettings
from analysis.study import Options
from gpt3core.errors import StoreError, UsageError
from gpt3core.schedule import learning_rate
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store, true_loss
from tests.analysis.test_laws_and_solver import ladder
from tests.commands import called

pytestmark = pytest.mark.xdist_group("study")


@pytest.fixture
def store(isolated, simulated):
    return shutil.copytree(simulated, isolated / "root")


def test_the_tidy_table_is_designs(store):
    table = runs.load(store).table
    design = (
        "run_id, sweep, status, n_layer, d_model, n_head, d_head, n_ctx, attention, vocab, params_total, "
        "params_nonembedding, tokens, "
        "flops_6nd, flops_model, pf_days, batch_tokens, lr, seed, schedule, parent, loss, loss_se, bits_per_byte, "
        "gpu_hours, cost, "
        "tokens_per_second, mfu, attempts"
    )
    assert list(table.columns)[:29] == design.split(", ")
    assert list(table.run_id) == sorted(table.run_id)


def test_minima_are_where_the_true_law_has_them(isolated):
    make_store(isolated / "root")
    found = api.fit(isolated / "root", bootstrap=50)
    table = found.table
    for parabola, implied in zip(found.minima.parabolas, found.implied, strict=True):
        if not parabola.ok:
            continue
        group = table[table.run_id.isin(parabola.run_ids)].sort_values("N")
        sizes = np.geomspace(group.N.min(), group.N.max(), 2000)
        tokens = np.exp(np.interp(np.log(sizes), np.log(group.N), np.log(group.D)))
        losses = true_loss(sizes, tokens)
        assert parabola.loss_star == pytest.approx(losses.min(), rel=0.01)
        best = int(losses.argmin())
        assert parabola.n_star == pytest.approx(sizes[best], rel=0.2), "a parabola through a curve that is not one"
        assert parabola.d_star == pytest.approx(tokens[best], rel=0.2)
        assert implied.n_star == pytest.approx(sizes[best], rel=0.15), "D(N) of exact FLOPs is a line only roughly"
    assert len(found.minima.used) >= 3


def test_a_parabola_is_found_exactly_and_refused_where_there_is_no_minimum():
    x = np.log(np.array([1e4, 2e4, 4e4, 8e4]))
    table = pd.DataFrame({"run_id": list("abcd"), "N": np.exp(x), "D": 1e12 / (6 * np.exp(x)), "C": 1e12})
    exact = isoflop.parabola(isoflop.Runs.of(table.assign(loss=np.exp(1.0 + 0.05 * (x - np.log(3e4)) ** 2))))
    assert exact.n_star == pytest.approx(3e4)
    assert exact.d_star == pytest.approx(1e12 / (6 * 3e4))
    assert exact.loss_star == pytest.approx(np.e)
    falling = isoflop.parabola(isoflop.Runs.of(table.assign(loss=np.exp(1.0 + 0.001 * (x - np.log(1e9)) ** 2))))
    assert not falling.ok
    assert "above the sizes" in falling.reason
    arch = isoflop.parabola(isoflop.Runs.of(table.assign(loss=np.exp(1.0 - 0.001 * (x - np.log(3e4)) ** 2))))
    assert not arch.ok
    assert "downwards" in arch.reason


def test_rules_take_runs_out_by_name_and_list_them(store):
    table = conventions.points(runs.load(store).table, Convention(n=Parameters.NONEMBEDDING, c=Compute.EXACT))
    names = list(table.run_id)
    table.loc[0, "loss"] = np.nan
    table.loc[1, "D"] = 1000
    table.loc[2, "epochs"] = 90.0
    table.loc[3, "loss"] *= 1.5  # the largest size at the largest budget has smaller ones below it
    table.loc[3, ["N", "D"]] = table[["N", "D"]].max() * 2
    table.loc[4, "N"] = table.D[4] * 2
    table.loc[6, "status"] = "stopped early"
    kept, applied = rules.apply(table, min_tokens=4e5, exclude=[names[5]])
    assert {rule.name: rule.excluded for rule in applied} == {
        "excluded": [names[5]],
        "diverged": [names[0]],
        "stopped-early": [names[6]],
        "repeated-data": [names[2]],
        "not-best-tuned": [],
        "worse-than-smaller": [names[3]],
        "short-run": [names[1]],
        "under-trained": [],
    }
    assert len(kept) == len(table) - 6
    _, without_floor = rules.apply(table)
    assert names[4] in {rule.name: rule.excluded for rule in without_floor}["under-trained"]


def test_rising_accuracy_is_a_trend_and_chance_is_not(studied):
    found = {(t.task, t.shots): t for t in studied.trends}
    assert found["rising", 0].verdict == "rises"
    assert found["rising", 0].slope == pytest.approx(
        np.log(10) / np.log(10), abs=0.4
    )  # logit slope 1 a decade in the simulation
    assert found["guessing", 0].verdict == "at chance"
    assert found["guessing", 0].slope is None
    assert found["rising", 16].verdict == "not measured"


@pytest.mark.soak
def test_pure_noise_is_called_a_trend_no_more_often_than_it_says():
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(100):
        rows = pd.DataFrame(
            {
                "run_id": [f"r{i}" for i in range(26)],
                "task": "t",
                "shots": 0,
                "items": 200,
                "fits": True,
                "metric": "choice",
            }
        )
        rows = rows.assign(accuracy=rng.binomial(200, 0.5, 26) / 200, logprob=-1.0, chance=0.25, prior_accuracy=0.25)
        table = pd.DataFrame({"run_id": rows.run_id, "C": np.geomspace(1e11, 1e13, 26), "loss": 4.0})
        (trend,) = trends(rows, table)
        false += trend.verdict in ("rises", "falls")
        assert trend.verdict != "at chance", "half right is far above a quarter"
    assert false <= 5


@pytest.mark.soak
def test_the_same_runs_give_the_same_bytes(store, isolated):
    """Once in a process of its own, once in this one."""
    words = [f"runs={store}", "bootstrap=50", "figures=false"]
    process = [sys.executable, "-m", "analysis.fit", *words, f"out={isolated / 'a'}"]
    subprocess.run(process, check=True, capture_output=True)
    assert called(fit.main, [*words, f"out={isolated / 'b'}"], isolated).returncode == 0
    for name in ("runs.parquet", "bootstrap.parquet", "law.md"):
        assert (isolated / "a" / name).read_bytes() == (isolated / "b" / name).read_bytes(), name
    document, second = (json.loads((isolated / out / "fit.json").read_text()) for out in ("a", "b"))
    assert second["receipt"].pop("made") >= document["receipt"].pop("made")
    assert document == second
    assert {"laws", "predictions", "backtest", "notes", "receipt"} <= set(document)
    assert set(document["laws"]["chinchilla"]["params"]) == {"E", "A", "B", "alpha", "beta"}
    (prediction,) = document["predictions"]
    assert prediction["decades_beyond_data"] == pytest.approx(1.0)
    low, high = prediction["interval95_new_run"]
    assert low < prediction["loss"] < high


def test_a_result_that_changes_changes_the_receipt(store):
    loaded = runs.load(store)
    table = loaded.table.copy()
    table.loc[0, "loss"] += 1e-12
    before, after, again = (
        receipt(chosen(found, FitSettings()), Options())["data_sha256"]
        for found in (loaded, replace(loaded, table=table), runs.load(store))
    )
    assert before == again
    assert before != after


@pytest.mark.parametrize("keep", [0, 1, 3, 5])
def test_few_runs_give_statuses_and_notes_and_no_crash(isolated, keep):
    root = isolated / "root"
    for run_id in make_store(root)[keep:]:
        (RunDir(root, run_id).path / "result.json").unlink()
    if keep == 0:
        with pytest.raises(StoreError, match="no finished run yet"):
            runs.load(root)
        return
    found = api.fit(root, bootstrap=50)
    assert found.laws["compute_frontier"].fit.status.value == "too few runs"
    assert any(note.code == "unfinished" for note in found.notes)
    json.dumps(documents.to_json(found), allow_nan=False)
    text.to_markdown(found)


@pytest.mark.parametrize("left", [0, 3])
def test_runs_of_which_rules_leave_none_are_a_sentence_and_few_are_statuses(store, left):
    out = sorted(runs.load(store).table.run_id)[left:]
    if left == 0:
        with pytest.raises(UsageError, match=rf"{len(out)} runs, 0 of them usable .{len(out)} excluded."):
            api.fit(store, exclude=out, bootstrap=5)
        return
    found = api.fit(store, exclude=out, bootstrap=2)
    assert len(found.table) == left
    assert found.laws["chinchilla"].fit.status.value == "too few runs"
    lines = dict(answer(found))
    assert lines["weakest"].startswith("nothing can be predicted")
    assert lines["weakest"].endswith(f"could be fitted to {left} runs: 6 are the least")


def test_runs_that_one_law_alone_speaks_of_are_fitted_by_it():
    """Ten epochs of everything: none of it is left for the laws of fresh text."""
    data, loss = ladder(noise=0.003, runs=12)
    found = api.fit(pd.DataFrame({"N": data["N"], "D": data["D"], "loss": loss, "epochs": 10.0}), bootstrap=2)
    statuses = {name: law.fit.status.value for name, law in found.laws.items()}
    assert statuses["chinchilla"] == "too few runs"
    assert statuses["data_constrained"] not in ("too few runs", "not applicable")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runs=/nowhere"], "holds no isoflop store"),
        (["sweep=other"], "no sweep 'other'; there are laptop"),
        (["N=embedding"], "allowed are nonembedding, total, given"),
        (["bootstrp=5"], "did you mean bootstrap"),
        (["target_compute=[-1]"], "FLOPs, positive"),
        (["bootstrap=0"], "must be positive"),
        (["columns.N=params"], "columns.N: a store's runs name their columns themselves"),
        (["loss_function=least_squares", "delta=0.1"], "delta=0.1: least squares turn nowhere"),
        (["min_tokens=-1"], "tokens, zero or more"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(store, words, sentence):
    done = called(fit.main, words, store)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_bad_input_ends_a_process_alike(isolated):
    done = subprocess.run([sys.executable, "-m", "analysis.fit", "runs=/nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == called(fit.main, ["runs=/nowhere"], isolated).stderr


@pytest.mark.soak
def test_an_interval_of_a_new_run_is_never_narrower_than_that_of_the_mean(store):
    for prediction in api.fit(store, bootstrap=50, target_compute=(1e14, 1e17, 1e22)).predictions:
        assert prediction.interval_new_run is not None
        new, mean = (np.diff(np.log(i))[0] for i in (prediction.interval_new_run, prediction.interval_mean))
        assert new >= mean


def test_budgets_of_three_sizes_have_an_interval_by_the_curvature_that_they_share():
    sizes = np.log(np.array([1e4, 2e4, 4e4]))
    rows = [
        {"run_id": f"r{b}{i}", "N": np.exp(x), "D": 1e12 / np.exp(x), "C": 10.0 ** (11 + b)}
        | {"budget_flops": 10.0 ** (11 + b), "loss": np.exp(1.5 - 0.1 * b + 0.05 * (x - np.log(2e4)) ** 2)}
        for b in range(4)
        for i, x in enumerate(sizes)
    ]
    found = isoflop.analyse(pd.DataFrame(rows), draws=20, seed=0)
    assert len(found.used) == 4
    assert found.draws is not None
    assert found.exponent == pytest.approx(0, abs=1e-6)
    assert found.draws[:, 0].min() < 0 < found.draws[:, 0].max()


def test_accuracy_below_the_trivial_baseline_is_no_trend():
    rows = pd.DataFrame({"run_id": [f"r{i}" for i in range(12)], "task": "t", "shots": 0, "items": 200, "fits": True})
    rows = rows.assign(
        metric="exact", accuracy=np.linspace(0.0, 0.06, 12), logprob=-1.0, chance=0.0, prior_accuracy=0.12
    )
    table = pd.DataFrame({"run_id": rows.run_id, "C": np.geomspace(1e11, 1e13, 12), "loss": 4.0})
    (trend,) = trends(rows, table)
    assert trend.verdict == "at chance"


@pytest.mark.soak
def test_an_unfinished_run_gets_a_forecast_from_its_finished_siblings(isolated):
    """Curves that drop with their schedule; one run has done 60%, and ends where its siblings say."""
    root, ends = isolated / "root", {}
    ids = make_store(root)
    begun = ids[5]
    for i, run_id in enumerate(ids):
        run = RunDir(root, run_id)
        spec = run.spec()
        lr = np.array([learning_rate(spec.optim, s) for s in range(spec.steps)])
        steps = np.arange(11, spec.steps + 1)
        loss = 3.5 + 0.02 * i + 2.0 * steps**-0.5 + (0.3 + 0.002 * i) * np.sqrt(lr[steps - 1] / lr.max())
        ends[run_id] = float(loss[-1])
        seen = steps <= (0.6 if run_id == begun else 1.0) * spec.steps
        columns = {"step": steps[seen], "tokens": steps[seen] * spec.optim.batch_tokens, "loss": loss[seen]}
        run.write_metrics(run.attempts()[-1], {name: values.tolist() for name, values in columns.items()})
    (RunDir(root, begun).path / "result.json").unlink()
    found = api.fit(root, bootstrap=50)
    (row,) = found.forecasts.to_dict("records")
    assert (row["run_id"], row["method"]) == (begun, "finished runs")
    assert set(row["beside"]) == set(ids) - {begun}
    assert row["done"] == pytest.approx(0.6, abs=0.05)
    assert row["loss"] == pytest.approx(ends[begun], rel=0.005)
    assert row["low"] < row["loss"] < row["high"]
    assert documents.to_json(found)["forecasts"][0]["run_id"] == begun
    for part in (RunDir(root, ids[4]).attempts()[0] / "metrics").iterdir():
        part.write_bytes(part.read_bytes()[:100])
    assert len(unfinished.unfinished(found.runs)) == 1, "no forecast rests on a curve that cannot be read"


def test_accuracy_at_a_target_is_carried_through_the_loss_or_refused(studied):
    (accuracies,) = studied.accuracies
    found = {(a.task, a.shots): a for a in accuracies}
    rising = found["rising", 0]
    largest = studied.table.C.max()
    truth = 0.25 + 0.75 / (1 + np.exp(-(np.log10(10 * largest) - 12.5)))  # the simulation, one decade on
    assert rising.accuracy == pytest.approx(truth, abs=0.12)
    assert rising.interval_new_run[0] <= rising.interval_mean[0] < rising.accuracy < rising.interval_new_run[1]
    assert found["guessing", 0].accuracy is None
    assert "not predictable" in found["guessing", 0].reason


def test_an_asked_for_law_that_cannot_predict_says_so(store):
    found = api.fit(store, bootstrap=50, law="kaplan_ns")
    assert list(found.laws) == ["kaplan_ns"]
    assert found.predictions == []
    assert "no-prediction" in {note.code for note in found.notes}


def test_the_bias_of_a_parabola_is_found_without_noise():
    """A law with alpha far from beta: wide sizes bend as no parabola does, close ones do not show it."""
    theta = np.array([np.log(1.0), np.log(1e7), np.log(40), 0.8, 0.15])
    fit = solve.Fit(law=laws.CHINCHILLA, status=solve.FitStatus.OK, theta=theta)
    n_star, _ = laws.allocation(fit.params, np.array(1e20))
    for spread, biased in ((np.geomspace(0.8, 1.25, 7), False), (np.geomspace(0.25, 4, 7), True)):
        n = n_star * spread
        table = pd.DataFrame({"run_id": list("abcdefg"), "N": n, "D": 1e20 / (6 * n), "C": 1e20})
        table["loss"] = fit.predict({"N": n, "D": 1e20 / (6 * n)})
        found = isoflop.implied(isoflop.parabola(isoflop.Runs.of(table)), fit)
        assert found.n_star == pytest.approx(float(n_star), rel=0.01)
        assert (abs(found.bias) > 0.05) == biased
