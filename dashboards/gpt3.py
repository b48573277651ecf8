"""Figures of the GPT-3 paper: ``python -m dashboards.gpt3 out=DIR`` writes offline HTML (default ./gpt3-figures)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core import cli


@dataclass
class Settings:
    """What can be given as key=value."""

    out: str = "gpt3-figures"


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(Settings(), argv)

    from dashboards import offline
    from dashboards.figures.gpt3 import aggregate, figure_3_1, symbol_insertion

    out = Path(given.out).expanduser().absolute()
    pages = [symbol_insertion(), aggregate(), figure_3_1()]
    offline.write_pages("GPT-3", pages, out, "list.html")
    print(f"figures: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
