"""The loss curve of an attempt, in parts: small Parquet files, one a save, made into one when they are many.

A part is named by its first step, and what was made of several by first and last. The rows of many parts are written
as one before these are removed, so a kill between leaves rows twice and never none; readers take one row a step. Only
the process that owns the attempt, which holds the run's lock, does any of it; readers may read at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core.errors import StoreError
from gpt3core.store import files

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 64  # parts of an attempt: reading one takes a third of a millisecond, writing all of them anew a few
TRIES = 100  # of a reader whose files are replaced while it looks


def write_table(path: Path, table: pa.Table, fence: files.Fence | None = None) -> None:
    """Write one immutable Parquet file; ``fence`` as for ``files.write_bytes``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    files.write_bytes(path, sink.getvalue().to_pybytes(), fence=fence)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some columns of it, by the calling thread alone."""
    import pyarrow.parquet as pq

    # pandas takes five times as long, its threads a quarter more
    with files.opened(path) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        return file.read(columns, use_threads=False)


def rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of a small table, a dictionary a row: by the calling thread alone, for a quick look.

    Raises:
        FileNotFoundError: when there is none.
        StoreError: when it is unreadable or has no such columns.
    """
    import pyarrow.parquet as pq

    try:
        with files.opened(path) as source, pq.ParquetFile(source, pre_buffer=False) as file:
            found: list[dict[str, Any]] = file.read(columns, use_threads=False).select(columns).to_pylist()
            return found
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is not a readable table ({error})") from error


def write(attempt: Path, columns: dict[str, list[Any]], fence: files.Fence | None = None) -> None:
    """Write one part, named by its first step: writing it again is harmless."""
    import pyarrow as pa

    if columns["step"]:
        write_table(attempt / "metrics" / f"part-{columns['step'][0]:08d}.parquet", pa.table(columns), fence)


def read(attempt: Path, columns: list[str] | None = None) -> list[pa.Table]:
    """All parts of an attempt, oldest first; where they have a step twice, the later one holds.

    Raises:
        StoreError: when the parts are replaced faster than they are read.
    """
    folder = attempt / "metrics"
    for _ in range(TRIES):
        names = _names(folder)
        if names != _names(folder):  # a listing made while files come and go may have neither the old nor the new
            continue
        try:
            return [read_table(folder / name, columns) for name in names]
        except FileNotFoundError:  # made into one since the listing
            continue
    raise StoreError(f"the files of {folder} change faster than they can be read: try again")


def compact(attempt: Path, *, most: int = MOST) -> None:
    """Make one part of all when there are ``most`` or more."""
    import pyarrow as pa
    import pyarrow.compute as pc

    folder = attempt / "metrics"
    names = _names(folder)
    if len(names) < max(2, most):
        return
    whole = pa.concat_tables([read_table(folder / name) for name in names], promote_options="default")
    steps = whole["step"].to_pylist()
    last = sorted({step: row for row, step in enumerate(steps)}.items())
    whole = whole.take([row for _, row in last])
    made = f"part-{pc.min(whole['step']).as_py():08d}-{pc.max(whole['step']).as_py():08d}.parquet"
    write_table(folder / made, whole.combine_chunks())
    for name in names:
        if name != made:
            (folder / name).unlink()
    files.sync_folder(folder)


def cut(attempt: Path, step: int) -> None:
    """Remove the rows after a step, which readers may still see until it is done."""
    import pyarrow.compute as pc

    folder = attempt / "metrics"
    for name in _names(folder):
        table = read_table(folder / name)
        left = table.filter(pc.less_equal(table["step"], step))
        if not len(left):
            (folder / name).unlink()
        elif len(left) < len(table):
            write_table(folder / name, left)


def _names(folder: Path) -> list[str]:
    """In the order of their first steps; of two with one first step, what was made of several comes first."""
    return sorted(path.name for path in folder.glob("part-*.parquet"))
