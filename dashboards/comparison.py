"""A comparison of two ladders as a folder of offline HTML; ``python -m analysis.compare`` calls it."""

from __future__ import annotations

from pathlib import Path

from analysis.estimation.compare import Comparison
from analysis.output import comparison as words
from dashboards.figures.comparison import multipliers
from dashboards.offline import write_pages


def write(comparisons: list[Comparison], folder: Path) -> None:
    """Write the figure and a summary."""
    page = multipliers(comparisons)
    name = " against ".join(reversed(comparisons[0].names))
    found = [(words.title(c), words.sentences(c), words.HEADER, words.rows(c), words.named(c)) for c in comparisons]
    write_pages(name, [page], folder, "comparison.html", comparisons=found)
