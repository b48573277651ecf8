"""The identity of a run: what can change the weights is hashed, nothing else, and old ids stay."""

import dataclasses
import json
import math
from dataclasses import dataclass, field, replace

import pytest

from gpt3core import sizes
from gpt3core import spec as specs
from gpt3core.anomaly import AnomalySpec
from gpt3core.evals.spec import EvalSpec
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.options import Options
from gpt3core.spec import DataSpec, OptimSpec, Parent, RunSpec
from tests.conftest import make_run

# The ids of specifications that were trained once, on text of version 3 of its preparation: a change here trains
# everything anew, for everybody.
GOLDEN = {
    "d16-3674d170e0fe": {},
    "d16-bb70dbdf72f9": {"seed": 1, "precision": "fp32", "kernel": "sdpa"},
    "d16-c8b6e4b9db91": {"parent": Parent(run_id="d16-000000000000", step=10)},
}
GOLDEN_175B = "175B-895200f87021"

NOT_HASHED = {"data.corpus", "budget_flops", "noise_scale_every"}
# a value for each field that differs from the base's and is allowed there
OTHER = {
    **{"model.n_layer": 3, "model.d_model": 32, "model.n_head": 4, "model.d_head": 4, "model.n_ctx": 16},
    **{"model.vocab_size": 301, "model.attention": "dense", "model.band": 8, "model.init_std": 0.03},
    **{"model.stride": 16, "model.summary": 4, "model.document_end": 299},
    **{"model.mup_base_width": 64, "model.mup_base_d_head": 16},
    **{"data.corpus": "/elsewhere", "data.corpus_sha256": "1" * 64, "data.tokenizer": "gpt2:301"},
    **{"data.validation_fraction": 0.2, "data.pipeline_version": 99, "data.weights": (("a", 1.0),)},
    **{"data.episodes": 0.25},
    **{"optim.lr": 0.02, "optim.batch_tokens": 192, "optim.warmup_tokens": 128, "optim.decay_tokens": 3841},
    **{"optim.final_fraction": 0.2, "optim.beta1": 0.8, "optim.beta2": 0.9, "optim.eps": 1e-7},
    **{"optim.weight_decay": 0.0, "optim.clip": 2.0, "tokens": 7680, "seed": 1, "precision": "fp32"},
    **{"optim.schedule": "cosine", "optim.stable_tokens": 128, "optim.decay_shape": "1-sqrt"},
    **{"optim.ramp_start": 128, "optim.ramp_tokens": 512},
    **{
        "kernel": "sdpa",
        "compile": "blocks",
        "trainer_version": 99,
        "budget_flops": 1e9,
        "parent": Parent(run_id="d16-000000000000", step=1),
    },
    **{"anomaly.policy": "skip", "anomaly.spike": 9.5, "anomaly.window": 64, "anomaly.limit": 3},
    **{"anomaly.back": 50, "anomaly.ahead": 0},
    **{"options.dropout": 0.1, "options.attention_dropout": 0.1, "options.label_smoothing": 0.1},
    **{"options.lr_noise": 0.1, "options.stop_every": 512, "options.stop_patience": 2},
    **{"options.stop_validation_tokens": 4096, "noise_scale_every": 10},
}
OF_MUP = {"model.mup_base_width", "model.mup_base_d_head"}  # changed on a run that has a base
RAMPED = {"optim.ramp_start", "optim.ramp_tokens"}  # changed on a run that has a ramp
OF_WSD = {"optim.schedule", "optim.stable_tokens", "optim.decay_shape"}  # changed on a run with that schedule
OF_EARLY_STOPS = {"options.stop_patience", "options.stop_validation_tokens"}  # changed on a run that may
GUARDED = {name for name in OTHER if name.startswith("anomaly.")} - {"anomaly.policy"}  # on a run with all rules
ONE_VALUE = {"model.architecture"}  # a registry with one entry so far
OF_FINETUNING = {"objective", "labelled"}  # come together, with a parent: see test_finetuning


def base() -> RunSpec:
    model = GPTSpec(n_layer=2, d_model=16, n_head=2, d_head=8, n_ctx=32, vocab_size=300, band=4)
    return RunSpec(
        model=model,
        data=DataSpec(corpus="/text", corpus_sha256="0" * 64, tokenizer="gpt2:300", validation_fraction=0.1),
        optim=OptimSpec(lr=0.01, batch_tokens=128, warmup_tokens=768, decay_tokens=3840),
        tokens=3840,
    )


def leaves(spec, prefix=""):
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}"


def changed(spec, path, value):
    name, _, rest = path.partition(".")
    return replace(spec, **{name: changed(getattr(spec, name), rest, value) if rest else value})


