"""One trunk, many budgets: who starts from whom, what it saves, and what happens where a trunk does not come."""

from dataclasses import replace

import pytest

from gpt3core import costs, trunk
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.trunk import Prefix
from sweeps.driving import trunks as waiting
from sweeps.planning import grid, recipe, show, trunks
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids

WORDS = ["recipe=smoke", "budgets=[2e10,4e10,1.6e11]", "widths=[12]", "min_tokens=1", "optim.batch_tokens_max=512"]
WSD = [*WORDS, "optim.schedule=wsd"]


def runs_of(*words):
    """The runs of a recipe; of a key that is given twice the last holds."""
    settings = {word.partition("=")[0]: word for word in words}
    return grid.build(recipe.load(list(settings.values())), "0" * 64).runs


@pytest.fixture
def sweep(isolated):
    """Three budgets of one size."""
    root = isolated / "root"
    open_root(root, create=True)
    chosen = recipe.load(WSD)
    return chosen, grid.build(chosen, "0" * 64), root


class Trunk(FakeCluster):
    """Runs take four polls, and write the checkpoints that they were asked to keep on the way."""

    def __init__(self, root, kept=True, **ends):
        super().__init__(root, self.live, cpus=4.0)
        self.kept, self.jobs, self.ends, self.seen = kept, {}, ends, {}

    def start(self, run_id, allocation, shape, entry, job):
        self.jobs[run_id] = job
        super().start(run_id, allocation, shape, entry, job)

    def live(self, run_id, n):
        self.seen[run_id] = seen = self.seen.get(run_id, 0) + 1
        job = self.jobs[run_id]
        reached = job.spec.steps * seen // 4
        for step in job.keep if self.kept else ():
            if step <= reached:
                RunDir(self.root, run_id).checkpoint(step).mkdir(parents=True, exist_ok=True)
        return self.ends.get("end", "done") if seen >= 4 else ("running", reached)


def test_a_size_has_one_batch_and_one_warm_up_at_every_budget():
    runs = runs_of(*WSD)
    assert len({(run.optim.batch_tokens, run.optim.warmup_tokens, run.optim.lr) for run in runs}) == 1
    for run in runs:
        own = 20 * costs.params(run.model).total
        assert run.optim.warmup_tokens == pytest.approx(0.2 * own, abs=run.optim.batch_tokens)
        assert run.optim.stable_tokens == pytest.approx(0.8 * run.tokens, abs=run.optim.batch_tokens)
        assert run.optim.decay_tokens == run.tokens


def test_the_shorter_runs_of_a_size_start_from_the_longest():
    runs = sorted(runs_of(*WSD, "widths=[12,16]", "span=100"), key=lambda run: run.tokens)
    found = trunks.prefixes(runs)
    for label in ("d12", "d16"):
        *branches, longest = [run for run in runs if run.label == label]
        assert longest.run_id not in found
        for run in branches:
            assert found[run.run_id] == Prefix(run_id=longest.run_id, step=trunk.stable_steps(run))
    assert trunks.prefixes(runs_of(*WORDS)) == {}


def test_another_budget_leaves_the_runs_of_the_others_what_they_are():
    more = {run.run_id for run in runs_of(*WSD, "budgets=[2e10,4e10,8e10,1.6e11]")}
    assert {run.run_id for run in runs_of(*WSD)} < more


def test_gpt3_sizes_share_their_trunk_too():
    runs = runs_of("recipe=gpt3", "sizes=[125M]", "tokens=[2e9,4e9]", "optim.schedule=wsd", "data.max_epochs=1e9")
    assert [prefix.step for prefix in trunks.prefixes(runs).values()] == [trunk.stable_steps(runs[0])]


