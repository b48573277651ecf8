"""The runs that a recipe's keys give: widths, shapes, sizes, replicas, and what a file and a command say together."""

import re

import pytest

from gpt3core.errors import UsageError
from gpt3core.evals.spec import EvalSpec
from sweeps.planning import grid, recipe

SHA = "0" * 64


def widths(*settings):
    runs = grid.build(recipe.load(["recipe=laptop", *settings]), SHA).runs
    return {(run.budget_flops, run.model.d_model) for run in runs}


@pytest.mark.parametrize("keys", ["1e12: [32], 1.0e+12: [64]", "1000000000000: [32], '1e12': [64]"])
def test_two_spellings_of_a_budget_are_refused(keys, tmp_path):
    (tmp_path / "two.yaml").write_text(f"budgets: [1.0e+12]\nwidths_at: {{{keys}}}\n")
    for words in (["budgets=1e12", f"widths_at={{{keys}}}"], [f"recipe={tmp_path / 'two.yaml'}"]):
        with pytest.raises(UsageError, match="are the same number: leave one of them out"):
            recipe.load(words)


def test_typed_widths_win_over_the_files_widths_at():
    assert widths("widths=[32,64]") == {(3.16e11, 32), (1e12, 32), (1e12, 64), (3.16e12, 64)}
    assert widths("widths=14") == {(1e11, 14)}, "a width that no budget of the file names"
    assert widths("budgets=1e12") == {(1e12, d) for d in (32, 40, 48, 64, 80)}
    assert widths("budgets=1e12", "widths_at={1e12: 64}") == {(1e12, 64)}


def test_replicas_are_seeds_of_every_cell_unless_limited():
    runs = grid.build(recipe.load(["recipe=smoke", "replicas=2"]), SHA).runs
    assert len(runs) == 8
    assert {run.seed for run in runs} == {0, 1}


def test_a_switch_that_is_typed_takes_the_files_keys_with_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("widths: [16]\nbudgets: [1.0e+11]\nadaptive: true\nadaptive_share: 0.3\n")
    assert recipe.load([f"recipe={path}"]).adaptive_share == 0.3
    plain = recipe.load([f"recipe={path}", "adaptive=false"])
    assert grid.build(plain, SHA).runs


def test_one_is_taken_for_a_list_of_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("widths: 16\nbudgets: 1.0e+11\nevals: {tasks: copy, shots: 0}\n")
    assert grid.build(recipe.load([f"recipe={path}"]), SHA).evals == EvalSpec(tasks=("copy",), shots=(0,), items=200)
    listed = recipe.load(["widths=[16]", "budgets=[1e11]", "evals.tasks=[copy]"])
    assert recipe.load(["widths=16", "budgets=1e11", "evals.tasks=copy"]) == listed
    assert recipe.load(["recipe=gpt3", "sizes=125M", "tokens=1e9"]).sizes == ["125M"]


def test_what_is_given_twice_in_a_list_is_one_run():
    once = grid.build(recipe.load(["recipe=depth"]), SHA).runs
    shapes = "[{n_layer: 2, d_model: 64, n_head: 2}, {n_layer: 2, d_model: 64, n_head: 2, d_head: 32}]"
    doubled = grid.build(recipe.load(["recipe=depth", f"shapes={shapes}", "budgets=[1e12,1e12]"]), SHA).runs
    assert [run.run_id for run in doubled] == [r.run_id for r in once if (r.model.n_layer, r.budget_flops) == (2, 1e12)]
    assert len(grid.build(recipe.load(["recipe=gpt3", "sizes=[125M,125M]", "tokens=[1e9,1e9]"]), SHA).runs) == 1


def test_shapes_are_as_written_at_every_budget():
    runs = grid.build(recipe.load(["recipe=depth", "tokens=2e6"]), SHA).runs
    written = recipe.load(["recipe=depth"])
    assert len(runs) == len(written.shapes) * (len(written.budgets) + 1)
    for run in runs:
        assert run.optim.lr == pytest.approx(min(0.012, 0.6 / run.model.d_model))
        assert (run.model.n_layer, run.model.d_model) in {(s.n_layer, s.d_model) for s in written.shapes}
    assert sum(run.tokens == pytest.approx(2e6, rel=0.01) for run in runs) >= len(written.shapes)


def test_gpt3s_sizes_take_what_a_researcher_varies():
    (run,) = grid.build(
        recipe.load(
            [
                "recipe=gpt3",
                "sizes=125M",
                "tokens=300e9",
                "optim.lr_factor=2",
                "optim.clip=0.5",
                "optim.weight_decay=0",
                "model.attention=dense",
                "optim.warmup_tokens=1e9",
                "optim.cosine_tokens=300e9",
            ]
        ),
        SHA,
    ).runs
    assert (run.optim.lr, run.optim.clip, run.optim.weight_decay) == (1.2e-3, 0.5, 0.0)
    assert (run.optim.warmup_tokens, run.optim.decay_tokens) == (1e9, 300e9)
    assert run.model.attention == "dense"


@pytest.mark.parametrize(
    "settings",
    [
        ["recipe=laptop"],
        ["recipe=laptop", "budgets=1e12", "replicas=2"],
        ["recipe=laptop", "widths=[32,64]", "extend=true"],
        ["recipe=smoke", "placement.gpus=1", "plan.gpu=A100"],
        ["recipe=gpt3", "seed=3", "model.n_ctx=1024"],
        ["recipe=depth", "model.attention=dense"],
    ],
)
def test_the_recipe_that_a_sweep_keeps_gives_the_same_runs_again(settings, tmp_path):
    first = recipe.load(settings)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(first))
    again = recipe.load([f"recipe={path}"])
    assert grid.build(again, SHA) == grid.build(first, SHA)
    assert not (again.replace or again.extend)
    assert again.name == first.name


@pytest.mark.parametrize(("size", "batch", "ramp"), [("125M", 524_288, 4e9), ("175B", 3_145_728, 12e9)])
def test_gpt3s_batch_grows_from_32k_tokens_over_4_to_12_billion(size, batch, ramp):
    words = ["recipe=gpt3", f"sizes=[{size}]", "tokens=[300e9]", "data.max_epochs=1e9", "optim.ramp_start=32768"]
    (run,) = grid.build(recipe.load(words), "0" * 64).runs
    assert run.optim.ramp.phases[0].batch_tokens == 32_768
    assert run.optim.ramp.phases[-1].batch_tokens == batch
    assert run.optim.ramp_tokens == pytest.approx(ramp, rel=0.02)
    assert run.tokens == pytest.approx(300e9, abs=batch)
    assert run.steps > run.tokens / batch


def test_a_first_batch_that_is_the_whole_batch_is_no_ramp():
    words = ["recipe=gpt3", "sizes=[125M]", "tokens=[300e9]", "data.max_epochs=1e9"]
    built = [grid.build(recipe.load([*words, *more]), "0" * 64).runs for more in ((), ("optim.ramp_start=1e9",))]
    assert built[0] == built[1], "the same training has one id"


@pytest.mark.parametrize(
    ("word", "meant"), [("sizes=125M", ""), ("tokens=[1e9]", ", did you mean min_tokens?"), ("points=3", "")]
)
def test_a_key_of_another_ladder_hints_at_nothing_that_is_unlike_it(word, meant):
    key = word.partition("=")[0]
    with pytest.raises(UsageError, match=rf"^{key}: the family nano .*an unknown key here{re.escape(meant)}\)$"):
        recipe.load(["recipe=smoke", word])
