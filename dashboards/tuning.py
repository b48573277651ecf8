"""The law of a search as a folder of offline HTML; ``python -m analysis.hparams`` calls it."""

from __future__ import annotations

import html
from pathlib import Path

from analysis.tuning.study import Tuning
from dashboards.figures.tuning import basins, optimum
from dashboards.pages.html import plot, write_pages


def write(found: Tuning, folder: Path) -> None:
    """Write the two figures; the first page shows the law."""
    pages = [optimum(found), basins(found)]
    notes = "".join(f"<li>{html.escape(note.message)}</li>" for note in found.notes)
    summary = f"<p>{html.escape(pages[0].about)}</p>{plot(pages[0])}<ul>{notes}</ul>"
    write_pages(found.runs.name, pages, folder, summary)
