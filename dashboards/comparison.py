"""A comparison of two ladders as a folder of offline HTML; ``python -m analysis.compare`` calls it."""

from __future__ import annotations

import html
from pathlib import Path

from analysis.estimation.compare import Comparison
from analysis.output import comparison
from dashboards.figures.comparison import multipliers
from dashboards.pages.html import plot, table, write_pages


def write(comparisons: list[Comparison], folder: Path) -> None:
    """Write the figure and a summary."""
    page = multipliers(comparisons)
    parts = [plot(page), f"<p>{html.escape(page.about)}</p>"]
    for found in comparisons:
        parts.append(f"<h2>{html.escape(comparison.title(found))}</h2>")
        parts.append("<ul>" + "".join(f"<li>{html.escape(s)}</li>" for s in comparison.sentences(found)) + "</ul>")
        parts.append(table(comparison.HEADER, comparison.rows(found)))
    write_pages(" against ".join(reversed(comparisons[0].names)), [page], folder, "".join(parts))
