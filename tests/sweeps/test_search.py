"""A search of hyperparameters as data: proxies, trials, what it takes, what it knows when it starts again."""

from dataclasses import replace

import pytest

from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.evals.spec import EvalSpec
from gpt3core.store.rundir import open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps import hparams_command
from sweeps.driving import searching
from sweeps.planning import recipe, search

SHA = "0" * 64
LAPTOP = ["recipe=laptop_hparams"]


def built(*words):
    chosen, asked = search.load([*LAPTOP, *words])
    return chosen, asked, search.build(chosen, asked, SHA)[1]


def test_a_trial_has_its_factors_and_is_known_again_by_them():
    _, asked, proxies = built()
    factors = {"lr": 1.7, "batch": 0.6, "warmup_fraction": 0.35, "final_fraction": 0.0}
    for proxy in proxies:
        run = search.trial(proxy, factors)
        assert run.optim.lr == pytest.approx(1.7 * proxy.base.optim.lr, rel=1e-2)
        assert abs(run.optim.batch_tokens - 0.6 * proxy.base.optim.batch_tokens) <= run.model.n_ctx
        assert run.optim.decay_tokens == run.tokens
        assert proxy.base.tokens <= run.tokens < proxy.base.tokens + run.optim.batch_tokens
        owners = [p.number for p in proxies if search.factors_of(p, run, asked) is not None]
        assert owners == [proxy.number]
        again = search.factors_of(proxy, run, asked)
        assert again["warmup_fraction"], again["final_fraction"] == (0.35, 0.0)
        assert search.trial(proxy, again).run_id == run.run_id
    assert search.factors_of(proxies[0], replace(proxies[0].base, seed=5), asked) is None


def test_rungs_and_what_halving_saves():
    _, asked, proxies = built()
    assert search.rungs(asked) == [0.5]
    assert search.rungs(built("search.first_rung=0.25", "search.trials=20")[1]) == [0.25, 0.5]
    every, halved = search.flops(asked, proxies)
    assert every == asked.trials * sum(costs.train_flops(p.base.model, p.base.tokens) for p in proxies)
    assert halved / every == pytest.approx(0.5 + 0.5 * 0.5)
    assert search.rungs(built("search.scheduler=none")[1]) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search.searcher=hyperopt"], "allowed are tpe, random, qmc"),
        (["search.trials=6"], "about 3 of each proxy would reach the end"),
        (["search.lr=[4,0.25]"], "search.lr="),
        (["search.scheduler=none", "search.reduction=3"], "have no effect"),
        (["search.trails=3"], "unknown key 'trails', did you mean trials"),
        (["optim.schedule=wsd"], "optim.schedule is not for a search"),
        (["replicas=2"], "replicas is not for a search"),
        (["placement.workers=2"], "a trial has one worker"),
        (["placement.accelerator=A100", "placement.gpus=1"], "placement.accelerator is not for a search"),
        (["placement.stall_seconds=60"], "placement.stall_seconds is not for a search"),
        (["placement_of={d12: {priority: 1}}"], "placement_of is not for a search"),
        (["limit.hours=1"], "limit.hours is not for a search.*search.trials"),
        (["optim.warmup_fraction=0.3"], "its trials have one of search.warmup_fraction"),
        (["extend=true"], "extend is not for a search"),
        (["replace=true"], "replace is not for a search"),
        (["limit.deadline=1h"], "limit.deadline is not for a search"),
        (["placement.gpus=1", "plan.gpus=4"], "plan.gpus is not for a search"),
        (["search.warmup_fraction=[1.5]"], "shares from 0"),
        (["search.batch=[0.5,100]"], "another pair of N and D"),
        (["budgets=[1.2e11]", "widths_at={1.2e11: [12, 20]}"], "has 2 proxies"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(words, said):
    with pytest.raises(UsageError, match=said):
        built(*words)


def test_a_setting_that_changes_no_proxy_is_told(capsys, isolated):
    plan = [*LAPTOP, "optim.lr_times_width=0.7", "optim.clip=0.5", "search.warmup_fraction=0.1", "--plan"]
    assert hparams_command.run(plan, "") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "optim.lr_times_width=0.7 changes none of the proxies" in said
    assert said.count("changes none") == 1


def test_a_sweep_of_sizes_says_that_it_is_a_search():
    with pytest.raises(UsageError, match=r"python sweeps/hparams.py recipe=laptop_hparams"):
        recipe.load(LAPTOP)
    assert "laptop_hparams" not in recipe.available()
    assert recipe.available(search=True) == ["laptop_hparams"]


def test_what_was_asked_and_stopped_is_known_to_the_next_driver(isolated):
    _, asked, proxies = built()
    root = isolated / "root"
    open_root(root, create=True)

    def ledger():
        return searching.Ledger(SweepDir(root, "s"), proxies, asked, EvalSpec(tasks=()), 4e5)

    with SweepDir(root, "s").owned():
        first = ledger()
    runs = [search.trial(proxies[k], {"lr": 1.0 + k, "batch": 1.0}) for k in range(3)]
    for run in runs:
        first.ask(run)
    first.stop(runs[1].run_id, 0.25, 4.5)
    known = {trial.run_id: trial for trial in ledger().known()}
    assert {run.run_id: known[run.run_id].proxy for run in runs} == {run.run_id: k for k, run in enumerate(runs)}
    assert [known[run.run_id].ended for run in runs] == [False, True, False]
    assert known[runs[1].run_id].stopped["training_loss"] == 4.5
    assert known[runs[2].run_id].factors["lr"] == pytest.approx(3.0, rel=0.01)
