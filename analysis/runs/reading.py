"""A file's rows as they are: CSV, whatever parts its columns and its decimals, Parquet, or JSON lines."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from gpt3core.errors import UsageError

SEPARATORS = {".csv": ",", ".tsv": "\t"}  # as a file's name says; its first line has the last word
KNOWN_SEPARATORS = (",", ";", "\t")
REMARK = re.compile(r"\s*#|\"?sep=.\"?\s*$|\s*$")  # or nothing
A_NUMBER = re.compile(r"[\s\"]*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[\s\"]*")
DECIMAL_COMMA = r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?"
THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"  # or three decimals
NUMBER = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"  # with it, or whole


def load(path: Path) -> pd.DataFrame:
    """A file's rows.

    Raises:
        UsageError: for a missing file, an unreadable format, or rows that do not fit their first line.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _separated,
        ".tsv": _separated,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
        ".ndjson": lambda p: pd.read_json(p, lines=True),
    }
    reader = readers.get(kind(path))
    if reader is None:
        raise UsageError(f"{path}: a store's folder, or a file of {', '.join(readers)}, is expected")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return reader(path)
    except UsageError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:  # parser errors of pandas and pyarrow are ValueErrors
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def kind(path: Path) -> str:
    """The ending that says a file's format, compressed or not."""
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")


def _separated(path: Path) -> pd.DataFrame:
    """Rows parted by commas, semicolons or tabs; where it is not commas, decimals may be.

    Lines before the first that begin with # are remarks, and sep=; is Excel's.
    """
    with _opened(path) as text:
        before, line = _first(text)
        fields = {separator: next(csv.reader([line], delimiter=separator)) for separator in KNOWN_SEPARATORS}
        usual = SEPARATORS[kind(path)]
        separator = max(KNOWN_SEPARATORS, key=lambda one: (len(fields[one]), one == usual))
        names = [name.strip() for name in fields[separator] if name.strip()]
        refuse_names(sorted({name for name in names if names.count(name) > 1}), path)
        text.seek(0)
        for _ in range(before):
            text.readline()
        table = pd.read_csv(text, sep=separator)
    _refuse_shifted(table, len(fields[separator]), path)
    return table if separator == "," else _with_points(table, path)


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _first(text: TextIO) -> tuple[int, str]:
    """How many lines stand before the one that names the columns, and that one.

    It may begin with #, as the name of a column, where numbers follow.
    """
    lines = []
    for line in iter(text.readline, ""):
        lines.append(line)
        if not REMARK.match(line):
            break
    if not lines:
        return 0, ""
    at = len(lines) - 1
    cells = [cell for cell in re.split(r"[,;\t]", lines[at]) if cell.strip()]
    if 2 * sum(A_NUMBER.fullmatch(cell) is not None for cell in cells) >= len(cells):
        above = next((i for i in reversed(range(at)) if lines[i].strip()), at)
        if lines[above].lstrip().startswith("#") and _parted(lines[above]) == _parted(lines[at]):
            at = above
    return at, lines[at]


def _parted(line: str) -> int:
    return max(line.count(one) for one in KNOWN_SEPARATORS)


def _with_points(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """With decimal commas as points, where no column has points.

    Raises:
        UsageError: where every comma may part thousands as well.
    """
    words = {
        name: column.dropna().astype(str).str.strip() for name, column in table.items() if column.dtype.kind == "O"
    }
    words = {name: cells for name, cells in words.items() if cells.str.fullmatch(NUMBER).all()}
    parted = {name: cells[cells.str.fullmatch(DECIMAL_COMMA)] for name, cells in words.items()}
    parted = {name: cells for name, cells in parted.items() if len(cells)}
    fractions = any((column.dropna() % 1 != 0).any() for _, column in table.select_dtypes("float").items())
    if not parted or fractions:
        return table
    if all(cells.str.fullmatch(THOUSANDS).all() for cells in parted.values()):
        name, cells = next(iter(parted.items()))
        raise UsageError(
            f"{path}: {name} is {cells.iloc[0]!r}, and every other comma has three digits after it too: do they part "
            "thousands (then leave them out) or decimals (then write points)?"
        )
    pointed = {name: table[name].astype("string").str.strip().str.replace(",", ".", regex=False) for name in parted}
    return table.assign(**{str(name): pd.to_numeric(cells).astype(float) for name, cells in pointed.items()})


def _refuse_shifted(table: pd.DataFrame, named: int, path: Path) -> None:
    """Refuse rows of more fields than the first line names, which pandas would move to the left.

    Names or numbers of the rows before the first column, as R writes them without a header, are no loss.
    """
    index, rows = table.index, np.arange(len(table))
    if index.nlevels == 1 and (
        index.dtype.kind not in "if" or np.array_equal(index, rows) or np.array_equal(index, rows + 1)
    ):
        return
    raise UsageError(
        f"{path}: its rows have more fields than the {named} names of its first line: is a comma the sign of decimals "
        "(then part the columns by semicolons), or is a column without a name?"
    )


def refuse_names(twice: Sequence[str], path: Path) -> None:
    """Refuse columns that are called alike."""
    if twice:
        raise UsageError(f"{path} has more than one column {twice[0]!r}: name them apart")
