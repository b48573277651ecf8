"""What a driver makes of other sweeps on its cluster: what it tells and hears, starts, leaves and says."""

import itertools
import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import Progress, Update
from sweeps.driving import claims, driver, taking, yielding
from sweeps.driving.claims import LEASE_SECONDS
from sweeps.driving.deciding import Deciding
from sweeps.driving.estimates import Estimates
from sweeps.driving.happenings import Happenings
from sweeps.driving.preparation import Preparation
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.sharing import Among
from sweeps.driving.survival import Survival
from sweeps.planning import recipe
from sweeps.scheduling.inventory import Kind
from sweeps.scheduling.scheduler import Hold, Job, Preempt, Rules, Running, Start
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive
from tests.sweeps.many_sweeps import CORE, claim, nodes, runs


class Told(SimpleNamespace):
    """A cluster on which another sweep told something."""

    def claims(self):
        return {self.theirs.key: claims.to_text(self.theirs, 0.0, 1)} if self.theirs else {}

    def claim(self, text, *, alone):
        self.text = text


def test_of_two_that_are_alike_both_drivers_find_the_same_first():
    starts = []
    for me, other in (("a", "b"), ("b", "a")):
        among = Among(Told(theirs=claim(other, 5)), me, me, list[str]().append)
        among.look(0.0, [])
        starts += [d.run_id for d in among.decide(0.0, nodes(1), runs(me, 5, 10.0), []) if isinstance(d, Start)]
    assert starts == ["a-0000"]


def test_what_ends_soon_is_not_told_to_last_as_long_as_what_is_beside_it():
    """A node's runs were told as one that ends with the last: 22 seconds became an hour."""
    ends = [*(20.0 + i for i in range(6)), 3600.0, math.inf]
    held = [Running(run_id=f"r{i}", worker=CORE, allocation={"n": 1}, ends=end) for i, end in enumerate(ends)]
    cluster = Told(theirs=None)
    among = Among(cluster, "s", "s", list[str]().append)
    among.look(0.0, held)
    among.tell(0.0, [], [])
    told = claims.from_text(cluster.text, "s", 0.0).held
    assert [(run.allocation["n"], run.ends) for run in told] == [(6, 25.0), (1, 3600.0), (1, math.inf)]


@pytest.mark.parametrize("waits", [True, False])
def test_a_run_for_which_its_sweep_would_make_room_says_why_nobody_does_while_another_waits(waits):
    own = [
        Running(run_id=f"a{i}", worker=CORE, allocation={f"n00{i}": 1}, ends=9e4, queued=1.0, resumable=True)
        for i in range(4)
    ]
    jobs = [Job(run_id="high", worker=CORE, priority=1, queued=2.0), Job(run_id="low", worker=CORE, queued=2.0)]
    among = Among(Told(theirs=claim("k", 50 * waits)), "s", "s", list[str]().append)
    among.look(3.0, own)
    decisions = among.decide(3.0, nodes(4), jobs, own, rules=Rules(preempt=True))
    assert any(isinstance(d, Preempt) for d in decisions) is not waits
    assert {d.run_id for d in decisions if isinstance(d, Hold) and "placement.preempt rests" in d.reason} == (
        {"high"} if waits else set()
    )


class Shared(FakeCluster):
    """Another sweep's driver is on it, which lives and wants more than there is."""

    def __init__(self, root, theirs):
        super().__init__(root, lambda run_id, n: "running", cpus=4.0)
        self.theirs, self.told = theirs, []

    def claims(self):
        return {"k": claims.to_text(self.theirs, 0.0, len(self.told) + self.polls)}

    def claim(self, text, *, alone):
        self.told.append((claims.from_text(text, "mine", 0.0), alone))


