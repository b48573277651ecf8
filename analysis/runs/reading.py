"""A file's rows as they are: CSV, whatever parts its columns and its decimals, Parquet, or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gpt3core.errors import UsageError

SEPARATORS = {".csv": ",", ".tsv": "\t"}  # as a file's name says; its first line has the last word
KNOWN_SEPARATORS = (",", ";", "\t")
DECIMAL_COMMA = r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?"
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
    except (ValueError, OSError) as error:  # parser errors of pandas and pyarrow are ValueErrors
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def kind(path: Path) -> str:
    """The ending that says a file's format, compressed or not."""
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")


def _separated(path: Path) -> pd.DataFrame:
    """Rows parted by commas, semicolons or tabs; where it is not commas, decimals may be."""
    line = str(pd.read_csv(path, sep="\0", header=None, nrows=1, dtype=str, quoting=csv.QUOTE_NONE).iat[0, 0])
    fields = {separator: next(csv.reader([line], delimiter=separator)) for separator in KNOWN_SEPARATORS}
    usual = SEPARATORS[kind(path)]
    separator = max(KNOWN_SEPARATORS, key=lambda one: (len(fields[one]), one == usual))
    names = [name.strip() for name in fields[separator] if name.strip()]
    refuse_names(sorted({name for name in names if names.count(name) > 1}), path)
    table = pd.read_csv(path, sep=separator)
    _refuse_shifted(table, len(fields[separator]), path)
    return table if separator == "," else table.apply(_with_points)


def _with_points(column: pd.Series) -> pd.Series:
    """A column of numbers with decimal commas as numbers; any other as it is."""
    if column.dtype.kind in "biufc":
        return column
    words = column.dropna().astype(str).str.strip()
    if not (words.str.fullmatch(NUMBER).all() and words.str.fullmatch(DECIMAL_COMMA).any()):
        return column
    return pd.to_numeric(column.astype("string").str.strip().str.replace(",", ".", regex=False)).astype(float)


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
