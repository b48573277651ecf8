"""Sweeps that share a cluster: each has its share, nobody starves, nothing that somebody could use is idle."""

import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.cluster.job import Progress
from sweeps.driving import claims, yielding
from sweeps.driving.claims import LEASE_SECONDS, NEW_SECONDS, Leases
from sweeps.driving.preparation import Preparation
from sweeps.driving.run_state import Phase, RunState
from sweeps.driving.sharing import PATIENCE_SECONDS, Among
from sweeps.planning import recipe
from sweeps.scheduling import fairness
from sweeps.scheduling.fairness import Claim
from sweeps.scheduling.inventory import Kind, Resources
from sweeps.scheduling.scheduler import Hold, Job, Preempt, Rules, Running, Start, decide
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive
from tests.sweeps.many_sweeps import CORE, Sweep, World, mean, nodes, runs


def claim(key, wants, held=0, *, cores=1, **more):
    holding = (Running(run_id=key, worker=CORE, allocation={"n000": held}),) if held else ()
    waiting = ((Job(run_id=f"{key}-0", worker=Resources(cpus=cores), seconds=10.0), wants),) if wants else ()
    return Claim(key=key, name=key, held=holding, wants=waiting, **more)


@pytest.mark.parametrize(
    ("asked", "due"),
    [
        ([100], [12]),
        ([100, 100], [6, 6]),
        ([100, 2], [10, 2]),
        ([100, 5, 1], [6, 5, 1]),
        ([1, 2], [1, 2]),
        ([100, 100, 100], [4, 4, 4]),
    ],
)
def test_the_shares_are_max_min_fair(asked, due):
    found = fairness.shares([n / 12 for n in asked], [claim(f"s{i}", n) for i, n in enumerate(asked)])
    assert [12 * share for share in found] == pytest.approx(due)


def test_a_weight_counts_as_often_and_the_scarcer_resource_is_what_counts():
    assert fairness.shares([8, 8], [claim("a", 100, weight=2.0), claim("b", 100)]) == pytest.approx([2 / 3, 1 / 3])
    both = Resources(cpus=12, gpus=4)
    assert fairness.fraction(Resources(cpus=3, gpus=2), both) == 0.5
    assert fairness.fraction(Resources(cpus=9, gpus=2), both) == 0.75


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=5)
)
def test_no_share_is_beyond_what_is_wanted_and_none_is_raised_but_at_the_cost_of_who_has_as_little(asked):
    given_ = [claim(f"s{i}", wants, held, weight=weight) for i, (wants, held, weight) in enumerate(asked)]
    wanted = [min(1.0, (wants + held) / 12) for wants, held, _ in asked]
    found = fairness.shares(wanted, given_)
    assert all(share <= want + 1e-6 for share, want in zip(found, wanted, strict=True))
    assert sum(found) == pytest.approx(min(1.0, sum(wanted)))
    most = max(share / one.weight for share, one in zip(found, given_, strict=True))
    for share, want, one in zip(found, wanted, given_, strict=True):
        assert share == pytest.approx(want) or share / one.weight == pytest.approx(most)


def test_alone_the_queue_is_what_it_was_and_with_another_it_holds_all_that_was_in_it():
    jobs = runs("a", 20, 10.0)
    other = claim("b", 100, held=1)
    mine = Claim(key="", name="a", held=(Running(run_id="x", worker=CORE, allocation={"n001": 1}),))
    found = fairness.together(mine, [other], jobs, nodes(12), Rules())
    assert {job.run_id for job in found.queue} == {job.run_id for job in jobs} | set(found.theirs)
    assert found.share == pytest.approx(0.5)
    starts = [d.run_id for d in decide(0.0, nodes(12), found.queue, [*mine.held, *other.held])][:10]
    assert sum(run_id in found.theirs for run_id in starts) == 5, "of ten that are free each is due five"
    assert fairness.together(mine, [], jobs, nodes(12), Rules()).queue == [
        *(replace(job, rank=-1) for job in jobs[:11]),
        *jobs[11:],
    ]


