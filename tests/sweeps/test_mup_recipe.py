"""One learning rate up a ladder: what a recipe with a base makes of every size, and what its plan says."""

import pytest

from gpt3core import sizes
from gpt3core.errors import UsageError
from sweeps.planning import grid, mup, recipe

SHA = "0" * 64


def runs(*words):
    order = recipe.load(list(words))
    return order, grid.build(order, SHA).runs


def test_every_width_has_the_proxys_learning_rate_and_the_standard_ladder_its_own():
    _, plain = runs("recipe=laptop")
    _, found = runs("recipe=laptop", "model.mup_base_width=32", "optim.lr=0.008")
    assert len({run.optim.lr for run in plain}) > 4
    assert {run.optim.lr for run in found} == {0.008}
    assert {(run.model.mup_base_width, run.model.mup_base_d_head) for run in found} == {(32, 32)}
    assert [run.model.d_model for run in found] == [run.model.d_model for run in plain]
    assert not {run.run_id for run in plain} & {run.run_id for run in found}


def test_without_a_rate_the_rules_rate_at_the_base_holds():
    _, found = runs("recipe=laptop", "model.mup_base_width=96")
    assert {run.optim.lr for run in found} == {0.6 / 96}
    _, found = runs("recipe=laptop", "model.mup_base_width=96", "model.n_head=2")
    assert {run.model.mup_base_d_head for run in found} == {48}, "as many heads, wider ones"


def test_a_typed_rate_wins_over_the_rule_of_the_file(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "widths: [32]\nbudgets: [1.0e+12]\nwidths_at: {1.0e+12: [32]}\noptim: {lr_max: 0.1}"
    )
    _, found = runs(f"recipe={tmp_path / 'own.yaml'}", "model.mup_base_width=16", "optim.lr=0.02")
    assert {run.optim.lr for run in found} == {0.02}


def test_gpt3s_sizes_have_the_rate_of_the_base_row_and_the_plan_says_so():
    order, found = runs("recipe=gpt3", "model.mup_base_width=768")
    assert {run.optim.lr for run in found} == {sizes.GPT3["125M"].lr}
    assert {run.model.mup_base_d_head for run in found} == {64}
    said = mup.told(order, found)
    assert "0.0006 (125M's of Table 2.1; the others fall with the size" in said
    assert "depths of 12 to 96 layers: muP says nothing of depth" in said
    order, found = runs("recipe=gpt3", "model.mup_base_width=256", "model.mup_base_d_head=32", "optim.lr=0.002")
    assert {run.optim.lr for run in found} == {0.002}
    assert "base width 256 with heads of 32" in mup.told(order, found)


def test_shapes_name_the_bases_heads_or_it_is_asked():
    shapes = "shapes=[{n_layer: 2, d_model: 64, n_head: 2}, {n_layer: 2, d_model: 128, n_head: 4}]"
    order, found = runs("recipe=depth", shapes, "model.mup_base_width=64", "optim.lr=0.01")
    assert {run.model.mup_base_d_head for run in found} == {32}
    assert "base width 64 with heads of 32: at every width the learning rate 0.01" in mup.told(order, found)
    with pytest.raises(UsageError, match=r"the width of sizes with heads of \[16, 32\]: give model.mup_base_d_head"):
        runs("recipe=depth", f"{shapes[:-1]}, {{n_layer: 2, d_model: 64, n_head: 4}}]", "model.mup_base_width=64")
    with pytest.raises(ValueError, match="2 heads of 16 do not make up d_model=64"):
        runs("recipe=depth", "shapes=[{n_layer: 2, d_model: 64, n_head: 2, d_head: 16}]", "model.mup_base_width=64")


def test_the_standard_plan_says_nothing():
    order, found = runs("recipe=laptop")
    assert mup.told(order, found) == ""
