"""What a first page says of a study, for the report and the app: the answer in a paragraph, the tables in groups.

Numbers have an address: of the runs that they rest on, as far as it is known which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dashboards import typeset

if TYPE_CHECKING:  # the app answers before what fits is imported
    from analysis.output.answer import Part
    from analysis.output.evidence import Runs
    from analysis.output.text import Table
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
GROUPS = (  # by the beginnings of the tables' titles
    ("What a larger run would reach", ("Predictions", "Predicted accuracy", "Ensemble", "Backtests", "Influence")),
    ("The laws", ("Laws", "N* ~", "IsoFLOP minima", "N* of held-out", "Exponents")),
    ("Few-shot", ("Few-shot", "What K examples", "Questions in the training text")),
    ("The runs", ("Unfinished", "Rules")),
)
UNSAID = {  # what folds a row away, by its table and column: these rows give no number that is to be quoted
    "Laws": (3, ("ill-determined", "too few runs", "not converged", "not applicable"), "ill-determined or not fitted"),
    "Ensemble": (1, ("0.00",), "with a weight below 0.005"),
    "IsoFLOP minima": (2, ("-",), "without a minimum inside their sizes"),
    "Few-shot": (6, ("at chance", "not measured"), "at chance or not measured"),
    "Predicted accuracy": (4, ("-",), "not predicted"),
}


Said = TypeVar("Said")
Address = Callable[["Runs"], str]  # of a page that shows these runs and no others; empty where there is none


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table, and the address of the runs that its numbers rest on."""

    cells: Sequence[str]
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table: rows to read, and those folded away with what they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    folded: Sequence[Row]
    folded_are: str


def linked(parts: Iterable[Part], address: Address) -> list[tuple[str, str]]:
    """A sentence in pieces, each with its address; only numbers have one."""
    from analysis.output.answer import ELSEWHERE

    found = list[tuple[str, str]]()
    for words, runs in parts:
        to = address(runs) if runs else ""
        if words.endswith(ELSEWHERE):  # of a terminal: here it is below, or behind the line's label
            words = words.removesuffix(ELSEWHERE)
        found += [(text, to if is_number else "") for text, is_number in typeset.numbers(words)]
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

    tables = text.tables(study)
    found = [
        (name, [_shown(study, t, address) for begin in begins for t in tables if t[0].startswith(begin)])
        for name, begins in GROUPS
    ]
    return [(name, shown) for name, shown in found if shown]


def _shown(study: Study, table: Table, address: Address) -> Shown:
    from analysis.output import evidence

    title, header, cells = table
    behind = [evidence.of_row(study, title, row) for row in cells]
    rows = [Row(cells=c, address=address(runs) if runs else "") for c, runs in zip(cells, behind, strict=True)]
    column, words, what = next((rule for begin, rule in UNSAID.items() if title.startswith(begin)), (0, (), ""))
    folded = [row for row in rows if words and row.cells[column].startswith(words)]
    if len(folded) == len(rows):  # nothing would be left to read
        folded = []
    kept = [row for row in rows if row not in folded]
    return Shown(title=title, header=header, rows=kept, folded=folded, folded_are=what)