@pytest.mark.parametrize(("words", "starts"), [([], 2), (["limit.devices=3"], 2), (["limit.devices=1"], 1)])
def test_a_driver_starts_what_is_due_to_it_says_why_others_wait_and_tells_what_it_has(smoke, words, starts):
    _, cells, root = smoke
    cluster, display = Shared(root, claim("other", 100)), Silent()
    cluster.behaviour = lambda run_id, n: ("running", cluster.polls) if cluster.polls < 20 else "done"
    seen = []
    display.show = lambda snapshot: seen.append((len(snapshot.running), dict(snapshot.waiting)))
    outcome = drive((recipe.load(["recipe=smoke", *words]), cells, root), cluster, display)
    assert len(outcome.done) == 4, "room that the other does not take is not kept for ever"
    assert max(running for running, _ in seen[:15]) == starts
    mine, alone = cluster.told[0]
    assert not alone, "workers without work are not kept warm"
    assert sum(sum(run.allocation.values()) for run in mine.held) == starts
    limit = {"limit.devices=1": 0, "limit.devices=3": 1}.get("".join(words), 4 - starts)
    assert sum(n for _, n in mine.wants) == limit, "what it may not hold it does not want"
    if not words:
        assert any("other-0 of sweep other" in why for _, waits in seen for why in waits.values())
    assert sum(line.startswith("sharing  sweep other waits on this cluster too") for line in display.lines) == 1


def test_a_sweep_with_a_limit_finds_its_share_by_what_the_limit_lets_it_want(smoke):
    """It starts nothing at the moment, and that is not what it wants: its share was told as nothing."""
    _, cells, root = smoke
    display = Silent()
    cluster = Shared(root, claim("other", 100, held=4))
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(4), allocation={"n": 1})]
    cluster.behaviour = lambda run_id, n: ("running", cluster.polls) if cluster.polls < 20 else "done"

    def poll():
        if cluster.polls == 40:
            cluster.others, cluster.theirs = list, claim("other", 0)
        return FakeCluster.poll(cluster)

    cluster.poll = poll
    drive((recipe.load(["recipe=smoke", "limit.devices=1"]), cells, root), cluster, display)
    (said,) = (line for line in display.lines if line.startswith("sharing"))
    assert "25% of it is due to this sweep, which has 0%" in said
    assert cluster.told[8][0].excess < -0.01, "and it is owed"


def test_what_comes_before_the_first_run_waits_for_its_share_too(smoke):
    """A sweep that comes to a full cluster prepares first: others must know that it wants a core."""
    _, cells, root = smoke
    others = claim("other", 100, held=4)
    cluster, said = Shared(root, others), []
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(4), allocation={"n": 1})]
    among = Among(cluster, "mine", "mine", said.append)
    job = SimpleNamespace(evals=cells.evals)
    prepares = Preparation(cluster, Kind(CORE), job, 3, said.append, among, begun=False)
    assert prepares.act(1.0)
    assert prepares.reason.endswith("sweep other has 4 cores")
    ((mine, _),) = cluster.told
    assert [(job.run_id, n) for job, n in mine.wants] == [("preparation", 1)]
    assert mine.waited == 0.0, "it was not asked for before"
    cluster.others = list
    cluster.theirs = claim("other", 100, held=3)
    assert prepares.act(2.0)
    assert cluster.started == ["preparation"]
    assert prepares.act(3.0)
    mine, _ = cluster.told[-1]
    assert len(cluster.told) == 3, "it goes on to tell that it is there"
    assert (str(mine.holds()), mine.wants) == ("1 core", ())


def test_a_driver_that_is_interrupted_tells_what_its_runs_hold_until_they_have_stopped(smoke):
    """Their checkpoints may take a minute."""
    _, cells, root = smoke

    class Slow(Shared):
        def stop(self, run_id=None):
            self.asked = len(self.told)

        def poll(self):
            if self.polls == 20:
                os.kill(os.getpid(), signal.SIGTERM)
            if self.polls == 60:
                super().stop()
            return super().poll()

    cluster = Slow(root, claim("other", 100))
    assert drive((recipe.load(["recipe=smoke"]), cells, root), cluster, Silent()).interrupted
    after = [mine for mine, _ in cluster.told[cluster.asked :]]
    assert len(after) >= 9, "one a second"
    assert {(str(mine.holds()), mine.wants) for mine in after[:-1]} == {("2 cores", ())}


