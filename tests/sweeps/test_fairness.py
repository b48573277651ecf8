"""Sweeps that share a cluster: each has its share, nobody starves, nothing that somebody could use is idle."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.driving import claims
from sweeps.driving.claims import LEASE_SECONDS, Leases
from sweeps.driving.sharing import PATIENCE_SECONDS
from sweeps.scheduling import fairness
from sweeps.scheduling.fairness import Claim
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Hold, Job, Rules, Running, decide
from tests.sweeps.many_sweeps import CORE, SEEN, Sweep, World, claim, mean, nodes, runs


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
    later = {"k": claims.to_text(told, 100.0, 2)}
    assert len(leases.look(later, 5005.0)) == 1, "it lives"
    assert len(leases.look(later, 5005.0 + LEASE_SECONDS - 1)) == 1
    assert leases.look(later, 5005.0 + LEASE_SECONDS) == [], "its driver was stopped"
    assert len(leases.look({"k": claims.to_text(told, 100.0, 3)}, 6000.0)) == 1, "and goes on"
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


@pytest.mark.parametrize(("how", "free"), [("dies", 20 + SEEN + 2), ("stops", LEASE_SECONDS + 8)])
def test_a_driver_that_dies_leaves_its_share_to_others_as_its_runs_end_one_that_is_stopped_within_its_lease(how, free):
    first = Sweep("first", runs("a", 200, 20.0))
    second = Sweep("second", runs("b", 200, 20.0), comes=30.0, **{how: 100.0})
    shared(nodes(8), 170, first, second)
    assert mean(first, 70, 100) == pytest.approx(4.0, abs=0.5)
    assert mean(first, 100 + free, 170) == pytest.approx(8.0, abs=0.2)


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
