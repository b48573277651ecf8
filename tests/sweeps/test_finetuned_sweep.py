"""Fine-tuning as a sweep: what is missing is trained, parents are asked beside it, and one table has both."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from unittest import mock

import pytest

from analysis.runs import finetuned
from analysis.runs import store as stores
from gpt3core import run as runs
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files, sweepdir
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps import fewshot_command, finetune_command
from sweeps.fewshot_command import FewShot
from sweeps.finetune_command import Finetune
from sweeps.line import CODE
from sweeps.planning import recipe
from sweeps.planning.finetuned import Rules
from tests.conftest import EVALS, make_run, write_corpus
from tests.gpt3core.finetuning import sentiments, write
from tests.sweeps.fake_cluster import Silent, Working


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two sizes, one of them twice, trained and measured as their sweep asked."""
    folder = tmp_path_factory.mktemp("finetuned")
    root, text = open_root(folder / "root", create=True), write_corpus(folder / "text")
    specs = [make_run(text, steps=20), make_run(text, steps=40), make_run(text, steps=20, width=24)]
    with mock.patch.dict(os.environ, {"ISOFLOP_CACHE": str(folder / "cache")}):
        for spec in specs:
            runs.run(spec, EVALS, root)
    sweep = SweepDir(root, "small")
    with sweep.owned():
        numerics = {"cpu": {"precision": "fp32", "kernel": "softmax"}}
        sweep.write_record(SweepRecord(runs=tuple(s.run_id for s in specs), evals=EVALS, numerics=numerics))
        sweep.write_recipe(recipe.to_yaml(recipe.load(["recipe=smoke"])))
        sweep.event("driver")
    write(folder / "train.jsonl", sentiments(160, 1))
    write(folder / "test.jsonl", sentiments(60, 2))
    return folder, specs


@pytest.fixture
def small(trained, isolated, clock, monkeypatch):
    """A store of a test's own."""
    shutil.copytree(trained[0] / "root", isolated / "root")
    monkeypatch.setenv("ISOFLOP_CACHE", str(trained[0] / "cache"))
    return isolated / "root"


def wanted(trained, **changed):
    files = [str(trained[0] / name) for name in ("test.jsonl", "train.jsonl")]
    known = {"task": "labelled", "file": files, "examples": [16, 96], "seeds": 2, "items": 24, "shots": [0]}
    return Finetune(**{**known, "train": Rules(epochs=6, batch=16, lr=0.01), **changed})


def ask(given, cluster):
    order = finetune_command.read(given)
    with order.sweep.owned():
        return order, finetune_command.drive(order, cluster, Silent())


def prompted(order, cluster):
    with order.prompts.sweep.owned():
        return fewshot_command.drive(order.prompts, cluster, Silent())


@pytest.mark.soak
def test_sizes_times_examples_times_seeds_land_beside_what_prompts_get(small, trained, isolated):
    cluster = Working(small)
    order, outcome = ask(wanted(trained), cluster)
    _, long, wide = trained[1]
    assert {run.parent.run_id for run in order.runs} == {long.run_id, wide.run_id}, "the longest of every size"
    assert len(outcome.done) == len(order.runs) == 2 * 2 * 2
    asked = prompted(order, cluster)
    assert sorted(asked.done) == sorted([long.run_id, wide.run_id])
    assert finetune_command.conclude(order, [outcome, asked]) == 0

    loaded = stores.load(small, "small")
    assert set(loaded.table.run_id) == {s.run_id for s in trained[1]}, "none of them is a point of the law"
    rows = finetuned.beside_prompts(loaded).set_index(["run_id", "way"])
    assert set(rows.index) == {
        (run.run_id, way) for run in (long, wide) for way in ("0-shot", "fine-tuned on 16", "fine-tuned on 96")
    }
    assert rows.loc[(long.run_id, "fine-tuned on 96"), "accuracy"] > 0.9, "one word tells the class"
    assert set(rows.runs) == {1, 2}
    tuned = loaded.evals[loaded.evals.parent.notna()]
    one = next(run for run in order.runs if run.run_id == tuned.run_id.iloc[0])
    assert tuned.parent.iloc[0] == one.parent.run_id
    assert tuned.trained_on.iloc[0] == one.labelled.count

    again = finetune_command.read(wanted(trained, seeds=3))
    assert len(again.runs) - len(again.done) == 4, "a third seed is all that is missing"
    assert not again.prompts.jobs
    assert again.sweep.record().runs == tuple(sorted(run.run_id for run in order.runs))


@pytest.mark.soak
def test_a_sweep_that_was_stopped_ends_with_the_bits_of_one_that_was_not(small, trained, isolated):
    given = wanted(trained, seeds=1, examples=[96], shots=[])
    count = itertools.count(1)
    order, cut = ask(given, Working(small, stop=lambda: next(count) in (20, 45)))
    assert any(len(RunDir(small, run.run_id).attempts()) > 1 for run in order.runs)
    assert len(cut.done) == 2
    other = shutil.copytree(trained[0] / "root", isolated / "other")
    with mock.patch.dict(os.environ, {"ISOFLOP_ROOT": str(other)}):
        whole, _ = ask(given, Working(other))
    for run in whole.runs:
        name = f"checkpoints/step-{run.steps:08d}/model-00000.safetensors"
        one, two = (RunDir(root, run.run_id).path / name for root in (small, other))
        assert one.read_bytes() == two.read_bytes()


