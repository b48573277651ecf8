"""Few-shot re-evaluation of finished checkpoints: what is missing is asked, a checkpoint is read once, none trains."""

import os
import shutil
from dataclasses import replace
from unittest import mock

import pandas as pd
import pytest

from analysis.runs import store as stores
from gpt3core import run as runs
from gpt3core.errors import StoreError, UsageError
from gpt3core.evals import runner
from gpt3core.evals.spec import HELD_OUT, EvalSpec, question
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps import fewshot_command
from sweeps.cluster import worker
from sweeps.cluster.job import Update
from sweeps.fewshot_command import FewShot
from sweeps.planning import recipe
from tests.conftest import EVALS, make_run, write_corpus
from tests.gpt3core.stores import flip
from tests.sweeps.fake_cluster import Silent, Working

ASKED = FewShot(sweep="small", tasks=["addition_2", "subtraction_2"], shots=[0, 1, 2], seeds=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs, trained and measured as their sweep asked."""
    folder = tmp_path_factory.mktemp("fewshot")
    root, text = open_root(folder / "root", create=True), write_corpus(folder / "text")
    tiny = [make_run(text, seed=seed, steps=6) for seed in range(3)]
    specs = [replace(spec, model=replace(spec.model, n_ctx=128)) for spec in tiny]  # in which the examples have room
    with mock.patch.dict(os.environ, {"ISOFLOP_CACHE": str(folder / "cache")}):
        for spec in specs:
            runs.run(spec, EVALS, root)
    sweep = SweepDir(root, "small")
    with sweep.owned():
        sweep.write_record(SweepRecord(runs=tuple(spec.run_id for spec in specs), evals=EVALS))
        sweep.write_recipe(recipe.to_yaml(recipe.load(["recipe=smoke"])))
        sweep.event("driver")
    return folder, specs


@pytest.fixture
def few(trained, isolated, clock, monkeypatch):
    """A store of a test's own."""
    shutil.copytree(trained[0] / "root", isolated / "root")
    monkeypatch.setenv("ISOFLOP_CACHE", str(trained[0] / "cache"))
    return isolated / "root"


def ask(given, cluster):
    order = fewshot_command.read(given)
    with order.sweep.owned():
        return order, fewshot_command.drive(order, cluster, Silent())


def test_what_is_missing_is_asked_once_and_the_fit_has_it(few, capsys, monkeypatch):
    scored = []
    real = runner.scoring.score
    monkeypatch.setattr(runner.scoring, "score", lambda *a, **k: scored.append(1) or real(*a, **k))
    cluster = Working(few)
    order, outcome = ask(ASKED, cluster)
    assert len(outcome.done) == 3
    assert fewshot_command.conclude(order, outcome) == 0
    missing = 2 * (1 + 2 * 3) - 2  # K=0 and the first draw of K=1 of addition_2 were asked by the sweep
    assert len(scored) == 3 * missing
    assert [job.missing for job in order.jobs] == [order.jobs[0].missing] * 3
    assert len(order.jobs[0].missing) == missing
    assert [i for i in cluster.started if i != "preparation"] == sorted(outcome.done), "one job a checkpoint"

    loaded = stores.load(few, "small")
    cells = loaded.evals.groupby(["task", "shots"]).size()
    assert cells.to_dict() == {(task, k): 3 for task in ("addition_2", "subtraction_2") for k in (0, 1, 2)}
    run = RunDir(few, outcome.done[0])
    rows = pd.DataFrame(run.measurements()).drop_duplicates(["task", "shots", "draw"])
    draws = rows[(rows.task == "subtraction_2") & (rows.shots == 2)]
    assert sorted(draws.draw) == [0, 1, 2]
    one = loaded.evals[
        (loaded.evals.run_id == run.run_id) & (loaded.evals.task == "subtraction_2") & (loaded.evals.shots == 2)
    ]
    assert float(one.logprob.iloc[0]) == pytest.approx(draws.logprob.astype(float).mean())
    assert draws.logprob.nunique() == 3, "other examples, other scores"

    again = fewshot_command.read(ASKED)
    assert not again.jobs
    assert len(again.answered) == 3
    more = fewshot_command.read(replace_shots(ASKED, [0, 1, 2, 3]))
    assert {q[1] for job in more.jobs for q in job.missing} == {3}


def test_what_the_sweep_might_take_does_not_bound_what_is_asked_of_it_later(few):
    spent = ["limit.deadline=2020-01-01", "limit.hours=1e-9", "limit.target=1e15", "limit.devices=1"]
    SweepDir(few, "small").write_recipe(recipe.to_yaml(recipe.load(["recipe=smoke", *spent])))
    order, outcome = ask(FewShot(sweep="small", tasks=["subtraction_2"], shots=[0]), Working(few))
    assert order.recipe.limit == recipe.Limit(devices=1), "a part of the cluster is what it was"
    assert len(outcome.done) == 3


def test_a_task_that_the_text_does_not_give_is_refused_before_a_cluster_starts(few, capsys):
    asked = ["sweep=small", "tasks=[cloze_kjv,addition_2]"]
    sentence = "task cloze_kjv: no held-out text of that domain; there are tales"
    with pytest.raises(UsageError, match=sentence):
        fewshot_command.few_shot(asked, "")
    assert fewshot_command.few_shot([*asked, "--plan"], "") == 0
    assert f"only to plan, not to run as it stands: {sentence}" in capsys.readouterr().out


def replace_shots(given, shots):
    return FewShot(**{**vars(given), "shots": shots})


def test_a_stop_or_a_death_costs_one_task_and_the_next_command_goes_on(few, monkeypatch):
    real, seen = runner.evaluate, []

    def dying(model, spec, evals, *args):
        seen.append(evals.tasks)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(model, spec, evals, *args)

    monkeypatch.setattr(runner, "evaluate", dying)
    order = fewshot_command.read(ASKED)
    monkeypatch.setattr(worker, "perform", lambda a, report, stop: worker.evaluate(a, report, stop))
    with pytest.raises(KeyboardInterrupt), order.sweep.owned():
        fewshot_command.drive(order, Later(few), Silent())
    monkeypatch.undo()
    monkeypatch.setenv("ISOFLOP_ROOT", str(few))
    monkeypatch.setenv("ISOFLOP_CACHE", str(few.parent / "cache"))
    left = fewshot_command.read(ASKED)
    (cut,) = (job for job in left.jobs if len(job.missing) < len(order.jobs[0].missing))
    assert {q[0] for q in cut.missing} == {"subtraction_2"}, "addition_2 was written when it was measured"


class Later(Working):
    """Without a preparation, which the test's death would hit."""

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        if run_id == "preparation":
            del self._running[run_id], self.jobs[run_id]
            self.prepared = True

    def poll(self):
        if getattr(self, "prepared", False):
            self.prepared = False
            found = {"numerics": {"precision": "fp32", "kernel": "softmax"}, "licences": []}
            data = {"tokens": {"train": 1, "validation": 1}}
            return [Update(run_id="preparation", state="done", result={**found, "data": data})]
        return super().poll()


def test_what_cannot_be_asked_is_skipped_said_and_told_by_the_exit_code(few, trained, capsys):
    gone, damaged, sound = (RunDir(few, spec.run_id) for spec in trained[1])
    shutil.rmtree(gone.checkpoints)
    last = damaged.checkpoint(damaged.checkpoint_steps()[-1])
    flip(next(path for path in last.iterdir() if path.suffix == ".safetensors"))
    before = {path: path.read_bytes() for run in (gone, damaged) for path in run.path.glob("result.json")}
    order, outcome = ask(ASKED, Working(few))
    assert "its last checkpoint is gone" in order.skipped[gone.run_id]
    assert outcome.done == [sound.run_id]
    assert "checkpoint" in outcome.failed[damaged.run_id]
    capsys.readouterr()
    assert fewshot_command.conclude(order, outcome) == 1
    said = capsys.readouterr().out
    assert gone.run_id in said
    assert damaged.run_id in said
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not gone.checkpoints.exists(), "nothing was trained again"


def test_a_run_without_a_result_is_never_trained(few, trained):
    spec = trained[1][0]
    (RunDir(few, spec.run_id).path / "result.json").unlink()
    assert fewshot_command.read(ASKED).waiting == [spec.run_id]
    job = Working(few)
    order = fewshot_command.read(ASKED)
    with order.sweep.owned():
        fewshot_command.drive(replace(order, jobs=[fewshot_command.Job(spec=spec, missing=())]), job, Silent())
    assert not RunDir(few, spec.run_id).trained


def test_runs_are_chosen_by_id_beginning_or_label_and_the_plan_starts_nothing(few, trained, capsys):
    ids = [spec.run_id for spec in trained[1]]
    assert len(fewshot_command.read(FewShot(**{**vars(ASKED), "runs": ["d16"]})).jobs) == 3
    assert [j.spec.run_id for j in fewshot_command.read(FewShot(**{**vars(ASKED), "runs": [ids[1][:9]]})).jobs] == [
        ids[1]
    ]
    assert fewshot_command.few_shot(["--plan", "tasks=[subtraction_2]", "shots=[0,2]", "seeds=2"], "") == 0
    said = capsys.readouterr().out
    assert "3 checkpoints to read" in said
    assert f"{ids[0]}: 3 of 4 evaluations are missing" in said
    assert not SweepDir(few, "small").record().few_shot
    assert fewshot_command.few_shot(["tasks=[addition_2]", "shots=[0,1]"], "") == 0, "all of it was asked before"
    assert "nothing is left to ask" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tsks=[copy]"], "unknown key 'tsks', did you mean tasks"),
        (["tasks=[copi]"], "^tasks: unknown task 'copi', did you mean copy"),
        (["tasks=[copy,copy]"], "^tasks=.'copy', 'copy'.: each once"),
        (["tasks=[piqa]", "files.piqa=/tmp/evals.items"], "^files.piqa: /tmp/evals.items cannot be read"),
        (["files.piqa=x"], "^files.piqa has no effect: tasks does not ask piqa"),
        (["items=0"], "^items=0: it must lie"),
        (["seeds=0"], "seeds=0: draws"),
        (["seeds=2", "shots=[0]"], "seeds=2 has no effect"),
        (["sweep=smal"], "no such sweep, did you mean small"),
        (["runs=[d99]"], "the sweep has no run 'd99'"),
        (["shots=[]"], r"^shots=\[\]: .* at least one number of examples"),
        (["shots=[-1]"], r"^shots=\[-1\]: .* 0 or more"),
        (["placement.wrkers=2"], "wrkers"),
        (["placement.workers=0"], "placement.workers=0: it must "),
        (["placement.gpus=1.5"], "placement.gpus=1.5: a whole number, or a share"),
        (["placement.rack=pod"], "placement.rack=pod has no effect with placement.workers=1"),
        (["placement.workers=3"], "placement.workers=3: the batch of .* do not divide over them"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(few, words, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        fewshot_command.few_shot([*words, "--plan"], "")
    assert "\n" not in str(caught.value)


def test_a_task_that_the_text_does_not_give_is_refused_before_any_checkpoint_is_read(few):
    cluster = Working(few)
    with pytest.raises(StoreError, match="task copy: the corpus has"):
        ask(FewShot(**{**vars(ASKED), "tasks": ["copy"]}), cluster)
    assert cluster.started == ["preparation"]
    assert not SweepDir(few, "small").record().few_shot


def test_a_sweep_that_is_asked_again_keeps_what_was_asked_beside_it(few):
    ask(ASKED, Working(few))
    record = SweepDir(few, "small").record()
    assert len(record.few_shot) == 1
    assert {q[0] for q in record.more_questions} == {"addition_2", "subtraction_2"}
    assert not set(record.more_questions) & set(EVALS.questions)
    with pytest.raises(ValueError, match="by its own id"):
        replace(record, few_shot={"0" * 12: next(iter(record.few_shot.values()))})


def test_items_of_a_file_are_asked_and_asked_again_when_it_changes(few):
    lines = '{{"context": "{0} =", "completion": " {0}"}}\n'
    path = few.parent / "items.jsonl"
    path.write_text("".join(lines.format(n) for n in range(6)))
    given = FewShot(sweep="small", tasks=["addition_2"], shots=[0, 1], items=4, files={"addition_2": [str(path)]})
    order, outcome = ask(given, Working(few))
    assert [len(job.missing) for job in order.jobs] == [2, 2, 2], "other questions than those the sweep asked"
    assert not outcome.failed
    assert fewshot_command.read(given).jobs == []
    moved = path.rename(few.parent / "moved.jsonl")
    assert fewshot_command.read(replace(given, files={"addition_2": [str(moved)]})).jobs == [], "wherever it lies"
    moved.write_text("".join(lines.format(n) for n in range(7)))
    assert len(fewshot_command.read(replace(given, files={"addition_2": [str(moved)]})).jobs) == 3
    loaded = stores.load(few, "small").evals
    assert len(loaded[loaded.task == "addition_2"].groupby(["run_id", "shots"])) == len(
        loaded[loaded.task == "addition_2"]
    )
    with pytest.raises(ValueError, match="has 7 items, and 9 are asked for"):
        fewshot_command.read(replace(given, items=9, files={"addition_2": [str(moved)]}))


def test_one_draw_is_what_it_was_and_others_differ():
    assert EvalSpec(version=2).eval_id == "7a2589868898", "as before there were draws and files"
    assert EvalSpec(seeds=1).eval_id == EvalSpec().eval_id != EvalSpec(seeds=2).eval_id
    asked = EvalSpec(tasks=("copy",), shots=(0, 2), seeds=2).questions
    assert [(task, shots, draw) for task, shots, _, _, draw, _ in asked] == [
        (HELD_OUT, 0, 0),
        ("copy", 0, 0),
        ("copy", 2, 0),
        ("copy", 2, 1),
    ]
    old = {"task": "copy", "shots": 2, "items": 128, "version": asked[1][3]}
    assert question(old) == question({**old, "draw": float("nan")}) == question({**old, "draw": 0}) == asked[2]
    with pytest.raises(ValueError, match="seeds=0"):
        EvalSpec(seeds=0)
