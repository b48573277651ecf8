"""Fine-tuned beside zero-, one- and few-shot: a table becomes a figure, and a sweep without any has none."""

from dataclasses import replace

import pandas as pd
import pytest

from analysis import api
from analysis.runs.finetuned import beside_prompts
from analysis.runs.tidy import Runs
from dashboards.figures import catalogue
from dashboards.figures.accuracy_size import accuracy_size
from dashboards.figures.finetuned import finetuned

pytestmark = pytest.mark.xdist_group("figures")
SHOWN = {"0-shot": 0.3, "8-shot": 0.4, "fine-tuned on 32": 0.6, "fine-tuned on 512": 0.9}
RULES = {"lr": 0.01, "epochs": 3.0, "batch": 32, "warmup_steps": 1, "lm_weight": 0.5, "dropout": 0.1}


@pytest.fixture(scope="module")
def study(simulated):
    return api.fit(simulated, bootstrap=30)


def row(run_id, accuracy, **more):
    known = {"task": "<b>copy", "items": 100.0, "fits": True, "metric": "choice", "accuracy_se": 0.05, "chance": 0.25}
    return {**known, "prior_accuracy": 0.28, "run_id": run_id, "accuracy": accuracy, "shots": 0, **more}


def tuned(study):
    """The same study, two of whose runs were fine-tuned, with two seeds."""
    small, large = study.everything.sort_values("N").run_id.iloc[[0, -1]]
    prompts, rows = [], []
    for run_id in (small, large):
        prompts += [row(run_id, 0.3), row(run_id, 0.4, shots=8), row(run_id, 0.1, shots=64, fits=False)]
        prompts.append(row(run_id, 0.2, items=50.0))  # other questions
        for count, middle in ((32, 0.6), (512, 0.9)):
            for seed, change in ((0, -0.1), (1, 0.1)):
                known = {"parent": run_id, "trained_on": count, "seed": seed, "metric": "classifier", **RULES}
                rows.append(row(f"{run_id}-{count}-{seed}", middle + change, **known))
    evals = pd.concat([study.runs.evals, pd.DataFrame(rows)], ignore_index=True)
    return replace(study, runs=replace(study.runs, evals=evals, prompts=pd.DataFrame(prompts))), (small, large)


def test_a_line_a_way_of_asking_against_size_with_the_baseline(study):
    changed, (small, large) = tuned(study)
    page = finetuned(changed)
    lines = {trace.name: trace for trace in page.figure.data}
    assert list(lines) == [*(f"&lt;b&gt;copy: {way}" for way in SHOWN), "&lt;b&gt;copy: best trivial baseline"]
    sizes = study.everything.set_index("run_id").N
    for way, accuracy in SHOWN.items():
        line = lines[f"&lt;b&gt;copy: {way}"]
        assert list(line.x) == [sizes[small], sizes[large]]
        assert list(line.y) == pytest.approx([accuracy] * 2)
        error = 0.1 if way.startswith("fine-tuned") else 0.05  # seeds that scatter more than the questions
        assert list(line.error_y.array) == pytest.approx([error] * 2)
    assert set(lines["&lt;b&gt;copy: best trivial baseline"].y) == {0.28}
    assert "finetuned" in {page.slug for page in catalogue.pages(changed)}


def test_the_mean_of_tasks_against_size_has_what_was_fine_tuned_beside_it(study):
    """By the most labelled examples, and few-shot on the same task, for the mean is of others."""
    changed, (small, large) = tuned(study)
    lines = {trace.name: trace for trace in accuracy_size(changed).figure.data}
    sizes = study.everything.set_index("run_id").N
    for name, accuracy in (("fine-tuned: &lt;b&gt;copy", 0.9), ("few-shot: &lt;b&gt;copy", 0.4)):
        assert list(lines[name].x) == [sizes[small], sizes[large]]
        assert list(lines[name].y) == pytest.approx([accuracy] * 2)


def test_what_another_file_asked_under_the_same_name_is_not_compared(study):
    changed, _ = tuned(study)
    evals, prompts = changed.runs.evals.assign(content="b"), changed.runs.prompts.assign(content="a")
    found = beside_prompts(replace(changed.runs, evals=evals, prompts=prompts))
    assert set(found.way) == {way for way in SHOWN if way.startswith("fine-tuned")}


@pytest.mark.soak
def test_without_fine_tuned_runs_there_is_no_page(study):
    assert finetuned(study) is None
    assert "finetuned" not in {page.slug for page in catalogue.pages(study)}
    assert beside_prompts(Runs(source=study.runs.source, name="x", store=True, table=study.runs.table)).empty
