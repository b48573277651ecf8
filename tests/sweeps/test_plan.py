"""The plan: published layouts fit, and the command answers at once."""

import re
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps import command
from sweeps.planning import asked, estimate, grid, hardware, recipe
from sweeps.planning.asked import Asked
from sweeps.planning.recipe import Hardware


def gpt3(size):
    runs = grid.build(recipe.load(["recipe=gpt3"]), "0" * 64).runs
    return max((run for run in runs if run.label == size), key=lambda run: run.tokens)


def test_175b_on_a100s_takes_as_long_as_megatron_says():
    """Narayanan et al. 2021: GPT-3 on 1,024 A100s at 140 TFLOP/s with recomputation takes 34 days."""
    run = gpt3("175B")
    planned = estimate.on_gpus(
        run, Hardware(gpu="A100", max_days=40, mfu=140 / 312 * 3 / 4)
    )  # 140 counts recomputed FLOPs: 3 of 4 are the model's
    assert planned.layout is not None
    assert planned.layout.gpus == 1024
    assert planned.days == pytest.approx(34, rel=0.05)
    assert planned.layout.tensor == 8


def test_memory_fits_the_gpu_and_degrees_multiply():
    for size in ("125M", "1.3B", "13B", "175B"):
        for gpu, device in hardware.GPUS.items():
            run = gpt3(size)
            layout = estimate.on_gpus(run, Hardware(gpu=gpu)).layout
            assert layout is not None, (size, gpu)
            assert layout.memory_bytes <= 0.9 * device.memory_bytes
            assert layout.data * layout.tensor * layout.pipeline == layout.gpus
            assert run.model.n_head % layout.tensor == 0
            assert run.model.n_layer % layout.pipeline == 0
            assert (run.optim.batch_tokens // run.model.n_ctx) % layout.data == 0


def test_a_model_that_fits_nothing_says_so(monkeypatch):
    tiny = replace(hardware.GPUS["V100"], memory_bytes=1e9)
    monkeypatch.setitem(hardware.GPUS, "V100", tiny)
    planned = estimate.on_gpus(gpt3("175B"), Hardware(gpu="V100"))
    assert planned.layout is None
    assert "no layout fits 1 GB" in planned.reason


@pytest.mark.parametrize("settings", [Hardware(gpu="H1000"), Hardware(mfu=40.0), Hardware(max_days=0.0)])
def test_impossible_assumptions_are_refused(settings):
    with pytest.raises(ValueError, match="plan"):
        estimate.on_gpus(gpt3("125M"), settings)


def cpu_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_plan_of_gpt3_needs_no_cluster_and_answers_at_once():
    heavy = "{'torch', 'ray', 'scipy', 'pandas'}"
    code = f"""import sys
from sweeps import command
code = command.sweep(['recipe=gpt3', '--plan'], '')
print({heavy} & set(sys.modules), code)"""
    began = cpu_seconds_of_children()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set() 0"
    assert cpu_seconds_of_children() - began < 1.0
    rows = [re.split(r"\s*│\s*", line.strip("│ ")) for line in done.stdout.splitlines() if "300B" in line]
    assert [row[0] for row in rows] == ["125M", "350M", "760M", "1.3B", "2.7B", "6.7B", "13B", "175B"]
    assert float(rows[-1][4]) == pytest.approx(3.14e23, rel=0.005)  # Table D.1
    assert int(rows[-1][2].replace(",", "")) == costs.params(gpt3("175B").model).total


def plan_of(words, capsys):
    assert command.sweep([*words, "--plan"], usage="") == 0
    return " ".join(capsys.readouterr().out.split())


def test_gpt3_on_the_starter_text_is_planned_and_not_run(known_text, capsys):
    said = plan_of(["recipe=gpt3"], capsys)
    assert "only to plan, not to run as it stands: data.corpus=starter: 24 of 24 runs would see its 8.00M" in said
    assert re.search(r"only to plan, not to run as it stands: [\d.]+B needs tensor \d", said)
    with pytest.raises(UsageError, match=r"more than 40 times \(.* 37,50.*data.max_epochs"):
        command.refuse(command.read(["recipe=gpt3"]))
    words = ["recipe=gpt3", "sizes=125M", "tokens=30e9", "data.max_epochs=1e5"]
    command.refuse(command.read(words))
    assert "1 of 1 runs see their text more than 4 times" in plan_of(words, capsys)


def test_the_plan_says_what_the_text_is_good_for(known_text, capsys):
    said = plan_of(["recipe=smoke"], capsys)
    assert "starter, 8.00M training and 0.50M validation tokens of 14,000 documents" in said
    assert "measured on 0.07M of them, which tell differences above 0.031 nats apart" in said  # 0.7 / sqrt(65536 / 128)
    assert "more than 4 times" not in said
    known_text.exact, known_text.train_tokens = False, 40_000
    said = plan_of(["recipe=smoke"], capsys)
    assert "about 0.04M training" in said
    assert re.search(r"runs see their text more than 4 times \(d\d+-\w+ \d+\.\d", said)


def test_a_text_with_nothing_to_hold_out_is_refused_when_planned(known_text):
    known_text.validation_tokens = 100
    with pytest.raises(UsageError, match=r"too small: .* 100 held out \(data.validation_fraction=0.06\).*n_ctx=128"):
        command.read(["recipe=smoke"])
    command.read(["recipe=smoke", "data.validation_fraction=0.2"])


def test_the_plan_counts_what_the_store_has(known_text, capsys):
    order = command.read(["recipe=smoke"])
    open_root(order.root, create=True)
    run = order.grid.runs[0]
    RunDir(order.root, run.run_id).create(run)
    RunDir(order.root, run.run_id).finish({"status": "done"})
    assert command.sweep(["recipe=smoke", "--plan"], usage="") == 0
    states = [line.split("│")[-2].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert sorted(states) == ["to train"] * 3 + ["trained"]


def test_a_sweeps_name_is_not_taken_from_it_in_silence(known_text, capsys):
    order = command.read(["recipe=smoke"])
    sweep = SweepDir(order.root, "smoke")
    open_root(order.root, create=True)
    sweep.path.mkdir(parents=True)
    sweep.write_record(SweepRecord(runs=tuple(order.run_ids)))
    command.refuse(command.read(["recipe=smoke", "budgets=[1e10,2e10,4e10]"]))
    for words in (["seed=1"], ["budgets=1e10"]):
        with pytest.raises(UsageError, match=r"other runs were asked before .*name=.*extend=true.*replace=true"):
            command.refuse(command.read(["recipe=smoke", *words]))
        for way_out in ("name=other", "extend=true", "replace=true"):
            command.refuse(command.read(["recipe=smoke", *words, way_out]))
    assert "4 other runs were asked before" in plan_of(["recipe=smoke", "seed=1"], capsys)
    assert "replace=true drops them" in plan_of(["recipe=smoke", "seed=1", "replace=true"], capsys)


def test_a_setting_that_changes_nothing_is_said_to(known_text, capsys):
    said = plan_of(["recipe=smoke", "optim.lr_max=0.5", "min_tokens=4.9e4", "widths=8"], capsys)
    assert "min_tokens=4.9e4 changes none of these runs, nor how they are evaluated" in said
    assert "lr_max=0.5 changes" not in said
    assert "changes none" not in plan_of(["recipe=smoke", "min_tokens=5e4", "name=x", "placement.cpus=2"], capsys)
    words = ["recipe=laptop", "widths=[96,128]", "optim.lr_max=0.02"]
    assert command.read(words).idle == ["optim.lr_max=0.02"], "0.6 / 96 is less"


def test_asked_is_the_union_or_what_replaces_it():
    record = SweepRecord(runs=("a", "b", "c"))
    assert asked.union(None, ["a"], replace=False, extend=False) == Asked(runs=("a",))
    assert asked.union(record, ["d", "c", "b", "a", "a"], replace=False, extend=False).runs == ("d", "c", "b", "a")
    assert asked.union(record, ["a"], replace=True, extend=False) == Asked(runs=("a",), dropped=("b", "c"))
    assert asked.union(record, ["d"], replace=False, extend=True) == Asked(runs=("d", "a", "b", "c"))
    with pytest.raises(UsageError, match=r"2 other runs were asked before \(b, c\), which this command of 1 run "):
        asked.union(record, ["a"], replace=False, extend=False)
    with pytest.raises(UsageError, match="give one"):
        asked.union(None, ["a"], replace=True, extend=True)


def test_ten_thousand_runs_are_planned_in_a_few_seconds(known_text, capsys):
    widths, budgets = list(range(32, 2032, 16)), [f"{1e15 * 1.1**i:.6g}" for i in range(80)]
    words = [f"widths={widths}", f"budgets=[{','.join(budgets)}]", "span=1e9", "model.n_head=1"]
    began = time.process_time()
    said = plan_of([*words, "name=large", "data.max_epochs=1e9"], capsys)
    assert time.process_time() - began < 10
    assert int(re.search(r"large: ([\d,]+) runs, by budget", said)[1].replace(",", "")) >= 9_900


def test_light_modules_import_neither_torch_nor_ray():
    light = "gpt3core.spec gpt3core.sizes gpt3core.costs gpt3core.store.rundir sweeps.command sweeps.line analysis.fit"
    code = f"import sys, {', '.join(light.split())}; print([m for m in ('torch', 'ray') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
    )
