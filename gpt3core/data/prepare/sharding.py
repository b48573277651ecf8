"""What is left becomes token shards, each document on the side that its text's hash says.

Parts are tokenized by themselves, so that a large source is not one worker's; then each source's shards are put
together from its parts in their order, which is copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt3core.data import decontaminate, writing
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.document import TRAIN, VALIDATION
from gpt3core.data.prepare import cleaning, parts, task
from gpt3core.store import files

FACTS = "facts.json"
COUNTS = "counts.json"


@dataclass(frozen=True, kw_only=True)
class Sides:
    """On which side a text is, by its draw alone, so that copies are on one side in whatever sources they lie."""

    fraction: float  # draws up to it are held out
    other: tuple[float, ...]  # draws that go to the other side than that says

    def validation(self, draw: float) -> bool:
        """Whether a text is held out."""
        return (draw <= self.fraction) != (draw in self.other)


def sides(counts: Sequence[dict[str, dict[str, float]]], sources: Sequence[str], fraction: float) -> Sides:
    """The share of texts that was asked for is held out, and of no source none or all.

    Of a source with none below ``fraction`` the one of least draw goes to the other side, with its copies in other
    sources; of one with all below it, the one of greatest.

    Args:
        counts: of each part's documents that are left.

    Raises:
        ValueError: when a source has not two documents of different text.
    """
    other = set()
    for source in sources:
        least, most = _bounds(counts, source)
        other |= {least} if least > fraction else {most} if most <= fraction else set()
    return Sides(fraction=fraction, other=tuple(sorted(other)))


def _bounds(counts: Sequence[dict[str, dict[str, float]]], source: str) -> tuple[float, float]:
    """The least and the greatest draw of a source."""
    of = [part[source] for part in counts if source in part]
    if not of:
        raise ValueError(
            f"nothing of sources.{source} is left: loosen quality, dedup or decontaminate for it, or leave it out"
        )
    least, most = min(part["least"] for part in of), max(part["most"] for part in of)
    if least == most:
        raise ValueError(
            f"of sources.{source} one document is left, which cannot be split into training and validation text: give "
            "more text, or loosen the rules that drop it"
        )
    return least, most


def count(out: Path, *, cleaned: Path, held: Path, split: Sides) -> None:
    """Write how many of the training documents of what is left of a part have each gram of evaluation sets."""
    found = parts.documents(cleaned / cleaning.DOCUMENTS)
    trained = [text for text, draw in zip(found.texts, found.more["draw"], strict=True) if not split.validation(draw)]
    parts.write_array(out, decontaminate.count(trained, decontaminate.Grams.load(held)))


def tokenize(out: Path, *, cleaned: Path, split: Sides, tokenizer: str) -> None:
    """Write the tokens of the documents of a part, a file a source and side."""
    found = parts.documents(cleaned / cleaning.DOCUMENTS)
    encode = tokenizers.encoder(tokenizer)
    pieces: dict[tuple[str, str], list[str]] = {}
    for source, text, draw in zip(found.sources, found.texts, found.more["draw"], strict=True):
        pieces.setdefault((source, VALIDATION if split.validation(draw) else TRAIN), []).append(text)
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
