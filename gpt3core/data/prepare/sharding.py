"""What is left becomes token shards, each document on the side that the hash of its group says.

Parts are tokenized by themselves, so that a large source is not one worker's; then each source's shards are put
together from its parts in their order, which is copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpt3core.data import decontaminate, split, writing
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.prepare import cleaning, parts, task
from gpt3core.data.split import TRAIN, VALIDATION
from gpt3core.store import files

FACTS = "facts.json"
COUNTS = "counts.json"


class OnePieceError(ValueError):
    """What is left of a source cannot be split."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Which texts of a source are held out: those of the least draws, but for a few."""

    upto: float  # draws up to it are held out
    other: frozenset[float]  # draws that are on the other side than that says

    def validation(self, draw: float) -> bool:
        """Whether a text is held out."""
        return (draw <= self.upto) != (draw in self.other)


def sides(out: Path, *, cleaned: Sequence[Path], sources: Sequence[str], fraction: float) -> None:
    """Write which texts are held out: of each source the share that was asked for, as near as whole groups meet it.

    What several sources have, the smallest of them decides.

    Args:
        cleaned: what is left of each part.

    Raises:
        ValueError: when a source has nothing left.
        OnePieceError: when it has not two documents of different groups.
    """
    tables = [parts.read(folder / cleaning.DOCUMENTS, ["source", "draw", "bytes"]) for folder in cleaned]
    whole = pa.concat_tables(tables)
    each = {source: _groups(source, whole.filter(pc.equal(whole.column("source"), source))) for source in sources}
    found: dict[str, dict[str, Any]] = {}
    known, known_held = np.empty(0), np.empty(0, bool)
    for source in sorted(sources, key=lambda source: (each[source][1].sum(), source)):
        groups, sizes = each[source]
        _, mine, theirs = np.intersect1d(groups, known, return_indices=True)
        decided = dict(zip(mine.tolist(), known_held[theirs].tolist(), strict=True))
        held = np.zeros(len(groups), bool)
        held[list(split.held_out(sizes.tolist(), fraction, decided))] = True
        upto = float(groups[held.sum() - 1]) if held.any() else -1.0
        found[source] = {"upto": upto, "other": groups[(groups <= upto) != held].tolist()}
        known, first = np.unique(np.concatenate([known, groups]), return_index=True)
        known_held = np.concatenate([known_held, held])[first]
    files.write_json(out, found)


def _sides(path: Path) -> dict[str, Sides]:
    """What ``sides`` wrote."""
    found = files.read_object(path)
    return {source: Sides(upto=own["upto"], other=frozenset(own["other"])) for source, own in found.items()}


def _groups(source: str, documents: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The draws of a source's groups in order, and the bytes of each group."""
    if not len(documents):
        raise ValueError(
            f"nothing of sources.{source} is left: loosen quality, dedup or decontaminate for it, or leave it out"
        )
    groups, member = np.unique(documents.column("draw").to_numpy(), return_inverse=True)
    if len(groups) < 2:
        raise OnePieceError(
            f"of sources.{source} one document is left, which cannot be split into training and validation text: give "
            f"more text, loosen the rules that drop it, or cut plain text by sources.{source}.stretch"
        )
    sizes = np.zeros(len(groups), np.int64)
    np.add.at(sizes, member, documents.column("bytes").to_numpy())
    return groups, sizes


def count(out: Path, *, cleaned: Path, held: Path, held_out: Path) -> None:
    """Write how many of the training documents of what is left of a part have each gram of evaluation sets."""
    found = parts.documents(cleaned / cleaning.DOCUMENTS)
    of = _sides(held_out)
    each = zip(found.sources, found.texts, found.more["draw"], strict=True)
    trained = [text for source, text, draw in each if not of[source].validation(draw)]
    parts.write_array(out, decontaminate.count(trained, decontaminate.Grams.load(held)))


def tokenize(out: Path, *, cleaned: Path, held_out: Path, tokenizer: str) -> None:
    """Write the tokens of the documents of a part, a file a source and side."""
    found = parts.documents(cleaned / cleaning.DOCUMENTS)
    encode, of = tokenizers.encoder(tokenizer), _sides(held_out)
    pieces: dict[tuple[str, str], list[str]] = {}
    for source, text, draw in zip(found.sources, found.texts, found.more["draw"], strict=True):
        pieces.setdefault((source, VALIDATION if of[source].validation(draw) else TRAIN), []).append(text)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    with task.folder(out) as begun:
        for (source, side), texts in pieces.items():
            parts.write_array(begun / _tokens(source, side), encode(texts).astype(writing.TOKEN))
            counted = {"documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}
            counts.setdefault(source, {})[side] = counted
        files.write_json(begun / COUNTS, counts)


def _tokens(source: str, side: str) -> str:
    return f"{source}.{side}.npy"


def shard(out: Path, *, source: str, tokenized: Sequence[Path], tokenizer: str) -> None:
    """Write the shards of a source from the tokens of parts, in order, and what there is to say of them.

    Raises:
        ValueError: when all of it is on one side, where its few documents have copies in other small sources.
    """
    with task.folder(out) as begun:
        made = writing.join(_pieces(tokenized, source), begun, source=source, tokenizer=tokenizer)
        if lacking := [side for side in (TRAIN, VALIDATION) if not made.documents[side]]:
            raise ValueError(
                f"sources.{source} has no {lacking[0]} text: its documents are few, and lie in other sources too, "
                "where they are needed on the other side: give more text, let dedup drop copies across sources, or "
                "leave it out"
            )
        files.write_json(begun / FACTS, vars(made))


def _pieces(tokenized: Sequence[Path], source: str) -> Iterator[writing.Piece]:
    for folder in tokenized:
        for side, counts in files.read_object(folder / COUNTS)[source].items():
            tokens = np.load(folder / _tokens(source, side), allow_pickle=False)
            yield writing.Piece(side=side, domain=source, tokens=tokens, **counts)
