"""What a sweep's log tells of its past, held against what the cluster of the test did by its own clock."""

import contextlib
import json
import tracemalloc

import pytest

from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import spending
from sweeps.planning import estimate, grid, recipe
from sweeps.watching import history, incidents, standing
from tests.sweeps.timed_cluster import Timed, World, driven

BESIDE = 3.0  # seconds of a run beside its training
SOON = 1060.0  # on the clock of the test, which begins at 1000


class Killed(BaseException):
    pass


@pytest.fixture
def cells():
    chosen = recipe.load(["recipe=laptop", "budgets=[1e11,3.16e11,1e12]"])
    return chosen, grid.build(chosen, "0" * 64)


def guess(run):
    return estimate.seconds(run, workers=1, gpus=0, plan=recipe.Hardware()) - estimate.EVALUATION_SECONDS


def swept(root, monkeypatch, cells, watch=None):
    """A sweep on a clock of its own, and what its cluster was; killed by ``watch`` if that raises."""
    with monkeypatch.context() as patched:
        world = World(patched)
        cluster = Timed(world, root, guess, rest=BESIDE)
        with contextlib.suppress(Killed):
            driven(*cells, root, cluster, watch=(lambda found: watch(world)) if watch else None)
        return world, cluster


def past(root, **changes):
    return history.read(root, standing.look(root, "laptop", **changes))


def test_the_lines_of_a_long_log_are_not_all_held_at_once(isolated):
    """They take some eight times its size, and a page that follows reads it again and again."""
    sweep = SweepDir(isolated / "root", "laptop")
    sweep.path.mkdir(parents=True)
    took = {"event": "took", "run_id": "d8-0123456789ab", "time": 1.0, "gpus": 0.0, "cores": 1.0, "usd_per_hour": 0.0}
    events = [{"event": "driver", "time": 1.0}, *({**took, "time": t + 0.5} for t in range(4000))]
    log = sweep.path / "events.jsonl"
    log.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    tracemalloc.start()
    try:
        found, used = past(sweep.root, now=5000.0), spending.so_far(sweep, 5000.0, driven=True)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ([stay.began for stay in found.stays], found.drivers) == ([3999.5], (1.0,))
    assert used.core_hours == pytest.approx((5000 - 3999.5) / 3600)
    assert most < 2 * log.stat().st_size


def test_stays_add_up_to_what_the_cluster_held(isolated, monkeypatch, cells):
    root = isolated / "root"
    _, cluster = swept(root, monkeypatch, cells)
    found = past(root)
    assert sorted(stay.run_id for stay in found.stays) == sorted(run.run_id for run in cells[1].runs)
    assert {stay.how for stay in found.stays} == {history.DONE}
    assert {stay.nodes for stay in found.stays} == {("n0",)}
    held = sum(stay.ended - stay.began for stay in found.stays)
    assert held == pytest.approx(cluster.held, rel=0.02)
    lasting = {run.run_id: guess(run) + BESIDE for run in cells[1].runs}
    for stay in found.stays:
        assert stay.ended - stay.began == pytest.approx(lasting[stay.run_id], abs=2)
        assert stay.expected - stay.began == pytest.approx(lasting[stay.run_id], abs=3)
    moment, hours, _ = history.taken(found)[-1]
    assert hours == pytest.approx(held / 3600)
    assert moment == max(stay.ended for stay in found.stays)
    assert max(n for _, n in history.in_use(found)) == 2, "of its two cores"
    assert history.in_use(found)[-1][1] == 0
    assert [has.devices for has in found.cluster] == [2]
    whole = found.stays[-1].ended - found.stays[0].began
    assert history.share_in_use(found) == pytest.approx(held / (2 * whole), rel=0.05)


def test_a_driver_that_lives_says_what_is_to_come(isolated, monkeypatch, cells):
    root, told = isolated / "root", []

    def watch(world):
        if world.now > SOON and not told:
            told.append(past(root, now=world.time()))

    swept(root, monkeypatch, cells, watch=watch)
    (found,) = told
    assert {stay.how for stay in found.stays} == {history.DONE, history.RUNNING}
    assert all(stay.ended is None for stay in found.stays if stay.how == history.RUNNING)
    there = {stay.run_id for stay in found.stays}
    assert found.coming
    assert not there & {run.run_id for run in found.coming}
    assert [run.starts for run in found.coming] == sorted(run.starts for run in found.coming)
    later = {stay.run_id: stay for stay in past(root).stays}
    left = max(stay.ended for stay in later.values()) - found.now
    for run in found.coming:
        assert run.starts == pytest.approx(later[run.run_id].began, abs=0.15 * left)
        assert run.ends == pytest.approx(later[run.run_id].ended, abs=0.15 * left)


