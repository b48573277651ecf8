"""A run of any size, held against Table 2.1 and against the plan of GPT-3's own recipe."""

import pytest

from gpt3core import costs, sizes
from gpt3core.errors import UsageError
from sweeps.planning import estimate, grid, larger, recipe
from sweeps.planning.larger import Ladder
from sweeps.planning.recipe import Hardware


@pytest.mark.parametrize("name", sizes.GPT3)
@pytest.mark.parametrize("embeddings", [True, False])
def test_a_row_of_table_2_1_is_found_from_its_number_of_parameters(name, embeddings):
    row = sizes.GPT3[name].model()
    counted = costs.params(row).total if embeddings else costs.params(row).nonembedding
    found = larger.shape(counted, Ladder(embeddings=embeddings))
    counts = costs.params(found)
    assert (counts.total if embeddings else counts.nonembedding) == pytest.approx(counted, rel=0.08)
    assert found.n_layer == pytest.approx(row.n_layer, rel=0.35)
    assert found.n_head * found.d_head == found.d_model
    batch = larger.batch_tokens(costs.params(row).total, 300e9, 2048)
    assert 0.5 <= batch / sizes.GPT3[name].batch_tokens <= 2.1


def test_gpt3_is_found_as_it_was_built_and_takes_what_its_recipe_plans():
    row = sizes.GPT3["175B"].model()
    found = larger.larger(costs.params(row).nonembedding, 300e9, Ladder(), Hardware())
    assert (found.spec.model.n_layer, found.spec.model.d_model, found.spec.model.n_head) == (96, 12288, 96)
    chosen = recipe.load(["recipe=gpt3", "sizes=[175B]", "tokens=[300e9]"])
    (run,) = grid.build(chosen, "0" * 64).runs
    planned = estimate.on_gpus(run, chosen.plan)
    assert found.gpus == planned.layout.world_size
    assert found.found.days == pytest.approx(planned.days, rel=0.06)
    assert found.gpu_hours == pytest.approx(found.gpus * 24 * found.found.days)


@pytest.mark.parametrize("n", [2e3, 1e5, 8e5, 3e7])
def test_what_is_smaller_than_gpt3_continues_the_ladder_of_its_runs(n):
    ladder = Ladder(n_layer=2, n_ctx=256, vocab_size=1024)
    found = larger.run(n, 20 * n, ladder)
    assert (found.model.n_layer, found.model.n_ctx, found.model.vocab_size) == (2, 256, 1024)
    assert costs.params(found.model).nonembedding == pytest.approx(n, rel=0.12)
    assert found.tokens == pytest.approx(20 * n, rel=0.5 if n < 1e5 else 0.01)
    assert found.optim.batch_tokens <= max(256, 2e-3 * found.tokens)


def test_what_fits_nowhere_says_so_and_an_unknown_gpu_is_refused():
    far = larger.larger(1e14, 1e15, Ladder(), Hardware(gpus=8))
    assert (far.gpus, far.gpu_hours != far.gpu_hours) == (0, True)
    assert "no layout of up to 8 devices fits" in far.found.reason
    with pytest.raises(UsageError, match="unknown GPU"):
        larger.larger(1e9, 1e10, Ladder(), Hardware(gpu="H1000"))
