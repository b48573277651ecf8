"""Recipes become the runs that they say."""

import pytest

from gpt3core import costs
from gpt3core.errors import UsageError
from sweeps.planning import grid, recipe

SHA = "0" * 64


def built(*settings):
    return grid.build(recipe.load(list(settings)), SHA)


def test_the_laptop_recipe_is_a_sound_isoflop_grid():
    runs = built("recipe=laptop").runs
    budgets = sorted({run.budget_flops for run in runs})
    assert len(budgets) == 5
    assert len(runs) >= 24
    sizes = [costs.params(run.model).nonembedding for run in runs]
    assert len(set(sizes)) >= 8
    assert min(sizes) < 2_000
    assert max(sizes) > 600_000
    for run in runs:
        assert costs.train_flops(run.model, run.tokens) == pytest.approx(run.budget_flops, rel=0.01)
        assert run.tokens >= 4e5
        assert run.optim.lr == pytest.approx(min(0.012, 0.6 / run.model.d_model))
        assert run.optim.warmup_tokens == pytest.approx(0.2 * run.tokens, rel=0.01)
        assert 256 <= run.optim.batch_tokens <= 2048


def test_a_further_budget_only_adds_runs():
    before = {run.run_id for run in built("recipe=laptop").runs}
    after = {run.run_id for run in built("recipe=laptop", "budgets=[1e11,3.16e11,1e12,3.16e12,1e13,3.16e13]").runs}
    assert before < after


def test_overrides_change_the_runs():
    assert {run.seed for run in built("seed=7").runs} == {7}
    assert {run.model.n_ctx for run in built("model.n_ctx=256").runs} == {256}
    doubled = built("recipe=smoke", "replicas=2", "replicas_below_flops=1e10").runs
    assert sorted(run.seed for run in doubled if run.budget_flops == 1e10) == [0, 0, 1, 1]
    assert sorted(run.seed for run in doubled if run.budget_flops == 2e10) == [0, 0]


def test_gpt3s_runs_are_table_2_1():
    runs = {run.label: run for run in built("recipe=gpt3").runs if run.tokens > 2.9e11}
    assert len(runs) == 8
    big = runs["175B"]
    assert (big.model.n_layer, big.model.d_model, big.model.n_head, big.model.d_head) == (96, 12288, 96, 128)
    assert big.optim.batch_tokens == pytest.approx(3.2e6, rel=0.05)
    assert big.optim.lr == 0.6e-4
    assert big.optim.warmup_tokens == pytest.approx(375e6)
    assert big.optim.decay_tokens == pytest.approx(260e9)
    assert big.tokens == pytest.approx(300e9, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["modle.n_ctx=64"], "unknown key 'modle.n_ctx', did you mean model.n_ctx"),
        (["price=1"], "unknown key 'price'; "),
        (["placement.rack="], "placement.rack= has no value: give one, null for none"),
        (["recipe=labtop"], "no such recipe, did you mean laptop"),
        (["model.n_ctx=many"], "could not be converted to Integer"),
        (["budgets=[-1e11]"], "must be positive"),
        (["budgets=[1e3]"], "describes no run"),
        (["widths=[]", "widths_at={}"], "describes no run"),
        (["widths=[85]", "widths_at={}", "span=1e9"], "does not divide into 3 heads"),
        (["model.n_head=7"], "width 8 does not divide into n_head=7: allowed are n_head 1, 2, 4, 8"),
        (["model.n_layer=0"], "model.n_layer=0: it must lie from 1"),
        (["data.tokenizer=gpt4"], "allowed are gpt2 and gpt2:K"),
        (["family=llama"], "allowed are nano, gpt3"),
        (["model.attention=sparse"], "allowed are dense, alternating"),
        (["widths_at={1e11:[8]}"], "widths_at=.*found unexpected ':'"),
        (["budgets=[1e11"], "budgets="),
        (["evals.tasks=[adition_2]"], "unknown task 'adition_2', did you mean addition_2"),
        (["precision=fp8"], "allowed are auto, fp32, bf16"),
        (["recipe=gpt3", "sizes=[126M]"], "unknown size '126M', did you mean 125M"),
        (["recipe=gpt3", "tokens=[1e3]"], "tokens=1000: less than half of one batch of 125M, 524,288 tokens"),
        (["optim.warmup_fraction=1.5"], "optim.warmup_fraction=1.5: it must lie from 0 to 1"),
        (["seed"], "neither key=value nor a flag"),
        (["--paln"], "unknown flag --paln, did you mean --plan"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, sentence):
    from gpt3core import cli
    from sweeps.command import FLAGS

    with pytest.raises(ValueError, match=sentence) as caught:
        given, _ = cli.split(settings, FLAGS)
        built(*given)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError | ValueError)


@pytest.mark.parametrize(
    "text", ["- a list", "name: [unclosed", "colour: blue", "model: {depth: 2}", "budgets: twelve"]
)
def test_a_bad_recipe_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml|unknown key"):
        recipe.load([f"recipe={path}"])
