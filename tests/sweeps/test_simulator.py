"""The scheduler on a clock that jumps: closed forms, and the rules of the scheduler itself."""

import math
import random
import statistics

import pytest

from sweeps.planning import timeline
from sweeps.scheduling.inventory import Resources
from sweeps.scheduling.scheduler import Job, Rules
from sweeps.scheduling.simulator import Failures, Simulated, Spell, cluster, simulate

GPU = Resources(cpus=1, gpus=1)


def job(name, seconds, workers=1, **words):
    return Job(run_id=name, worker=GPU, workers=workers, seconds=seconds, **words)


def test_equal_runs_take_as_many_rounds_as_they_need():
    done = simulate(cluster(16, 8, 1), [job(f"r{i:02}", 100.0) for i in range(40)])
    assert done.seconds == math.ceil(40 / 16) * 100
    assert len(done.spells) == 40
    assert done.gpu_seconds() == 40 * 100


def test_the_longest_starts_first_and_short_runs_fill_the_rest():
    done = simulate(cluster(8, 8, 1), [job("short", 10.0, 4), job("long", 100.0, 4), job("half", 60.0, 4)])
    assert [(s.run_id, s.started) for s in done.spells] == [("long", 0), ("half", 0), ("short", 60)]
    assert done.seconds == 100


def test_a_large_gang_is_reserved_room_and_only_what_ends_before_goes_ahead():
    """EASY backfill (Lifka 1995): 8 GPUs at 100 s; 90 s beside them do not fit ahead of it, 40 s do."""
    queue = [job("first", 100.0, 4), job("gang", 50.0, 8, queued=1.0), job("late", 120.0, 4, queued=2.0)]
    queue.append(job("quick", 40.0, 4, queued=3.0))
    at = {s.run_id: s.started for s in simulate(cluster(8, 8, 1), queue).spells}
    assert at == {"first": 0, "quick": 3, "gang": 100, "late": 150}


def test_a_branch_waits_for_the_checkpoint_of_its_trunk():
    done = simulate(cluster(8, 8, 1), [job("trunk", 100.0), job("branch", 20.0)], {"branch": ("trunk", 70.0)})
    assert [(s.run_id, s.started, s.ended) for s in done.spells] == [("trunk", 0, 100), ("branch", 70, 90)]
    alone = simulate(cluster(8, 8, 1), [job("branch", 20.0)], {"branch": ("elsewhere", 70.0)})
    assert alone.seconds == 20  # the trunk is trained already


def test_what_can_never_start_is_refused_with_its_reason():
    done = simulate(cluster(12, 8, 1), [job("ok", 5.0, 8), job("huge", 5.0, 24)], {"after": ("huge", 1.0)})
    assert [s.run_id for s in done.spells] == ["ok"]
    assert "24 workers of 1 GPU and 1 core at once, which this cluster of 2 nodes" in done.refused["huge"]
    with pytest.raises(ValueError, match="odd: a run of unknown length"):
        simulate(cluster(8, 8, 1), [job("odd", math.inf)])


def test_no_gpu_is_given_twice_and_no_run_is_lost():
    rng = random.Random(0)
    jobs = [
        job(f"r{i:03}", rng.uniform(1, 100), rng.choice([1, 2, 4, 8, 16]), queued=rng.uniform(0, 200))
        for i in range(150)
    ]
    done = simulate(cluster(40, 8, 1), jobs)
    assert sorted(s.run_id for s in done.spells) == [j.run_id for j in jobs]
    for at in {s.started for s in done.spells}:
        assert sum(s.resources.gpus for s in done.spells if s.started <= at < s.ended) <= 40
    assert done.seconds >= done.gpu_seconds() / 40
    assert {s.run_id: s.ended - s.started for s in done.spells} == pytest.approx({j.run_id: j.seconds for j in jobs})


def held(done):
    """Seconds that each run held its resources, over its attempts."""
    found = {}
    for spell in done.spells:
        found[spell.run_id] = found.get(spell.run_id, 0.0) + spell.ended - spell.started
    return found


def test_restarts_without_checkpoints_take_the_time_of_the_closed_form():
    """A run of length L on a machine that is lost at a rate r, begun anew each time: (exp(r L) - 1) / r on average."""
    length, hours, runs = 36_000.0, 10.0, 400
    jobs = [job(f"r{i:03}", length, 8) for i in range(runs)]
    failures = Failures(seed=1, node_hours=hours, back_seconds=0.0, checkpoint=math.inf)
    seconds = held(simulate(cluster(8 * 16, 8, 1), jobs, failures=failures)).values()
    expected = 3600 * hours * (math.exp(length / (3600 * hours)) - 1)
    error = statistics.stdev(seconds) / math.sqrt(runs)
    assert statistics.mean(seconds) == pytest.approx(expected, abs=4 * error)
    assert error < 0.08 * expected