def test_what_is_told_is_what_is_heard_until_it_does_not_change_any_more():
    gang = Job(run_id="g", worker=Resources(cpus=2, gpus=1), workers=4, together=2, accelerator="H100", rack="pod")
    held = Running(run_id="r", worker=CORE, allocation={"n0": 2, "n1": 2}, ends=130.0)
    told = Claim(key="k", name="s", weight=2.0, excess=-0.25, lasts=9.0, waited=3.0, held=(held,), wants=((gang, 7),))
    leases, text = Leases(), claims.to_text(told, 100.0, 1)
    (heard,) = leases.look({"k": text}, 5000.0)
    assert heard == replace(told, held=(replace(held, run_id="sweep s", ends=5030.0),))
    assert leases.look({"k": text}, 5000.0 + NEW_SECONDS) == [], "its driver may be dead long since"
    later = {"k": claims.to_text(told, 100.0, 2)}
    assert len(leases.look(later, 5005.0)) == 1, "it lives"
    assert len(leases.look(later, 5005.0 + LEASE_SECONDS - 1)) == 1
    assert leases.look(later, 5005.0 + LEASE_SECONDS) == [], "its driver is dead"
    assert len(leases.look({"k": claims.to_text(told, 100.0, 3)}, 6000.0)) == 1, "or was stopped, and goes on"
    assert leases.look({}, 6001.0) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"form": 1}', '{"form": 2, "name": "s"}', "\ufffd{"])
def test_what_another_version_tells_is_no_claim(text):
    assert claims.from_text(text, "k", 0.0) is None


# ------------------------------------------------------------------------------------- seconds of a shared cluster


def shared(cluster, seconds, *sweeps, **more):
    return World(cluster, sweeps, **more).run(seconds)


def test_the_second_sweep_has_half_as_soon_as_runs_have_ended_and_all_when_the_first_is_done():
    first, second = Sweep("first", runs("a", 60, 20.0)), Sweep("second", runs("b", 80, 20.0), comes=60.0)
    shared(nodes(8), 300, first, second)
    assert mean(first, 0, 60) == pytest.approx(8.0, abs=0.2)
    assert mean(first, 90, 170) == pytest.approx(4.0, abs=0.3)
    assert mean(second, 90, 170) == pytest.approx(4.0, abs=0.3)
    assert len(first.took) == 60
    over = max(ended for _, ended in first.took.values())
    assert mean(second, over + 5, over + 20) > 7.5, "what nobody else wants is used at once"
    assert first.said == [
        "sharing  sweep second waits on this cluster too: 50% of it is due to this sweep, which has 100%; what ends "
        "beyond that is theirs next"
    ]


def test_a_step_of_priority_is_twice_the_share():
    first = Sweep("first", runs("a", 200, 20.0))
    second = Sweep("second", runs("b", 200, 20.0, priority=1), comes=30.0)
    shared(nodes(9), 180, first, second)
    assert mean(second, 80, 180) == pytest.approx(6.0, abs=0.3)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_a_gang_starts_beside_another_sweeps_stream_and_both_have_their_share(workers):
    stream = Sweep("stream", runs("a", 90, 20.0))
    gangs = Sweep("gangs", runs("g", 20, 20.0, workers=workers), comes=30.0)
    shared(nodes(4), 330, stream, gangs)
    first = min(began for began, _ in gangs.took.values())
    assert first < 30 + 2 * 20 + 10, "all that ran has ended once, and what a driver sees is seconds old"
    assert mean(gangs, 90, 330) == pytest.approx(2.0, abs=0.5)
    assert mean(stream, 90, 330) == pytest.approx(2.0, abs=0.6)


def test_before_a_second_sweep_got_nothing_while_the_firsts_queue_lasted():
    """What the scheduler does of itself, where others are strangers."""
    stream, second = Sweep("stream", runs("a", 60, 20.0)), Sweep("second", runs("b", 4, 20.0), comes=30.0)
    shared(nodes(4), 200, stream, second, share=False)
    assert mean(second, 0, 200) == 0.0


def test_a_driver_that_dies_leaves_its_share_to_others_within_its_lease():
    first, second = Sweep("first", runs("a", 200, 20.0)), Sweep("second", runs("b", 200, 20.0), comes=30.0, dies=100.0)
    shared(nodes(8), 170, first, second)
    assert mean(first, 70, 100) == pytest.approx(4.0, abs=0.5)
    assert mean(first, 100 + LEASE_SECONDS + 8, 170) == pytest.approx(8.0, abs=0.2)


