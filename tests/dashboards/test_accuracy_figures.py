"""Accuracies of sizes beside one another: which runs a line is of, what means are of, and what the paper printed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.accuracy import by_size, published
from analysis.accuracy.trends import MEAN, shot_gains, trends
from analysis.runs import scores
from dashboards.figures import catalogue
from dashboards.figures.accuracy import accuracy_compute, accuracy_shots, summary
from dashboards.figures.accuracy_size import accuracy_size
from dashboards.figures.compute import compute_bars
from gpt3core.evals import tasks
from tests.analysis.test_scores import table

pytestmark = pytest.mark.xdist_group("study")

RUNS = {  # run_id -> N, D, C: two sizes; of the small one a short run, and two seeds of the long one
    "short": (1e3, 1e5, 6e8),
    "long-0": (1e3, 1e6, 6e9),
    "long-1": (1e3, 1e6, 6e9),
    "large": (1e4, 1e5, 6e9),
}


def scored(accuracy, tasks=("copy", "addition_2", "addition_3"), shots=(0, 4)):
    """A row a run, task and number of examples; ``accuracy(run_id, task, shots)``."""
    known = {"fits": True, "accuracy_se": 0.03, "chance": 0.0, "prior_accuracy": 0.1, "items": 100.0, "logprob": -1.0}
    rows = [
        {
            "run_id": i,
            "size": i[0],
            "N": n,
            "D": d,
            "C": c,
            "task": t,
            "shots": k,
            "accuracy": accuracy(i, t, k),
            **known,
        }
        for i, (n, d, c) in RUNS.items()
        for t in tasks
        for k in shots
    ]
    return pd.DataFrame(rows)


def of(table, task):
    return table[table.task == task].set_index(["N", "shots"])


def test_a_size_is_its_run_of_most_compute_and_seeds_are_together():
    level = {"short": 0.9, "long-0": 0.2, "long-1": 0.4, "large": 0.5}
    found = of(by_size.largest(scored(lambda i, t, k: level[i])), "copy")
    assert found.loc[(1e3, 0), "accuracy"] == pytest.approx(0.3)
    assert found.loc[(1e3, 0), "runs"] == 2
    assert found.loc[(1e4, 4), "accuracy"] == pytest.approx(0.5)
    assert found.loc[(1e4, 4), "accuracy_se"] == pytest.approx(0.03), "seeds answer the same questions"
    assert set(found.baseline) == {0.1}


def test_means_are_of_the_tasks_that_every_run_measured_at_every_number_of_examples():
    level = {"copy": 0.9, "addition_2": 0.3, "addition_3": 0.1}
    rows = scored(lambda i, t, k: level[t] + k / 100)
    rows.loc[(rows.task == "copy") & (rows.shots == 4) & (rows.run_id == "short"), "fits"] = False
    found = by_size.largest(rows)
    assert list(dict.fromkeys(found.task)) == [MEAN, "arithmetic", "copy", "addition_2", "addition_3"]
    mean, family = of(found, MEAN), of(found, "arithmetic")
    assert mean.accuracy.tolist() == pytest.approx([0.2, 0.24] * 2), "without copy, which one run lacks at K=4"
    assert set(mean.tasks) == {2}
    assert family.accuracy_se.tolist() == pytest.approx([0.03 / np.sqrt(2)] * 4)
    assert by_size.members(rows, MEAN) == ["addition_2", "addition_3"]
    assert by_size.members(rows, "copy") == ["copy"]
    assert by_size.largest(rows.iloc[:0]).empty


def test_gpt3_scored_what_the_paper_prints():
    """Tables 3.9 and 3.10 of Brown et al. 2020, of 175B."""
    of_175b = published.scores("addition_2").set_index(["model", "shots"]).accuracy.loc["GPT-3 175B"]
    assert of_175b.to_dict() == pytest.approx({0: 0.769, 1: 0.996, 50: 1.0})
    words = published.scores("cycle_letters", "anagrams_1", "anagrams_2", "random_insertion", "reversed_words")
    few = words[(words.model == "GPT-3 175B") & (words.setting == "few-shot")]
    assert few.accuracy.tolist() == pytest.approx([(37.9 + 15.1 + 39.7 + 67.2 + 0.44) / 500], abs=1e-6)
    assert published.scores("copy").empty
    assert published.scores("addition_2", "copy").empty, "not all of them"
    assert set(published.scores("addition_2", "cycle_letters").setting) == {"zero-shot", "one-shot"}, "K differs"
    assert set(published.scores("lambada").setting) == {"zero-shot"}
    assert set(published.SAME) <= set(tasks.names())


@pytest.fixture(scope="module")
def asked(studied):
    """The simulated runs with other questions: two that GPT-3 was asked too, one of our own."""
    everything = studied.everything
    share = np.log10(everything.C / everything.C.min()) / np.log10(everything.C.max() / everything.C.min())
    known = {"items": 400, "fits": True, "metric": "exact", "accuracy_se": 0.02, "logprob": -1.0, "chance": 0.0}
    rows = [
        {
            "run_id": i,
            "task": t,
            "shots": k,
            "accuracy": round(400 * x * (k + 1) / 100) / 400,
            "prior_accuracy": 0.01,
            **known,
        }
        for i, x in zip(everything.run_id, share, strict=True)
        for t in ("addition_2", "cycle_letters", "copy")
        for k in (0, 1, 50)
    ]
    evals = pd.DataFrame(rows)
    found = trends(evals, studied.table)
    return replace(studied, runs=replace(studied.runs, evals=evals), trends=found, gains=shot_gains(evals))


def test_examples_by_size_have_a_panel_a_task_and_the_papers_lines(asked):
    page = accuracy_shots(asked)
    titles = [title.text for title in page.figure.layout.annotations]
    assert titles == ["mean of tasks (3)", "addition_2", "cycle_letters", "copy"]
    first = [t for t in page.figure.data if t.xaxis == "x" and t.mode == "lines+markers"]
    sizes = sorted(set(asked.table.N))
    assert len(first) == len(sizes)
    most = asked.table[asked.table.N == sizes[-1]].sort_values("C").run_id.iloc[-1]
    rows = asked.runs.evals[asked.runs.evals.run_id == most]
    assert list(first[-1].x) == [1, 2, 51], "K + 1, so that none has a place on a logarithmic axis"
    assert list(first[-1].y) == pytest.approx(rows.groupby("shots").accuracy.mean().tolist())
    arithmetic = [t for t in page.figure.data if t.xaxis == "x2" and t.marker.symbol == "diamond-open"]
    assert list(arithmetic[0].y) == pytest.approx([0.769, 0.996, 1.0])
    assert not [t for t in page.figure.data if t.xaxis == "x4" and t.marker.symbol == "diamond-open"]
    assert "K=50" in page.about


def test_the_summary_is_a_row_a_task_and_the_rows_are_for_the_csv(asked):
    table = summary(asked).set_index("task")
    assert list(table.index) == [MEAN, "addition_2", "cycle_letters", "copy"]
    (trend,) = [t for t in asked.trends if t.task == "copy" and t.shots == 50]
    assert table.loc["copy", "K=50"] == pytest.approx(trend.accuracy_large, abs=5e-4)
    page = accuracy_compute(asked)
    assert (page.rows.what == "run").sum() == len(asked.runs.evals)
    assert len(page.summary) == 4


def test_bars_of_accuracies_end_at_zero(asked):
    """A standard error of one question in a hundred is wider than an accuracy of none."""
    for trace in (trace for page in (accuracy_compute(asked), accuracy_shots(asked)) for trace in page.figure.data):
        if trace.error_y.arrayminus is not None:
            assert (np.array(trace.y, float) - np.array(trace.error_y.arrayminus, float) >= 0).all()


def test_published_lines_stand_beside_the_trend_at_the_same_number_of_examples(asked):
    page = accuracy_compute(asked)
    lines = [t for t in page.figure.data if t.legendgroup == "addition_2" and t.line.dash == "dash"]
    assert [set(t.y) for t in lines] == [{0.769}]
    assert not [t for t in page.figure.data if t.legendgroup == "copy" and t.line.dash == "dash"]


def test_mean_accuracy_against_size_has_zero_one_and_few_shot(asked):
    figure = accuracy_size(asked).figure
    lines = {t.name: t for t in figure.data if t.name}
    assert list(lines)[:3] == ["zero-shot (K=0)", "one-shot (K=1)", "few-shot (K=50)"]
    sizes = sorted(set(asked.table.N))
    assert list(lines["few-shot (K=50)"].x) == sizes
    assert np.all(np.array(lines["few-shot (K=50)"].y) >= np.array(lines["zero-shot (K=0)"].y))


@pytest.mark.soak
def test_a_table_with_scores_has_its_figures_whatever_else_it_has():
    """Without N, D and loss; and of tasks that were asked with five examples alone."""
    raw = table()
    asked_for = scores.Asked(scores=["MMLU", "sums"], items={"sums": 500})
    alone = api.fit(raw, scores=asked_for)
    page = accuracy_compute(alone)
    titles = [title.text for title in page.figure.layout.annotations]
    assert titles == ["mean of tasks: rises", "MMLU: rises", "sums: rises"]
    (points,) = [t for t in page.figure.data if t.legendgroup == "MMLU" and t.mode == "markers"]
    assert list(points.x) == raw.flops.tolist()
    assert list(points.y) == pytest.approx(raw.MMLU.tolist())
    for empty in (accuracy_shots(alone), accuracy_size(alone)):
        assert empty.about == "Nothing to draw: no run that counts has both a score and a number of parameters."
    assert len([t for t in compute_bars(alone).figure.data if t.type == "bar"]) == 9, "GPT-3's, and all runs together"
    assert {page.slug for page in catalogue.pages(alone)} == {*catalogue.OF_SCORES, "compute"}
    evals = alone.runs.evals.assign(shots=5)
    sized = {name: getattr(alone, name).assign(N=raw.flops**0.5) for name in ("everything", "table")}
    found = trends(evals, alone.table)
    five = replace(alone, runs=replace(alone.runs, evals=evals), trends=found, **sized)
    assert "MMLU, K=5: rises" in [title.text for title in accuracy_compute(five).figure.layout.annotations]
    lines = [t for t in accuracy_shots(five).figure.data if t.mode == "lines+markers"]
    assert len(lines) == 3 * len(raw), "a size a run, and the mean"


def test_bars_of_compute_end_at_the_largest_run_of_a_size_and_at_table_d1(studied):
    page = compute_bars(studied)
    bars = {t.y[0]: t.x[0] for t in page.figure.data if t.type == "bar"}
    assert bars["GPT-3 175B"] == 3.14e23
    assert bars["GPT-3 125M"] == 2.25e20
    assert bars["whole sweep"] == pytest.approx(studied.everything.C.sum())
    most = studied.everything.groupby("size").C.max()
    named = {name.partition(" (")[0]: c for name, c in bars.items() if name.startswith("d")}
    assert named == pytest.approx(most.to_dict())
    (marks,) = [t for t in page.figure.data if t.type == "scatter"]
    assert len(marks.x) == len(studied.everything) - len(most), "every other run has its mark"
    assert sorted(page.summary.run_id) == sorted(studied.everything.run_id), "the table below is of runs alone"


def test_bars_of_many_sizes_are_of_ranges(studied):
    many = pd.concat([studied.everything.assign(N=studied.everything.N * f, size="") for f in (1.0, 1.01, 1.1)])
    page = compute_bars(replace(studied, everything=many))
    names = [t.y[0] for t in page.figure.data if t.type == "bar"]
    assert len(names) <= 1 + 24 + 8
    assert any(" to " in name for name in names)
