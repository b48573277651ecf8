"""What drivers tell one another through the head: their own is not theirs to read, and dead ones tell nothing."""

from types import SimpleNamespace

import pytest

from sweeps.cluster import board
from sweeps.cluster.board import ASK_SECONDS, SILENT_SECONDS, Board


class Head:
    """Ray's key-value store, and its table of jobs."""

    def __init__(self):
        self.held, self.dead, self.broken, self.asked, self.now = {}, set(), False, 0, 0.0

    def _internal_kv_list(self, prefix, *, namespace):
        return list(self.held)

    def _internal_kv_get(self, key, *, namespace):
        if self.broken:
            raise RuntimeError("the head does not answer")
        return self.held.get(key.encode())

    def _internal_kv_put(self, key, value, *, namespace):
        self.held[key.encode()] = value.encode()

    def _internal_kv_del(self, key, *, namespace):
        self.held.pop(key.encode(), None)

    def job_table(self):
        self.asked += 1
        return [{"JobID": job, "IsDead": job in self.dead} for job in ("job-a", "job-b", "job-b2")]


@pytest.fixture
def head(monkeypatch):
    found = Head()
    monkeypatch.setattr(board.time, "monotonic", lambda: found.now)
    return found


def joined(head, name, job):
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(RayError=OSError),
        get_runtime_context=lambda: SimpleNamespace(get_job_id=lambda: job),
        _private=SimpleNamespace(state=SimpleNamespace(state=head)),
    )
    made = Board(SimpleNamespace(namespace=name, ray=ray))
    made._kv = head
    return made


def test_each_reads_what_the_others_told_until_they_clear_it(head):
    mine, other = joined(head, "a", "job-a"), joined(head, "b", "job-b")
    mine.write("1")
    other.write("2")
    assert (mine.read(), other.read()) == ({"b": "2"}, {"a": "1"})
    asked = head.asked
    other.write("3")
    assert mine.read() == {"b": "3"}
    head.now += SILENT_SECONDS
    assert mine.read() == {"b": "3"}
    assert head.asked == asked, "who told something new lives"
    head.now += 1
    assert mine.read() == {"b": "3"}, "who has told nothing new may"
    assert head.asked == asked + 1
    other.clear()
    assert mine.read() == {}


def test_what_a_driver_told_that_died_is_taken_down_by_who_reads_it(head):
    """It was counted for 30 seconds by those who had seen it change, and for three by every driver that came."""
    mine, other = joined(head, "a", "job-a"), joined(head, "b", "job-b")
    other.write("1")
    assert mine.read() == {"b": "1"}
    head.dead.add("job-b")
    head.now += SILENT_SECONDS + 1
    assert mine.read() == {}
    assert not head.held
    other.write("2")
    assert joined(head, "new", "job-a").read() == {}, "nor does one count that was dead before"
    again = joined(head, "b", "job-b2")
    again.write("2")
    assert mine.read() == {"b": "2"}, "the next driver of the sweep"


def test_the_jobs_of_a_head_are_asked_for_once_a_second_at_most(head):
    """At every pass, while a driver that lives was silent: a head that has had ten thousand takes a tenth of one."""
    mine, other = joined(head, "a", "job-a"), joined(head, "b", "job-b")
    other.write("1")
    for _ in range(40):
        assert mine.read() == {"b": "1"}
        head.now += ASK_SECONDS / 4
    assert head.asked == 10


def test_a_driver_that_comes_while_its_dead_predecessor_is_found_out_keeps_its_word(head):
    mine, other = joined(head, "a", "job-a"), joined(head, "b", "job-b")
    other.write("1")
    head.dead.add("job-b")
    table = head.job_table
    head.job_table = lambda: joined(head, "b", "job-b2").write("2") or table()
    assert mine.read() == {}
    assert mine.read() == {"b": "2"}


def test_while_the_head_does_not_answer_what_was_read_last_stands(head):
    """Who took others for gone for a second took the room that they waited for."""
    mine, other = joined(head, "a", "job-a"), joined(head, "b", "job-b")
    other.write("1")
    assert mine.read() == {"b": "1"}
    head.broken = True
    assert mine.read() == {"b": "1"}
    head.broken = False
    other.write("2")
    assert mine.read() == {"b": "2"}