def test_who_comes_to_a_free_cluster_does_not_wait_for_the_lease_of_a_driver_dead_long_ago():
    dead, new = Sweep("dead", runs("d", 60, 30.0), dies=5.0), Sweep("new", runs("n", 60, 10.0), comes=70.0)
    shared(nodes(4), 80, dead, new)
    assert mean(new, 70 + NEW_SECONDS, 80) == 4.0


def test_room_that_a_living_driver_does_not_take_is_not_left_for_long():
    """It tells that it waits, and starts nothing: a reason that others do not see."""
    first, stuck = Sweep("first", runs("a", 200, 20.0)), Sweep("stuck", runs("b", 100, 20.0), comes=30.0)
    world = World(nodes(4), (first, stuck))
    drive = world._drive
    told = [Hold(job.run_id, "its nodes are avoided") for job in stuck.jobs]
    world._drive = lambda s: world.amongs["stuck"].tell(world.now, told, stuck.jobs) if s is stuck else drive(s)
    world.run(150)
    assert mean(first, 30, 60) < 3.5
    assert mean(first, 60 + PATIENCE_SECONDS, 150) > 3.5
    world.run(450)
    assert mean(first, 150, 600) > 3.7, "it is tried again, less and less often"
    assert any("; sweep " not in d.reason and " of sweep " not in d.reason for d in first.holds)


@pytest.mark.parametrize(("prepares", "pauses"), [(20.0, 1), (40.0, 1), (5.0, 5), (5.0, 30), (5.0, 60)])
def test_who_took_room_and_then_wanted_nothing_has_his_share_when_he_comes_back(prepares, pauses):
    """A preparation, and gangs after it; room that is left for the first of them is not taken at once."""
    lengths = [20.0 + (i % 8) * 0.9 + (i if i < 8 else 0) for i in range(100)]
    first = Sweep("first", [replace(job, seconds=s) for job, s in zip(runs("a", 100, 1.0), lengths, strict=True)])
    second = Sweep("second", runs("p", 1, prepares), comes=30.0)
    world = World(nodes(8), (first, second))
    world.run(100, until=lambda: second.took and not second.live).run(pauses)
    gangs = [replace(job, queued=world.now) for job in runs("g", 40, 20.0, workers=3)]
    second.waiting, second.jobs, came = [*gangs], [*second.jobs, *gangs], world.now
    world.run(110)
    assert mean(second, came + 50, came + 110) > 3.0


@pytest.mark.parametrize("back", [37, 42, 46])
def test_a_driver_that_is_away_for_less_than_its_lease_has_its_share_again(back):
    """It took no room that was left for it meanwhile."""
    lengths = [10.0 + i % 4 for i in range(60)]
    first = Sweep("first", [replace(job, seconds=s) for job, s in zip(runs("a", 60, 1.0), lengths, strict=True)])
    second = Sweep("second", runs("b", 40, 10.0), comes=15.0)
    world = World(nodes(4), (first, second))
    drive = world._drive
    world._drive = lambda s: None if s is second and 17 <= world.now < back else drive(s)
    world.run(150)
    assert mean(second, back + LEASE_SECONDS + PATIENCE_SECONDS, 150) > 1.7


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


@st.composite
def crowds(draw):
    """Two or three sweeps that want more than there is, of runs of any shape that fits."""
    size = draw(st.integers(4, 10))
    found = []
    for i in range(draw(st.integers(2, 3))):
        workers, seconds = draw(st.integers(1, size)), draw(st.sampled_from([8.0, 20.0, 45.0]))
        many = math.ceil(500 * size / (workers * seconds))
        found.append((runs(f"s{i}", many, seconds, workers=workers), draw(st.sampled_from([0.0, 15.0]))))
    return size, found


@pytest.mark.soak
@settings(max_examples=20)
@given(crowds())
def test_of_any_two_or_three_sweeps_nobody_starves_and_shares_become_fair(crowd):
    size, asked = crowd
    sweeps = [Sweep(f"s{i}", jobs, comes=comes) for i, (jobs, comes) in enumerate(asked)]
    shared(nodes(size), 450, *sweeps)
    longest = max(job.seconds for s in sweeps for job in s.jobs)
    for sweep in sweeps:
        began = sorted(began for began, _ in sweep.took.values())
        assert began, f"{sweep.name} never started"
        assert began[0] <= sweep.comes + (len(sweeps) + 1) * (longest + 10)
        assert mean(sweep, 100, 450) >= 0.35 * size / len(sweeps), (
            "gangs of other widths leave nodes empty between them"
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