def test_what_a_branch_trains_itself_is_counted_in_tokens_where_batches_grow():
    words = ["recipe=gpt3", "sizes=[125M]", "tokens=[4e9,8e9]", "optim.schedule=wsd", "data.max_epochs=1e9"]
    runs = runs_of(*words, "optim.ramp_start=32768", "optim.ramp_tokens=150e9")  # of 300e9
    (run_id, prefix), *_ = trunks.prefixes(runs).items()
    (branch,) = (run for run in runs if run.run_id == run_id)
    assert trunks.own_share(branch, prefix) == pytest.approx(1 - branch.optim.stable_tokens / branch.tokens, abs=0.01)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optim.schedule=linear"], "allowed are cosine, wsd"),
        (["optim.schedule=wsd", "optim.decay_shape=sqrt"], "allowed are linear, 1-sqrt"),
        (["optim.schedule=wsd", "optim.decay_fraction=1"], "above 0 and below 1"),
        (["optim.schedule=wsd", "optim.decay_fraction=1e-9"], "is none of the .* steps of a run"),
        (["optim.schedule=wsd", "optim.decay_fraction=0.999999"], "is all of the .* steps of a run"),
        (["optim.decay_fraction=0.1"], "has no effect with optim.schedule=cosine"),
        (["optim.decay_shape=1-sqrt"], "has no effect with optim.schedule=cosine"),
    ],
)
def test_a_schedule_that_cannot_be_or_does_nothing_is_refused(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        runs_of(*WORDS, *words)


def test_branches_wait_for_their_checkpoint_and_start_while_the_trunk_goes_on(sweep):
    display, cluster = Silent(), Trunk(sweep[2])
    assert len(drive(sweep, cluster, display).done) == 3
    longest = max(sweep[1].runs, key=lambda run: run.tokens)
    branches = [run for run in sweep[1].runs if run is not longest]
    assert cluster.started[0] == longest.run_id
    assert cluster.jobs[longest.run_id].prefix is None
    assert set(cluster.jobs[longest.run_id].keep) == {trunk.stable_steps(run) for run in branches}
    for run in branches:
        assert cluster.jobs[run.run_id].prefix == Prefix(run_id=longest.run_id, step=trunk.stable_steps(run))
    reasons = {reason for snapshot in display.snapshots for reason in snapshot.waiting.values()}
    assert any(f"of {longest.run_id}, from which it starts" in reason for reason in reasons)


@pytest.mark.parametrize("how", ["fails", "keeps nothing"])
def test_without_its_trunk_a_run_trains_from_its_first_step(sweep, how, monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)
    cluster = Trunk(sweep[2], kept=False)
    longest = max(sweep[1].runs, key=lambda run: run.tokens).run_id
    if how == "fails":
        live = cluster.behaviour
        cluster.behaviour = lambda run_id, n: "fatal" if run_id == longest else live(run_id, n)
    outcome = drive(sweep, cluster)
    assert len(outcome.done) == (2 if how == "fails" else 3)
    assert all(job.prefix is None for job in cluster.jobs.values())


def test_a_longer_budget_asked_later_goes_on_from_what_is_there(sweep):
    chosen, cells, root = sweep
    *_, longest = sorted(cells.runs, key=lambda run: run.tokens)
    shorter = grid.Grid(runs=[run for run in cells.runs if run is not longest], left=[], evals=cells.evals)
    drive((chosen, shorter, root), Trunk(root))
    last = max(shorter.runs, key=lambda run: run.tokens)
    RunDir(root, last.run_id).checkpoint(trunk.stable_steps(last)).mkdir(parents=True)
    cluster = Trunk(root)
    drive(sweep, cluster)
    assert list(cluster.jobs) == [longest.run_id]
    assert cluster.jobs[longest.run_id].prefix == Prefix(run_id=last.run_id, step=trunk.stable_steps(last))


def test_the_plan_says_what_is_saved(sweep):
    *branches, _ = sorted(sweep[1].runs, key=lambda run: run.tokens)
    shared = sum(trunk.stable_steps(run) * run.optim.batch_tokens for run in branches)
    saved = shared / sum(run.tokens for run in sweep[1].runs)
    runs, others = sweep[1].runs, [replace(run, seed=i) for i, run in enumerate(sweep[1].runs)]
    assert f"({saved:.0%}) are saved" in show._trunks(runs, trunks.prefixes(runs))
    assert show._trunks(others, trunks.prefixes(others)) == ""
    assert len(ids(sweep)) == 3
