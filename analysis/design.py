"""What to run next: ``python -m analysis.design runs=PATH candidates=GRID.csv target_compute=1e24``.

runs=PATH            runs made: a store or a table; with sweep=, columns.X=, N=, C=, exclude=, rules=, min_tokens=,
                     precision= as for analysis.fit. A store's runs in flight count as made, whatever their outcome
                     will be; runs that diverged or failed tell nothing and are not proposed again
candidates=FILE      a row a run that could be made: columns N and D, and gpu_hours where cost is not FLOPs
running=FILE         more runs in flight, that the store does not know of
target=loss          the loss at target_compute; or n_star, the compute-optimal size there; or accuracy, which follows
                     the loss
target_compute=1e24  FLOPs (default: ten times the highest-compute run)
batch=4              how many to propose
stop=0.9             say that going on is not worth it when all candidates together would leave more of the interval
out=DIR              where design.json goes (default: not written)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.settings import DesignSettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.estimation.design import Design


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(DesignSettings(), argv)
    given.check()

    from analysis import api

    found, unit, notes = api.design(given)
    _print(found, unit)
    for note in notes:
        print(f"{note.severity}: {note.message} [{note.code}]")
    if given.out:
        from analysis.output import documents

        print(f"written: {documents.write_design(found, given.out)}")
    return 0


def _print(found: Design, unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"What to run next, for the {found.target} at C={found.compute:.3g}"
    table = Table(title=title, title_justify="left")
    for name in ("candidate", "N", "D", f"cost, {unit}", "interval after it"):
        table.add_column(name)
    for p in found.proposals:
        table.add_row(str(p.index + 1), f"{p.n:.3g}", f"{p.d:.3g}", f"{p.cost:.3g}", f"{p.interval:.0%} of now")
    Console(width=None if Console().is_terminal else 110).print(table)
    every = f"all candidates together would narrow the interval to {found.everything:.0%} of what it is now"
    print(f"{every}: {'go on' if found.worth else 'further runs are not worth their cost'}")


if __name__ == "__main__":
    cli.run(main)
