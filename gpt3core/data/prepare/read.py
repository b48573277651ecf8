"""First and second stage: units are read into chunks, and these gathered into parts in an order that no path decides.

A document stands at the hash of its source and name. Chunks are sorted by that, so that a part finds its stretch of
each by the bounds that Parquet keeps of row groups. Where the parts begin changes nothing that comes after them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from gpt3core.data.prepare import parts, task
from gpt3core.data.prepare.units import Unit
from gpt3core.data.sources.record import Bad, Record
from gpt3core.store import files

GROUP_BYTES = 256 << 10  # of text in a row group of a chunk
KEPT_BAD = 1000  # of a unit and a kind, with their excerpts; all are counted
PLACES = 1 << 63
COUNTS = "counts.json"
BAD = "bad.jsonl"


# -------------------------------------------------------------------------------------------------------- units, read


def read(out: Path, *, unit: Unit) -> None:
    """Read a unit into a folder of chunks, with what was bad and the counts beside."""
    counted: Counter[str] = Counter()
    bad: list[dict[str, str]] = []
    with task.folder(out) as begun:
        for number, chunk in enumerate(_chunks(unit, counted, bad)):
            _write_chunk(begun / f"chunk-{number:05d}.parquet", unit.source, chunk)
        files.write_bytes(begun / BAD, "".join(json.dumps(line) + "\n" for line in bad).encode())
        files.write_json(begun / COUNTS, {"source": unit.source, **counted})


def _chunks(unit: Unit, counted: Counter[str], bad: list[dict[str, str]]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    held = 0
    for found in unit.records():
        if isinstance(found, Bad):
            counted[f"bad.{found.kind}"] += 1
            if counted[f"bad.{found.kind}"] <= KEPT_BAD:
                excerpt = found.excerpt.decode(errors="backslashreplace")
                said = f"{unit.name.splitlines()[0]} {found.said}"
                bad.append({"source": unit.source, "kind": found.kind, "said": said, "excerpt": excerpt})
            continue
        chunk.append(found)
        size = len(found.text.encode())
        counted.update(documents=1, bytes=size, repaired=found.repaired)
        held += size
        if held >= parts.PART_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _write_chunk(path: Path, source: str, chunk: Sequence[Record]) -> None:
    ids = [parts.content_name(record.text) if record.id is None else record.id for record in chunk]
    places = [parts.place(source, name) for name in ids]
    order = sorted(range(len(chunk)), key=places.__getitem__)
    columns = {
        "place": pa.array([places[i] for i in order], pa.int64()),
        "id": pa.array([ids[i] for i in order], pa.string()),
        "text": pa.array([chunk[i].text for i in order], pa.large_string()),
    }
    rows = max(1, len(chunk) * GROUP_BYTES // max(1, columns["text"].nbytes))
    parts.write(path, columns, {"source": source}, rows=rows)


# ----------------------------------------------------------------------------------------------------- chunks, gathered


def number_of_parts(size: int) -> int:
    """Parts of a corpus of so many bytes of text."""
    return max(1, -(-size // parts.PART_BYTES))


def gather(out: Path, *, folders: Sequence[Path], number: int, of: int) -> None:
    """Write part ``number`` of a corpus: the documents of all chunks whose places lie in its stretch, in order."""
    first, last = PLACES * number // of, PLACES * (number + 1) // of - 1
    tables = [
        _stretch(path, first, last) for folder in sorted(folders) for path in sorted(folder.glob("chunk-*.parquet"))
    ]
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("place", "source", "id", "text")])
    ids, sources = table.column("id").to_pylist(), table.column("source").to_pylist()
    again = _number_copies(ids, sources)
    texts = table.column("text").combine_chunks()
    sizes = pc.binary_length(texts).to_pylist()
    counts: dict[str, Any] = {"documents": dict(Counter(sources)), "bytes": Counter(), "same_name": again}
    for source, size in zip(sources, sizes, strict=True):
        counts["bytes"][source] += size
    columns = {"id": pa.array(ids, pa.string()), "source": pa.array(sources, pa.string()), "text": texts}
    parts.write(out, columns, counts)


def _stretch(path: Path, first: int, last: int) -> pa.Table:
    """The rows of a chunk whose places lie from ``first`` to ``last``."""
    with parquet.ParquetFile(path) as file:
        source = json.loads(file.schema_arrow.metadata[parts.COUNTS])["source"]
        bounds = [file.metadata.row_group(n).column(0).statistics for n in range(file.num_row_groups)]
        groups = [n for n, b in enumerate(bounds) if b.max >= first and b.min <= last]
        table = file.read_row_groups(groups)
    place = table.column("place")
    table = table.filter(pc.and_(pc.greater_equal(place, first), pc.less_equal(place, last)))
    return table.append_column("source", pa.repeat(source, len(table))).replace_schema_metadata(None)


def _number_copies(ids: list[str], sources: list[str]) -> dict[str, int]:
    """Give the second and later documents of one name ``~2``, ``~3``, ... and tell how many a source has."""
    again: Counter[str] = Counter()
    previous, copies = ("", ""), 1
    for n, name in enumerate(zip(sources, ids, strict=True)):
        copies = copies + 1 if name == previous else 1
        previous = name
        if copies > 1:
            ids[n] = f"{name[1]}~{copies}"
            again[name[0]] += 1
    return dict(again)
