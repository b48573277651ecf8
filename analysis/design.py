"""What to run next, what it costs, and the command that runs it: ``python -m analysis.design runs=PATH``.

runs=PATH            runs made: a store or a table; with sweep=, columns.X=, N=, C=, exclude=, rules=, min_tokens=,
                     min_compute=, max_compute=, precision= as for analysis.fit. A store's runs in flight count as made,
                     whatever their outcome will be; runs that ended, failed ones among them, are not proposed again
target=loss          the loss at target_compute; or n_star, the compute-optimal size there; or accuracy:TASK (or
                     accuracy:TASK:K, with K examples), through the trend of that accuracy over the loss
scores=[arc]         a table's columns of accuracy, for such a target; with chance., items. and shots. as for
                     analysis.fit
target_compute=1e24  FLOPs (default: ten times the highest-compute run)
candidates=FILE      a row a run that could be made: columns N and D, and gpu_hours where cost is not FLOPs. Without
                     it a sweep's recipe is continued, or a grid is laid about a table's range
largest=1e23         FLOPs of the largest run of such a grid (default: the target's, at most ten times the largest run)
running=FILE         more runs in flight, that the store does not know of
batch=4              how many to propose
usd_per_hour=3       price of an hour of a run (default: what the runs recorded)
worth=100            the most that a tenth off the interval may cost, in the unit that costs are printed in; above it
                     going on is not worth it (default: what the runs so far cost together)
stop=0.9             nor is it when all candidates together would leave more of the interval
out=DIR              where design.json and next.csv go (default: not written)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.settings import DesignSettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.next_runs import NextRuns

PIPE_WIDTH = 140  # where the output is no terminal


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(DesignSettings(), argv)
    given.check()

    from analysis import api

    found = api.design(given)
    _print(found)
    if given.out:
        from analysis.output import documents

        print(f"written: {', '.join(map(str, documents.write_design(found, given.out)))}")
    return 0


def _print(found: NextRuns) -> None:
    from analysis.output import proposals
    from gpt3core import terminal

    out = terminal.console(PIPE_WIDTH)
    if found.design.proposals:
        header, rows = proposals.rows(found)
        terminal.table(out, proposals.title(found), header, rows, words=header[:1], last=("hours", "D"))
    for sentence in proposals.sentences(found):
        print("\n".join(terminal.labelled([("", sentence)], out.width)).strip())
    for line in proposals.how(found):
        print(line)


if __name__ == "__main__":
    cli.run(main)