def test_a_run_of_which_nothing_new_is_heard_does_not_end_later_and_later(smoke):
    """Its reservation slid with the time, and a gang behind a stream of runs that say little never started."""
    state = RunState(spec=smoke[1].runs[0], phase=Phase.RUNNING)
    state.started(110.0)
    running = [Running(run_id=state.run_id, worker=CORE, allocation={"n": 1})]

    def ends(now):
        return yielding.seen(running, {state.run_id: state}, lambda s: 0, lambda s: 10.0, now)[0].ends

    assert [ends(100.0), ends(105.0), ends(112.0)] == [110.0, 110.0, 110.0]
    state.heard(Progress(phase="training", step=0, steps=9))
    assert ends(104.0) == 110.0, "it has only said that it is there"
    state.heard(Progress(phase="training", step=1, steps=9))
    assert [ends(106.0), ends(108.0)] == [116.0, 116.0]


def test_room_beside_a_reservation_is_not_left_for_long_either():
    """What the other waits for is many alike: of those that the scheduler would start it was lost that it would."""
    lasting = (Running(run_id="k", worker=CORE, allocation={"n000": 1}, ends=1e4),)
    cluster = Told(theirs=replace(claim("k", 100), held=lasting))
    among = Among(cluster, "s", "s", list[str]().append)
    jobs = [*runs("gang", 1, 50.0, workers=4, priority=1), *runs("small", 9, 10.0)]

    def starts(now):
        among.look(now, [])
        decisions = among.decide(now, nodes(4), jobs, among.held)
        return sum(isinstance(d, Start) for d in decisions)

    assert [starts(float(now)) for now in range(12)] == [2] * 12, "a third of what is free is the other's"
    assert [starts(float(now)) for now in range(12, 20)][-1] == 3, "which does not take it"


@pytest.mark.parametrize("waits", [True, False])
def test_with_a_limit_nobody_makes_room_either_while_another_sweep_waits(waits):
    """What it had stopped for a run of its own was the other's next."""
    cluster, all_, cut = Told(theirs=claim("k", 50 * waits), others=list), nodes(4), nodes(2)
    limits = SimpleNamespace(
        limit=SimpleNamespace(devices=2),
        rules=Rules(preempt=True),
        ordered=list,
        turned=lambda cut, whole, jobs, running, others: (cut, running),
    )
    seen = SimpleNamespace(
        largest=all_, strangers=lambda others, now: [*others], expected=lambda usable, alive, now: (usable, [])
    )
    own = [
        Running(run_id=f"a{i}", worker=CORE, allocation={f"n00{i}": 1}, ends=9e4, queued=1.0, resumable=True)
        for i in range(2)
    ]
    deciding = Deciding(limits, seen, Among(cluster, "s", "s", list[str]().append))
    high = Job(run_id="high", worker=CORE, priority=1, queued=2.0)
    low = Job(run_id="low", worker=CORE, queued=2.0)
    decisions = deciding.decide(3.0, [high, low], own, [], cut=cut, usable=all_, alive=all_)
    assert any(isinstance(d, Preempt) for d in decisions) is not waits
    said = {d.run_id for d in decisions if isinstance(d, Hold) and "placement.preempt rests" in d.reason}
    assert said == ({"high"} if waits else set())


def test_what_starts_is_told_and_what_others_started_is_heard_at_once():
    """Seconds later both had started something on the same cores, and one of them waited there for two minutes."""
    cluster = Told(theirs=claim("k", 9))
    among, jobs = Among(cluster, "s", "s", list[str]().append), runs("s", 9, 10.0)

    def turn(now):
        among.look(now, [])
        decisions = among.decide(now, nodes(1, 4), jobs, among.held)
        among.tell(now, decisions, jobs)
        return sum(isinstance(d, Start) for d in decisions)

    assert turn(0.0) == 2
    cluster.theirs = claim("k", 9, held=4)
    assert turn(0.3) == 0, "it has taken all meanwhile"
    cluster.theirs = claim("k", 9, held=1)
    assert turn(0.6) == 2
    assert str(claims.from_text(cluster.text, "s", 0.6).holds()) == "2 cores"


