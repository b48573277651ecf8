"""Plans and other tables on narrow terminals: fewer columns, each of them whole."""

import pytest

from analysis import forecast
from sweeps import command, hparams_command


def whole(said, width):
    """The columns of a printed table, all of them whole and within the width."""
    assert "…" not in said
    lines = [line for line in said.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, lines)) <= width
    cells = [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines if line[0] in "┃│"
    ]
    assert all(row[0] for row in cells), "no row is the rest of the one above"
    return cells[0]


@pytest.mark.parametrize("width", [80, 120, 210])
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (["recipe=gpt3", "data.max_epochs=1e9", "plan.gpu=H100"], {"size", "tokens", "GPUs", "days", "USD"}),
        (["recipe=laptop"], {"run", "budget", "N non-emb.", "D tokens", "core-min", "state"}),
    ],
)
def test_a_plan_has_whole_cells_at_every_width(settings, kept, width, capsys, monkeypatch, folder, known_text):
    monkeypatch.setenv("COLUMNS", str(width))
    assert command.sweep([*settings, f"data.corpus={folder / 'one'}", "name=narrow", "--plan"], usage="") == 0
    said = capsys.readouterr().out
    assert kept <= set(whole(said, width))
    assert ("shown where there are" in said) == (width < 210)


@pytest.mark.parametrize("width", [80, 120])
def test_so_have_a_search_and_a_forecast(width, capsys, monkeypatch, isolated):
    monkeypatch.setenv("COLUMNS", str(width))
    assert hparams_command.run(["recipe=laptop_hparams", "--plan"], "") == 0
    assert {"proxy", "N non-emb.", "C exact", "core-min"} <= set(whole(capsys.readouterr().out, width))
    assert forecast.main([]) == 0
    assert {"task", "metric", "few-shot"} <= set(whole(capsys.readouterr().out, width))
