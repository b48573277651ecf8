"""Work behind a page: the newest request wins, results stand until there are newer ones, and an error is a sentence."""

import threading

from dashboards import behind as module
from dashboards.behind import KEPT, Behind
from gpt3core.errors import UsageError


def settled(behind, key, work, version=1):
    """Ask until there is an answer."""
    waiting = threading.Event()
    for _ in range(2000):
        if (found := behind.ask(key, version, work)).done:
            return found
        waiting.wait(0.005)
    raise AssertionError("no answer in ten seconds")


def test_the_newest_request_wins_and_what_was_begun_is_kept():
    behind, go, begun, made = Behind(), threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go.wait(10)
        made.append("first")
        return 1

    assert not behind.ask("first", 1, slow).done
    begun.wait(10)
    assert not behind.ask("second", 1, lambda: made.append("second") or 2).done
    third = lambda: made.append("third") or 3  # noqa: E731
    assert not behind.ask("third", 1, third).done
    go.set()
    assert settled(behind, "third", third).value == 3
    assert made == ["first", "third"]
    assert behind.ask("first", 1, lambda: 0).value == 1
    assert behind.ask("third", 1, lambda: 0).value == 3


def test_a_reader_who_goes_back_to_what_is_under_way_waits_for_that_alone():
    behind, go, begun, made = Behind(), threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go.wait(10)
        return 1

    behind.ask("first", 1, slow)
    begun.wait(10)
    behind.ask("second", 1, lambda: made.append("second") or 2)
    behind.ask("first", 1, slow)
    go.set()
    assert settled(behind, "first", lambda: 0).value == 1
    assert settled(behind, "third", lambda: 3).value == 3
    assert made == []


def test_an_error_is_the_answer_and_the_next_request_is_answered():
    behind = Behind()

    def refused():
        raise UsageError("largest=1: too small")

    assert settled(behind, "a", refused).problem == "largest=1: too small"
    assert settled(behind, "b", lambda: 1 / 0).problem.startswith("ZeroDivisionError: division by zero (")
    assert settled(behind, "c", lambda: 7).value == 7


def test_only_the_last_results_are_kept():
    behind = Behind()
    for key in range(KEPT + 3):
        settled(behind, key, lambda key=key: key)
    assert behind.ask(KEPT, 1, lambda: -1).value == KEPT
    assert settled(behind, 0, lambda: "again").value == "again"


def test_fewer_results_of_many_runs_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_RUNS", 10)
    behind = Behind(lambda runs: runs)
    for key, runs in enumerate((3, 3, 3)):
        settled(behind, key, lambda runs=runs: runs)
    assert [behind.peek(key) for key in range(3)] == [3, 3, 3]
    for key, runs in enumerate((4, 50, 60), start=3):
        settled(behind, key, lambda runs=runs: runs)
    assert [behind.peek(key) for key in range(6)] == [None, None, None, None, 50, 60], "two, whatever they are of"


def test_what_was_made_of_older_data_stands_until_it_is_made_of_newer():
    """Results that come faster than work is done never leave a reader with nothing."""
    behind, go, begun = Behind(), threading.Event(), threading.Event()

    def slow():
        begun.set()
        go.wait(10)
        return "new"

    assert settled(behind, "a", lambda: "old").value == "old"
    found = behind.ask("a", 2, slow)
    assert (found.value, found.of, found.done) == ("old", 1, False)
    begun.wait(10)
    found = behind.ask("a", 3, slow)
    assert (found.value, found.of, found.done, behind.peek("a")) == ("old", 1, False, "old")
    go.set()
    found = settled(behind, "a", lambda: "newest", version=3)
    assert (found.value, found.of) == ("newest", 3)
    assert behind.ask("a", 2, slow).value == "newest", "nothing older is made again"


def test_a_problem_takes_nothing_away_and_what_is_not_the_readers_is_tried_again(monkeypatch):
    behind = Behind()

    def away():
        raise OSError("stale file handle")

    def refused():
        raise UsageError("nothing to plan by")

    settled(behind, "a", lambda: "old")
    found = settled(behind, "a", away, version=2)
    assert (found.value, found.of, found.problem) == ("old", 1, "stale file handle")
    assert behind.ask("a", 2, lambda: "new").done, "not at every look"
    settled(behind, "b", refused)
    monkeypatch.setattr(module.time, "monotonic", lambda at=module.time.monotonic: at() + module.RETRY_SECONDS)
    assert settled(behind, "a", lambda: "new", version=2).value == "new"
    assert behind.ask("b", 1, lambda: "new").problem == "nothing to plan by", "the same would come of it"
