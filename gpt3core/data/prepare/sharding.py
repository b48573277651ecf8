"""What is left becomes token shards, a source at a time, each document on the side that its text's hash says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt3core.data import writing
from gpt3core.data.document import TRAIN, VALIDATION
from gpt3core.data.prepare import cleaning, parts, task
from gpt3core.store import files

FACTS = "facts.json"


def threshold(counts: Sequence[dict[str, dict[str, float]]], source: str, fraction: float) -> float:
    """Documents whose draw is at most this are held out: the share that was asked for, and never none or all.

    Args:
        counts: of each part's documents that are left.

    Raises:
        ValueError: when there are not two documents of different text.
    """
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
    return least if most <= fraction else max(least, fraction)


def shard(out: Path, *, source: str, cleaned: Sequence[Path], held_out: float, tokenizer: str) -> None:
    """Write the shards of a source, and what there is to say of them."""
    with task.folder(out) as begun:
        made = writing.write(_documents(cleaned, source, held_out), begun, source=source, tokenizer=tokenizer)
        files.write_json(begun / FACTS, vars(made))


def _documents(cleaned: Sequence[Path], source: str, held_out: float) -> Iterator[tuple[str, str, str]]:
    for folder in cleaned:
        path = folder / cleaning.DOCUMENTS
        if source not in parts.counts(path):
            continue
        found = parts.documents(path)
        for text, of, draw in zip(found.texts, found.sources, found.more["draw"], strict=True):
            if of == source:
                yield (VALIDATION if draw <= held_out else TRAIN), source, text
