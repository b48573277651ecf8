"""What commands print, on terminals of any width."""

import io
import os
import shutil
import sys

import pytest
from rich.console import Console

from gpt3core import terminal

COMMAND = "python -m analysis.design runs=/a/rather/long/path/to/a/store/of/runs sweep=laptop target_compute=1e14"
LINES = [("law", "a sentence of words " * 20), ("next", COMMAND), ("", "says what that is")]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_sentences_stand_beside_their_labels_and_a_command_is_never_broken(width):
    printed = terminal.labelled(LINES, width, whole=("next",))
    assert f"next  {COMMAND}" in printed
    others = [line for line in printed if COMMAND not in line]
    assert max(map(len, others)) <= min(width, terminal.READABLE)
    assert max(map(len, others)) > 0.8 * min(width, terminal.READABLE), "no narrower than it must be"
    assert all(line.startswith(("law   ", "      ")) for line in others)
    assert " ".join(" ".join(others).split()) == f"law {LINES[0][1].strip()} says what that is"


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_table_has_whole_cells_of_as_many_columns_as_fit(width, capsys):
    out = Console(width=width)
    rows = [["d8", "1.23e+10", "12,345,678", "[/red] text"], ["d16", "1.23e+12", "9", ""]]
    terminal.table(out, "Runs [/x]", ("size", "C", "tokens", "note"), rows, words={"size"}, last=("tokens", "C"))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].strip() == "Runs [/x]"
    assert "[/red] text" in text
    assert "…" not in text
    assert max(map(len, (line for line in lines if line[:1] in "┏┃┡│└"))) <= width
    assert ("12,345,678" in text) == (width >= 46)
    assert ("shown where there are 46 columns: tokens" in text) == (width < 46)


def test_numbers_stand_to_the_right_and_words_to_the_left(capsys):
    rows = [["d8", "9.5e+05", "1.2 (0.9 to 1.5)", "ok"], ["d16", "-", "-", "1.5"]]
    terminal.table(Console(width=80), "", ("size", "C", "loss", "status"), rows)
    cells = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert cells[1] == [" d16  ", "       - ", "                - ", " 1.5    "]


def test_a_bar_is_filled_to_its_share():
    assert terminal.bar(0.0, 4) == "    "
    assert terminal.bar(0.5, 4) == "━━  "
    assert terminal.bar(0.37, 4) == "━╸  "
    assert terminal.bar(1.0, 4) == terminal.bar(7.0, 4) == "━━━━"
    assert {len(terminal.bar(i / 100, 7)) for i in range(101)} == {7}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_has_no_such_signs_has_a_bar_all_the_same(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert terminal.bar(0.37, 4) == "=-  "


def test_a_pipe_is_as_wide_as_the_command_says_and_a_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.console(150).width == 150
    monkeypatch.setenv("COLUMNS", "90")
    assert terminal.console(150).width == 90


def test_where_nothing_can_be_drawn_over_columns_are_as_many_as_there_are(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # a terminal, for rich
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.redraws(terminal.console())
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((61, 24)))
    dumb = terminal.console()
    assert (dumb.width, terminal.redraws(dumb)) == (61, False)
    assert not terminal.redraws(Console(file=io.StringIO()))


def test_a_reader_who_leaves_a_pipe_is_told_of_as_by_print(monkeypatch):
    class Left(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Left())
    with pytest.raises(BrokenPipeError):
        terminal.console().print("a line")


def test_no_text_is_markup(capsys):
    terminal.console().print("[red]a[/red]")
    assert capsys.readouterr().out == "[red]a[/red]\n"
