"""What a person reads: every run's reason is there, on a terminal and in plain lines."""

from rich.console import Console

from sweeps.driving import progress
from sweeps.driving.progress import Snapshot

LIVE = {"phase": "training", "step": 50, "steps": 200, "loss": 4.1234, "tokens_per_second": 52_345.0}
SNAPSHOT = Snapshot(
    name="laptop",
    total=9,
    done=2,
    eta_seconds=3725.0,
    running={"d64-a": LIVE, "d16-b": {}},
    waiting={"d8-c": "first in the queue, needs 1 core", "d12-d": "behind d8-c", "d16-e": "behind d8-c"},
    failed={"d20-f": "no room to write"},
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
    assert "1 failed" in line
    assert line.count("\n") == 1


def test_a_terminal_shows_the_same(monkeypatch):
    console = Console(force_terminal=True, width=160, record=True, color_system=None)
    display = progress._Terminal(console)
    display.show(SNAPSHOT)
    console.print(display._live.renderable)
    display.close()
    text = console.export_text()
    assert all(fact in text for fact in FACTS)
    assert "no room to write" in text