def test_the_ids_of_old_runs_stay():
    old = changed(base(), "data.pipeline_version", 3)
    assert {replace(old, **changes).run_id: changes for changes in GOLDEN.values()} == GOLDEN
    row = sizes.GPT3["175B"]
    run = replace(
        old,
        model=row.model(),
        optim=OptimSpec(lr=row.lr, batch_tokens=3_145_728, warmup_tokens=375_000_000, decay_tokens=260_000_000_000),
        tokens=3_145_728 * 95_367,
    )
    assert run.run_id == GOLDEN_175B


def test_every_field_is_hashed_or_named_here_as_a_label():
    spec = changed(base(), "model.attention", "fixed,banded")  # a shape in which every field has something to say
    wsd = replace(spec, optim=replace(spec.optim, schedule="wsd", warmup_tokens=0))
    ramped = replace(spec, optim=replace(spec.optim, ramp_start=64, ramp_tokens=128))
    stopping = replace(spec, options=Options(stop_every=256))
    based = changed(spec, "model", replace(spec.model, mup_base_width=8, mup_base_d_head=8))
    assert based.run_id != spec.run_id
    paths = set(leaves(spec))
    assert paths == set(OTHER) | ONE_VALUE | OF_FINETUNING, (
        "a new field: give it another value here, and say whether it is hashed"
    )
    guarded = replace(spec, anomaly=AnomalySpec(policy="rollback", spike=9.0))
    same = set()
    for path, value in OTHER.items():
        special = ((OF_WSD, wsd), (RAMPED, ramped), (OF_EARLY_STOPS, stopping), (GUARDED, guarded), (OF_MUP, based))
        before = next((run for fields, run in special if path in fields), spec)
        other = changed(before, path, value)
        assert other != before, path
        if other.run_id.rpartition("-")[2] == before.run_id.rpartition("-")[2]:
            same.add(path)
    assert same == NOT_HASHED
    hashed = specs.hashed(spec)
    assert hashed["model"]["architecture"] == "gpt"
    assert hashed["optim"]["schedule"] == "cosine"
    assert hashed["objective"] == "next_token"


def test_a_corpus_moved_elsewhere_is_the_same_run():
    spec = base()
    assert replace(spec, data=replace(spec.data, corpus="/moved/text")).run_id == spec.run_id


def test_a_field_added_later_leaves_old_ids_alone_while_it_has_its_default():
    @dataclass(frozen=True, kw_only=True)
    class Grown(RunSpec):
        dropout: float = field(default=0.0, metadata=specs.ADDED)

    values = {f.name: getattr(base(), f.name) for f in dataclasses.fields(RunSpec)}
    assert Grown(**values).run_id == base().run_id
    assert Grown(**values, dropout=0.1).run_id != base().run_id


def test_what_is_evaluated_is_not_part_of_a_run_and_has_an_id_of_its_own():
    assert "evals" not in specs.as_dict(base())
    asked = EvalSpec(tasks=("copy",), shots=(0, 1), items=8, validation_tokens=2048)
    others = [
        replace(asked, tasks=("copy", "addition_2")),
        replace(asked, shots=(0,)),
        replace(asked, items=9),
        replace(asked, validation_tokens=4096),
        replace(asked, version=99),
        replace(asked, seeds=3),
        read := replace(asked, contents={"copy": "0" * 64}, files={"copy": ["items.jsonl"]}),
    ]
    assert len({e.eval_id for e in [asked, *others]}) == 8
    unnamed = {"files", "run_programs"}
    assert len(others) == len(dataclasses.fields(EvalSpec)) - len(unnamed), "neither is part of it"
    assert replace(asked, run_programs=True).eval_id == asked.eval_id
    assert replace(read, files={"copy": ["moved.jsonl"]}).eval_id == read.eval_id
    for one in (asked, read):
        assert specs.from_dict(EvalSpec, json.loads(specs.to_json(one))) == one
    with pytest.raises(ValueError, match="a task in both"):
        replace(read, files={})


@pytest.mark.parametrize("name", list(sizes.GPT3))
def test_a_run_is_labelled_by_table_2_1_where_it_is_built_so(name):
    model = sizes.GPT3[name].model(n_ctx=512, vocab_size=1024)
    assert sizes.label(model) == name
    assert sizes.label(replace(model, n_layer=model.n_layer + 1)) == f"d{model.d_model}"


def test_json_round_trip_keeps_the_identity():
    guarded = replace(base(), anomaly=AnomalySpec(policy="skip", spike=9))
    for spec in (base(), guarded, replace(base(), parent=Parent(run_id="d16-000000000000", step=3), budget_flops=1e9)):
        again = specs.from_dict(RunSpec, json.loads(specs.to_json(spec)))
        assert again == spec
        assert again.run_id == spec.run_id


