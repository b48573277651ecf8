"""Accuracy columns of anybody's table: what is read, what is asked back, and what they predict."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit
from analysis.reference.tables import gpt3_scores
from analysis.runs import scores
from gpt3core.errors import UsageError
from tests.commands import called


def table(runs=16, seed=0):
    rng = np.random.default_rng(seed)
    flops = np.geomspace(1e20, 1e24, runs)
    p = 0.25 + 0.6 / (1 + np.exp(-1.2 * (np.log10(flops) - 22)))
    known, sums = rng.binomial(14042, p) / 14042, rng.binomial(500, p - 0.2) / 500
    return pd.DataFrame({"model": [f"m{i}" for i in range(runs)], "flops": flops, "MMLU": known, "sums": sums})


def test_scores_without_a_loss_are_trends_against_compute_and_forecasts():
    found = api.fit(table(), scores=scores.Asked(scores=["MMLU", "sums"], items={"sums": 500}), target_compute=[1e25])
    trends = {t.task: t for t in found.trends}
    assert (trends["MMLU"].verdict, trends["MMLU"].chance, trends["MMLU"].items) == ("rises", 0.25, 14042)
    assert (trends["sums"].chance, trends["sums"].items) == (0.0, 500)
    ahead = {a.task: a for a in found.score_forecasts}
    truth = 0.25 + 0.6 / (1 + np.exp(-1.2 * 3))
    assert ahead["MMLU"].interval_mean[0] <= truth <= ahead["MMLU"].interval_mean[1]
    assert ahead["MMLU"].accuracy == pytest.approx(truth, abs=0.03)
    assert found.laws == {}
    codes = [note.code for note in found.notes]
    assert "no-loss" in codes
    assert "no-prediction" not in codes


def test_the_command_writes_them_and_names_what_it_did_not_read(tmp_path):
    table().assign(arc_challenge=0.3, acc_other=0.5).to_csv(tmp_path / "t.csv", index=False)
    done = called(fit.main, ["runs=t.csv", "scores=[MMLU]", "out=o", "figures=false", "bootstrap=20"], tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "o" / "fit.json").read_text())
    assert [a["task"] for a in document["score_forecasts"]] == ["MMLU"]
    (unread,) = [n["message"] for n in document["notes"] if n["code"] == "scores-unread"]
    assert "arc_challenge, acc_other" in unread
    assert "Predicted accuracy" in (tmp_path / "o" / "law.md").read_text()


def test_percent_and_errors_are_read_as_they_are_said():
    asked = scores.Asked(scores=["MMLU/100", "1-wrong"], chance={"MMLU": 0.2}, shots={"MMLU": 5})
    raw = pd.DataFrame({"MMLU": [25.0, 50.0, None], "wrong": [0.75, 0.5, 0.25]})
    found = scores.read(raw, ["a", "b", "c"], asked, "t.csv")
    first, second = found[found.task == "MMLU"], found[found.task == "wrong"]
    assert (list(first.accuracy), list(first.run_id)) == ([0.25, 0.5], ["a", "b"])
    assert (set(first.chance), set(first.shots)) == ({0.2}, {5})
    assert list(second.accuracy) == [0.25, 0.5, 0.75]


def test_errors_that_are_taken_for_accuracies_are_asked_about():
    wrong = table().assign(err_piqa=lambda t: 100 - 100 * t.MMLU)
    for asked, doubts in (("err_piqa/100", ["scores=[1-err_piqa/100]"]), ("1-err_piqa/100", []), ("MMLU", [])):
        found = api.fit(wrong, scores=[asked], bootstrap=5).notes
        assert [n.message.split("give ")[1] for n in found if n.code == "scores-errors"] == doubts


def test_a_percentage_below_one_percent_is_asked_about_and_read():
    found = api.fit(table(), scores=["MMLU/100"])
    assert "scores-scale" in {note.code for note in found.notes}
    assert found.trends[0].accuracy_large < 0.01


@pytest.mark.parametrize(
    ("change", "words", "sentence"),
    [
        (lambda t: t.assign(MMLU=100 * t.MMLU), {}, "is it in percent.*MMLU/100"),
        (lambda t: t.assign(MMLU=-t.MMLU), {}, "an accuracy lies between 0 and 1"),
        (lambda t: t, {"scores": ["MMLV"]}, "no column 'MMLV', did you mean MMLU"),
        (lambda t: t, {"chance": {"ARC": 0.25}}, "chance.ARC: no score has this name"),
        (lambda t: t, {"chance": {"MMLU": 1.5}}, "chance.MMLU=1.5"),
        (lambda t: t, {"scores": [], "items": {"MMLU": 5}}, "there are no scores"),
        (lambda t: t, {"scores": []}, r"no column for loss.*scores=\[MMLU\]"),
        (lambda t: t.drop(columns="flops"), {}, "no column for compute"),
        (lambda t: t.assign(MMLU="high"), {}, "a number is expected"),
        (lambda t: t.assign(MMLU=np.nan), {}, "scores=MMLU: table has no number in column 'MMLU'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(change, words, sentence):
    with pytest.raises(UsageError, match=sentence):
        api.fit(change(table()), scores=scores.Asked(**{"scores": ["MMLU"], **words}))


def test_beside_a_loss_scores_go_through_it():
    t = table().assign(N=lambda t: np.sqrt(t.flops / 120), loss=lambda t: 1.7 + 300 * t.flops**-0.12)
    t = pd.concat([t, t.assign(model=t.model + "b", N=t.N * 2, loss=t.loss * 1.002)], ignore_index=True)
    found = api.fit(t, scores=["MMLU"], bootstrap=20, law="chinchilla")
    assert found.score_forecasts == []
    assert found.trends[0].by_loss is not None
    assert "scores-unread" not in {n.code for n in found.notes}


def test_what_is_below_chance_or_measured_on_some_runs_is_said():
    t = table().assign(MMLU=0.18, sums=lambda t: t.sums.where(t.index > 3))
    notes = {n.code: n.message for n in api.fit(t, scores=["MMLU", "sums"]).notes}
    assert "below chance on MMLU (K=0) 0.180 for 0.25" in notes["below-chance"]
    assert "answer key" in notes["below-chance"]
    assert notes["scores-partly"].endswith("sums on 12")


def test_gpt3s_smaller_sizes_predict_the_largest_within_their_intervals():
    """Table H.1's few-shot accuracies of 125M to 13B, as anybody's table: 175B lies in the intervals of most."""
    wide, compute = gpt3_scores()
    few = wide[(wide.metric == "acc") & (wide.setting == "few-shot") & (wide.category != "arithmetic")]
    sizes = [name for name in wide.columns if str(name).startswith("GPT-3")]
    t = few.set_index("task")[sizes].T.reset_index(names="model").assign(flops=compute)
    tasks = [name for name in t.columns if name not in ("model", "flops")]
    found = api.fit(t.iloc[:-1], scores=[f"{name}/100" for name in tasks], target_compute=[float(compute[-1])])
    ahead = {a.task: a for a in found.score_forecasts if a.accuracy is not None}
    inside = [
        a.interval_new_run[0] <= t[task].iloc[-1] / 100 <= a.interval_new_run[1]
        for task, a in ahead.items()
        if task in tasks
    ]
    assert len(inside) >= 8
    assert np.mean(inside) >= 0.7


def test_models_of_unknown_compute_are_listed_and_the_others_count():
    t = table(20).rename(columns={"flops": "FLOPs (1E21)"})
    t["FLOPs (1E21)"] = (t["FLOPs (1E21)"] / 1e21).where(t.index % 5 > 0)
    found = api.fit(t, columns={"C": "FLOPs (1E21)*1e21"}, scores=["MMLU"])
    assert found.trends[0].runs == 16
    assert found.trends[0].verdict == "rises"
    out = {rule.name: rule.excluded for rule in found.rules}
    assert out["diverged"] == ["m0", "m10", "m15", "m5"]
