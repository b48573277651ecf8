"""Near-duplicates over parts: signatures of each, then one look at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from gpt3core.data import dedup
from gpt3core.data.prepare import parts, task
from gpt3core.data.words import Places

SETTINGS = {"fuzzy": dedup.MODERN, "gpt3": dedup.GPT3}


def staying(part: parts.Part, scored: Path | None) -> list[int]:
    """The rows of a part that the quality filter leaves."""
    if scored is None:
        return list(range(len(part)))
    return np.flatnonzero(parts.read(scored, ["stays"]).column("stays").to_numpy()).tolist()


def sign(out: Path, *, part: Path, scored: Path | None, rule: str) -> None:
    """Write the signatures of the documents of a part that stay."""
    found = parts.documents(part)
    signatures = dedup.signatures([found.texts[n] for n in staying(found, scored)], SETTINGS[rule])
    parts.write_array(out, signatures)


def compare(
    out: Path,
    *,
    tables: Sequence[Path],
    scored: Sequence[Path | None],
    signatures: Sequence[Path],
    rule: str,
    order: Sequence[str],
    across: bool,
) -> None:
    """Write for each part, of each document that stays, the name of the copy that is kept in its place, if one is.

    Where only copies within a source are dropped, also the name that a document shares with all that must be on its
    side: its copies in other sources, and documents of one group with it or with any of them.
    """
    ids: list[str] = []
    sources: list[str] = []
    groups: list[str | None] = []
    sizes = []
    for path, judged in zip(tables, scored, strict=True):
        table = parts.read(path, ["id", "source", "group"])
        if judged is not None:
            table = table.filter(parts.read(judged, ["stays"]).column("stays"))
        ids += table.column("id").to_pylist()
        sources += table.column("source").to_pylist()
        groups += table.column("group").to_pylist()
        sizes.append(len(table))
    found = _stacked(signatures, sizes)
    kept = dedup.copies(ids, sources, found, SETTINGS[rule], order=order, across=across)
    names = [f"{source}/{name}" for source, name in zip(sources, ids, strict=True)]
    columns = {"copy_of": [None if k == n else names[k] for n, k in enumerate(kept.tolist())]}
    if not across:
        alike = together(dedup.copies(ids, sources, found, SETTINGS[rule], order=order), groups)
        several = np.bincount(alike, minlength=len(alike)) > 1
        columns["alike"] = [names[k] if several[k] else None for k in alike.tolist()]
    with task.folder(out) as begun:
        first = 0
        for number, size in enumerate(sizes):
            own = {name: pa.array(of[first : first + size], pa.string()) for name, of in columns.items()}
            parts.write(begun / part_name(number), own, {})
            first += size


def together(alike: Places, groups: Sequence[str | None]) -> Places:
    """Of each document the first of those that it is bound to, by the copy of it that is named or by its group.

    Args:
        alike: of each document the number of a copy of it, or its own.
    """
    documents = np.arange(len(alike))
    first: dict[str, int] = {}
    grouped = [n if group is None else first.setdefault(group, n) for n, group in enumerate(groups)]
    ends = np.concatenate([alike, np.array(grouped, np.int64)])
    graph = sparse.coo_array((np.ones(len(ends), bool), (np.tile(documents, 2), ends)), shape=(len(alike),) * 2)
    _, component = csgraph.connected_components(graph, directed=False)
    _, least = np.unique(component, return_index=True)
    found: Places = least[component]
    return found


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05d}.parquet"


def _stacked(paths: Sequence[Path], sizes: Sequence[int]) -> np.ndarray:
    """All signatures in one array."""
    first = np.load(paths[0], allow_pickle=False, mmap_mode="r")
    found = np.empty((sum(sizes), first.shape[1]), first.dtype)
    begin = 0
    for path, size in zip(paths, sizes, strict=True):
        found[begin : begin + size] = np.load(path, allow_pickle=False, mmap_mode="r")
        begin += size
    return found