@pytest.mark.parametrize(
    ("path", "value", "needed"),
    [
        ("precision", 16, "text"),
        ("model.attention", True, "text"),
        ("data.tokenizer", None, "text"),
        ("tokens", math.inf, "a whole number"),
        ("optim.batch_tokens", "512", "a whole number"),
        ("options", None, "an object with fields"),
        ("options", [], "an object with fields"),
        ("seed", True, "a whole number"),
        ("budget_flops", "x", "a number"),
        ("budget_flops", [], "a number"),
        ("optim.lr", "0.1", "a number"),
        ("optim.clip", True, "a number"),
        ("data.weights", {"a": 1.0}, "a list"),
        ("data.weights", [["a", 1.0, 2.0]], "a list of 2"),
        ("data.weights", [["a", "b"]], "a number"),
    ],
)
def test_a_field_of_another_type_is_a_sentence(path, value, needed):
    data = json.loads(specs.to_json(base()))
    *outer, name = path.split(".")
    (data[outer[0]] if outer else data)[name] = value
    with pytest.raises(ValueError, match=f"{needed} is needed"):
        specs.from_dict(RunSpec, data)


def test_an_architecture_of_another_type_is_none():
    data = json.loads(specs.to_json(base()))
    data["model"]["architecture"] = ["gpt"]
    with pytest.raises(ValueError, match="allowed are gpt"):
        specs.from_dict(RunSpec, data)


def test_integers_and_floats_of_one_value_are_one_specification():
    assert changed(base(), "optim.clip", 1).run_id == base().run_id
    assert changed(base(), "model.init_std", 1).run_id == changed(base(), "model.init_std", 1.0).run_id


def test_explain_names_the_differing_fields_that_are_hashed():
    other = changed(changed(changed(base(), "seed", 3), "optim.lr", 0.02), "data.corpus", "/moved")
    assert specs.explain(base(), other) == ["optim.lr: 0.01 -> 0.02", "seed: 0 -> 3"]
    branch = replace(base(), parent=Parent(run_id="d16-000000000000", step=3))
    assert specs.explain(base(), branch) == ["parent.run_id: None -> d16-000000000000", "parent.step: None -> 3"]


@pytest.mark.parametrize(
    "run_id", ["", "d16-0", "../d16-000000000000", "d16-000000000000/..", "d16-00000000000G", "-" * 99]
)
def test_a_parents_id_has_the_form_of_one(run_id):
    with pytest.raises(ValueError, match=r"parent\.run_id=.*12 hex digits, like d16-0123456789ab"):
        Parent(run_id=run_id, step=1)


def test_every_size_may_be_a_parent():
    for label in (*map(sizes.label, (row.model() for row in sizes.GPT3.values())), base().label):
        Parent(run_id=f"{label}-0123456789ab", step=1)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("tokens", 100, "whole number of batches"),
        ("tokens", 0, "must be positive"),
        ("precision", "fp8", "allowed are auto, fp32, bf16"),
        ("objective", "masked", "allowed are next_token"),
        ("seed", -1, "seed=-1: it must lie from 0 to"),
        ("seed", 10**20, "it must lie from 0 to"),
        ("optim.final_fraction", 7.0, r"optim.final_fraction=7.0: it must lie from 0 to 1"),
        ("optim.weight_decay", -5.0, "optim.weight_decay=-5.0"),
        ("optim.beta2", 1.0, "optim.beta2=1.0"),
        ("optim.lr", float("nan"), "optim.lr=nan: it must be positive and finite"),
        ("optim.clip", float("inf"), "optim.clip=inf"),
        ("model.d_head", 0, "model.d_head=0"),
        ("model.n_ctx", 31, "not a whole number of sequences"),
        ("model.attention", "sparse", "allowed are dense, alternating"),
        ("options.dropout", 0.95, r"options.dropout=0.95: it must lie from 0 to 0.9"),
        ("options.label_smoothing", -0.1, r"options.label_smoothing=-0.1"),
        ("options.lr_noise", float("nan"), r"options.lr_noise=nan"),
        ("options.stop_patience", 2, "without options.stop_every no run stops early"),
        ("noise_scale_every", -1, "noise_scale_every=-1"),
    ],
)
def test_impossible_runs_are_refused(path, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        changed(base(), path, value)


def test_unknown_fields_and_architectures_are_refused(tales):
    data = json.loads(specs.to_json(make_run(tales)))
    with pytest.raises(ValueError, match="unknown field 'colour'"):
        specs.from_dict(RunSpec, {**data, "colour": 1})
    with pytest.raises(ValueError, match=r"model.architecture='rnn': allowed are gpt"):
        specs.from_dict(RunSpec, {**data, "model": {**data["model"], "architecture": "rnn"}})
    with pytest.raises(ValueError, match="an object with fields is needed"):
        specs.from_dict(RunSpec, [])