def test_a_driver_whose_passes_are_far_between_keeps_its_lease(smoke, monkeypatch):
    """Passes of a second would be 50 apart while nothing changes: its claim counted for 30."""
    monkeypatch.setattr(driver, "DECIDE_SECONDS", 50.0)
    _, cells, root = smoke
    cluster = Shared(root, claim("other", 100))
    cluster.behaviour = lambda run_id, n: "running" if cluster.polls < 400 else "done"
    told = []
    cluster.claim = lambda text, *, alone: told.append((driver.time.monotonic(), claims.from_text(text, "mine", 0.0)))
    drive((recipe.load(["recipe=smoke"]), cells, root), cluster, Silent())
    times = [time for time, _ in told]
    assert max(b - a for a, b in itertools.pairwise(times)) < LEASE_SECONDS / 4
    assert {str(mine.holds()) for _, mine in told[1:18]} == {"2 cores"}, "what it told last"


def test_a_driver_that_waits_to_be_asked_for_runs_holds_nothing(smoke):
    """Its last run was told to go on for the length of a lease."""
    chosen, cells, root = smoke
    cluster = Shared(root, claim("other", 100))
    cluster.behaviour = lambda run_id, n: "done"
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        made = driver.Driver(chosen, taken, cluster, Silent(), entry="fake:fake", patience_seconds=20.0)
        assert len(made.drive().done) == 4
    after = [mine for mine, _ in cluster.told[-8:]]
    assert {(str(mine.holds()), mine.wants) for mine in after} == {("0 cores", ())}


def test_a_start_that_found_its_place_taken_is_not_its_nodes_fault(smoke):
    said = list[str]()
    cluster = FakeCluster(smoke[2])
    survival = Survival(smoke[0].placement, Estimates(smoke[0]), cluster, said.append)

    def misstarts():
        for run in cells[:2]:
            survival.heard(Update(run_id=run.run_id, state="unstarted", node="n", error="it did not start"), 1.0)
        survival.usable([*cluster.inventory(), *nodes(1)], [RunState(spec=run) for run in cells], 2.0)

    cells = smoke[1].runs
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(2), allocation={"n": 1})]
    misstarts()
    assert said == []
    cluster.others = list
    misstarts()
    assert len(said) == 1


@pytest.mark.parametrize(("held", "blamed"), [(1, True), (60, True), (63, False), (64, False)])
def test_a_large_node_on_which_nothing_starts_is_avoided_though_others_use_it(smoke, held, blamed):
    """Whatever others held there was taken for the reason, and it was tried without end."""
    chosen, cells, root = smoke
    vars(chosen.placement)["cpus"] = 2.0
    cluster, said, state = FakeCluster(root), list[str](), RunState(spec=cells.runs[0])
    cluster.inventory = lambda: nodes(2, 64)
    survival = Survival(chosen.placement, Estimates(chosen), cluster, said.append)
    about = {state.run_id: state}, cluster, Estimates(chosen), said.append
    told = Happenings(SweepDir(root, chosen.name), cells.evals, *about, max_failures=3)
    for now in range(3):
        others = CORE.times(held), CORE.times(1 + now)
        cluster.others = lambda others=others: [
            Running(run_id=f"others on n00{i}", worker=one, allocation={f"n00{i}": 1}) for i, one in enumerate(others)
        ]
        update = Update(run_id=state.run_id, state="unstarted", node="n000", error="it did not start")
        survival.heard(update, 1.0, state)
        told.take(update, 1.0)
    usable = survival.usable(cluster.inventory(), [state], 2.0)
    assert [node.name for node in usable] == (["n001"] if blamed else ["n000", "n001"])
    assert (state.phase == Phase.FAILED) == blamed, "and it is not tried there for ever, where it is the only node"


