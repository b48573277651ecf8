"""Two drivers on one real cluster: the second has its share within seconds, and a gang starts beside a stream."""

import os
import subprocess
import sys
import time

import pytest

from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps import line

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(600)]


def sweep(address, root, name, replicas, seconds, *settings):
    """A driver."""
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    words = [sys.executable, "-m", "tests.cluster.shared_sweep", root, name, replicas, seconds, *settings]
    log = open(root.parent / f"{name}.log", "w")  # noqa: SIM115
    return subprocess.Popen(list(map(str, words)), env=environment, cwd=line.CODE, stdout=log, stderr=log)


def done(root):
    return files.read_lines(root / "done.jsonl") if (root / "done.jsonl").exists() else []


def wait(until, seconds):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def before_it(stream, root, name):
    """The runs of the stream that ended between a driver's first word and its first start."""
    events = SweepDir(root, name).events()
    (here,) = (event["time"] for event in events if event["event"] == "driver")
    start = min(event["time"] for event in events if event["event"] == "start")
    return sum(here < run["ended"] < start for run in done(stream))


def test_a_second_sweep_has_its_share_within_seconds_and_a_gang_starts_beside_a_stream(mock_cluster, tmp_path):
    """Six runs of two seconds fill the cluster; before, the second sweep began when the first's queue had ended."""
    stream, second, gangs = (tmp_path / name / "store" for name in ("stream", "second", "gangs"))
    for root in (stream, second, gangs):
        root.parent.mkdir()
    drivers = [sweep(mock_cluster, stream, "stream", 1000, 2.0, "placement.cpus=4")]
    try:
        wait(lambda: len(done(stream)) >= 6, 120)
        drivers.append(sweep(mock_cluster, second, "second", 12, 2.0, "placement.cpus=4"))
        wait(lambda: drivers[1].poll() is not None, 120)
        assert drivers[1].returncode == 0
        assert before_it(stream, second, "second") < 60, "twelve on an idle machine, of a thousand that wait"
        here = done(second)
        beside = [run for run in done(stream) if here[1]["ended"] < run["ended"] <= here[-3]["ended"]]
        assert 4 <= len(beside) <= 16, "eight are as many as the second had meanwhile, while it wanted more"
        whole = (
            "placement.cpus=8",
            "placement.workers=3",
            "optim.batch_tokens_min=1536",
            "optim.batch_tokens_max=1536",
        )
        drivers.append(sweep(mock_cluster, gangs, "gangs", 1, 2.0, *whole))
        wait(lambda: drivers[2].poll() is not None, 120)
        assert drivers[2].returncode == 0
        assert before_it(stream, gangs, "gangs") < 120
        assert drivers[0].poll() is None, "the stream goes on"
        said = (stream.parent / "stream.log").read_text()
        assert "sharing  sweep second waits on this cluster too: 50% of it is due to this sweep" in said
        assert "sharing  sweep gangs waits on this cluster too" in said
        assert "sharing  sweep stream waits on this cluster too" in (gangs.parent / "gangs.log").read_text()
    finally:
        for driver in drivers:
            driver.terminate()
            driver.wait(60)