def test_without_a_driver_a_run_was_there_until_its_last_sign_of_life(isolated, monkeypatch, cells):
    root = isolated / "root"

    def kill(world):
        if world.now > SOON:
            raise Killed

    swept(root, monkeypatch, cells, watch=kill)
    status = SweepDir(root, "laptop").status()
    SweepDir(root, "laptop").write_status({**status, "pid": 2**22 + 1})
    open_ones = [stay for stay in past(root).stays if stay.how == history.UNSEEN]
    assert len(open_ones) == 2
    assert all(stay.ended >= stay.began for stay in open_ones)
    assert past(root).coming == ()
    RunDir(root, open_ones[0].run_id).finish({"status": "done"})
    assert [stay.how for stay in past(root).stays if stay.run_id == open_ones[0].run_id] == [history.DONE]


def test_failures_stops_and_nonsense(isolated):
    """A gang that fails is on both of its nodes; a run that was stopped goes on later; nonsense tells nothing."""
    root = isolated / "root"
    sweep = SweepDir(root, "laptop")
    sweep.path.mkdir(parents=True)
    devices = {"gpus": 4.0, "cores": 8.0, "usd_per_hour": 2.0}
    events = [
        {"event": "cluster", "time": 0.0, "nodes": 2, "gpus": 4.0, "cores": 16.0},
        {"event": "start", "time": 10.0, "run_id": "d8-a", "allocation": {"x": 2, "y": 2}, "expected_seconds": 100.0},
        {"event": "took", "time": 10.0, "run_id": "d8-a", **devices},
        {"event": "failed", "time": 40.0, "run_id": "d8-a", "error": "out of \x1b[2Jmemory"},
        {"event": "freed", "time": 40.0, "run_id": "d8-a", "seconds": 30.0, **devices},
        {"event": "took", "time": 50.0, "run_id": "d8-a", **devices},
        {"event": "freed", "time": 70.0, "run_id": "d8-a", "seconds": 20.0, **devices},
        {"event": "took", "time": 1.0, "run_id": "preparation", **devices},
        {"event": "freed", "time": 3.0, "run_id": "preparation", "seconds": 2.0, **devices},
        {"event": "freed", "run_id": "d8-b", "seconds": "x"},
        {"event": "took", "run_id": 7},
        {"event": "start", "run_id": "d8-c", "allocation": 3, "expected_seconds": "soon"},
    ]
    (sweep.path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + "{torn")
    sweep.write_status({"state": "ended", "time": 100.0, "unit": "GPU"})
    found = past(root, now=100.0)
    before, first, second = found.stays
    assert (before.run_id, before.how, before.ended) == ("preparation", history.DONE, 3.0)
    assert (first.how, first.nodes, first.expected, first.size) == (history.FAILED, ("x", "y"), 110.0, "d8")
    assert "\x1b" not in first.reason
    assert (second.how, second.began, second.ended) == (history.STOPPED, 50.0, 70.0)
    assert history.taken(found)[-1] == (70.0, pytest.approx(4 * 52 / 3600), pytest.approx(8 * 52 / 3600))
    assert history.share_in_use(found) == pytest.approx(52 / 69), "from the first to the last"


def test_incidents_are_those_of_the_attempts_logs(isolated):
    run = RunDir(isolated / "root", "d8-a")
    run.path.mkdir(parents=True)
    first, second = run.new_attempt(), run.new_attempt()
    run.event(first, "start", step=0, host="a", layout={})
    (first / "tail.jsonl").write_text(json.dumps({"phase": "training", "step": 57}) + "\n")
    run.event(first, "anomaly", step=31, reason="the loss is nan", action="skip")
    run.event(second, "start", step=40, host="b")
    run.event(second, "rolled back", step="x")
    run.event(second, "something else", step=3)
    start, met, again = incidents.read(run)
    assert (start.what, start.step, start.lost) == ("start", 0, 0)
    assert (met.what, met.step, met.said) == ("anomaly", 31, "the loss is nan; skip")
    assert (again.attempt, again.step, again.lost, again.said) == (2, 40, 17, "b")
    assert incidents.gone(run) == []