def test_a_sweep_that_chooses_its_runs_as_it_goes_asks_for_as_many_as_its_share_has_room_for(smoke):
    """It asked for what is free at the moment, which is nothing beside another's queue: it had one run at a time."""
    _, cells, root = smoke
    cluster = Shared(root, claim("other", 100, held=4))
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(4), allocation={"n": 1})]

    def poll():
        if cluster.polls == 20:
            cluster.others, cluster.theirs = list, claim("other", 100)
        return FakeCluster.poll(cluster)

    cluster.poll, cluster.behaviour = poll, lambda run_id, n: "done"
    drive((recipe.load(["recipe=smoke", "adaptive=true"]), cells, root), cluster, Silent())
    assert sum(n for _, n in cluster.told[2][0].wants) == 2


@pytest.mark.parametrize(("ends", "wants"), [(math.inf, 1), (1.0, 1), (1e6, 0)])
def test_before_a_deadline_a_sweep_counts_on_its_share_and_not_only_on_what_is_free(smoke, ends, wants):
    """It held back what would not end in time on the one free core, asked for no more, and had no more."""
    _, cells, root = smoke
    theirs = Running(run_id="k", worker=CORE, allocation={"n": 3}, ends=ends)
    cluster = Shared(root, replace(claim("other", 100), held=(theirs,)))
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(3), allocation={"n": 1})]
    chosen = recipe.load(["recipe=smoke", "limit.deadline=2001-09-09T01:46:49Z"])
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        made = driver.Driver(chosen, taking.take(chosen, cells, sweep), cluster, Silent(), entry="fake:fake")
        made.among.look(driver.time.monotonic(), [])  # as its preparation does
        made.drive()
    mine, _ = cluster.told[0]
    assert (str(mine.holds()), sum(n for _, n in mine.wants)) == ("1 core", wants)


def test_what_is_due_is_said_again_where_it_has_changed():
    """The first word of a sweep is of its preparation, which wants one worker."""
    cluster, said = Told(theirs=claim("k", 1)), list[str]()
    among, jobs = Among(cluster, "s", "s", said.append), runs("s", 90, 10.0)
    for now in range(90):
        cluster.theirs = claim("k", 50, held=2, excess=0.001 * now) if now > 3 else claim("k", 1)
        among.look(float(now), [])
        among.decide(float(now), nodes(1, 4), jobs, among.held)
    assert [line.partition("too: ")[2].partition(" of it")[0] for line in said] == ["75%", "50%"]


def test_a_sweep_that_does_not_take_its_room_keeps_no_other_from_being_named():
    """Nothing was said of a third one, nor of what was due beside it, while there was none left for a stuck one."""
    stuck, cluster, said = claim("stuck", 50), Told(theirs=None), list[str]()
    among, jobs, told = Among(cluster, "s", "s", said.append), runs("s", 90, 10.0), [stuck]
    cluster.claims = lambda: {one.key: claims.to_text(one, 0.0, now) for one in told}
    for now in range(40):
        told = [stuck, claim("third", 50)] if now > 20 else [stuck]
        among.look(float(now), [])
        among.decide(float(now), nodes(1, 4), jobs, among.held)
    assert len(said) == 2
    assert said[0].startswith("sharing  sweep stuck waits on this cluster too: 50% of it")
    assert said[1].startswith("sharing  sweep third waits on this cluster too: 50% of it")


def test_a_sweep_that_waits_for_its_share_says_when_it_should_end(smoke):
    """On a full cluster it said nothing."""
    _, cells, root = smoke
    full = Running(run_id="k", worker=CORE, allocation={"n": 4}, ends=20.0)
    cluster, display = Shared(root, replace(claim("other", 100), held=(full,))), Silent()
    cluster.others = lambda: [Running(run_id="others on n", worker=CORE.times(4), allocation={"n": 1})]
    cluster.behaviour = lambda run_id, n: "done"

    def poll():
        if cluster.polls == 30:
            cluster.others, cluster.theirs = list, claim("other", 100)
        return FakeCluster.poll(cluster)

    cluster.poll = poll
    drive((recipe.load(["recipe=smoke"]), cells, root), cluster, display)
    seen = display.snapshots[15]
    assert not seen.running
    assert seen.eta_seconds is not None
    assert seen.eta_seconds < 60
