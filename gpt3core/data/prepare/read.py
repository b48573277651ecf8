"""First and second stage: units are read into chunks, and these gathered into parts in an order that no path decides.

A document stands at the hash of its source and name. Chunks are sorted by that, so that a part finds its stretch of
each by the bounds that Parquet keeps of row groups. Where the parts begin changes nothing that comes after them.

A part of a large corpus would have a few documents in each of very many chunks. So where there are more than FAN, as
many at a time are merged before, into a run: files that have equal stretches of the places, in order; and runs again,
until a part reads from no more than FAN of them. The cost of a document grows with the logarithm of the corpus alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
FAN = 64  # runs that a part is gathered from, at most
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
        "group": pa.array([chunk[i].group for i in order], pa.string()),
    }
    table = pa.table(columns)
    parts.write(path, columns, {"source": source}, rows=_group_rows(table))


def _group_rows(table: pa.Table) -> int:
    return max(1, len(table) * GROUP_BYTES // max(1, int(table.column("text").nbytes)))


# ----------------------------------------------------------------------------------------------------- chunks, gathered


def number_of_parts(size: int) -> int:
    """Parts of a corpus of so many bytes of text."""
    return max(1, -(-size // parts.PART_BYTES))


@dataclass(frozen=True, kw_only=True)
class Run:
    """Files that have equal stretches of the places, in order, each sorted; a chunk is one that has all of them."""

    files: tuple[Path, ...]
    bytes: int  # of text, about

    def within(self, number: int, of: int) -> tuple[Path, ...]:
        """The files with places of stretch ``number`` of so many equal ones."""
        n = len(self.files)
        return self.files[number * n // of : -(-(number + 1) * n // of)]


def chunks(folders: Sequence[Path]) -> list[Run]:
    """The chunks of units that were read, a run each."""
    found = []
    for folder in sorted(folders):
        size = int(files.read_object(folder / COUNTS).get("bytes", 0))
        paths = sorted(folder.glob("chunk-*.parquet"))
        found += [Run(files=(path,), bytes=size // len(paths)) for path in paths]
    return found


def groups(runs: Sequence[Run]) -> list[Sequence[Run]]:
    """The runs that are merged with one another."""
    return [runs[first : first + FAN] for first in range(0, len(runs), FAN)]


def stretches(runs: Sequence[Run], of: int) -> list[dict[str, Any]]:
    """What a task is given for each of so many equal stretches of runs."""
    return [
        {"sorted_files": [path for run in runs for path in run.within(number, of)], "number": number, "of": of}
        for number in range(of)
    ]


def merge(out: Path, *, sorted_files: Sequence[Path], number: int, of: int) -> None:
    """Write file ``number`` of a run: what files of other runs have in its stretch of the places."""
    table = _merged(sorted_files, number, of)
    columns = {name: table.column(name) for name in table.column_names}
    parts.write(out, columns, {}, rows=_group_rows(table))


def gather(out: Path, *, sorted_files: Sequence[Path], number: int, of: int) -> None:
    """Write part ``number`` of a corpus: the documents of all runs whose places lie in its stretch, in order."""
    table = _merged(sorted_files, number, of)
    ids, sources = table.column("id").to_pylist(), table.column("source").to_pylist()
    again = _number_copies(ids, sources)
    texts = table.column("text").combine_chunks()
    sizes = pc.binary_length(texts).to_pylist()
    counts: dict[str, Any] = {"documents": dict(Counter(sources)), "bytes": Counter(), "same_name": again}
    for source, size in zip(sources, sizes, strict=True):
        counts["bytes"][source] += size
    columns = {"id": pa.array(ids, pa.string()), "source": pa.array(sources, pa.string()), "text": texts}
    parts.write(out, {**columns, "group": table.column("group")}, counts)


def _merged(sorted_files: Sequence[Path], number: int, of: int) -> pa.Table:
    """The documents of a stretch of the places, in order: place, id, text, group, source."""
    first, last = PLACES * number // of, PLACES * (number + 1) // of - 1
    table = pa.concat_tables([_stretch(path, first, last) for path in sorted_files])
    return table.sort_by([(name, "ascending") for name in ("place", "source", "id", "text", "group")])


def _stretch(path: Path, first: int, last: int) -> pa.Table:
    """The rows of a file whose places lie from ``first`` to ``last``."""
    with parquet.ParquetFile(path) as file:
        parts.check_whole(path, file.schema_arrow)
        about: Mapping[str, str] = json.loads(file.schema_arrow.metadata[parts.COUNTS])
        all_groups = ((n, file.metadata.row_group(n)) for n in range(file.num_row_groups))
        bounds = [(n, group.column(0).statistics) for n, group in all_groups if group.num_rows]  # none of no row
        groups = [n for n, b in bounds if b.max >= first and b.min <= last]
        table = file.read_row_groups(groups)
    place = table.column("place")
    table = table.filter(pc.and_(pc.greater_equal(place, first), pc.less_equal(place, last)))
    if "source" in about:  # a chunk is of one
        table = table.append_column("source", pa.repeat(about["source"], len(table)))
    return table.replace_schema_metadata(None)


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
