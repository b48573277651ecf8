"""What is left of the parts: without copies and evaluation text; and for every document what became of it, and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpt3core.data import decontaminate
from gpt3core.data.prepare import copying, parts, task
from gpt3core.data.sources import examples
from gpt3core.store import files

DOCUMENTS = "documents.parquet"  # what is left, with ``draw`` (the hash of its group, from 0 to 1) and ``bytes``
DECISIONS = "decisions.parquet"  # a row a document: id, source, bytes, kept, rule, score, detail
COUNTS = "counts.npy"
DIRTY = "dirty.json"
QUALITY, COPY, CUT = "quality", "copy", "contaminated"  # rules by which a document is dropped


def grams(out: Path, *, sets: Sequence[Path], rules: decontaminate.Rules) -> None:
    """Write the grams of evaluation sets."""
    held = decontaminate.evaluation_grams({examples.name(path): examples.texts(path) for path in sets}, rules=rules)
    held.save(out)


def count(out: Path, *, part: Path, scored: Path | None, copies: Path | None, held: Path) -> None:
    """Write how many of the documents of a part that stay have each gram."""
    found = parts.documents(part)
    left = [n for n, rule in enumerate(_dropped(found, scored, copies)[0]) if not rule]
    counted = decontaminate.count([found.texts[n] for n in left], decontaminate.Grams.load(held))
    parts.write_array(out, counted)


def total(out: Path, *, counted: Sequence[Path], held: Path) -> None:
    """Add the counts of all parts, before the cut or after it, and tell the dirty examples of each evaluation set."""
    known = decontaminate.Grams.load(held)
    counts = np.zeros(len(known.table), np.uint32)
    for path in counted:
        counts += np.load(path, allow_pickle=False)
    dirty = decontaminate.dirty(known, counts)
    with task.folder(out) as begun:
        parts.write_array(begun / COUNTS, counts)
        about = {
            s.name: {"n": s.n, "examples": len(dirty[s.name]), "dirty": np.flatnonzero(dirty[s.name]).tolist()}
            for s in known.sets
        }
        files.write_json(begun / DIRTY, about)


def clean(
    out: Path, *, part: Path, scored: Path | None, copies: Path | None, held: Path | None, counts: Path | None
) -> None:
    """Write what is left of a part, and its decisions."""
    found = parts.documents(part)
    rules, details = _dropped(found, scored, copies)
    pieces: dict[int, tuple[str, ...]] = {n: (found.texts[n],) for n, rule in enumerate(rules) if not rule}
    if held is not None and counts is not None:
        left = list(pieces)
        known, counted = decontaminate.Grams.load(held), np.load(counts / COUNTS, allow_pickle=False)
        cut = decontaminate.clean([found.texts[n] for n in left], known, counted)
        for n, cleaned in zip(left, cut, strict=True):
            pieces[n] = cleaned.pieces
            if cleaned.rule:
                rules[n] = CUT
            details[n] = cleaned.rule or (f"{cleaned.collisions} collisions cut out" if cleaned.collisions else "")
    score = None if scored is None else parts.read(scored, ["score"]).column("score")
    decided = {
        "id": found.ids,
        "source": found.sources,
        "bytes": pa.array([len(text.encode()) for text in found.texts], pa.int64()),
        "kept": [not rule for rule in rules],
        "rule": rules,
        "score": pa.nulls(len(found), pa.float32()) if score is None else score,
        "detail": details,
    }
    left_over, counted_left = _left(found, pieces, _alike(found, scored, copies))
    with task.folder(out) as begun:
        parts.write_documents(begun / DOCUMENTS, left_over, counted_left)
        parts.write(begun / DECISIONS, decided, {"rules": _by_source(found.sources, rules)})


def _dropped(found: parts.Part, scored: Path | None, copies: Path | None) -> tuple[list[str], list[str]]:
    """Of each document the rule that drops it and the details; empty where it stays."""
    rules, details = [QUALITY] * len(found), [""] * len(found)
    staying = copying.staying(found, scored)
    of = [None] * len(staying) if copies is None else parts.read(copies).column("copy_of").to_pylist()
    for n, other in zip(staying, of, strict=True):
        rules[n], details[n] = (COPY, f"of {other}") if other else ("", "")
    return rules, details


def _alike(found: parts.Part, scored: Path | None, copies: Path | None) -> dict[int, str]:
    """Of documents with copies that stay, in other sources, what all of these are named by."""
    table = None if copies is None else parts.read(copies)
    if table is None or "alike" not in table.column_names:
        return {}
    of = zip(copying.staying(found, scored), table.column("alike").to_pylist(), strict=True)
    return {n: name for n, name in of if name is not None}


def _left(
    found: parts.Part, pieces: dict[int, tuple[str, ...]], alike: dict[int, str]
) -> tuple[parts.Part, dict[str, Any]]:
    """The documents that are left, each piece one of its own; and how many each source has."""
    ids, sources, texts, draws = [], [], [], []
    groups = found.more["group"]
    for n, kept in pieces.items():
        for number, text in enumerate(kept):
            ids.append(found.ids[n] if len(kept) == 1 else f"{found.ids[n]}/{number + 1}")
            sources.append(found.sources[n])
            texts.append(text)
            draws.append(draw(alike.get(n) or groups[n] or found.texts[n]))
    more = {"draw": pa.array(draws, pa.float64()), "bytes": pa.array([len(t.encode()) for t in texts], pa.int64())}
    return parts.Part(ids=ids, sources=sources, texts=texts, more=more), dict(Counter(sources))


def draw(text: str) -> float:
    """A number from 0 to 1 that a text has wherever it lies, by which it is held out or not: copies go one way.

    Documents of one group, and those that are nearly the same and all stay, are drawn together, by a name that they
    share in place of a text.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"side").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def _by_source(sources: Sequence[str], rules: Sequence[str]) -> dict[str, dict[str, int]]:
    counted = Counter(zip(sources, rules, strict=True))
    return {name: {rule or "kept": n for (s, rule), n in counted.items() if s == name} for name in set(sources)}
