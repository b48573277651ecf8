"""Work behind a page: the newest request wins, results are kept, and an error is a sentence."""

import threading

from dashboards.behind import KEPT, Behind
from gpt3core.errors import UsageError


def settled(behind, key, work):
    """Ask until there is an answer."""
    waiting = threading.Event()
    for _ in range(2000):
        if (found := behind.ask(key, work)).done:
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

    assert not behind.ask("first", slow).done
    begun.wait(10)
    assert not behind.ask("second", lambda: made.append("second") or 2).done
    third = lambda: made.append("third") or 3  # noqa: E731
    assert not behind.ask("third", third).done
    go.set()
    assert settled(behind, "third", third).value == 3
    assert made == ["first", "third"]
    assert behind.ask("first", lambda: 0).value == 1
    assert behind.ask("third", lambda: 0).value == 3


def test_a_reader_who_goes_back_to_what_is_under_way_waits_for_that_alone():
    behind, go, begun, made = Behind(), threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go.wait(10)
        return 1

    behind.ask("first", slow)
    begun.wait(10)
    behind.ask("second", lambda: made.append("second") or 2)
    behind.ask("first", slow)
    go.set()
    assert settled(behind, "first", lambda: 0).value == 1
    assert settled(behind, "third", lambda: 3).value == 3
    assert made == []


def test_an_error_is_the_answer_and_the_next_request_is_answered():
    behind = Behind()

    def refused():
        raise UsageError("largest=1: too small")

    assert settled(behind, "a", refused).problem == "largest=1: too small"
    assert settled(behind, "b", lambda: 1 / 0).problem == "ZeroDivisionError: division by zero"
    assert settled(behind, "c", lambda: 7).value == 7


def test_only_the_last_results_are_kept():
    behind = Behind()
    for key in range(KEPT + 3):
        settled(behind, key, lambda key=key: key)
    assert behind.ask(KEPT, lambda: -1).value == KEPT
    assert settled(behind, 0, lambda: "again").value == "again"
