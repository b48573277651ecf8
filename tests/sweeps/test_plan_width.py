"""A plan on narrow terminals: fewer columns, each of them whole."""

import pytest

from sweeps import command


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
    lines = said.splitlines()
    head = next(line for line in lines if "┃" in line)
    names = {name.strip() for name in head.strip("┃").split("┃")}
    assert kept <= names
    assert "…" not in said
    assert max(map(len, (line for line in lines if line[:1] in "┏┃┡│└"))) <= width
    left = next((line for line in lines if line.startswith("shown where there are")), "")
    assert bool(left) == (width < 210)