COMMAND = """
import functools, signal
from gpt3core import cli
from sweeps import finetune_command
from sweeps.driving import driver
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands ignore it
    driver.Driver = functools.partial(driver.Driver, entry="tests.cluster.bodies:one_ahead")
    cli.run(lambda argv: finetune_command.finetune(argv, ""))
"""


def events(root, run):
    return [e for attempt in RunDir(root, run.run_id).attempts() for e in files.read_lines(attempt / "events.jsonl")]


@pytest.mark.soak
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_command_that_is_interrupted_on_a_local_ray_goes_on_and_trains_nothing_twice(small, trained, isolated):
    given = wanted(trained, seeds=1, examples=[64, 96], train=Rules(epochs=30, batch=16, lr=0.01))
    runs = finetune_command.read(given).runs
    (isolated / "command.py").write_text(COMMAND)
    settings = ["task=labelled", f"file=[{','.join(given.file)}]", "examples=[64,96]", "items=24", "shots=[0]"]
    settings += ["train.epochs=30", "train.batch=16", "train.lr=0.01"]
    words = [sys.executable, str(isolated / "command.py"), *settings]
    environment = {**os.environ, "ISOFLOP_ROOT": str(small), "PYTHONPATH": str(CODE)}

    def command():
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def results():
        found = (RunDir(small, run.run_id).path / "result.json" for run in runs)
        return {path: path.stat().st_mtime_ns for path in found if path.exists()}

    first = command()
    while first.poll() is None and not (results() and (small / "waits").exists()):
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate()
    assert first.returncode == 130, said
    assert "interrupted: start the same command again" in said
    before = results()
    assert len(before) == 1
    (small / "release").touch()
    second = command()
    said, _ = second.communicate()
    assert second.returncode == 0, said
    assert "4 of 4 runs fine-tuned, 0 failed; 2 of its parents asked by prompts" in said
    assert before.items() <= results().items(), "what was done is not written again"
    stops = 0
    for run in runs:
        told = events(small, run)
        ends = [event["step"] for event in told if event["event"] == "stopped"]
        starts = [event["step"] for event in told if event["event"] == "start"]
        assert starts == [0, *ends], "each goes on where it stopped"
        stops += len(ends)
    assert stops


def test_a_fine_tuning_sweep_is_never_the_one_that_is_meant_by_default(small, trained):
    ask(wanted(trained, seeds=1, examples=[16], shots=[]), Working(small))
    name = "small-finetuned-labelled"
    assert set(sweepdir.names(small)) == {"small", name}
    assert stores.load(small).name == "small"
    assert fewshot_command.read(FewShot(tasks=["addition_2"])).sweep.name == "small"
    with pytest.raises(StoreError, match=f"the sweep {name} fine-tunes runs of small, .* give sweep=small"):
        stores.load(small, name)


def test_two_commands_join_one_sweep_and_a_run_of_two_sweeps_counts_once(small, trained):
    of_one = {"seeds": 1, "examples": [16], "shots": []}
    given = [wanted(trained, runs=[run.run_id], **of_one) for run in trained[1][1:]]
    orders = [finetune_command.read(each) for each in given]  # both before either is driven
    for order in orders:
        with order.sweep.owned():
            finetune_command.drive(order, Working(small), Silent())
    runs = {order.runs[0].run_id for order in orders}
    assert set(orders[0].sweep.record().runs) == runs

    _, long, _ = trained[1]
    ask(replace(given[0], name="again"), Working(small))
    ask(replace(given[0], name="faster", train=replace(given[0].train, lr=0.02)), Working(small))
    loaded = stores.load(small, "small")
    assert not loaded.evals.duplicated(["run_id", "task", "shots"]).any()
    rows = finetuned.beside_prompts(loaded)
    ways = rows[rows.run_id == long.run_id].set_index("way")
    assert list(ways.index) == ["fine-tuned on 16, lr 0.01", "fine-tuned on 16, lr 0.02"]
    assert set(ways.runs) == {1}, "what differs in more than the seed is not averaged"


@pytest.mark.soak
def test_other_questions_are_put_to_the_same_runs_which_are_not_trained_again(small, trained, isolated):
    given = wanted(trained, seeds=1, examples=[16], shots=[], runs=[trained[1][1].run_id])
    (run,) = ask(given, Working(small))[0].runs
    before = RunDir(small, run.run_id).curve()
    pool = (trained[0] / "train.jsonl").read_text()
    fresh = [line for line in sentiments(60, 3) if line["text"] not in pool]
    other = write(isolated / "other.jsonl", fresh)
    order, outcome = ask(replace(given, file=[str(other), given.file[1]], name="other"), Working(small))
    assert [r.run_id for r in order.runs] == list(outcome.done) == [run.run_id]
    assert RunDir(small, run.run_id).curve().equals(before)
    assert len(finetuned.beside_prompts(stores.load(small, "small")).asked.unique()) == 2


