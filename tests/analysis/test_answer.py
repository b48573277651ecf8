"""What the terminal and the report open with: few lines, whose numbers are the study's."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import api, fit
from analysis.estimation import explained
from analysis.estimation.backtest import TAILS
from analysis.output import notes, run_notes
from analysis.output.answer import GRAVEST, answer, spelt
from analysis.output.evidence import words
from analysis.reference.tables import reference
from analysis.runs import candidates, store, units
from dashboards import report, summary, typeset
from gpt3core.errors import UsageError
from gpt3core.words import between, count, flops, nats, outside, shares, span
from tests.analysis.synthetic import make_store
from tests.analysis.test_one_ratio import one_ratio
from tests.commands import called


@pytest.fixture(scope="module")
def published():
    return reference("hoffmann2022_runs_234.csv")


def test_its_numbers_are_those_of_the_study(studied):
    lines = dict(answer(studied))
    (p,) = studied.predictions
    said = lines[f"at {flops(p.compute)}"]
    low, high = p.interval_new_run
    assert said.startswith(f"loss {p.loss:.3f} ({low:.4g} to {high:.4g} for a new run), best size {count(p.n)} (")
    assert said.endswith("1.0 decades beyond the data")
    assert lines["runs"].startswith(f"{len(studied.table)} of {len(studied.everything)} fitted")
    assert " tokens of starter, " in lines["runs"], "its text"
    hours = (studied.table.D / 1e4).sum() / 3600  # at the speed of every simulated run
    assert lines["runs"].endswith(f"; {hours:.3g} core-hours of training"), "its cost"
    assert f"C^{studied.advice.a:.2f}" in lines["size"]
    assert list(lines)[:2] == ["runs", "law"]
    assert len(lines) <= 7


@pytest.fixture
def branched(isolated):
    """A sweep whose largest run went on from a trunk, and took 9 s; its texts lie in folders of another machine."""
    make_store(root := isolated / "root", evals=False)
    largest = max((root / "runs").glob("*/result.json"), key=lambda p: json.loads(p.read_text())["device_seconds"])
    largest.write_text(json.dumps(json.loads(largest.read_text()) | {"device_seconds": 9.0, "trunk": "d8-1@2"}))
    for path in (root / "runs").glob("*/spec.json"):
        spec = json.loads(path.read_text())
        spec["data"]["corpus"] = f"/data/{path.parent.name}/{CORPUS}"
        path.write_text(json.dumps(spec))
    return root, largest.parent.name


CORPUS = "fineweb-2024 v3_x^2 & 10BT.txt"


def test_hours_are_those_that_the_fitted_runs_were_trained_for(branched):
    root, branch = branched
    for most in (None, 1e12):
        found = api.fit(root, max_compute=most, law="chinchilla", bootstrap=2)
        taken = found.table[found.table.run_id != branch]
        hours = ((taken.D / 1e4).sum() + 9.0 * (branch in set(found.table.run_id))) / 3600
        assert dict(answer(found))["runs"].endswith(f"; {hours:.3g} core-hours of training")
    every = candidates.costed(api.fit(root, law="chinchilla", bootstrap=2), found.table[:0])
    assert every.finished.set_index("run_id").hours[branch] == pytest.approx(9 / 3600)


def test_a_text_is_named_once_and_as_it_is_named(branched):
    found = api.fit(branched[0], law="chinchilla", bootstrap=2)
    parts = dict(spelt(found))["runs"]
    assert f" tokens of {CORPUS}, 0.0" in words(parts)
    shown = summary.linked(parts, lambda _: "#")
    assert (CORPUS, "") in shown, "no number of it is one"
    assert "".join(words for words, _ in typeset.pieces(next(w for w, _ in shown if w == CORPUS))) == CORPUS


def test_other_sweeps_are_some_of_them_with_the_key_that_names_one(studied, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(
        store, "sweeps", lambda _: [studied.runs.name, *(f"sweep-of-a-long-name-{i}" for i in range(300))]
    )
    fit._print(studied, whole=False, next_command="next")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"sweep {studied.runs.name}, from {studied.runs.source}"
    assert max(map(len, rest)) <= 100
    assert "others sweep-of-a-long-name-0, " in (said := " ".join(" ".join(rest).split()))
    assert "and 292 more: sweep=NAME" in said


def test_the_scale_that_scores_are_forecast_with_is_the_intervals_own(studied):
    (p,) = studied.predictions
    low, high = np.log(p.interval_new_run)
    inside = np.diff(stats.t(TAILS, loc=(low + high) / 2, scale=p.sigma).cdf([low, high]))
    assert inside == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "grade"),
    [
        ({"target_compute": [1e23]}, "good"),  # 0.9 decades beyond, backtests reach 2.5
        ({"target_compute": [1e27]}, "poor"),  # 4.9 decades beyond
        ({"target_compute": [1e23], "exclude": 40}, "poor"),  # fewer runs, no three cuts
    ],
)
def test_trust_is_a_word_and_what_it_rests_on(published, words, grade):
    words = dict(words)
    if count := words.pop("exclude", 0):
        published = published.sample(len(published), random_state=0).head(count // 3)
    found = api.fit(published, law="chinchilla", bootstrap=5, **words)
    said = dict(answer(found))["trust"]
    calibration = found.weighting.calibration
    assert re.match(rf"{grade}(:|,.*?) (only )?{calibration.cuts} backtest", said)
    assert f"{calibration.farthest:.1f}" in said
    assert ("more budgets give more" in said) == (calibration.cuts < 3)


@pytest.mark.soak
def test_a_law_of_held_exponents_is_not_the_law_that_is_told(published):
    found = api.fit(published, bootstrap=5)
    assert found.ensemble.choices[int(found.weighting.weights.argmax())].law.name not in found.laws
    assert dict(answer(found))["law"].startswith("L(")


def test_without_a_backtest_there_is_no_trust(published):
    few = published.nlargest(7, "N")
    lines = dict(answer(api.fit(few, law="chinchilla", bootstrap=5)))
    assert lines["trust"].startswith("none: ")
    assert lines["trust"] != f"none: {lines.get('weakest')}"  # nothing is said twice


def test_laws_that_have_no_best_size_are_trusted_for_runs_of_given_n_and_d(published):
    """Losses that tokens hardly move: the larger the model the better, so that no target has a best size."""
    found = api.fit(published.assign(loss=1.7 + 400 * published.N**-0.34), law="chinchilla", bootstrap=5)
    assert found.without_optimum
    assert not found.predictions
    lines = dict(answer(found))
    calibration = found.weighting.calibration
    assert lines["trust"].startswith(f"good for runs of given N and D: {calibration.cuts} backtest")
    assert "no size is best" in lines["weakest"]


@pytest.mark.soak
def test_exponents_that_are_held_are_those_of_the_law_that_is_told(published):
    lines = dict(answer(api.fit(published[::4], bootstrap=5, fix={"alpha_equals_beta": True})))
    assert lines["law"].startswith("L(N,D) = E + A/N^alpha + B/D^beta, alpha = beta: ")


def test_a_score_that_was_asked_for_is_answered(published):
    rng = np.random.default_rng(0)
    right = rng.binomial(1000, 0.25 + 0.7 / (1 + np.exp(8 * (published.loss - 2.6)))) / 1000
    found = api.fit(published.assign(quiz=right), scores=["quiz"], law="chinchilla", bootstrap=5)
    (score,) = found.accuracies[0]
    low, high = score.interval_new_run
    said = dict(answer(found))["scores"]
    assert said == f"not backtested: quiz, K=0: {score.accuracy:.3f} ({low:.3f} to {high:.3f} for a new run)"


def test_a_target_below_the_data_is_said_to_be_there_and_its_interval_widens(published):
    lowest = 6 * float((published.N.astype(float) * published.D).min())
    found = api.fit(published, law="chinchilla", bootstrap=5, target_compute=[lowest / 1e6, lowest * 2])
    far, near = found.predictions
    assert (round(far.decades), near.decades) == (-6, 0)
    assert dict(answer(found))[f"at {flops(far.compute)}"].endswith("6.0 decades below the data")
    widths = [np.log(p.interval_new_run[1] / p.interval_new_run[0]) for p in (far, near)]
    assert widths[0] > 2 * widths[1]
    assert (outside(0.04), outside(0.5)) == ("within", "0.5 decades beyond")


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (lambda rng, loss: loss**0.005 * np.exp(0.003 * rng.standard_normal(len(loss))), "no-scaling"),
        (lambda rng, loss: 3 * np.exp(0.1 * rng.standard_normal(len(loss))), "mostly-worse"),
        (lambda rng, loss: loss / 1e3, "loss-unit"),
    ],
)
def test_a_loss_that_scale_does_not_move_is_the_weakest_point(published, loss, code):
    rng, published = np.random.default_rng(0), published[::2]
    found = api.fit(published.assign(loss=loss(rng, published.loss)), law="chinchilla", bootstrap=5)
    assert dict(answer(found))["weakest"] == next(note.message for note in found.notes if note.code == code)


LARGER = pd.DataFrame({"N": [3e10], "D": [6e11]})  # flat losses have no best size, but this one they have a loss for


def flat(rng, runs, noise):
    """Runs of many sizes and lengths whose losses depend on neither."""
    n = np.exp(rng.uniform(np.log(1e7), np.log(1e10), runs))
    d = n * np.exp(rng.uniform(np.log(2), np.log(200), runs))
    return pd.DataFrame({"N": n, "D": d, "loss": 3 * np.exp(noise * rng.standard_normal(runs))})


@pytest.mark.parametrize(("runs", "noise"), [(14, 0.01), (40, 0.002), (40, 0.01)])
def test_losses_that_depend_on_nothing_are_not_to_be_trusted_whatever_their_backtests_say(runs, noise):
    found = api.fit(flat(np.random.default_rng(runs), runs, noise), bootstrap=5, predict=LARGER, law="chinchilla")
    assert found.weighting.calibration.supported
    assert dict(answer(found))["trust"].startswith("none: the laws follow these losses no better than they would")


@pytest.mark.soak
@pytest.mark.parametrize("spoilt", [0, 2])
def test_a_weak_law_of_noisy_losses_is_one_that_is_told_and_a_diverged_run_hides_none(spoilt):
    """Losses that fall by 0.4% a doubling of N or of D, noise of 1%, and beside them runs that blew up."""
    rng = np.random.default_rng(1)
    table = flat(rng, 40, 0.01)
    table["loss"] *= (table.N * table.D / 1e18) ** (-0.004 / np.log(2))
    table.loc[table.index < spoilt, "loss"] *= 2.0
    found = api.fit(table, bootstrap=5, rules="none", predict=LARGER, law="chinchilla")
    assert found.explained.told
    assert not dict(answer(found))["trust"].startswith("none")


def test_the_chance_that_noise_is_followed_as_closely_is_that_of_the_f_test():
    """Of least squares on four columns: F = (R^2 / 4) / ((1 - R^2) / (n - 5)), whose chance is uniform on noise."""
    rng, n = np.random.default_rng(0), 30
    x = np.column_stack([np.ones(n), rng.standard_normal((n, 4))])
    chances, known = [], []
    for _ in range(400):
        y = 1 + 0.01 * rng.standard_normal(n)
        residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        r2 = 1 - residual.var() / y.var()
        chances.append(explained.chance(y, residual))
        known.append(float(stats.f.sf(r2 / 4 / ((1 - r2) / (n - 5)), 4, n - 5)))
    assert np.isclose(chances, known, rtol=1e-6).mean() > 0.9  # in the others a run is left out
    assert np.mean(np.array(chances) < explained.SURE) <= 0.02
    assert np.mean(np.array(chances) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_nothing_of_the_kind_is_said_of_a_published_ladder(published):
    codes = {note.code for note in api.fit(published, law="chinchilla", bootstrap=5).notes}
    assert not codes & {"no-scaling", "mostly-worse", "loss-unit"}


@pytest.mark.parametrize(
    ("law", "cause"),
    [
        ("broken", "it is a law of the best runs of budgets, and here are no budgets whose minima can be trusted"),
        ("kaplan_c_min", "not applicable: the runs do not say C_min"),
    ],
)
def test_a_law_that_cannot_predict_says_why(published, law, cause):
    said = dict(answer(api.fit(published[::3][["N", "D", "loss"]], law=law, bootstrap=5)))["weakest"]
    assert said.startswith(f"law={law} predicts nothing")
    assert cause in said


@pytest.mark.soak
def test_a_law_that_predicts_without_parameters_says_so(published):
    found = api.fit(published[::3], law="muennighoff", bootstrap=5)
    assert dict(answer(found))["weakest"] == (
        "the parameters of law=data_constrained are not told, only what it predicts: fewer than 5 runs saw their text "
        "more than once"
    )


def test_one_loss_throughout_is_no_loss(published):
    with pytest.raises(UsageError, match=r"the loss is 3 in every run: is columns.loss another\?"):
        api.fit(published.assign(loss=3.0))


def test_units_of_counts_are_whole():
    assert [count(v) for v in (999.4e6, 999.6e6, 1e9 * (1 - 1e-12), 999.99)] == ["999M", "1B", "1B", "1k"]


@pytest.mark.soak
def test_the_gravest_warning_is_the_weakest_point_and_no_size_is_called_best_along_one_line():
    found = api.fit(one_ratio(0), bootstrap=5)
    lines = dict(answer(found))
    (one_line,) = [note.message for note in found.notes if note.code == "one-line"]
    assert lines["weakest"] == one_line
    assert "best size" not in lines[f"at {flops(found.predictions[0].compute)}"]


@pytest.mark.soak
def test_budgets_without_a_minimum_are_counted_together(studied):
    table = studied.table[studied.table.budget_flops.notna()]
    left = [g.nsmallest(3, "N") if i < 2 else g for i, (_, g) in enumerate(table.groupby("budget_flops"))]
    found = api.fit(pd.concat(left)[["N", "D", "C", "loss", "budget_flops"]], bootstrap=5, rules="none")
    bad = [note for note in found.notes if note.code == "no-minimum"]
    assert len(bad) >= 2
    assert dict(answer(found))["weakest"].startswith(f"{len(bad)} of {len(found.minima.parabolas)} budgets have no")


def test_every_code_that_is_ranked_is_one_that_notes_give():
    text = "".join(Path(module.__file__).read_text() for module in (notes, run_notes, units))
    assert [code for code in GRAVEST if f'"{code}"' not in text] == []


def test_the_command_prints_the_answer_and_the_tables_where_they_are_asked_for(simulated, tmp_path):
    words = [f"runs={simulated}", "bootstrap=5", "figures=false", f"out={tmp_path / 'o'}"]
    short, long = (called(fit.main, [*words, *more], tmp_path).stdout for more in ([], ["tables=all"]))
    assert sum(not line.startswith(" ") for line in short.splitlines()) <= 11, "sentences under their labels"
    assert "Ensemble of fits" not in short
    assert "Ensemble of fits" in long
    assert f"python -m analysis.design runs={simulated}" in short
    assert "warnings" in short
    refused = called(fit.main, [*words, "tables=some"], tmp_path)
    assert refused.returncode == 2
    assert "tables=some: allowed are none (the answer alone) and all" in refused.stderr


@pytest.mark.soak
def test_the_report_opens_with_it(studied, tmp_path):
    report.write(studied, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.index(">trust</a>") < text.index('id="frontier"') < text.index("Ensemble of fits")


def test_a_loss_keeps_its_digits_in_any_unit():
    assert [nats(loss) for loss in (2.17, 0.0021443, 1213.4)] == ["2.170", "0.002144", "1213"]
    assert between([2.1, 2.17]) == "2.100 to 2.170"


def test_an_interval_is_written_as_its_ends_are():
    assert (span([0.5, 1234.0], 2), shares([0.5, 0.625])) == ("0.5 to 1200", "0.500 to 0.625")
    assert between(None) == span([0.5, float("nan")]) == shares(None) == "-"
