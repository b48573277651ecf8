"""When each size of a simulated sweep holds how much of its cluster: lines of text, 80 columns wide; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.scheduling.simulator import Simulated, Spell

WIDTH = 80
MOST_ROWS = 12  # sizes; the others are one row
NAME = 12  # characters of a size


def draw(done: Simulated, sizes: Mapping[str, str], gpus: int) -> list[str]:
    """A row for each size and one for all: the tenths of the cluster that it holds, column by column.

    Args:
        done: with at least one spell.
        sizes: of the runs, by run_id, in the order of the rows.
        gpus: of the cluster.
    """
    rows: dict[str, list[Spell]] = {size: [] for size in sizes.values()}
    for spell in done.spells:
        rows[sizes[spell.run_id]].append(spell)
    rows = {size: spells for size, spells in rows.items() if spells}
    if len(rows) > MOST_ROWS:
        held = {size: sum(map(_gpu_seconds, spells)) for size, spells in rows.items()}
        largest = set(sorted(held, key=lambda size: -held[size])[: MOST_ROWS - 1])
        others = [spell for size, spells in rows.items() if size not in largest for spell in spells]
        rows = {size: spells for size, spells in rows.items() if size in largest} | {"others": others}
    name = min(NAME, max(len("all"), *map(len, rows)))
    columns = WIDTH - name - 2 - len(f"  {gpus:,} GPUs")
    lines = []
    for size, spells in [*rows.items(), ("all", done.spells)]:
        shares = _shares(spells, done.seconds, gpus, columns)
        peak = f"{_peak(spells):,.0f}".rjust(len(f"{gpus:,}"))
        lines.append(f"{size[:name]:>{name}} |{''.join(map(_mark, shares))}| {peak} GPUs")
    return lines


def _gpu_seconds(spell: Spell) -> float:
    return (spell.ended - spell.started) * spell.resources.gpus


def _shares(spells: Sequence[Spell], seconds: float, gpus: int, columns: int) -> list[float]:
    """Of the cluster's GPU-seconds in each column, those held."""
    wide = max(seconds, 1e-9) / columns
    held = [0.0] * columns
    for spell in spells:
        first, last = int(spell.started / wide), min(columns - 1, int(spell.ended / wide))
        for column in range(min(first, columns - 1), last + 1):
            inside = min(spell.ended, (column + 1) * wide) - max(spell.started, column * wide)
            held[column] += max(0.0, inside) * spell.resources.gpus
    return [each / (wide * gpus) for each in held]


def _mark(share: float) -> str:
    """Nothing, a little, tenths, all."""
    if share >= 0.95:
        return "#"
    return " " if share <= 0 else "." if share < 0.05 else str(max(1, round(10 * share)))


def _peak(spells: Sequence[Spell]) -> float:
    """The most GPUs held at once."""
    changes = [(s.started, s.resources.gpus) for s in spells] + [(s.ended, -s.resources.gpus) for s in spells]
    most = held = 0.0
    for _, change in sorted(changes):  # an end before a start at the same time
        held += change
        most = max(most, held)
    return most
