"""Parts of a corpus: Parquet with a row a document, of which one at a time is in memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from gpt3core.errors import StoreError
from gpt3core.store import files

PART_BYTES = 32 << 20  # of text, about
COUNTS = b"counts"  # of a part's schema: JSON of what was counted
EMPTIED = b"emptied"  # of the schema of a part whose documents are gone


@dataclass(frozen=True, kw_only=True)
class Part:
    """Documents in order: aligned lists."""

    ids: list[str]
    sources: list[str]
    texts: list[str]
    more: dict[str, list[Any]] = field(default_factory=dict)  # further columns

    def __len__(self) -> int:
        return len(self.ids)


def write(path: Path, columns: Mapping[str, Any], counts: Mapping[str, Any], *, rows: int | None = None) -> None:
    """Write a part whole or not at all, in groups of so many rows."""
    table = pa.table(dict(columns)).replace_schema_metadata({COUNTS: json.dumps(counts, sort_keys=True).encode()})
    _write(path, table, rows)


def _write(path: Path, table: pa.Table, rows: int | None = None) -> None:
    sink = pa.BufferOutputStream()  # the disk is written by files, which says when it is full
    parquet.write_table(table, sink, compression="zstd", row_group_size=rows)
    files.write_bytes(path, memoryview(sink.getvalue()))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy whole or not at all."""
    files.write_streamed(path, lambda stream: np.save(stream, array, allow_pickle=False))


def write_documents(path: Path, part: Part, counts: Mapping[str, Any]) -> None:
    """Write documents as a part."""
    columns = {
        "id": pa.array(part.ids, pa.string()),
        "source": pa.array(part.sources, pa.string()),
        "text": pa.array(part.texts, pa.large_string()),
        **part.more,
    }
    write(path, columns, counts)


def read(path: Path, columns: Sequence[str] = ()) -> pa.Table:
    """A part's table, or some columns of it; a damaged file is named."""
    with _named(path):
        table = parquet.read_table(path, columns=list(columns) or None)
    check_whole(path, table.schema)
    return table


def _schema(path: Path) -> pa.Schema:
    with _named(path):
        return parquet.read_schema(path)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A file that cannot be read is named."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read ({str(error)[:100]}): delete it and give the same command") from error


def check_whole(path: Path, schema: pa.Schema) -> None:
    """Refuse a part whose documents are gone.

    Raises:
        StoreError: which only a task meets that somebody else has done in the meantime.
    """
    if EMPTIED in (schema.metadata or {}):
        raise StoreError(f"{path} was emptied, since all that reads it was done: give the same command again")


def empty(path: Path) -> None:
    """Take the documents out of a part, and leave what was counted; of an array nothing."""
    if path.suffix == ".npy":
        if path.stat().st_size:
            files.write_bytes(path, b"")
    elif EMPTIED not in (schema := _schema(path)).metadata:
        _write(path, schema.with_metadata({**schema.metadata, EMPTIED: b""}).empty_table())


def documents(path: Path) -> Part:
    """The documents of a part."""
    table = read(path)
    names = ("id", "source", "text")
    ids, sources, texts = (table.column(name).to_pylist() for name in names)
    more = {name: table.column(name).to_pylist() for name in table.column_names if name not in names}
    return Part(ids=ids, sources=sources, texts=texts, more=more)


def counts(path: Path) -> dict[str, Any]:
    """What was counted when a part was written."""
    found: dict[str, Any] = json.loads(_schema(path).metadata[COUNTS])
    return found


def place(source: str, name: str) -> int:
    """Where a document stands in a corpus: 63 bits of the hash of its source and name, so that none stands by path."""
    digest = hashlib.blake2b(f"{source}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def content_name(text: str) -> str:
    """The name of a document that has none: a hash of its text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
