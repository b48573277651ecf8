"""Runs that can no longer change the law are stopped, written down and stay stopped; off by default."""

import re
from concurrent.futures import Future

import numpy as np
import pytest

from analysis.estimation import isoflop, optimal_size, predict
from analysis.estimation import pruning as values
from analysis.estimation.ensemble import fit_ensemble
from analysis.runs import selection, store
from analysis.settings import RunSettings
from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.cluster.job import Progress
from sweeps.driving import driver, evidence, pruning
from sweeps.driving.run_state import Phase, RunState
from sweeps.planning import grid, recipe
from sweeps.planning import text as texts
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Running
from tests.analysis.synthetic import true_loss
from tests.sweeps.fake_cluster import Silent, drive
from tests.sweeps.training_cluster import Training

WORDS = ["recipe=laptop", "name=wide", "span=14", "min_tokens=2e4", "widths=[8,16,24,32,48,64,96,128,192,256]"]
WORDS += ["budgets=[1e11,3.16e11,1e12,3.16e12]"]
SHARE = 0.5  # of a law of few runs: large enough to prune some


class Killed(BaseException):
    """The driver dies."""


class AtOnce:
    """An executor that answers before it is asked twice."""

    def __init__(self, *_, **__):
        pass

    def submit(self, act, *words):
        answer = Future()
        try:
            answer.set_result(act(*words))
        except Exception as error:
            answer.set_exception(error)
        return answer


