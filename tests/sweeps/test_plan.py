"""The plan: published layouts fit, and the command answers at once."""

import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.parallel import choose, layout, memory
from gpt3core.parallel.layout import Layout
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps import command
from sweeps.planning import asked, estimate, grid, hardware, recipe, totals, trunks
from sweeps.planning.asked import Asked
from sweeps.planning.recipe import Hardware, Placement


def gpt3(size):
    runs = grid.build(recipe.load(["recipe=gpt3"]), "0" * 64).runs
    return max((run for run in runs if run.label == size), key=lambda run: run.tokens)


def test_175b_in_a_day_waits_for_its_pipeline_and_says_so():
    """What takes 3 micro-batches through a pipeline of 4 waits half of its time: no MFU of 40%, and it is not a day."""
    found = estimate.on_gpus(gpt3("175B"), Hardware(max_days=1))
    assert found.choice is not None and found.choice.step is not None and found.layout is not None
    step, cut = found.choice.step, found.layout
    assert cut.bubble(1536) == pytest.approx((cut.pipeline - 1) / (cut.virtual * 1536 / cut.data / cut.micro_batch))
    assert step.bubble >= 0.9 * cut.bubble(1536) * step.model
    assert found.days > 1
    assert found.mfu < 0.35
    assert found.days == pytest.approx(3.17e23 / (found.mfu * cut.world_size * 989e12 * 86_400), rel=0.01)


