"""Adaptive sweeps: a share of the grid, spent on the runs that tell most."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
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


def seconds(run):
    return run.tokens / 1e4


ESTIMATES = SimpleNamespace(seconds=seconds, left=lambda state: seconds(state.spec))


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

    proposer = proposers.Adaptive(chosen, loss, ESTIMATES)
    (first,) = proposer.propose(states, lambda: 1).take
    assert asked == {"finished": 11, "running": 1}
    states[first].phase = Phase.RUNNING
    proposer.propose(states, lambda: 1)
    assert asked["running"] == 2
    assert sorted(reads) == sorted(names[:12]), "each loss is read once"


def test_where_no_run_ends_with_a_loss_the_sweep_ends():
    chosen, runs = laptop()
    taken, found = set(), adaptive.Next()
    while not found.over:
        found = adaptive.next_runs(chosen, runs, losses={}, taken=taken, under_way={}, seconds=seconds)
        assert found.over or set(found.run_ids) - taken
        taken |= set(found.run_ids)
    assert found.over == f"0 runs ended with a loss, {adaptive.LEAST_RESULTS} are needed"


def test_the_next_run_is_one_that_was_not_taken():
    chosen, runs = laptop()
    losses = {run_id: 3.0 + 1e6 / run.tokens for run_id, run in list(runs.items())[:20]}
    found = adaptive.next_runs(
        chosen, runs, losses=losses, taken=set(losses), under_way={}, seconds=lambda run: run.tokens / 1e4
    )
    assert found.run_ids
    assert set(found.run_ids) <= set(runs) - set(losses)


def test_another_seed_of_a_run_that_ended_may_be_taken():
    chosen = recipe.load(["recipe=laptop", "replicas=2", "adaptive=true", "adaptive_share=1.0"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = {i: 3.0 + 1e6 / run.tokens for i, run in runs.items() if run.seed == 0}
    first = set(adaptive._first(runs))
    found = adaptive.next_runs(
        chosen, runs, losses=losses, taken=set(losses) | first, under_way={}, seconds=lambda run: run.tokens / 1e4
    )
    assert bool(found.run_ids) != ("not worth it" in found.over)
    assert not set(found.run_ids) & set(losses)
    assert "to 100%" not in found.over, "they tell something"


def measured(runs, count):
    """The losses of a law for the first few runs."""
    some = list(runs.items())[:count]
    return {i: 1.2 + 6.0 * (costs.params(run.model).nonembedding / 1e3) ** -0.25 + 1e5 / run.tokens for i, run in some}


def test_a_batch_is_chosen_as_one_run_after_another_would_be_with_those_before_it_under_way():
    """Not as the best few by themselves, which tell much the same."""
    chosen = recipe.load(["recipe=laptop", "replicas=3", "adaptive=true", "adaptive_share=1.0"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = measured(runs, 20)
    taken, flying = {*losses, *adaptive._first(runs)}, {}
    batch = adaptive.next_runs(
        chosen, runs, losses=losses, taken=taken, under_way=flying, seconds=seconds, slots=4
    ).run_ids
    assert len(set(batch)) == 4
    for run_id in batch:
        (alone,) = adaptive.next_runs(
            chosen, runs, losses=losses, taken={*taken, *flying}, under_way=flying, seconds=seconds
        ).run_ids
        assert (runs[alone].model, runs[alone].tokens) == (runs[run_id].model, runs[run_id].tokens)  # or its other seed
        flying[run_id] = seconds(runs[run_id])


def test_the_last_runs_start_with_the_longest_and_within_what_may_be_spent():
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=0.4"])
    runs = {run.run_id: run for run in grid.build(chosen, "0" * 64).runs}
    losses = measured(runs, 14)
    flops = {i: costs.train_flops(run.model, run.tokens) for i, run in runs.items()}
    rest = 0.4 * sum(flops.values()) - sum(flops[i] for i in losses)
    found = adaptive.next_runs(
        chosen, runs, losses=losses, taken=set(losses), under_way={}, seconds=seconds, slots=16
    ).run_ids
    assert 2 <= len(found) < 16
    assert sum(flops[i] for i in found) <= rest
    assert [seconds(runs[i]) for i in found] == sorted((seconds(runs[i]) for i in found), reverse=True)


def some(sizes, ratio, hours, **columns):
    table = pd.DataFrame({"N": sizes, "D": np.array(sizes) * ratio, "cost": hours})
    return table.assign(flops=6 * table.N * table.D, **columns)


def test_no_run_is_taken_that_would_go_on_when_all_others_have_ended():
    sizes = np.geomspace(1e7, 1e8, 8)
    finished = some(sizes, 20.0, 0.5).assign(loss=1.8 + 480 * sizes**-0.35 + 2000 * (20 * sizes) ** -0.37)
    left = some([2.5e8, 3e8, 4e8], 30.0, [0.1, 0.2, 2.0])
    words = {"compute": 1e19, "slots": 2, "rest": float(left.flops.sum())}
    flying = some([2e8, 2.1e8], 20.0, [2.0, 2.0])
    early, _ = adaptive.choose(finished, left, flying.assign(left=[1.9, 2.0]), **words)
    assert 2 in early, "the others go on as long"
    late, _ = adaptive.choose(finished, left, flying.assign(left=[0.1, 0.2]), **words)
    assert late
    assert 2 not in late
    again, _ = adaptive.choose(finished, left, flying[:0].assign(left=[]), **words)
    assert 2 in again, "nobody waits for it"
    (alone,), _ = adaptive.choose(finished, left[2:], flying.assign(left=[0.1, 0.2]), **words)
    assert alone == 0, "what is left of the budget is spent all the same"


class Slow(Learning):
    """Runs take as many polls as they have hundreds of thousands of tokens."""

    def __init__(self, root, runs, cpus):
        super().__init__(root, self._state, cpus)
        self.runs, self._since, self.busy = runs, {}, []

    def _state(self, run_id, n):
        begun = self._since.setdefault(run_id, self.polls)
        return "done" if self.polls - begun >= self.runs[run_id].tokens / 1e5 else "running"

    def poll(self):
        self.busy.append((len(self._running), len(self.started)))
        return super().poll()


def test_every_worker_is_busy_until_the_last_run_has_started(isolated, clock):
    chosen = recipe.load(["recipe=laptop", "replicas=3", "adaptive=true", "adaptive_share=0.6"])
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    cluster = Slow(root, {run.run_id: run for run in cells.runs}, cpus=8.0)
    outcome = drive((chosen, cells, root), cluster)
    assert not outcome.failed
    assert len(cluster.started) == len(set(cluster.started))
    last = next(k for k, (_, started) in enumerate(cluster.busy) if started == len(cluster.started))
    before = [running for running, _ in cluster.busy[1:last]]
    assert len(before) > 20
    assert sum(before) / (8 * len(before)) >= 0.9


def test_a_driver_that_takes_over_goes_on_with_the_runs_in_flight(isolated, clock):
    chosen = recipe.load(["recipe=laptop", "adaptive=true", "adaptive_share=0.5"])
    cells, root = grid.build(chosen, "0" * 64), isolated / "root"
    whole = Slow(root / "whole", {run.run_id: run for run in cells.runs}, cpus=4.0)
    drive((chosen, cells, root / "whole"), whole)

    class Dying(Slow):
        def poll(self):
            if len(self.started) >= 9:
                raise KeyboardInterrupt
            return super().poll()

    dying = Dying(root / "cut", whole.runs, cpus=4.0)
    with pytest.raises(KeyboardInterrupt):
        drive((chosen, cells, root / "cut"), dying)
    flying = dying.running()
    assert flying
    after = Slow(root / "cut", whole.runs, cpus=4.0)
    after.started, after._running = [*dying.started], {run.run_id: run for run in flying}
    after._since, after.polls, after.evals = dying._since, dying.polls, dying.evals
    drive((chosen, cells, root / "cut"), after)
    assert sorted(after.started) == sorted(set(after.started)), "nothing is trained twice"
    assert sorted(after.started) == sorted(whole.started)


def test_a_choice_among_very_many_runs_is_made_beside_the_loop(monkeypatch):
    chosen, runs = laptop()
    losses = measured(runs, 12)
    states = {i: RunState(spec=run, phase=Phase.DONE if i in losses else Phase.SPARE) for i, run in runs.items()}
    at_once = proposers.Adaptive(chosen, losses.get, ESTIMATES).propose(states, lambda: 2)
    monkeypatch.setattr(proposers, "BESIDE", 3)
    proposer = proposers.Adaptive(chosen, losses.get, ESTIMATES)
    assert proposer.propose(states, lambda: 2) == proposers.Proposal(), "it answers at once"
    proposer._asked.result()
    assert proposer.propose(states, lambda: 2) == at_once
    assert len(at_once.take) == 2


def test_of_more_runs_than_can_be_weighed_all_costs_stay(monkeypatch):
    monkeypatch.setattr(adaptive, "MOST_CANDIDATES", 3)
    assert adaptive._thinned(list("edcba"), dict(zip("abcde", range(5), strict=True))) == ["a", "c", "e"]


def test_impossible_adaptive_settings_are_refused():
    with pytest.raises(UsageError, match="adaptive_share"):
        grid.build(recipe.load(["adaptive=true", "adaptive_share=1.5"]), "0" * 64)