def quick(monkeypatch):
    """Pruning answers at once, and is asked often."""
    monkeypatch.setattr(pruning, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(pruning, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(pruning, "DUTY", 1e9)


def worthless(monkeypatch):
    """The largest and the smallest size under way count as worthless once there are runs enough for a law."""

    def prune(finished, waiting, running, *, compute, share):
        if len(finished) < values.LEAST_FINISHED or len(running) < 3 or running.pruned.sum() >= 2:
            return values.Verdict(reason="too few")
        ids = running.sort_values("N").run_id
        picked = [ids.iloc[k] for k in (0, -1) if not running.pruned[running.run_id == ids.iloc[k]].any()]
        figures = running.set_index("run_id")
        return values.Verdict(
            stop=[
                values.Pruned(
                    run_id=i,
                    **{end: float(figures.at[i, end]) for end in values.ENDS},
                    loss_change=0.001,
                    loss_width=0.02,
                    n_star_change=0.01,
                    n_star_width=0.5,
                )
                for i in picked
            ]
        )

    monkeypatch.setattr(evidence.pruning, "prune", prune)


@pytest.fixture
def wide(law, monkeypatch):
    """The same, where what is worthless is said by a rule of the test's: the law's own takes seconds."""
    worthless(monkeypatch)
    return law


@pytest.fixture
def law(isolated, clock, monkeypatch):
    """A sweep of many sizes a budget, its grid, a cluster that trains it, and pruning that answers at once."""
    quick(monkeypatch)

    def make(*words, cluster=None):
        chosen = recipe.load([*WORDS, *words])
        cells, root = grid.build(chosen, "0" * 64), isolated / "root"
        return (chosen, cells, root), cluster or Training(root, {run.run_id: run for run in cells.runs})

    return make


ON = f"prune.by_value={SHARE}"


def test_nothing_is_pruned_unless_it_is_asked_for(wide):
    sweep, cluster = wide()
    outcome = drive(sweep, cluster)
    assert outcome.pruned == {}
    assert cluster.stopped == []
    assert len(outcome.done) == len(sweep[1].runs)


def test_runs_that_cannot_change_the_law_are_stopped_and_stay_so_until_pruning_is_lifted(wide, capsys):
    sweep, cluster = wide(ON)
    display = Silent()
    outcome = drive(sweep, cluster, display)
    assert outcome.pruned
    assert outcome.failed == {}
    assert outcome.held == {}
    assert sorted([*outcome.done, *outcome.pruned]) == sorted(cluster.runs)
    assert sorted(cluster.stopped) == sorted(outcome.pruned)
    folder = SweepDir(sweep[2], sweep[0].name)
    record, status = folder.record(), folder.status()
    assert set(record.pruned) == set(outcome.pruned) == set(status["pruned"])
    for run_id, reason in outcome.pruned.items():
        assert f"prune.by_value={SHARE:g}" in reason
        assert record.pruned[run_id]["saved_flops"] == pytest.approx(
            0.4 * costs.train_flops(cluster.runs[run_id].model, cluster.runs[run_id].tokens)
        )
        assert any(line.startswith(f"pruned  {run_id}") for line in display.lines)
    log = files.read_lines(folder.path / "events.jsonl")
    assert {event["run_id"] for event in log if event["event"] == "pruned"} == set(outcome.pruned)
    assert f"{len(outcome.pruned)} pruned" in display.snapshots[-1].counts()
    assert command._conclude(folder, len(cluster.runs), outcome) == command.DONE, "a pruned run is no failure"
    assert f"{len(outcome.pruned)} pruned (which saved" in capsys.readouterr().out
    again = Training(sweep[2], cluster.runs)
    assert drive(sweep, again).pruned == outcome.pruned
    assert again.started == []
    lifted, cluster = wide("prune.by_value=null", cluster=again)
    assert len(drive(lifted, cluster).done) == len(cluster.runs)
    assert sorted(cluster.started) == sorted(outcome.pruned)
    assert folder.record().pruned == {}


def test_a_plan_says_which_runs_stay_pruned_and_which_go_on(wide, known_text, capsys):
    sweep, cluster = wide(ON)
    outcome = drive(sweep, cluster)
    record = SweepDir(sweep[2], sweep[0].name).record()

    def shown(*words):
        (chosen, cells, root), _ = wide(*words, cluster=cluster)
        text = texts.describe(cells.runs, cells.evals)
        order = command.Order(recipe=chosen, grid=cells, text=text, root=root, record=record, idle=[])
        command._show(order)
        return capsys.readouterr().out

    count = len(outcome.pruned)
    planned = shown(ON)
    assert f"{count} of {count} runs pruned before stay pruned (prune.by_value)" in planned
    assert len(re.findall(r"pruned +│", planned)) == count
    lifted = shown()
    assert f"0 of {count} runs pruned before stay pruned; {count} go on" in lifted
    assert len(re.findall(r"to train +│", lifted)) == count


def test_the_cheap_budgets_come_first(wide):
    sweep, cluster = wide(ON)
    drive(sweep, cluster)
    budgets = [cluster.runs[run_id].budget_flops for run_id in cluster.started]
    assert budgets == sorted(budgets)


@pytest.mark.soak
def test_a_fit_leaves_them_out_by_a_rule_and_does_not_wait_for_them(wide):
    sweep, cluster = wide(ON)
    outcome = drive(sweep, cluster)
    runs = store.load(sweep[2])
    assert runs.missing == []
    assert set(store.unfinished(runs).run_id) == set(outcome.pruned), "nor are they proposed again"
    chosen = selection.select(RunSettings(runs=str(sweep[2]), rules=["none"]))
    assert len(chosen.table) == len(outcome.done), "never as finished runs, whatever the rules"
    (rule,) = [r for r in chosen.rules if r.name == "pruned"]
    assert rule.excluded == sorted(outcome.pruned)
    assert "prune.by_value" in rule.meaning


def answer(table, compute):
    """The prediction at a compute, by the parts that analysis.fit is made of."""
    minima = isoflop.analyse(table, draws=40, seed=0)
    ensemble = fit_ensemble(table, frontier=minima.trusted)
    thetas = optimal_size.choice_draws(ensemble, minima, draws=40, seed=0)
    point = optimal_size.optimal_points(np.array([compute]), ensemble, table, minima, thetas)
    return predict.predict(ensemble, point, thetas)[0]


@pytest.mark.soak
def test_the_law_of_the_pruned_sweep_is_that_of_the_whole_one_within_what_was_promised(law):
    """The whole way: curves in the store, forecasts, the law; some seconds, for it is asked twice."""
    sweep, cluster = law(ON)
    outcome = drive(sweep, cluster)
    assert outcome.pruned
    loss = {i: true_loss(costs.params(r.model).nonembedding, r.tokens) for i, r in cluster.runs.items()}
    for run_id in outcome.pruned:
        budget = cluster.runs[run_id].budget_flops
        best = min(loss[i] for i, run in cluster.runs.items() if run.budget_flops == budget)
        assert loss[run_id] > 1.01 * best, "none of those near a minimum"
    pruned = selection.select(RunSettings(runs=str(sweep[2])))
    assert len(pruned.table) == len(outcome.done)
    lifted, cluster = law("prune.by_value=null", cluster=cluster)
    cluster.stopped.clear()
    assert len(drive(lifted, cluster).done) == len(cluster.runs)
    whole = selection.select(RunSettings(runs=str(sweep[2])))
    target = 10 * whole.table.C.max()
    a, b = answer(whole.table, target), answer(pruned.table, target)
    assert abs(a.ln_loss - b.ln_loss) <= SHARE * np.log(a.interval_mean[1] / a.interval_mean[0])
    assert abs(np.log(a.n / b.n)) <= SHARE * np.log(a.interval_n[1] / a.interval_n[0])


@pytest.mark.parametrize("moment", ["before the record", pytest.param("after the record", marks=pytest.mark.soak)])
def test_a_driver_killed_around_a_decision_loses_nothing(wide, monkeypatch, moment):
    sweep, cluster = wide(ON)

    def die(*_, **__):
        raise Killed

    if moment == "before the record":
        real = SweepDir.write_record
        monkeypatch.setattr(
            SweepDir, "write_record", lambda self, record: die() if record.pruned else real(self, record)
        )
    else:
        monkeypatch.setattr(cluster, "stop", die)
    with pytest.raises(Killed):
        drive(sweep, cluster)
    monkeypatch.undo()
    quick(monkeypatch)
    worthless(monkeypatch)
    monkeypatch.setattr(driver, "time", Ticking())
    decided = set(SweepDir(sweep[2], sweep[0].name).record().pruned)
    assert bool(decided) == (moment == "after the record")
    going = {run.run_id for run in cluster.running()}
    outcome = drive(sweep, cluster)
    assert decided <= set(outcome.pruned)
    assert decided <= set(cluster.stopped)
    assert sorted([*outcome.done, *outcome.pruned]) == sorted(cluster.runs)
    assert all(cluster.started.count(run_id) == 1 for run_id in going), "what was under way was adopted"


class Ticking:
    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1e9

    def sleep(self, seconds):
        self.now += max(seconds, 0.25)


def test_a_question_that_cannot_be_answered_stops_no_sweep(wide, monkeypatch):
    def broken(*_, **__):
        raise ValueError("singular")

    monkeypatch.setattr(evidence.pruning, "prune", broken)
    sweep, cluster = wide(ON)
    display = Silent()
    assert len(drive(sweep, cluster, display).done) == len(cluster.runs)
    assert any("nothing is pruned now: ValueError: singular" in line for line in display.lines)


@pytest.mark.soak
def test_a_stopped_run_whose_worker_dies_is_not_started_again(wide):
    sweep, cluster = wide(ON)
    poll = cluster.poll

    def lose():
        updates = poll()
        return [u if u.state != "stopped" else type(u)(run_id=u.run_id, state="lost", error="gone") for u in updates]

    cluster.poll = lose
    outcome = drive(sweep, cluster)
    assert outcome.pruned
    assert all(cluster.started.count(run_id) == 1 for run_id in outcome.pruned)


def test_a_run_that_ends_before_it_is_stopped_is_done(wide):
    sweep, cluster = wide(ON)
    cluster.stop = lambda run_id=None: None  # the word comes too late
    outcome = drive(sweep, cluster)
    assert len(outcome.done) == len(cluster.runs)
    assert outcome.pruned == {}
    runs = store.load(sweep[2])
    assert len(runs.table) == len(cluster.runs)
    assert runs.pruned == []


def test_a_smaller_share_lifts_what_was_pruned_for_a_larger_one(wide):
    sweep, cluster = wide(ON)
    before = drive(sweep, cluster).pruned
    record = SweepDir(sweep[2], sweep[0].name).record()
    assert set(record.still_pruned(SHARE)) == set(before)
    assert record.still_pruned(SHARE / 2) == {}
    assert record.still_pruned(None) == {}


def test_a_tick_does_not_wait_for_the_answer(wide, monkeypatch):
    """The driver goes on while a question is open."""
    asked = []

    class Never(AtOnce):
        def submit(self, act, *words):
            asked.append(words)
            return Future()

    monkeypatch.setattr(pruning, "ThreadPoolExecutor", Never)
    sweep, cluster = wide(ON)
    assert len(drive(sweep, cluster).done) == len(cluster.runs)
    assert len(asked) == 1


def test_it_is_asked_again_when_runs_have_come_farther_though_none_has_ended(wide):
    sweep, _ = wide(ON)
    runs = sweep[1].runs[:2]
    states = {run.run_id: RunState(spec=run, phase=Phase.RUNNING) for run in runs}
    asked = []

    class Counting(AtOnce):
        def submit(self, act, *words):
            asked.append(words)
            return super().submit(lambda: pruning._Told(figures={}, seconds=0.0))

    one = pruning.Pruning(sweep[0], SweepDir(sweep[2], "wide"), sweep[1].evals, None, None, print)
    one._pool = Counting()
    for now, step in ((10, 0), (20, 0), (30, 5), (40, 12), (50, 14), (60, 23)):
        states[runs[0].run_id].heard(Progress(phase="training", step=step, steps=100))
        one.look(states, {}, float(now))  # takes the answer before, asks where there is more to go by
    assert len(asked) == 3, "at the start, at a tenth, at two tenths"


@pytest.mark.soak
def test_an_adopted_pruned_worker_of_a_finished_sweep_is_asked_to_stop(wide):
    sweep, cluster = wide(ON)
    outcome = drive(sweep, cluster)
    one = sorted(outcome.pruned)[0]
    cluster.stopped.clear()
    cluster._running[one] = Running(run_id=one, worker=Resources(cpus=1.0), allocation={"n": 1})
    assert drive(sweep, cluster).pruned == outcome.pruned
    assert one in cluster.stopped


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prune.by_value=0"], "above 0 and at most 1"),
        (["prune.by_value=1.5"], "above 0 and at most 1"),
        (["prune.by_value=0.05", "prune.target=-1"], "FLOPs, positive"),
        (["prune.target=1e15"], "has no effect with prune.by_value=null"),
    ],
)
def test_impossible_settings_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        grid.build(recipe.load(words), "0" * 64)
    with pytest.raises(UsageError, match="by_value"):
        recipe.load(["prune.by_valu=0.1"])
