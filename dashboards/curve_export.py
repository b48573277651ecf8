"""The training curves of many runs in one file: every row of every step, as the store has it, run after run.

A file is written as it is read, so that ten million rows take no more memory than those of a few runs, and by a process
of its own (``python -m dashboards.curve_export ROOT KIND``, with names of runs on its input), which waits for no fit.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gpt3core.errors import StoreError
from gpt3core.store import metrics
from gpt3core.store.rundir import RunDir

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = ("loss", "lr", "grad_norm", "validation_loss", "noise_scale", "grad_sq", "grad_var")
Curve = tuple[str, "pa.Table"]  # a run, and its rows as the store has them
CHUNK_ROWS = 200_000
THREADS, AHEAD = 2, 8  # and runs that are read before they are asked for
T = TypeVar("T")
S = TypeVar("S")
PIECE = 1 << 16  # bytes, as many as a pipe holds
COMMAND = ("-m", "dashboards.curve_export")


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


def parquet(tables: Iterable[pa.Table], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The pieces of a Parquet file."""
    import pyarrow.parquet as pq

    sink = Pieces()
    with pq.ParquetWriter(sink, schema(), compression="zstd", use_dictionary=["run_id"]) as writer:
        for table in tables:
            writer.write_table(table)
            yield sink.taken()
    yield sink.taken()


def csv(tables: Iterable[pa.Table], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The pieces of a CSV file, spelt side by side: numbers in the fewest digits that are read back as the same."""
    yield _spelt(schema().empty_table(), header=True)
    yield from _ahead(pool, _spelt, tables, THREADS)


def _spelt(table: pa.Table, *, header: bool = False) -> bytes:
    from pyarrow import csv as writer

    sink = io.BytesIO()
    writer.write_csv(table, sink, writer.WriteOptions(include_header=header))
    return sink.getvalue()


KINDS: dict[str, tuple[Callable[[Iterable[Any], ThreadPoolExecutor], Iterator[bytes]], str]] = {
    "csv": (csv, "text/csv; charset=utf-8"),
    "parquet": (parquet, "application/vnd.apache.parquet"),
}


def by_a_process(root: Path, run_ids: Iterable[str], kind: str) -> Iterator[bytes]:
    """What ``stream`` gives, made by a process that ends with whoever asks; its first piece is there already.

    Raises:
        StoreError: at once or in the midst of it, where that process fails; what it says stands on the terminal.
        OSError: where it cannot be started.
    """
    pieces = _of_a_process([sys.executable, *COMMAND, str(root), kind], run_ids)
    next(pieces, None)
    return pieces


def _of_a_process(words: Sequence[str], run_ids: Iterable[str]) -> Iterator[bytes]:
    """What a process writes, after an empty piece as soon as there is any: what has begun ends it when it is closed."""
    ends = subprocess.PIPE
    with subprocess.Popen(words, stdin=ends, stdout=ends, start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as names:  # it says below how it ended
                names.write("\n".join(run_ids).encode())
            piece = os.read(process.stdout.fileno(), PIECE)
            if piece:
                yield b""
            while piece:
                yield piece
                piece = os.read(process.stdout.fileno(), PIECE)
        except BaseException:  # the reader left
            process.kill()
            raise
    if process.returncode:
        raise StoreError(f"the export of curves ended with status {process.returncode}: the app's terminal says why")


def main(root: str, kind: str) -> None:
    """The process."""
    try:
        with sys.stdout.buffer as sink:
            sink.writelines(stream(Path(root), sys.stdin.read().splitlines(), kind))
    except BrokenPipeError:  # whoever asked has left
        os._exit(1)


def stream(root: Path, run_ids: Iterable[str], kind: str) -> Iterator[bytes]:
    """The file in pieces; a run whose curve cannot be read is one row that has its name and no step.

    Args:
        kind: csv or parquet.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="curves") as pool:
        curves = _ahead(pool, partial(_curve, root), run_ids, AHEAD)
        yield from KINDS[kind][0](_tables(curves), pool)


def _tables(curves: Iterable[Curve]) -> Iterator[pa.Table]:
    """Curves in the columns of an export, some of them together."""
    held: list[Curve] = []
    for curve in curves:
        held.append(curve)
        if sum(len(rows) for _, rows in held) >= CHUNK_ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], S], given: Iterable[T], most: int) -> Iterator[S]:
    """The results of some work in the order of what it is given, at most so many begun before one is asked for."""
    begun: deque[Future[S]] = deque()
    for one in given:
        begun.append(pool.submit(work, one))
        if len(begun) > most:
            yield begun.popleft().result()
    yield from (left.result() for left in begun)


def _curve(root: Path, run_id: str) -> Curve:
    """The rows of a run, one a step, in order; where attempts overlap, the latest one's."""
    import pyarrow as pa

    try:
        parts = [table for attempt in RunDir(root, run_id).attempts() for table in metrics.read(attempt)]
        if not parts:
            return run_id, _unread()[:0]
        return run_id, parts[0] if len(parts) == 1 else _in_order(pa.concat_tables(parts, promote_options="permissive"))
    except (StoreError, OSError, KeyError, ValueError, pa.ArrowException):
        return run_id, _unread()


def _unread() -> pa.Table:
    """What stands for the rows of a run that cannot be read."""
    import pyarrow as pa

    return pa.table({"step": pa.nulls(1, pa.int64())})


def _in_order(rows: pa.Table) -> pa.Table:
    """A row a step: the last one, in the order of steps."""
    import pyarrow.compute as pc

    if pc.all(pc.less(rows["step"][:-1], rows["step"][1:]), min_count=0).as_py():
        return rows
    last = {step: row for row, step in enumerate(rows["step"].to_pylist())}
    return rows.take([last[step] for step in sorted(last)])


def _joined(held: Sequence[Curve]) -> pa.Table:
    """Curves in the columns of an export: together, for a call a column takes longer than a thousand rows of it."""
    import numpy as np
    import pyarrow as pa

    try:
        rows = pa.concat_tables([rows for _, rows in held], promote_options="permissive")
        which = np.repeat(np.arange(len(held), dtype=np.int32), [len(rows) for _, rows in held])
        names = pa.DictionaryArray.from_arrays(which, [run_id for run_id, _ in held])
        return _cast(rows.append_column("run_id", names), schema())
    except (KeyError, ValueError, pa.ArrowException):  # a column of one of them is none of its kind
        if len(held) > 1:
            return pa.concat_tables([_joined([one]) for one in held])
        return _joined([(held[0][0], _unread())])


def _cast(whole: pa.Table, columns: pa.Schema) -> pa.Table:
    """With all columns; what the run did not measure is empty."""
    import pyarrow as pa

    there = set(whole.column_names)
    arrays = [
        whole[field.name].cast(field.type) if field.name in there else pa.nulls(len(whole), field.type)
        for field in columns
    ]
    return pa.table(arrays, schema=columns)


if __name__ == "__main__":
    main(*sys.argv[1:])
