"""A table of words whose cells know the runs that their numbers rest on, as the sentences of the answer do."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.output.evidence import NONE, Part, Runs, words

REACHED, LAWS, FEW_SHOT, RUNS = "What a larger run would reach", "The laws", "Few-shot", "The runs"  # groups

Cell = list[Part]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table."""

    cells: list[Cell]
    quoted: bool = True  # whether it gives a number that is to be quoted: a page folds the others away

    @property
    def words(self) -> list[str]:
        """What it says."""
        return [words(cell) for cell in self.cells]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header."""

    group: str
    title: str
    header: list[str]
    rows: list[Row]
    unquoted: str = ""  # what the rows are that are not to be quoted


def row(first: str | Cell, *cells: str | Cell, behind: Runs = NONE, quoted: bool = True) -> Row:
    """A row whose numbers rest on the same runs.

    Args:
        first: what the row is of, which rests on none of its own.
        cells: words about ``behind``, or parts that say themselves what they rest on.
    """
    named: Cell = [(first, NONE)] if isinstance(first, str) else first
    return Row(cells=[named, *([(c, behind)] if isinstance(c, str) else c for c in cells)], quoted=quoted)