def test_the_plan_starts_nothing(small, trained, capsys):
    words = ["task=labelled", f"file=[{trained[0] / 'test.jsonl'},{trained[0] / 'train.jsonl'}]", "examples=[32]"]
    assert finetune_command.finetune([*words, "items=24", "--plan"], "") == 0
    said = capsys.readouterr().out
    assert "2 fine-tuning runs of small on labelled (classification, 2 classes" in said
    assert "32 examples, seed 0, 200 steps at lr 0.0025; to do" in said
    assert "then 2 parents are asked by prompts" in said
    assert not SweepDir(small, "small-finetuned-labelled").path.exists()


def test_prompts_that_cannot_be_asked_are_told_before_anything_is_trained(small, trained, capsys):
    words = ["task=labelled", f"file=[{trained[0] / 'test.jsonl'},{trained[0] / 'train.jsonl'}]", "examples=[32]"]
    with pytest.raises(
        UsageError, match=r"shots=\[0, 5000\]: task labelled: K=5000 examples are asked for, and there are"
    ):
        finetune_command.finetune([*words, "items=24", "shots=[0,5000]"], "")
    assert not SweepDir(small, "small-finetuned-labelled").path.exists()
    assert finetune_command.finetune([*words, "items=24", "shots=[100]", "--plan"], "") == 0
    assert "prompts: asked with fewer examples, and left out of fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tsk=copy"], "unknown key 'tsk', did you mean task"),
        (["task=copi", "file=[]"], "^task: unknown task 'copi', did you mean copy"),
        (["shots=[-1]"], r"^shots=\[-1\]: numbers of examples, 0 or more"),
        (["task=addition_2", "file=[]"], "its answers are not chosen among given ones"),
        (["runs=[d99]"], "the sweep has no run 'd99'"),
        (["sweep=smal"], "no such sweep, did you mean small"),
        (["seeds=0"], "seeds=0: draws"),
        (["examples=[]"], r"examples=\[\]: numbers of examples"),
        (["examples=[1]"], "examples=1: those that seed 0 draws are all of the class"),
        (["examples=[1000]"], r"examples=1000: there are \d+ to train on"),
        (["items=99"], "^file: .*test.jsonl has 60 items, and 99 are asked for"),
        (["train.epochs=0"], "train.epochs=0.0: it must be positive"),
        (["train.lm_weight=-1"], "lm_weight=-1.0: it must lie from"),
        (["file=[nowhere.jsonl]"], "^file: .*nowhere.jsonl cannot be read"),
        (["file=[]"], "its examples come from a file"),
        (["name=a/b"], "name=a/b: it names a folder"),
        (["name=small"], "there is a sweep of that name, which trains runs of its own"),
        (["placement.tensor=2"], "placement.tensor, pipeline and context do not go with fine-tuning"),
        (["placement.workers=5"], "batches of 32 labelled examples do not divide"),
        (["placement.wrkers=2"], "wrkers"),
        (["placement.workers=0"], "placement.workers=0: it must "),
        (["placement.gpus=1.5"], "placement.gpus=1.5: a whole number, or a share"),
        (["placement.rack=pod"], "placement.rack=pod has no effect with placement.workers=1"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(small, trained, words, sentence):
    files = f"file=[{trained[0] / 'test.jsonl'},{trained[0] / 'train.jsonl'}]"
    known = {"task": "task=labelled", "file": files, "items": "items=24", "examples": "examples=[32]"}
    known |= {word.split("=")[0]: word for word in words}
    with pytest.raises(ValueError, match=sentence) as caught:
        finetune_command.finetune([*known.values(), "--plan"], "")
    assert "\n" not in str(caught.value)


def test_a_parent_that_cannot_be_fine_tuned_is_named(small, trained):
    gone = RunDir(small, trained[1][1].run_id)
    shutil.rmtree(gone.checkpoints)
    assert {r.parent.run_id for r in finetune_command.read(wanted(trained)).runs} == {
        trained[1][0].run_id,
        trained[1][2].run_id,
    }, "the longest that has its checkpoint"
    with pytest.raises(StoreError, match=f"run {gone.run_id} has lost its last checkpoint"):
        finetune_command.read(wanted(trained, runs=[gone.run_id]))
    (gone.path / "result.json").unlink()
    with pytest.raises(StoreError, match=f"run {gone.run_id} is not trained"):
        finetune_command.read(wanted(trained, runs=[gone.run_id]))


def test_other_questions_under_the_same_name_are_refused(small, trained):
    ask(wanted(trained, seeds=1, examples=[16], shots=[]), Working(small))
    with pytest.raises(ValueError, match=r"its runs are asked other questions \(other files, or items=24 where now"):
        finetune_command.read(wanted(trained, items=30))
