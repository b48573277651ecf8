"""Is B better than A, and by how much compute: ``python -m analysis.compare runs=[A.csv,B.csv]``.

runs=[A.csv,B.csv]   two tables of runs (see analysis.fit), the baseline first; runs=A,B is the same
runs=ROOT sweep=[A,B]  two sweeps of a store;  runs=[ROOT_A,ROOT_B] two stores, with sweep=[A,B] where not the last ones
runs=TABLE by=COLUMN arms=[A,B]   two arms of one table: rows by the value of a column, such as a data mixture
columns.N=params     a file's own names and units, as for analysis.fit; N=, C=, exclude=, min_tokens=, min_compute=,
                     max_compute=, rules= too
domains.web=val_web  losses on held-out domains, each compared by itself (default: all columns named loss.NAME)
precision=fp32       only runs that were trained in it
paired=true          cell by cell (default: where half of the cells have equal N and D, or size and budget); or false
target_compute=[1e24]  FLOPs beyond the data, by six decades at most (default: ten times the largest run's)
fix.a=0.5            hold a of N* ~ C^a fixed; fix.alpha=0.34, fix.beta=0.28, fix.alpha_equals_beta=true as well
out=DIR              where the files go (default: ./A-vs-B);  figures=true

The multiplier m at a compute C: A needs m C for the loss that B reaches with C, both along their frontiers. Prints it
with its interval at the budgets run and beyond, how it moves with compute, and whether it is told from one at all.
Writes compare.json, compare.md and figures/ (HTML).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import CompareSettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.estimation.compare import Comparison

DRAWING = "dashboards.comparison"  # it stands above analysis, so it is called by name, as a shell would


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(CompareSettings(), argv)
    given.check()

    from analysis import api
    from analysis.output import comparison

    found = api.comparisons(given)
    out = given.folder(Path.cwd() / _folder(found[0]))
    comparison.write(found, out)
    _print(found)
    print(f"written: {out}/compare.json, compare.md")
    if given.figures:
        importlib.import_module(DRAWING).write(found, out / "figures")
        print(f"figures: {out / 'figures' / 'index.html'}")
    return 0


def _folder(found: Comparison) -> str:
    return "-vs-".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "ladder" for name in found.names)


def _print(comparisons: list[Comparison]) -> None:
    from analysis.output import comparison
    from gpt3core import terminal

    console = terminal.console()
    for found in comparisons:
        title, rows = comparison.title(found), comparison.rows(found)
        terminal.table(console, title, comparison.HEADER, rows, words=comparison.HEADER[:1])
        for line in comparison.sentences(found):
            console.print(line)


if __name__ == "__main__":
    cli.run(main)
