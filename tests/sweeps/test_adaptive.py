"""Adaptive sweeps: a share of the grid, spent on the runs that tell most."""

import pytest

from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import adaptive, proposers
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning import grid, recipe
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive


class Learning(FakeCluster):
    """Finishes runs with the losses of a known law, two at a time; every tenth diverges."""

    def finish(self, run_id):
        run, folder = self.runs[run_id], RunDir(self.root, run_id)
        if self.started.index(run_id) % 10 == 9:
            folder.finish({"status": "diverged"})
            return
        n = costs.params(run.model).nonembedding
        loss = 1.2 + 6.0 * (n / 1e3) ** -0.25 + 30.0 * (run.tokens / 1e3) ** -0.3
        folder.write_evaluation(self.evals.eval_id, {"task": [HELD_OUT], "loss": [loss], "loss_se": [0.01]})
        folder.finish({"status": "done", "tokens_per_second": 1e4, "epochs": 0.1})


def test_an_adaptive_sweep_spends_its_share_on_the_runs_that_tell_most(isolated, clock):
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=0.45"])
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    cluster = Learning(root)
    cluster.runs = {run.run_id: run for run in cells.runs}
    display = Silent()
    outcome = drive((chosen, cells, root), cluster, display)
    flops = {run.run_id: costs.train_flops(run.model, run.tokens) for run in cells.runs}
    spent = sum(flops[run_id] for run_id in outcome.done)
    assert spent <= 0.45 * sum(flops.values())
    assert sorted([*outcome.done, *outcome.not_taken]) == sorted(flops)
    assert outcome.not_taken
    assert any("no further runs" in line for line in display.lines)
    lowest = sorted({run.budget_flops for run in cells.runs})[:2]
    assert {cluster.runs[i].budget_flops for i in cluster.started[:6]} == set(lowest)
    highest = max(flops[run_id] for run_id in cluster.started)
    assert highest >= 0.9 * max(run.budget_flops for run in cells.runs), "a run near the target tells most"
    assert set(SweepDir(root, chosen.name).record().not_taken) == set(outcome.not_taken)
    again = Learning(root)
    again.runs = cluster.runs
    assert drive((chosen, cells, root), again).done == outcome.done
    assert again.started == []


def laptop():
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=1.0"])
    return chosen, {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}


def test_failed_and_diverged_runs_are_neither_data_nor_planned(monkeypatch):
    chosen, runs = laptop()
    names = list(runs)
    phases = [Phase.DONE] * 12 + [Phase.FAILED, Phase.FAILED, Phase.RUNNING]
    states = {i: RunState(spec=runs[i], phase=p) for i, p in zip(names, phases, strict=False)}
    states |= {i: RunState(spec=runs[i]) for i in names[len(phases) :]}
    asked = {}
    real = adaptive.design.propose

    def spy(finished, left, **options):
        asked.update(finished=len(finished), **{k: len(v) for k, v in options.items() if k == "running"})
        return real(finished, left, **options)

    monkeypatch.setattr(adaptive, "_first", lambda runs: [])
    monkeypatch.setattr(adaptive.design, "propose", spy)
    reads = []

    def loss(run_id):
        reads.append(run_id)
        return None if run_id == names[0] else 3.0 + 1e6 / runs[run_id].tokens  # the first diverged

    proposer = proposers.Adaptive(chosen, loss, lambda run: run.tokens / 1e4)
    (first,) = proposer.propose(states).take
    assert asked == {"finished": 11, "running": 1}
    states[first].phase = Phase.RUNNING
    proposer.propose(states)
    assert asked["running"] == 2
    assert sorted(reads) == sorted(names[:12]), "each loss is read once"


def test_the_next_run_is_one_that_was_not_taken():
    chosen, runs = laptop()
    losses = {run_id: 3.0 + 1e6 / run.tokens for run_id, run in list(runs.items())[:20]}
    found = adaptive.next_run(
        chosen, runs, losses=losses, taken=set(losses), under_way=set(), seconds=lambda run: run.tokens / 1e4
    )
    assert found.run_id in set(runs) - set(losses)


def test_another_seed_of_a_run_that_ended_may_be_taken():
    chosen = recipe.load(["recipe=laptop", "replicas=2", "adaptive=true", "adaptive_share=1.0"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = {i: 3.0 + 1e6 / run.tokens for i, run in runs.items() if run.seed == 0}
    first = set(adaptive._first(runs))
    found = adaptive.next_run(
        chosen, runs, losses=losses, taken=set(losses) | first, under_way=set(), seconds=lambda run: run.tokens / 1e4
    )
    assert found.run_id in set(runs) - set(losses) or "not worth it" in found.over
    assert "to 100%" not in found.over, "they tell something"


def test_impossible_adaptive_settings_are_refused():
    with pytest.raises(UsageError, match="adaptive_share"):
        grid.build(recipe.load(["adaptive=true", "adaptive_share=1.5"]), "0" * 64)
