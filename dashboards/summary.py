"""What a first page says of a study, for the report and the app: the answer in a paragraph, the tables in groups.

Numbers have an address: of the runs that they rest on, as far as it is known which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from dashboards import typeset

if TYPE_CHECKING:  # the app answers before what fits is imported
    from analysis.output.evidence import Part, Runs
    from analysis.output.table import Table
    from analysis.study import Study

LEADS = ("trust", "weakest")  # that stand beside the first target
FIGURES = {  # the figure behind a line of the answer
    "runs": "curves",
    "law": "frontier",
    "size": "isoflop",
    "scores": "accuracy-compute",
    "trust": "residuals",
    "weakest": "isoflop",
}
AT = "at "


Said = TypeVar("Said")
Address = Callable[["Runs"], str]  # of a page that shows these runs and no others; empty where there is none
Linked = list[tuple[str, str]]  # words in pieces, each with its address
Cell = tuple[str, Linked]  # its words, whole and in pieces


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table: rows to read, and those folded away with what they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: Sequence[Sequence[Cell]]
    folded_are: str


def linked(parts: Iterable[Part], address: Address, names: Sequence[str] = ()) -> Linked:
    """A sentence in pieces, each with its address; only numbers have one.

    Args:
        names: from outside that the sentence may hold beside those of the runs that it rests on; they are no numbers.
    """
    from analysis.output.answer import ELSEWHERE

    found = list[tuple[str, str]]()
    for words, runs in parts:
        to = address(runs) if runs else ""
        if words.endswith(ELSEWHERE):  # of a terminal: here it is below, or behind the line's label
            words = words.removesuffix(ELSEWHERE)
        found += [(text, to if is_number else "") for text, is_number in typeset.numbers(words, (*runs, *names))]
    return found


def split(lines: Sequence[tuple[str, Said]]) -> tuple[list[tuple[str, Said]], list[tuple[str, Said]]]:
    """The lines of an answer that come first (the first target, how far to trust it, what to mend), and the others."""
    target = next((label for label, _ in lines if label.startswith(AT)), None)
    lead = [line for line in lines if line[0] in (target, *LEADS)]
    return lead, [line for line in lines if line not in lead]


def figure_of(label: str, known: Sequence[str]) -> str | None:
    """The slug of the figure behind a line of the answer, if it is among those known."""
    slug = "frontier" if label.startswith(AT) else FIGURES.get(label)
    return slug if slug in known else None


def groups(study: Study, address: Address) -> list[tuple[str, list[Shown]]]:
    """The tables of a study in groups."""
    from analysis.output import text

    by_group = groupby(text.tables(study), key=lambda table: table.group)
    return [(name, [_shown(table, address) for table in tables]) for name, tables in by_group]


def _shown(table: Table, address: Address) -> Shown:
    any_quoted = any(row.quoted for row in table.rows)  # else nothing would be left to read

    def cells(quoted: bool) -> list[list[Cell]]:
        rows = [row for row in table.rows if (row.quoted or not any_quoted) == quoted]
        return [[(said, linked(cell, address)) for said, cell in zip(r.words, r.cells, strict=True)] for r in rows]

    kept, folded = cells(True), cells(False)
    return Shown(title=table.title, header=table.header, rows=kept, folded=folded, folded_are=table.unquoted)
