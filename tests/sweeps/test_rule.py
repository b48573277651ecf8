"""A rule of hyperparameters in a recipe: what it gives, what it excludes, what a plan says of it."""

import pytest

from gpt3core import costs, rule
from gpt3core.errors import UsageError
from gpt3core.rule import STEP_LAW, Fitted, PowerLaw, Rule
from sweeps.planning import grid, recipe, rules

MINE = Rule(
    name="mine",
    lr=PowerLaw(constant=2.0, N=-0.6, D=0.1),
    batch_tokens=PowerLaw(constant=0.9, D=0.5),
    warmup_fraction=0.1,
    fitted=Fitted(source="a search", runs=90, pairs=6, N=(1e4, 1e5), D=(4e5, 2e6), schedule="cosine"),
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(rule.to_yaml(MINE))
    return path


def test_step_laws_constants_are_the_papers():
    # Li et al. 2025, table 2: a 1B model on 100B tokens
    assert STEP_LAW.learning_rate(1e9, 1e11) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307, rel=1e-3)
    assert STEP_LAW.batch(1e9, 1e11, 2048) == pytest.approx(0.58 * 1e11**0.571, rel=1e-2)


def test_every_run_has_the_rules_rate_and_batch_and_is_named_by_them(file):
    chosen = recipe.load(["recipe=laptop", f"optim.rule={file}"])
    runs = grid.build(chosen, "0" * 64).runs
    for run in runs:
        n = costs.params(run.model).nonembedding
        batch = 0.9 * run.tokens**0.5
        assert run.optim.lr == pytest.approx(2.0 * n**-0.6 * run.tokens**0.1, rel=2e-3)
        assert abs(run.optim.batch_tokens - batch) <= run.model.n_ctx
        assert run.optim.warmup_tokens == pytest.approx(0.1 * run.tokens, abs=run.optim.batch_tokens)
    typed = recipe.load(["recipe=laptop"])
    typed.optim.rule = Rule(name="another name", lr=MINE.lr, batch_tokens=MINE.batch_tokens, warmup_fraction=0.1)
    assert [run.run_id for run in grid.build(typed, "0" * 64).runs] == [run.run_id for run in runs]


def test_what_is_kept_of_a_recipe_holds_the_rule_itself(file, tmp_path):
    chosen = recipe.load(["recipe=laptop", f"optim.rule={file}"])
    kept = tmp_path / "kept.yaml"
    kept.write_text(recipe.to_yaml(chosen))
    file.unlink()
    assert recipe.load([f"recipe={kept}"]) == chosen
    assert recipe.load([f"recipe={kept}", "optim.rule=null"]).optim.rule is None


def test_a_rule_is_found_beside_its_recipe(file, tmp_path):
    (tmp_path / "other.yaml").write_text("widths: [32]\nbudgets: [1e12]\noptim: {rule: mine.yaml}\n")
    assert recipe.load([f"recipe={tmp_path / 'other.yaml'}"]).optim.rule == MINE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.lr_max=0.01"], "optim.lr_max=0.01 has no effect with optim.rule=mine"),
        (["optim.batch_tokens_min=512"], "optim.batch_tokens_min=512 has no effect with optim.rule=mine"),
        (["optim.warmup_fraction=0.3"], "optim.warmup_fraction=0.3 has no effect with optim.rule=mine"),
        (["model.mup_base_width=32", "optim.lr=0.01"], "optim.lr=0.01 has no effect with optim.rule=mine"),
    ],
)
def test_a_key_beside_a_rule_is_refused(file, words, said):
    with pytest.raises(UsageError, match=said):
        grid.build(recipe.load(["recipe=laptop", f"optim.rule={file}", *words]), "0" * 64)


def test_a_key_that_a_rule_leaves_open_stays(file):
    chosen = recipe.load(["recipe=laptop", f"optim.rule={file}", "optim.final_fraction=0.05"])
    assert grid.build(chosen, "0" * 64).runs[0].optim.final_fraction == 0.05


@pytest.mark.parametrize("name", ["stplaw", "nowhere.yaml"])
def test_no_such_rule(name):
    with pytest.raises(UsageError, match="no such rule"):
        recipe.load(["recipe=laptop", f"optim.rule={name}"])


def test_a_file_that_is_no_rule(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: x\nlr: {constant: -1}\nbatch_tokens: {constant: 1}\n")
    with pytest.raises(UsageError, match="is no rule of hyperparameters: constant=-1"):
        recipe.load(["recipe=laptop", f"optim.rule={tmp_path / 'bad.yaml'}"])


def test_a_plan_says_how_far_a_run_lies_outside(file):
    chosen = recipe.load(["recipe=laptop", f"optim.rule={file}", "optim.schedule=wsd"])
    told = " ".join(rules.told(chosen.optim.rule, grid.build(chosen, "0" * 64).runs))
    assert "extrapolated in N: by up to" in told
    assert "fitted under optim.schedule=cosine, and these runs have wsd" in told
    inside = recipe.load(["recipe=laptop", f"optim.rule={file}", "budgets=[2e11]", "widths_at={2e11: [24]}"])
    assert "extrapolated" not in " ".join(rules.told(inside.optim.rule, grid.build(inside, "0" * 64).runs))


def test_gpt3s_sizes_take_a_rule_in_place_of_the_table():
    chosen = recipe.load(["recipe=gpt3", "optim.rule=steplaw", "sizes=[125M]", "tokens=[3e9]"])
    (run,) = grid.build(chosen, "0" * 64).runs
    assert run.optim.lr == STEP_LAW.learning_rate(costs.params(run.model).nonembedding, 3e9)
    assert run.optim.batch_tokens == pytest.approx(0.58 * 3e9**0.571, rel=0.25)
