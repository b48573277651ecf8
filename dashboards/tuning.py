"""The law of a search as a folder of offline HTML; ``python -m analysis.hparams`` calls it."""

from __future__ import annotations

from pathlib import Path

from analysis.tuning.study import Tuning
from dashboards.figures.tuning import basins, optimum
from dashboards.offline import write_pages


def write(found: Tuning, folder: Path) -> None:
    """Write the two figures; the first page shows the law."""
    notes = [note.message for note in found.notes]
    write_pages(found.runs.name, [optimum(found), basins(found)], folder, "tuning.html", notes=notes)
