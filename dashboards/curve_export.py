"""The training curves of many runs in one file: every row of every step, as the store has it, run after run.

A file is written as it is read, so that ten million rows take no more memory than those of a few runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core.errors import StoreError
from gpt3core.store import metrics
from gpt3core.store.rundir import RunDir

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = ("loss", "lr", "grad_norm", "validation_loss", "noise_scale", "grad_sq", "grad_var")
CHUNK_ROWS = 200_000
READERS, AHEAD = 2, 8  # threads, and runs that they may be ahead of the writer


class Pieces:
    """A file that a writer writes to, and whoever sends it takes away in pieces."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def write(self, data: Any) -> int:
        """Take some bytes."""
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since it was last asked for."""
        found, self._parts = b"".join(self._parts), []
        return found

    def tell(self) -> int:
        """Bytes so far."""
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to release."""


def schema() -> pa.Schema:
    """The columns of an export: all that a run may measure at a step; empty where it did not."""
    import pyarrow as pa

    first = [("run_id", pa.string()), ("step", pa.int64()), ("tokens", pa.int64())]
    return pa.schema([*first, *((name, pa.float64()) for name in NUMBERS), ("skipped", pa.bool_())])


def parquet(sink: Any, columns: pa.Schema) -> AbstractContextManager[Any]:
    """A writer of Parquet."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(sink, columns, compression="zstd", use_dictionary=["run_id"])  # type: ignore[no-any-return]


def csv(sink: Any, columns: pa.Schema) -> AbstractContextManager[Any]:
    """A writer of CSV: numbers in the fewest digits that are read back as the same."""
    from pyarrow import csv as writer

    return writer.CSVWriter(sink, columns)  # type: ignore[no-any-return]


KINDS: dict[str, tuple[Callable[[Any, Any], AbstractContextManager[Any]], str]] = {
    "csv": (csv, "text/csv; charset=utf-8"),
    "parquet": (parquet, "application/vnd.apache.parquet"),
}


def stream(root: Path, run_ids: Iterable[str], kind: str) -> Iterator[bytes]:
    """The file in pieces; a run whose curve cannot be read is one row that has its name and no step.

    Args:
        kind: csv or parquet.
    """
    import pyarrow as pa

    sink, columns = Pieces(), schema()
    with KINDS[kind][0](sink, columns) as writer:
        held: list[pa.Table] = []
        for table in _ahead(root, run_ids):
            held.append(table)
            if sum(map(len, held)) >= CHUNK_ROWS:
                writer.write_table(pa.concat_tables(held))
                held = []
                yield sink.taken()
        if held:
            writer.write_table(pa.concat_tables(held))
    yield sink.taken()


def _ahead(root: Path, run_ids: Iterable[str]) -> Iterator[pa.Table]:
    """The curves of runs in their order, a few of them read while the one before is written."""
    waiting: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="curves") as pool:
        for run_id in run_ids:
            waiting.append(pool.submit(curve, root, run_id))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        yield from (left.result() for left in waiting)


def curve(root: Path, run_id: str) -> pa.Table:
    """The rows of a run in the columns of an export, one a step, in order.

    Where attempts overlap, the latest one's; one row without a step where they cannot be read.
    """
    import pyarrow as pa

    columns = schema()
    try:
        parts = [table for attempt in RunDir(root, run_id).attempts() for table in metrics.read(attempt)]
        if not parts:
            return columns.empty_table()
        whole = parts[0] if len(parts) == 1 else _in_order(pa.concat_tables(parts, promote_options="permissive"))
        return _cast(whole.append_column("run_id", pa.repeat(run_id, len(whole))), columns)
    except (StoreError, OSError, KeyError, ValueError, pa.ArrowException):
        return _cast(pa.table({"run_id": [run_id]}), columns)


def _in_order(rows: pa.Table) -> pa.Table:
    """A row a step: the last one, in the order of steps."""
    import pyarrow.compute as pc

    if pc.all(pc.less(rows["step"][:-1], rows["step"][1:]), min_count=0).as_py():
        return rows
    last = {step: row for row, step in enumerate(rows["step"].to_pylist())}
    return rows.take([last[step] for step in sorted(last)])


def _cast(whole: pa.Table, columns: pa.Schema) -> pa.Table:
    """With all columns; what the run did not measure is empty."""
    import pyarrow as pa

    there = set(whole.column_names)
    arrays = [
        whole[field.name].cast(field.type) if field.name in there else pa.nulls(len(whole), field.type)
        for field in columns
    ]
    return pa.table(arrays, schema=columns)