def test_only_what_was_done_since_the_last_checkpoint_is_done_again():
    jobs = [job(f"r{i:02}", 5000.0 + 100 * i, random.Random(i).choice([1, 4, 8, 16])) for i in range(60)]
    failures = Failures(seed=2, node_hours=3.0, back_seconds=500.0, run_fails=0.3, spread=0.5, checkpoint=300.0)
    done = simulate(cluster(64, 8, 1), jobs, failures=failures)
    outcomes = {spell.outcome for spell in done.spells}
    assert outcomes == {"done", "crashed", "lost"}
    for each in jobs:
        spells = [spell for spell in done.spells if spell.run_id == each.run_id]
        assert [spell.outcome for spell in spells].count("done") == 1
        assert spells[-1].outcome == "done"
        kept = sum((spell.ended - spell.started) // 300 * 300 for spell in spells[:-1])
        length = each.seconds * math.exp(0.5 * failures.drawn("length", each.run_id).gauss())
        assert kept + spells[-1].ended - spells[-1].started == pytest.approx(length)


@pytest.mark.soak
def test_the_share_of_attempts_that_crash_is_what_was_asked_for():
    jobs = [job(f"r{i:04}", 10.0) for i in range(2000)]
    done = simulate(cluster(512, 8, 1), jobs, failures=Failures(run_fails=0.25, checkpoint=1.0))
    crashed = sum(spell.outcome == "crashed" for spell in done.spells) / len(done.spells)
    assert crashed == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / len(done.spells)))


def test_runs_that_made_room_lose_nothing_but_the_time_to_stop():
    low = [job(f"low{i}", 10_000.0) for i in range(8)]
    high = job("high", 1000.0, 8, queued=500.0, priority=1)
    done = simulate(cluster(8, 8, 1), [*low, high], rules=Rules(preempt=True), failures=Failures(stop=10.0))
    at = {spell.run_id: spell.started for spell in done.spells if spell.run_id == "high"}
    assert at == {"high": 510.0}
    assert all(seconds == pytest.approx(10_010.0) for run, seconds in held(done).items() if run != "high")
    waits = simulate(cluster(8, 8, 1), [*low, high])
    assert {s.run_id: s.started for s in waits.spells}["high"] == 10_000.0


def test_a_branch_waits_until_the_work_is_done_whatever_the_trunk_lost():
    """The trunk crashes once and keeps nothing: the branch's checkpoint is there only after that work again."""
    failures = next(
        f
        for f in (Failures(seed=i, run_fails=0.5, checkpoint=math.inf) for i in range(100))
        if [f.drawn("attempt", "trunk", n).random() < 0.5 for n in (1, 2)] == [True, False]
        and f.drawn("attempt", "branch", 1).random() > 0.5
    )
    done = simulate(
        cluster(8, 8, 1), [job("trunk", 100.0), job("branch", 20.0)], {"branch": ("trunk", 70.0)}, failures=failures
    )
    crashed, whole = [spell for spell in done.spells if spell.run_id == "trunk"]
    (branch,) = [spell for spell in done.spells if spell.run_id == "branch"]
    assert (crashed.outcome, whole.outcome) == ("crashed", "done")
    assert branch.started == pytest.approx(70.0 if crashed.ended > 70 else whole.started + 70)


def test_a_timeline_says_who_holds_how_much_of_the_cluster():
    gpus = [Resources(gpus=n) for n in (4, 8, 3)]
    spells = [
        Spell(run_id="a", started=0.0, ended=50.0, resources=gpus[0]),
        Spell(run_id="b", started=50.0, ended=100.0, resources=gpus[1]),
        Spell(run_id="c", started=0.0, ended=25.0, resources=gpus[2]),
    ]
    lines = timeline.draw(Simulated(spells=spells, refused={}), {"a": "1.3B", "c": "125M", "b": "175B"}, 8)
    columns = 80 - 4 - 2 - len("  8 GPUs")
    half, quarter = columns // 2, columns // 4
    assert all(len(line) <= 80 for line in lines)
    rows = {line.split("|")[0].strip(): line.split("|")[1] for line in lines}
    assert list(rows) == ["1.3B", "125M", "175B", "all"]
    assert rows["1.3B"].rstrip() == "5" * half
    assert rows["175B"] == " " * half + "#" * (columns - half)
    assert rows["125M"].startswith("4" * quarter)
    assert rows["all"].startswith("9" * quarter)
    assert [line.split("|")[2].split()[0] for line in lines] == ["4", "3", "8", "8"]
