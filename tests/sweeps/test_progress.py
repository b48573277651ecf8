"""What a person reads: every run's reason is there, on a terminal and in plain lines."""

import pytest
from rich.console import Console

from sweeps.cluster.job import Progress
from sweeps.driving import progress
from sweeps.driving.progress import Snapshot

LIVE = Progress(phase="training", step=50, steps=200, loss=4.1234, tokens_per_second=52_345.0)
GLOO = "[/tmp/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3465 [/red]"
SNAPSHOT = Snapshot(
    name="laptop",
    total=9,
    done=2,
    eta_seconds=3725.0,
    running={"d64-a": LIVE, "d16-b": None},
    waiting={"d8-c": "first in the queue, needs 1 core", "d12-d": "behind d8-c", "d16-e": "behind d8-c"},
    held={"d24-g": "stopped on request"},
    failed={"d20-f": GLOO},
)
FACTS = (
    "2/9 done",
    "1:02:05",
    "25%",
    "4.123",
    "52k tok/s",
    "starting",
    "first in the queue",
    "behind d8-c",
    "d12-d and 1 more",
)


def test_plain_lines_say_it_all_and_not_too_often(capsys, monkeypatch):
    display = progress._Plain()
    display.show(SNAPSHOT)
    assert capsys.readouterr().out == "", "the first summary comes after a while"
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1e9)
    display.show(SNAPSHOT)
    line = capsys.readouterr().out
    assert all(fact in line for fact in FACTS)
    assert "1 failed, 1 held" in line
    assert line.count("\n") == 1


def test_a_terminal_shows_the_same_and_takes_no_reason_for_markup():
    console = Console(force_terminal=True, width=200, record=True, color_system=None)
    display = progress._Terminal(console)
    display.show(SNAPSHOT)
    display.say(f"failed  d20-f: {GLOO}")
    console.print(display._live.renderable)
    display.close()
    text = console.export_text()
    assert all(fact in text for fact in FACTS)
    assert text.count(GLOO) >= 2
    assert "stopped on request" in text


class Breaks:
    """A display that fails, as a closed terminal does."""

    def __init__(self, *, closing=False):
        self.closing = closing

    def say(self, line):
        raise OSError("the terminal is gone")

    show = say

    def close(self):
        if self.closing:
            raise OSError("the terminal is gone")


@pytest.mark.parametrize("closing", [True, False])
def test_a_display_that_raises_is_dropped_with_one_line(capsys, closing):
    display = progress.Sturdy(Breaks(closing=closing))
    display.say("first")
    display.say("second")
    display.show(SNAPSHOT)
    display.close()
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == ["first", "second"]
    assert printed.err.count("the display broke") == 1


def test_even_an_output_that_is_closed_ends_nothing(monkeypatch):
    def closed(*words, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    display = progress.Sturdy(progress._Plain())
    display.say("first")
    display.say("second")
    display.close()