def test_memory_fits_the_gpu_and_degrees_multiply():
    for size in ("125M", "1.3B", "13B", "175B"):
        for gpu, device in hardware.GPUS.items():
            run = gpt3(size)
            found = estimate.on_gpus(run, Hardware(gpu=gpu))
            assert found.choice is not None and found.layout is not None, (size, gpu)
            assert found.choice.memory.total <= 0.9 * device.memory_bytes
            layout.check(found.layout, run.model, run.optim.batch_tokens // run.model.n_ctx)
            assert found.layout.tensor <= device.node
            assert 0.05 < found.mfu < 0.65


@pytest.mark.parametrize(("size", "replicas"), [("125M", True), ("2.7B", True), ("6.7B", False), ("13B", False)])
def test_a_run_that_one_gpu_cannot_train_is_cut(size, replicas):
    found = estimate.on_gpus(gpt3(size), Hardware()).layout
    assert found is not None
    assert (found.world_size == found.data and found.shard == 1) is replicas


def test_pinned_degrees_are_kept_and_the_number_of_workers_too():
    run = gpt3("13B")
    found = estimate.on_gpus(run, Hardware(), Placement(workers=64, tensor=2, pipeline=4))
    assert found.layout is not None
    assert (found.layout.world_size, found.layout.tensor, found.layout.pipeline) == (64, 2, 4)
    alone = estimate.on_gpus(run, Hardware(), Placement(workers=64))
    assert alone.layout is not None and alone.layout.world_size == 64
    assert alone.days <= 1.03 * found.days
    by_context = estimate.on_gpus(run, Hardware(), Placement(workers=64, context=2)).layout
    assert by_context is not None and by_context.context == 2
    refused = estimate.on_gpus(run, Hardware(), Placement(workers=63))
    assert refused.reason == "no layout of 63 devices divides the model and its batch of 1024 sequences"


@pytest.mark.parametrize(
    ("pinned", "words"),
    [
        ({"tensor": 3}, "1024 sequences: tensor=3 does not divide model.n_head=40: allowed are 1, 2, 4"),
        ({"pipeline": 7, "workers": 56}, "1024 sequences: pipeline=7 x virtual=1 stages do not share n_layer=40"),
        ({"context": 7}, "1024 sequences: context=7 x tensor=1 devices share the positions of a sequence"),
        ({"tensor": 2, "workers": 62}, "1024 sequences with tensor=2 pinned: leave a pin out, or give another number"),
    ],
)
def test_a_pinned_degree_that_does_not_divide_is_named(pinned, words):
    reason = estimate.on_gpus(gpt3("13B"), Hardware(), Placement(**pinned)).reason
    assert words in reason


def test_a_batch_that_grows_is_cut_as_its_first_one_and_takes_longer():
    words = ["recipe=gpt3", "sizes=13B", "tokens=300e9", "plan.gpu=A100"]
    plain, grows = (
        grid.build(recipe.load([*words, *more]), "0" * 64).runs[0] for more in ((), ("optim.ramp_start=32e3",))
    )
    on = Hardware(gpu="A100"), Placement(workers=64)
    found, steady = estimate.on_gpus(grows, *on), estimate.on_gpus(plain, *on)
    first = grows.optim.ramp.start // 2048
    assert first < 1024 / 60  # 32,000 tokens, in sequences that divide the batch
    assert found.choice is not None and found.layout is not None and found.choice.step is not None
    assert first % (found.layout.data * found.layout.micro_batch) == 0
    # the steps of the ramp are more than its tokens make of full batches, and each is paid for
    assert found.days * 86_400 > found.choice.step.seconds * grows.tokens / grows.optim.batch_tokens
    assert found.days > steady.days
    assert found.mfu < found.choice.step.mfu(64, 312e12)


def test_a_model_that_fits_nothing_says_so(monkeypatch):
    tiny = replace(hardware.GPUS["V100"], memory_bytes=1e9)
    monkeypatch.setitem(hardware.GPUS, "V100", tiny)
    planned = estimate.on_gpus(gpt3("175B"), Hardware(gpu="V100", gpus=64))
    assert planned.layout is None
    assert re.match(
        r"no layout of up to 64 devices fits; nearest is .*tensor 8.* GB \(.*0.9 are usable$", planned.reason
    )


@pytest.mark.parametrize(
    ("size", "gpu", "workers"), [("175B", "A100", 512), ("175B", "A100", 256), ("13B", "H100", 32)]
)
def test_no_pipeline_that_a_user_could_pin_is_faster_than_what_is_chosen(size, gpu, workers):
    """A search that stops at long pipelines missed 175B on 512 A100s by a third: tensor 8 alone fits, and is slow."""
    plan, spec = Hardware(gpu=gpu), gpt3(size)
    free = estimate.on_gpus(spec, plan, Placement(workers=workers))
    for pipeline in (1, 2, 4, 8, 16):
        pinned = estimate.on_gpus(spec, plan, Placement(workers=workers, pipeline=pipeline))
        assert pinned.choice is None or free.days <= 1.05 * pinned.days, pinned.layout


def test_the_reasons_name_what_simpler_ways_would_take():
    found = estimate.on_gpus(gpt3("175B"), Hardware(gpu="A100"), Placement(workers=512))
    assert found.choice is not None
    said = choose.explain(found.task, found.choice)
    assert re.search(r"tensor \d x pipeline \d", said[0]) and "bubble" in said[0] and "of 80 GB (" in said[0]
    # 16 bytes a parameter and autocast's copies of one block and more: nothing that a device holds
    alone = next(line for line in said if line.startswith("replicas alone: at least"))
    assert float(re.search(r"at least ([\d,]+) GB", alone)[1].replace(",", "")) > 16 * 174.6
    assert any(line.startswith("no pipeline: ") and "slower" in line for line in said)


@pytest.mark.parametrize("settings", [Hardware(gpu="H1000"), Hardware(mfu=40.0), Hardware(max_days=0.0)])
def test_impossible_assumptions_are_refused(settings):
    with pytest.raises(ValueError, match="plan"):
        estimate.on_gpus(gpt3("125M"), settings)


def ran(code):
    """A Python of its own, and its CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=wide)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime


def test_the_plan_of_gpt3_needs_no_cluster_and_answers_at_once():
    heavy = "{'torch', 'ray', 'scipy', 'pandas'}"
    code = f"""import sys
from sweeps import command
code = command.sweep(['recipe=gpt3', '--plan'], '')
print({heavy} & set(sys.modules), code)"""
    for _ in range(3):
        (done, took), (_, numpy) = ran(code), ran("import numpy")
        if took < 15 * numpy:
            break
    assert took < 15 * numpy, "CPU-seconds; five imports of numpy where nothing else runs"
    assert done.stdout.splitlines()[-1] == "set() 0"
    head, *lines = [line for line in done.stdout.splitlines() if "300B" in line or "┃" in line]
    names = re.split(r"\s*┃\s*", head.strip("┃ "))
    rows = [dict(zip(names, re.split(r"\s*│\s*", line.strip("│ ")), strict=True)) for line in lines]
    assert [row["size"] for row in rows] == ["125M", "350M", "760M", "1.3B", "2.7B", "6.7B", "13B", "175B"]
    assert float(rows[-1]["6ND of D.1"]) == pytest.approx(3.14e23, rel=0.005)  # Table D.1
    assert int(rows[-1]["parameters"].replace(",", "")) == costs.params(gpt3("175B").model).total


def plan_of(words, capsys):
    assert command.sweep([*words, "--plan"], usage="") == 0
    return " ".join(capsys.readouterr().out.split())


def test_gpt3_on_the_starter_text_is_planned_and_not_run(known_text, capsys):
    said = plan_of(["recipe=gpt3"], capsys)
    assert "only to plan, not to run as it stands: data.corpus=starter: 24 of 24 runs would see its 8M training" in said
    assert re.search(
        r"only to plan, not to run as it stands: 6.7B on H100 does not fit: one device, micro-batch 1", said
    )
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


def test_masked_documents_are_said_and_cost_what_they_did(known_text, capsys):
    said = plan_of(["recipe=smoke", "data.mask_documents=true"], capsys)
    assert "within documents (data.mask_documents), of 607 tokens on average" in said  # 8.5M of 14,000
    assert "within documents" not in plan_of(["recipe=smoke"], capsys)
    for name in ("smoke", "depth", "gpt3"):
        plain, masked = (
            grid.build(recipe.load([f"recipe={name}", f"data.mask_documents={word}"]), "0" * 64).runs
            for word in ("false", "true")
        )
        for a, b in zip(plain, masked, strict=True):
            assert b.model.document_end == b.model.vocab_size - 1
            assert replace(b, model=replace(b.model, document_end=None)) == a
            assert costs.run_costs(b) == costs.run_costs(a)


def test_a_plan_ends_with_what_it_takes_in_all(known_text, capsys):
    """GPU-hours and dollars are the table's; the wall-clock is what the scheduler makes of them on that cluster."""
    words = ["recipe=gpt3", "sizes=[125M,1.3B]", "tokens=[30e9,300e9]", "plan.gpu=A100", "data.max_epochs=1e6"]
    said = plan_of(words, capsys)
    runs = grid.build(recipe.load(words), "0" * 64).runs
    found = [estimate.on_gpus(run, Hardware(gpu="A100")) for run in runs]
    hours = sum(f.days * 24 * f.layout.world_size for f in found if f.layout)
    assert f"in all: {hours:,.0f} GPU-hours, {hours * 1.8:,.0f} USD at 1.80 a A100-hour for 4 runs" in said
    assert "GPUs at work" not in said
    one = plan_of([*words, "plan.gpus=1", "plan.max_days=1e6"], capsys)
    alone = [estimate.on_gpus(run, Hardware(gpu="A100", gpus=1, max_days=1e6)).days for run in runs]
    assert f"on 1 GPUs: {sum(alone):,.1f} days from the first start to the last end" in one
    assert "GPUs at work 100% of it" in one
    many = plan_of([*words, "plan.gpus=64", "plan.max_days=1e6"], capsys)
    assert f"on 64 GPUs: {max(alone):,.1f} days" in many  # side by side, each on the one GPU that max_days allows


def test_totals_are_of_runs_on_gpus_and_share_their_trunks(known_text, capsys):
    assert "in all:" not in plan_of(["recipe=smoke"], capsys)
    words = ["recipe=smoke", "placement.gpus=0.5", "plan.gpus=2"]
    said = plan_of(words, capsys)
    assert re.search(r"in all: [\d,]+ GPU-hours, [\d,]+ USD at 3.00 a H100-hour for 4 runs", said)
    assert re.search(r"on 2 GPUs: [\d:]+ from the first start", said)
    timed, _ = totals.timed(recipe.load(words), grid.build(recipe.load(words), "0" * 64).runs, {})
    assert {t.kind.workers for t in timed} == {1}
    shared = recipe.load([*words, "optim.schedule=wsd"])
    runs = grid.build(shared, "0" * 64).runs
    prefixes = trunks.prefixes(runs)
    timed, _ = totals.timed(shared, runs, prefixes)
    branches = [t for t in timed if t.after is not None]
    assert branches, "runs of one size share their first steps"
    for branch in branches:
        whole = estimate.seconds(branch.spec, workers=1, gpus=0.5, plan=Hardware())
        assert branch.seconds + branch.after[1] == pytest.approx(whole)
    # once the trunks are trained, what remains is shorter still, and waits for nobody
    coming = [run for run in runs if run.run_id in prefixes]
    left, _ = totals.timed(shared, coming, prefixes)
    assert {t.spec.run_id: t.seconds for t in left} == {t.spec.run_id: t.seconds for t in branches}
    assert all(t.after is None for t in left)


def test_the_micro_batch_is_what_memory_allows_and_divides_the_rows():
    run = gpt3("1.3B")
    words = {"sequences": 512, "numerics": estimate.numerics(run)}
    on_cpu = memory.micro_batch(run.model, Layout(), memory_bytes=None, **words)
    assert on_cpu == 16_384 // 2048
    sizes = [memory.micro_batch(run.model, Layout(data=8), memory_bytes=gb * 1e9, **words) for gb in (36, 48, 80, 800)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 8
    for gb, size in zip((36, 48, 80), sizes, strict=False):
        assert memory.memory(run.model, Layout(data=8, micro_batch=size), **words).total <= 0.9 * gb * 1e9
    assert memory.micro_batch(run.model, Layout(data=512 // 6), memory_bytes=80e9, **words) == 6
    with pytest.raises(
        ValueError, match=r"data 8, micro-batch 1: 29 GB a device are needed .* 18 of its 20 GB are usable"
    ):
        memory.micro_batch(run.model, Layout(data=8), memory_bytes=20e9, **words)


def test_what_no_gpu_can_train_is_refused_in_every_family(known_text):
    shape = "shapes=[{n_layer: 48, d_model: 6144, n_head: 48}]"
    words = ["recipe=depth", shape, "model.n_ctx=128", "budgets=[]", "tokens=[5e6]", "data.max_epochs=1e6"]
    command.refuse(command.read(words))  # on cores memory is the host's
    would = r"d6144 on A100: no layout of 1 device fits; .* 72 are usable: .*workers=8 would do"
    with pytest.raises(UsageError, match=would):
        command.refuse(command.read([*words, "placement.gpus=1", "plan.gpu=A100"]))


def test_a_text_with_nothing_to_hold_out_is_refused_when_planned(known_text):
    known_text.validation_tokens = 100
    with pytest.raises(UsageError, match=r"too small: .* 100 held out \(data.validation_fraction=0.06\).*n_ctx=128"):
        command.read(["recipe=smoke"])
    command.read(["recipe=smoke", "data.validation_fraction=0.2"])


@pytest.mark.parametrize(("held_out", "tokens"), [(255, 65_536), (500_000, 255)])
def test_held_out_text_without_a_standard_error_is_refused_when_planned(known_text, held_out, tokens):
    known_text.validation_tokens = held_out
    with pytest.raises(UsageError, match=rf"validation_tokens={tokens}, of {held_out:,} held out .* these are 1"):
        command.read(["recipe=smoke", f"evals.validation_tokens={tokens}"])


def test_a_small_text_is_counted_to_the_token(known_text, capsys):
    known_text.train_tokens, known_text.validation_tokens = 9_000, 512
    assert "9,000 training and 512 validation tokens" in plan_of(["recipe=smoke"], capsys)


def test_the_plan_says_that_not_every_run_may_be_trained(known_text, capsys):
    said = plan_of(["recipe=smoke", "adaptive=true", "adaptive_share=0.4"], capsys)
    assert re.search(r"most about ten times the largest run's FLOPs, until 40% of the 6\S*e\+10 training FLOPs", said)
    assert "tell most about 1e+14 FLOPs" in plan_of(["recipe=smoke", "adaptive=true", "adaptive_target=1e14"], capsys)
    assert "law by no more than 0.05 of its 95% intervals" in plan_of(["recipe=smoke", "prune.by_value=0.05"], capsys)


def test_a_rule_for_widths_that_a_file_gives_beside_the_widths_is_said_to_do_nothing(known_text, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("budgets: [1.0e+12]\nwidths_at: {1.0e+12: [32]}\nwidths: [64]\nspan: 3\n")
    said = plan_of([f"recipe={path}"], capsys)
    assert "without effect on these budgets, of which widths_at names the widths: widths, span" in said
    assert "without effect" not in plan_of([f"recipe={path}", "widths=[32]", "span=50"], capsys)


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


@pytest.mark.parametrize(
    ("word", "lost"), [("evals.tasks=[copy]", "addition_2, cloze_bible"), ("evals.validation_tokens=32768", "held_out")]
)
def test_questions_that_are_asked_no_more_are_told(known_text, capsys, word, lost):
    order = command.read(["recipe=smoke"])
    sweep = SweepDir(order.root, "smoke")
    open_root(order.root, create=True)
    sweep.path.mkdir(parents=True)
    sweep.write_record(SweepRecord(runs=tuple(order.run_ids), evals=order.grid.evals))
    told = "asked before under this name and not so now"
    assert told not in plan_of(["recipe=smoke"], capsys)
    assert f"{told}, so those answers are not shown nor fitted: {lost} " in plan_of(["recipe=smoke", word], capsys)


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


@pytest.mark.soak
def test_ten_thousand_runs_are_planned_in_a_few_seconds(known_text, capsys):
    widths, budgets = list(range(32, 2032, 16)), [f"{1e15 * 1.1**i:.6g}" for i in range(80)]
    words = [f"widths={widths}", f"budgets=[{','.join(budgets)}]", "span=1e9", "model.n_head=1"]
    began = time.process_time()
    said = plan_of([*words, "name=large", "data.max_epochs=1e9"], capsys)
    assert time.process_time() - began < 20, "two where nothing else runs; a pass over all for each would take minutes"
    assert int(re.search(r"large: ([\d,]+) runs, by budget", said)[1].replace(",", "")) >= 9_900
