"""What drivers tell one another through the head: their own is not theirs to read, and what is old is taken down."""

from types import SimpleNamespace

import pytest

from sweeps.cluster import board
from sweeps.cluster.board import OLD_SECONDS, Board


class Kv:
    """Ray's key-value store."""

    def __init__(self):
        self.held, self.broken = {}, False

    def _internal_kv_list(self, prefix, *, namespace):
        if self.broken:
            raise RuntimeError("the head does not answer")
        return list(self.held)

    def _internal_kv_get(self, key, *, namespace):
        return self.held.get(key)

    def _internal_kv_put(self, key, value, *, namespace):
        self.held[key.encode()] = value.encode()

    def _internal_kv_del(self, key, *, namespace):
        self.held.pop(key if isinstance(key, bytes) else key.encode(), None)


@pytest.fixture
def boards(monkeypatch):
    kv, clock = Kv(), SimpleNamespace(now=0.0)
    monkeypatch.setattr(board.time, "monotonic", lambda: clock.now)
    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=OSError))
    made = [Board(SimpleNamespace(namespace=name, ray=ray)) for name in ("a", "b")]
    for each in made:
        each._kv = kv
    return made, kv, clock


def test_each_reads_what_the_others_told_and_what_nobody_renews_is_taken_down(boards):
    (mine, other), kv, clock = boards
    mine.write("1")
    other.write("2")
    assert (mine.read(), other.read()) == ({"b": "2"}, {"a": "1"})
    clock.now = OLD_SECONDS
    mine.write("3")
    assert (mine.read(), other.read()) == ({"b": "2"}, {"a": "3"})
    clock.now = OLD_SECONDS + 1
    mine.read()
    assert mine.read() == {}, "its driver is long dead"
    assert other.read() == {"a": "3"}
    mine.clear()
    assert other.read() == {}
    assert not kv.held


def test_a_head_that_does_not_answer_is_told_elsewhere(boards):
    (mine, _), kv, _ = boards
    kv.broken = True
    assert mine.read() == {}
