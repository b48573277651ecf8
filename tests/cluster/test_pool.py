"""Workers that end are ended by others than the driver, and what they held counts as theirs until the cluster knows."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from sweeps.cluster.hearing import Member
from sweeps.cluster.job import Report
from sweeps.cluster.pool import CODE, RELEASE_SECONDS, Pool
from sweeps.cluster.threads import Threads
from sweeps.scheduling.inventory import Resources

GPU = Resources(gpus=1)


class Ray:
    """Ends nothing before it may, and refuses to end what is broken."""

    def __init__(self):
        self.may, self.gone = threading.Event(), []
        self.util = SimpleNamespace(remove_placement_group=self.kill)

    def kill(self, actor):
        assert self.may.wait(30)
        if actor == "broken":
            raise ValueError("it is gone already")
        self.gone.append(actor)


@pytest.fixture
def ray():
    return Ray()


@pytest.fixture
def pool(ray):
    found = Pool(SimpleNamespace(ray=ray), orphan_seconds=1.0)
    yield found
    ray.may.set()
    found.close()


def worker(name, node="a"):
    return Member(actor=name, node=node, shape=GPU)


def test_the_driver_does_not_wait_for_ends_and_room_comes_after_them(pool, ray):
    pool.end([worker("broken"), worker("x")], group="group", run_id="r")
    assert ray.gone == []
    later = time.monotonic() + 1e6
    assert not pool.room("s", {"a": 1}, later)
    assert not pool.room("r", {"b": 1}, later), "a run's next start waits for its last one's end, wherever it was"
    assert pool.room("s", {"b": 1}, later)
    pool.forget(later)
    assert [gone.places for gone in pool.leaving] == [[("a", GPU), ("a", GPU)]]
    ray.may.set()
    at = pool.leaving[0].ended.result(30)
    assert ray.gone == ["x", "group"], "one that cannot be ended keeps no other"
    assert not pool.room("s", {"a": 1}, at), "the cluster's view is a little behind"
    assert pool.room("s", {"a": 1}, at + RELEASE_SECONDS)
    pool.forget(at)
    assert len(pool.leaving) == 1
    pool.forget(at + RELEASE_SECONDS)
    assert pool.leaving == []


def test_idle_workers_of_these_nodes_make_room_and_dead_ones_are_dropped(pool, ray):
    ray.may.set()
    pool.idle = [worker("x"), worker("y", "b"), worker("z", "b")]
    for member in pool.idle:
        member.idle = time.monotonic()
    pool.make_room({"a": 1})
    assert [member.actor for member in pool.idle] == ["y", "z"]
    pool.idle[0].report = Report(state="lost")
    pool.tidy()
    assert [member.actor for member in pool.idle] == ["z"]
    assert pool.warm("a", GPU) is None
    assert pool.warm("b", GPU).actor == "z"
    assert pool.idle == []


def test_threads_do_all_that_they_are_given_and_few_at_once():
    here, running, most, done = Threads(3, "test"), [], [], []

    def call(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.001)
        running.remove(number)
        done.append(number)

    for number in range(60):
        here.submit(call, number)
    here.close()
    assert sorted(done) == list(range(60))
    assert 1 < max(most) <= 3


def test_a_call_that_never_returns_keeps_no_process():
    code = (
        "import threading\nfrom sweeps.cluster.threads import Threads\nThreads(2, 'x').submit(threading.Event().wait)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=CODE)
