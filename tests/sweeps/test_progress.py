"""What a person reads: every run's reason is there, on a terminal and in plain lines."""

from dataclasses import replace

import pytest
from rich.console import Console

from sweeps.cluster.job import Progress
from sweeps.driving import progress
from sweeps.driving.progress import Snapshot
from sweeps.driving.run_state import RunState

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
    "52.3k tok/s",
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
    said = capsys.readouterr().out
    assert all(fact in said for fact in FACTS)
    assert "1 failed, 1 held" in said
    assert said.count("\n") == 1 + len(SNAPSHOT.running) + len(SNAPSHOT.grouped())
    assert "━━ " in said
    many = {f"d{i}-x": LIVE for i in range(500)}
    display._next = 0.0
    display.show(replace(SNAPSHOT, running=many, waiting={}))
    said = capsys.readouterr().out
    assert said.count("\n") == 2 + progress.MOST_PLAIN
    assert f"and {500 - progress.MOST_PLAIN} more under way" in said


def test_plain_lines_are_cut_for_a_reader_whose_width_is_known(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    progress._Plain().say(f"{FINISHED}  31k tok/s")
    assert capsys.readouterr().out == f"{FINISHED}\n"
    monkeypatch.delenv("COLUMNS")
    progress._Plain().say(f"{FINISHED}  31k tok/s")
    assert capsys.readouterr().out == f"{FINISHED}  31k tok/s\n"


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


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_has_one_line_a_run_with_a_bar(width):
    console = Console(force_terminal=True, width=width, record=True, color_system=None)
    display = progress._Terminal(console)
    display.show(replace(SNAPSHOT, resumed={"d64-a": 0.2}))
    console.print(display._live.renderable)
    display.close()
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    (running,) = {line for line in lines if line.startswith("d64-a")}
    assert "━━" in running
    assert running.endswith("resumed at 20%")
    for run in ("d16-b", "failed   d20-f", "held     d24-g", "waiting  d12-d and 1 more: behind d8-c"):
        assert len({line for line in lines if line.startswith(run)}) == 1
    assert max(map(len, lines)) <= width


FINISHED = "done    d128-8f5b01aeb6f4  N 1.23M  D 12.3M  C 1.23e12  loss 4.1234 +- 0.0123"


@pytest.mark.parametrize(("width", "shown"), [(200, "  31k tok/s  2.00 epochs"), (90, "  31k tok/s"), (80, "")])
def test_the_line_of_a_run_that_is_done_does_not_wrap(width, shown, capsys):
    display = progress._Terminal(Console(force_terminal=True, width=width, color_system=None))
    display.say(f"{FINISHED}  31k tok/s  2.00 epochs")
    display.say(f"failed  d20-f: {GLOO * 3}")
    display.close()
    printed = capsys.readouterr().out
    assert f"{FINISHED}{shown}\n" in printed
    assert len(FINISHED) <= 80
    assert "".join(printed.split()).count("".join(GLOO.split())) == 3, "what failed is said in full"


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


def test_a_run_says_where_it_resumed_and_one_that_went_on_alone_does_not(tiny_run):
    def state(**found):
        return RunState(spec=tiny_run, **found)

    def heard(found, step):
        found.heard(replace(LIVE, step=step))
        return found.resumed

    again = state(resumes=78)
    again.begun(1.0)
    assert heard(again, 0) is None, "it has not read its checkpoint yet"
    assert heard(again, 80) == 0.4
    assert heard(again, 120) == 0.4, "where it resumed, not where it is"
    crashed = state()
    crashed.begun(1.0)
    assert heard(crashed, 100) is None
    crashed.wait("starts again after: a crash")
    crashed.begun(2.0)
    assert heard(crashed, 90) == 0.45
    adopted = state(resumes=78)
    adopted.started(1.0)
    assert heard(adopted, 80) is None
