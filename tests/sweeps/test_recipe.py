"""A recipe says what it does: every key of every ladder changes something, and what cannot be is one sentence."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import sweeps.driving
from gpt3core import spec as specs
from gpt3core.errors import UsageError
from sweeps import command
from sweeps.planning import grid, recipe
from tests.sweeps.base_recipes import SETTABLE

SHA = "0" * 64
CHANGES = {
    "name": "other",
    "min_tokens": "5e5",
    "seed": "6",
    "replicas": "3",
    "replicas_below_flops": "null",
    "adaptive": "false",
    "adaptive_share": "0.3",
    "adaptive_target": "1e14",
    "prune.by_value": "0.2",
    "prune.target": "1e14",
    "precision": "fp32",
    "kernel": "sdpa",
    "compile": "none",
    "train.dropout": "0.1",
    "train.attention_dropout": "0.1",
    "train.label_smoothing": "0.1",
    "train.lr_noise": "0.1",
    "train.stop_every": "1e5",
    "train.stop_patience": "2",
    "train.stop_validation_tokens": "32768",
    "train.noise_scale_every": "5",
    "data.corpus": "",  # another file, made by the test
    "data.tokenizer": "gpt2:2048",
    "data.validation_fraction": "0.1",
    "data.max_epochs": "1e-3",
    "data.weights": "{one: 0.4, two: 0.6}",
    "data.episodes": "0.25",
    "data.mask_documents": "true",
    "evals.tasks": "[copy,induction]",
    "evals.shots": "0",
    "evals.items": "30",
    "evals.files": "{addition_2: FOLDER/items.jsonl}",
    "evals.validation_tokens": "50000",
    "evals.run_programs": "true",
    "placement.workers": "2",  # changes the plan, or does not divide a batch
    "placement.tensor": "2",
    "placement.pipeline": "2",
    "placement.context": "2",
    "placement.cpus": "2",
    "placement.gpus": "2",
    "placement.accelerator": "A100",
    "placement.rack": "pod",
    "placement.preempt": "true",
    "placement.patience_hours": "5",
    "placement_of": "",  # of a size of each family
    "placement.max_failures": "5",
    "placement.checkpoint_seconds": "3",
    "limit.hours": "1",
    "limit.usd": "1",
    "limit.deadline": "3d",
    "limit.devices": "3",
    "limit.target": "1e20",
    "placement.min_workers": "1",
    "placement.shrink_seconds": "5",
    "placement.stall_seconds": "60",
    "placement.hang_seconds": "30",
    "plan.gpu": "A100",
    "plan.max_days": "1000",
    "plan.gpus": "64",
    "plan.rack_nodes": "1",
    "plan.node_hours": "1000",
    "plan.mfu": "0.3",
    "plan.usd_per_gpu_hour": "1",
    "plan.usd_per_gpu_hour_of": "{H100: 9}",
    "plan.gpus_of": "{A100: 8}",
    "anomaly.policy": "skip",
    "anomaly.spike": "9",
    "anomaly.window": "16",
    "anomaly.limit": "3",
    "anomaly.back": "7",
    "anomaly.ahead": "0",
    "replace": "true",
    "extend": "true",
    "widths": "[16,32]",
    "budgets": "[1e11,1e12]",
    "widths_at": "{}",
    "center_params": "20000",
    "center_flops": "5e10",
    "center_exponent": "0.2",
    "span": "2",
    "points": "4",
    "spacing": "2",
    "beside": "2",
    "most_points": "4",
    "ahead": "2",
    "width_step": "16",
    "sizes": "125M",
    "tokens": "[3e8]",
    "shapes": "[{n_layer: 1, d_model: 64, n_head: 2}]",
    "model.n_layer": "3",
    "model.n_head": "2",
    "model.n_ctx": "64",
    "model.attention": "dense",
    "model.band": "8",
    "model.stride": "16",
    "model.summary": "4",
    "model.mup_base_width": "64",
    "model.mup_base_d_head": "8",
    "optim.rule": "steplaw",
    "optim.lr": "0.002",
    "optim.lr_max": "0.001",
    "optim.lr_times_width": "0.3",
    "optim.lr_factor": "0.5",
    "optim.batch_tokens_at_1m": "2000",
    "optim.batch_tokens_min": "1024",
    "optim.batch_tokens_max": "512",
    "optim.warmup_fraction": "0.1",
    "optim.warmup_tokens": "1e8",
    "optim.cosine_tokens": "300e9",
    "optim.ramp_start": "32768",
    "optim.ramp_tokens": "1e9",
    "optim.schedule": "wsd",
    "optim.decay_fraction": "0.1",
    "optim.decay_shape": "1-sqrt",
    "optim.final_fraction": "0",
    "optim.weight_decay": "0.2",
    "optim.clip": "0.5",
}
OF_FAMILY = {("gpt3", "min_tokens"): "1e8", ("gpt3", "model.n_ctx"): "1024", ("shapes", "min_tokens"): "2.5e6"}
EARLY = "adaptive=false prune.by_value=null train.stop_every=1e5"  # a law needs every run that these two take
OF_FAMILY[("gpt3", "model.mup_base_width")] = "1536"
SIZES = {"nano": "d32", "gpt3": "125M", "shapes": "d64", "profiles": "d16"}
OF_FAMILY |= {(family, "placement_of"): f"{{{size}: {{priority: 1}}}}" for family, size in SIZES.items()}
ONE_BATCH = "optim.batch_tokens_min=1024 optim.batch_tokens_max=1024"
BESIDE = {  # what gives a key its meaning
    "placement.min_workers": f"placement.workers=2 {ONE_BATCH}",
    "placement.shrink_seconds": f"placement.min_workers=1 placement.workers=2 {ONE_BATCH}",
    "placement.rack": f"placement.workers=2 {ONE_BATCH}",
    "placement.preempt": "placement_of.SIZE.priority=1",
    "placement.patience_hours": "placement_of.SIZE.priority=1",
    "plan.rack_nodes": f"plan.gpus=64 placement.rack=pod placement.workers=2 {ONE_BATCH}",
    "plan.node_hours": "plan.gpus=64",
    "plan.gpus_of": "plan.gpus=64",
    "optim.decay_fraction": "optim.schedule=wsd",
    "optim.decay_shape": "optim.schedule=wsd",
    "optim.ramp_tokens": "optim.ramp_start=65536",
    "evals.files": "evals.tasks=[addition_2] evals.items=2 evals.shots=0",
    "limit.target": "limit.hours=1e-4",
    "anomaly.window": "anomaly.spike=9",
    "anomaly.limit": "anomaly.policy=skip",
    "anomaly.back": "anomaly.policy=rollback",
    "anomaly.ahead": "anomaly.policy=rollback",
    **dict.fromkeys(("train.stop_patience", "train.stop_validation_tokens"), EARLY),
    "train.stop_every": "adaptive=false prune.by_value=null",
    "model.mup_base_d_head": "model.mup_base_width=64",
    "optim.lr": "model.mup_base_width=64",
}
BESIDE_OF_FAMILY = {("gpt3", "model.mup_base_width=64"): "model.mup_base_width=768"}
BESIDE_OF_FAMILY |= {("gpt3", words): words.replace(ONE_BATCH, "") for words in BESIDE.values() if ONE_BATCH in words}
PERMITS = {"evals.run_programs": "evals.tasks=[humaneval_pass]"}  # what is refused without it
READ_BY_DRIVER = {  # nothing of a plan shows them
    "beside",
    "ahead",
    "adaptive",
    "adaptive_share",
    "adaptive_target",
    "prune.by_value",
    "prune.target",
    "placement.max_failures",
    "placement.checkpoint_seconds",
    "placement.min_workers",
    "placement.shrink_seconds",
    "placement.stall_seconds",
    "placement.hang_seconds",
}


def consequences(words, capsys):
    """All that a command of these words would do, short of starting it."""
    order = command.read(words)
    try:
        refused = command.refuse(order) or ""
    except UsageError as error:
        refused = str(error)
    capsys.readouterr()
    command._show(order)  # what --plan does with it
    return [specs.to_json(run) for run in order.grid.runs], order.grid.evals, refused, capsys.readouterr().out


OWN = {key: family for family, key in reversed(SETTABLE)}  # the first ladder that has it; the others are soak
EVERY = [
    pytest.param(family, key, marks=() if OWN[key] == family or (family, key) in OF_FAMILY else pytest.mark.soak)
    for family, key in SETTABLE
]
UNCHANGED = {}  # ladder and word beside its base recipe -> the consequences


@pytest.mark.parametrize(("family", "key"), EVERY, ids=lambda value: value)
def test_every_key_of_every_ladder_has_an_effect(family, key, base, capsys, folder, monkeypatch):
    monkeypatch.setattr(command, "idle", lambda *_: [])  # a sentence about a word is no effect of it
    beside = BESIDE_OF_FAMILY.get((family, BESIDE.get(key)), BESIDE.get(key))
    words = [*base(family), *(beside or "").replace("SIZE", SIZES[family]).split()]
    value = (OF_FAMILY.get((family, key), CHANGES[key]) or "FOLDER/other").replace("FOLDER", str(folder))
    changed = [*(word for word in words if not word.startswith(f"{key}=")), f"{key}={value}"]
    if key in PERMITS:
        for given, reason in ((words, "run_programs=true"), (changed, "give the file of its items")):
            with pytest.raises(UsageError, match=reason):
                command.read([*given, PERMITS[key]])
        return
    if key in READ_BY_DRIVER:
        assert getattr_names(sweeps.driving) >= {key.rpartition(".")[2]}
        assert recipe.to_yaml(command.read(changed).recipe) != written(tuple(words))
        return
    if (before := (family, BESIDE.get(key))) not in UNCHANGED:
        UNCHANGED[before] = consequences(words, capsys)
        if not BESIDE.get(key):
            assert consequences(words, capsys) == UNCHANGED[before], "nothing but the words decides"
    try:
        assert consequences(changed, capsys) != UNCHANGED[before]
    except UsageError as error:
        assert key in {f"placement.{name}" for name in ("workers", "tensor", "pipeline", "context")}, "it has a meaning"
        assert re.search("do(es)? not divide", str(error))


@cache
def written(words):
    """A recipe of these words in full."""
    return recipe.to_yaml(recipe.load(words))


@cache
def getattr_names(package):
    """Attributes that a package's code reads."""
    trees = (ast.parse(path.read_text()) for path in Path(package.__file__).parent.glob("*.py"))
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["adaptive_share=0.4"], "adaptive_share=0.4 has no effect with adaptive=false: .* adaptive=true"),
        (["adaptive_target=1e14"], "adaptive_target=1e\\+14 has no effect"),
        (["train.stop_patience=5"], "train.stop_patience=5 has no effect .* or give train.stop_every=1e6"),
        (["placement.min_workers=1"], "placement.min_workers=1: .* every run has one worker: leave it out"),
        (["placement.workers=2", "placement.min_workers=2"], "fewer than placement.workers=2, from 1 to 1"),
        (["train.stop_every=0"], "train.stop_every=0: tokens, 1 or more"),
        (["train.stop_every=1e5", "adaptive=true"], "train.stop_every=100000, adaptive=true: a run that stops early"),
        (["train.stop_every=1e5", "prune.by_value=0.1"], "prune.by_value: a run that stops early"),
        (["train.stop_every=1e5", "optim.schedule=wsd"], "optim.schedule=wsd: runs of one size wait"),
        (["train.stop_every=1e9"], "train.stop_every=1e\\+09, train.stop_patience=3: no run can stop early"),
        (["train.stop_every=1e5", "train.stop_validation_tokens=200"], "=200: two sequences are 256 tokens"),
        (["train.dropout=0.95"], "train.dropout=0.95: it must lie from 0 to 0.9"),
        (["train.attention_dropout=0.1", "kernel=native"], "kernel=native, train.attention_dropout=0.1"),
        (["train.noise_scale_every=1000000"], "train.noise_scale_every=1000000: the longest run has"),
        (
            ["train.noise_scale_every=5", "placement.workers=2", "placement.context=2"],
            "_every=5, .* needs replicas",
        ),
        (["replicas_below_flops=1e12"], "replicas_below_flops=1e\\+12 has no effect with replicas=1"),
        (["replicas=2", "replicas_below_flops=1e10"], "replicas=2 has no effect: no cell"),
        (["model.attention=dense", "model.band=8"], "model.band=8 has no effect with model.attention=dense"),
        (["plan.gpu=A100"], "plan.gpu=A100 has no effect with placement.gpus=0"),
        (["evals.tasks=[]", "evals.items=10"], "evals.items=10 has no effect"),
        (["evals.shots=[]"], "evals.shots=\\[\\]: tasks are asked"),
        (["evals.tasks=[adition_2]"], "evals.tasks: unknown task 'adition_2', did you mean addition_2"),
        (["evals.tasks=[addition_2+instruction]"], "evals.tasks: .* addition_2 has no instruction"),
        (
            ["evals.tasks=[piqa]"],
            "evals.files.piqa: give the file of its items, JSON lines with goal, sol1, sol2, label",
        ),
        (
            ["evals.tasks=[labelled]"],
            "evals.files.labelled: give the file of its items, JSON lines with label and text",
        ),
        (
            ["evals.tasks=[humaneval_pass]"],
            "humaneval_pass runs the programs that a model writes, with limits but in no",
        ),
        (["evals.run_programs=true"], "run_programs=true has no effect: no task of "),
        (["evals.files.piqa=a.jsonl"], "evals.files.piqa has no effect: evals.tasks does not ask piqa"),
        (
            ["evals.tasks=[piqa]", "evals.files.piqa=/no.jsonl"],
            "evals.files.piqa: /no.jsonl cannot be read .No such file",
        ),
        (
            ["evals.tasks=[piqa]", "evals.files={piqa: [a, b, c]}"],
            "evals.files.piqa: 3 files: give that of the questions",
        ),
        (
            ["evals.tasks=[piqa]", "evals.files.piqa=datasets:piqa"],
            "evals.files.piqa: datasets:piqa: datasets:NAME:SPLIT",
        ),
        (["widths_at={1e15: [8]}"], "widths_at names 1e\\+15, which is none of the budgets"),
        (["budgets=[1e12]", "widths_at={1e12: [32]}", "span=3"], "span has no effect beside widths_at"),
        (["model.stride=16"], "model.stride=16 has no effect with model.attention=alternating"),
        (["model.attention=strided", "model.stride=128"], "model.stride=128: .* from 1 to below model.n_ctx=128"),
        (["model.band=200"], "model.band=200: .* from 1 to model.n_ctx=128"),
        (["model.mup_base_d_head=16"], "model.mup_base_d_head=16 has no effect with model.mup_base_width=0"),
        (["optim.lr=0.01"], "optim.lr=0.01 has no effect with model.mup_base_width=0: .* model.mup_base_width=64"),
        (
            ["model.mup_base_width=32", "optim.lr=0.01", "optim.lr_max=0.02"],
            "optim.lr_max=0.02 has no effect with optim.lr=0.01",
        ),
        (["model.mup_base_width=32", "optim.lr=nan"], "optim.lr=nan"),
        (["model.mup_base_width=-1"], "model.mup_base_width=-1: it must lie from 0"),
        (
            ["model.mup_base_width=65"],
            "model.mup_base_width=65: width 65 does not divide .* give model.mup_base_d",
        ),
        (
            ["recipe=depth", "model.mup_base_width=16"],
            "16 is the width of no size of this ladder: give",
        ),
        (["recipe=gpt3", "model.mup_base_width=256"], "256 is the width of no size of this ladder: give"),
        (
            ["recipe=gpt3", "model.mup_base_width=256", "model.mup_base_d_head=64"],
            "256 is the width of no size of Table 2.1, .*: give optim.lr",
        ),
        (
            ["recipe=gpt3", "model.mup_base_width=768", "optim.lr=1e-3", "optim.lr_factor=2"],
            "optim.lr_factor=2 has no effect with optim.lr=0.001",
        ),
        (["seed=1", "seed=2"], "seed=2: seed=1 was given too"),
        (["recipe=smoke", "recipe=laptop"], "one command drives one recipe"),
        (["replace=true", "extend=true"], "give one"),
        (["family=gpt3"], "the recipe laptop is of the family nano"),
        (["sizes=125M"], "sizes: the family nano does not have it, only gpt3"),
        (["recipe=gpt3", "widths=8"], "widths: the family gpt3 does not have it, only nano"),
        (["recipe=gpt3", "model.n_layer=3"], "model.n_layer: the family gpt3 does not have it"),
        (["recipe=gpt3", "optim.lr_max=1"], "optim.lr_max: .* did you mean optim.lr\\?"),
        (
            ["recipe=gpt3", "placement.workers=7"],
            "placement.workers=7 on H100: no layout of 7 devices divides the model",
        ),
        (["placement.workers=4", "placement.tensor=3"], "placement.workers=4 does not divide by placement.tensor=3"),
        (["placement.workers=2", "placement.pipeline=2", "model.n_layer=3"], "n_layer=3 blocks evenly: .* 1, 3"),
        (["placement.context=0"], "placement.context=0: ranks that share a model, 1 or more"),
        (["recipe=gpt3", "placement.workers=16", "plan.gpus=8"], "plan.gpus=8: a run takes placement.workers=16"),
        (["plan.gpus=8"], "plan.gpus=8 .*placement.gpus=0"),
        (["recipe=gpt3", "plan.gpus=0"], "plan.gpus=0: GPUs of the whole cluster, from 1"),
        (["recipe=depth", "placement.workers=3"], "placement.workers=3: the batch of"),
        (["placement.workers=3"], "placement.workers=3: the batch of"),
        (["evals.shots=[0,0]"], "evals.shots=\\[0, 0\\]: each once"),
        (["evals.tasks=[copy,copy]"], "evals.tasks=.*: each once"),
        (["placement.cpus=0.5"], "placement.cpus=0.5, .* whole number of 1 or more"),
        (["placement.cpus=1.5"], "placement.cpus=1.5: a whole number"),
        (["placement.cpus=0"], "trains on placement.cpus threads"),
        (["placement.cpus=nan"], "placement.cpus=nan: a finite number"),
        (["placement.cpus=-1"], "placement.cpus=-1: a finite number"),
        (["placement.gpus=1.5"], "placement.gpus=1.5: a whole number, or a share"),
        (["placement.gpus=0.5", "placement.workers=2"], "Ray packs shares of a GPU onto one device"),
        (["name=" + 300 * "a"], "at most 80 letters"),
        (["optim.final_fraction=7"], "final_fraction=7.0: it must lie from 0 to 1"),
        (["optim.weight_decay=-5"], "weight_decay=-5.0: it must lie from 0 to 1"),
        (["seed=1e20"], "seed"),
        (["seed=-1"], "seed=-1: it must lie from 0"),
        (["budgets=[nan]"], "budgets: nan must be positive"),
        (["widths=[0]"], "widths: 0 must be positive"),
        (["widths=1" + 300 * "0"], "widths: 1000.* must be positive and at most"),
        (["model.n_layer=100000000000"], "n_layer=100000000000"),
        (["replicas=1000000000"], "replicas=1000000000: it must lie from 1"),
        (["optim.batch_tokens_min=4096"], "optim.batch_tokens_min=4096 is more than"),
        (["name=${name}"], "nterpolation"),
        (["plan.mfu=40", "placement.gpus=1"], "plan.mfu=40.0: it is a share"),
        (["recipe=" + 5000 * "x"], "no such recipe"),
        (["recipe=depth", "shapes={n_layer: 2, d_model: 30, n_head: 4}"], "n_head=4 does not divide d_model=30"),
        (["recipe=depth", "shapes={n_layer: 2, width: 30}"], "shapes=.*'width' not in 'Shape'"),
        (["recipe=depth", "shapes={n_layer: 2}"], "shapes: d_model=0"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        grid.build(recipe.load(settings), SHA)
    assert "\n" not in str(caught.value)


def test_help_and_keys_answer_at_once_and_the_keys_of_the_hint_are_all(known_text, capsys):
    heavy = "{'torch', 'pandas', 'scipy', 'ray', 'numpy', 'pyarrow'}"
    code = (
        "import sys; from sweeps import command; "
        "command.sweep(['--help'], ''); command.sweep(['--keys', 'recipe=gpt3'], ''); "
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("set()")
    assert command.sweep(["--keys", "recipe=gpt3"], "") == 0
    printed = capsys.readouterr().out
    for key in recipe.keys_of(recipe.Gpt3Recipe):
        assert f"{key.rpartition('.')[2]}:" in printed
