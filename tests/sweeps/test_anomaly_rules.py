"""Anomalies in a recipe: what reaches the runs, what is refused, and what a plan says."""

import pytest

from gpt3core.anomaly import AnomalySpec
from gpt3core.store.rundir import RunDir, open_root
from sweeps import command
from sweeps.planning import grid, recipe, trunks


def runs(*settings):
    return grid.build(recipe.load(["recipe=smoke", *settings]), "0" * 64).runs


def test_what_a_recipe_says_of_anomalies_reaches_its_runs():
    plain = runs()
    assert {run.anomaly for run in plain} == {AnomalySpec()}
    words = ["anomaly.policy=rollback", "anomaly.spike=9", "anomaly.window=32", "anomaly.back=20", "anomaly.limit=3"]
    found = runs(*words)
    assert {run.anomaly for run in found} == {
        AnomalySpec(policy="rollback", spike=9.0, window=32, back=20, limit=3, ahead=100)
    }
    assert not {run.run_id for run in found} & {run.run_id for run in plain}
    assert {run.precision for run in runs("precision=fp16")} == {"fp16"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["anomaly.policy=skp"], "anomaly.policy='skp', did you mean skip.: allowed are stop, skip, rollback"),
        (["anomaly.limit=3"], "anomaly.limit=3 has no effect with anomaly.policy=stop: .* anomaly.policy=skip"),
        (["anomaly.policy=skip", "anomaly.back=7"], "anomaly.back=7 has no effect .* anomaly.policy=rollback"),
        (["anomaly.window=64"], "anomaly.window=64 has no effect with anomaly.spike=0"),
        (["anomaly.spike=2"], "anomaly.spike=2.0: median absolute deviations, 3 or more"),
        (["anomaly.spike=9", "anomaly.window=100000"], "anomaly.spike=9 has no effect: .* the longest run has"),
        (["anomaly.spkie=9"], "unknown key 'anomaly.spkie', did you mean anomaly.spike"),
    ],
)
def test_a_rule_that_cannot_be_is_one_sentence(settings, words):
    with pytest.raises(ValueError, match=words) as caught:
        runs(*settings)
    assert "\n" not in str(caught.value)


def test_runs_that_may_go_back_are_planned_without_a_trunk():
    laid = ["recipe=laptop", "optim.schedule=wsd"]
    shared = trunks.prefixes(grid.build(recipe.load(laid), "0" * 64).runs)
    alone = trunks.prefixes(grid.build(recipe.load([*laid, "anomaly.policy=rollback"]), "0" * 64).runs)
    skipping = trunks.prefixes(grid.build(recipe.load([*laid, "anomaly.policy=skip"]), "0" * 64).runs)
    assert len(shared) == len(skipping) > 0
    assert alone == {}


def test_a_plan_says_the_rule_and_what_was_met(known_text, isolated, capsys):
    def plan(*words):
        assert command.sweep(["recipe=smoke", *words, "--plan"], "") == 0
        return " ".join(capsys.readouterr().out.split())

    assert "anomal" not in plan()
    words = ("anomaly.policy=skip", "anomaly.spike=9", "anomaly.window=16")
    rule = "or 9 median absolute deviations above the median of 16 steps, is left out, up to 10 times a run"
    assert rule in plan(*words)
    assert "shares no trunk" in plan("anomaly.policy=rollback")
    root = open_root(isolated / "root", create=True)
    run = RunDir(root, command.read(["recipe=smoke", *words]).run_ids[0])
    run.path.mkdir(parents=True)
    run.finish({"status": "done", "skipped_steps": 3, "overflows": 1, "skipped_tokens": 768})
    said = plan(*words)
    assert f"trained past anomalies: {run.run_id} 3 updates left out (1 by fp16's loss scale)" in said
