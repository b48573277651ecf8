"""A stream of runs on one GPU against a gang on a whole node, which never starts in Ray's own queue of groups."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from sweeps.scheduling.inventory import ACCELERATOR
from sweeps.scheduling.scheduler import Hold, Start, decide
from sweeps.scheduling.scheduler import Job as Queued
from tests.cluster.test_mock_cluster import GPU, HOLD, a_job, finish, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NAP = "tests.cluster.bodies:nap"
SECONDS = 8.0  # that a small run is said to take; it takes 0.3 and what a busy machine adds


@pytest.mark.soak
def test_a_gang_starts_within_its_reservation_while_small_runs_keep_coming(launcher, tmp_path):
    """Ray 2.60: 118 runs on one GPU passed an 8-GPU group in 25 s, and it had not started."""
    job = a_job(tmp_path)
    node = [n for n in launcher.inventory() if n.total.gpus][:1]
    (total,) = (n.total.gpus for n in node)
    stream = (Queued(run_id=f"s{i:03}", worker=GPU, seconds=SECONDS, queued=float(i)) for i in range(10_000))
    waiting, ends, ended = [next(stream) for _ in range(3 * int(total))], {}, 0
    gang = Queued(run_id="gang", worker=GPU, workers=int(total), seconds=60.0)
    promised = None
    deadline = time.monotonic() + 120
    while "gang" not in ends:
        assert time.monotonic() < deadline, f"it waits still, after {ended} small runs"
        for update in launcher.poll():
            if update.state != "running":
                assert update.state == "done", update.error
                ended += ends.pop(update.run_id) > 0
        if ended >= 2 * total and gang not in waiting and ends:  # every worker is warm, and some GPU is busy
            waiting.insert(0, replace(gang, queued=waiting[0].queued - 0.5))
            gang = waiting[0]
        now = time.monotonic()
        running = [replace(run, ends=ends[run.run_id]) for run in launcher.running()]
        for decision in decide(now, node, waiting, running):
            if isinstance(decision, Start):
                (asked,) = (queued for queued in waiting if queued.run_id == decision.run_id)
                waiting.remove(asked)
                launcher.start(asked.run_id, decision.allocation, GPU, HOLD if asked is gang else NAP, job)
                ends[asked.run_id] = now + asked.seconds
                if asked is not gang:
                    waiting.append(next(stream))  # there are always more
            elif isinstance(decision, Hold) and decision.run_id == "gang":
                promised = decision.eta if promised is None else promised
        time.sleep(0.05)
    assert promised is not None, "it had to wait"
    assert ends["gang"] - gang.seconds <= promised, "later than it was promised"
    wait_until(lambda: (launcher.poll(), len(list(tmp_path.glob("started/gang-*"))) == total)[1])
    assert len(waiting) >= 2 * total, "the stream never dried up"
    assert finish(launcher, tmp_path, ["gang"])["gang"] == "done"


@pytest.mark.soak
def test_racks_and_kinds_of_gpus_are_read_from_the_nodes_and_gangs_lie_in_one_rack(launcher, tmp_path):
    nodes = [n for n in launcher.inventory() if n.total.gpus]
    assert {n.labels[ACCELERATOR] for n in nodes} == {"H100"}
    racks = {n.name: n.labels["rack"] for n in nodes}
    assert sorted(racks.values()) == ["r0", "r0", "r1"]
    gang = Queued(run_id="gang", worker=replace(GPU, gpus=4), workers=2, rack="rack", accelerator="H100", seconds=60.0)
    (start,) = decide(0.0, launcher.inventory(), [gang], launcher.running())
    assert {racks[name] for name in start.allocation} == {"r0"}
    launcher.start("gang", start.allocation, gang.worker, HOLD, a_job(tmp_path))
    wait_until(lambda: (launcher.poll(), len(list(tmp_path.glob("started/gang-*"))) == 2)[1])
    assert finish(launcher, tmp_path, ["gang"])["gang"] == "done"
    (refused,) = decide(0.0, launcher.inventory(), [replace(gang, workers=3)], launcher.running())
    assert "no rack is that large, only several together" in refused.reason
