"""The identity of a run."""

from dataclasses import replace

import pytest

from gpt3core import spec as specs
from tests.conftest import make_run


def test_json_round_trip_keeps_the_identity(tiny_run):
    again = specs.from_json(specs.to_json(tiny_run))
    assert again == tiny_run
    assert again.run_id == tiny_run.run_id


def test_every_hashed_field_changes_the_id_and_labels_do_not(tiny_run):
    changed = [
        replace(tiny_run, seed=1),
        replace(tiny_run, tokens=tiny_run.tokens + 128),
        replace(tiny_run, precision="bf16"),
        replace(tiny_run, optim=replace(tiny_run.optim, lr=0.02)),
        replace(tiny_run, model=replace(tiny_run.model, band=8)),
        replace(tiny_run, data=replace(tiny_run.data, corpus_sha256="0")),
        replace(tiny_run, evals=replace(tiny_run.evals, items=9)),
    ]
    assert len({run.run_id for run in [tiny_run, *changed]}) == len(changed) + 1
    assert replace(tiny_run, budget_flops=1e9).run_id == tiny_run.run_id


def test_integers_and_floats_of_one_value_are_one_specification(tiny_run):
    assert replace(tiny_run, optim=replace(tiny_run.optim, clip=1)).run_id == tiny_run.run_id


def test_explain_names_the_differing_fields(tiny_run):
    other = replace(tiny_run, seed=3, optim=replace(tiny_run.optim, lr=0.02))
    assert specs.explain(tiny_run, other) == ["optim.lr: 0.01 -> 0.02", "seed: 0 -> 3"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokens": 100}, "whole number of batches"),
        ({"precision": "fp8"}, "allowed are auto, fp32, bf16"),
        ({"tokens": 0}, "must be positive"),
    ],
)
def test_impossible_runs_are_refused(tiny_run, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(tiny_run, **change)


def test_unknown_fields_are_refused(tales):
    data = {**specs.json.loads(specs.to_json(make_run(tales))), "colour": 1}
    with pytest.raises(ValueError, match="unknown field 'colour'"):
        specs.from_dict(specs.RunSpec, data)
