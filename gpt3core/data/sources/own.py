"""A user's own text as training takes it directly: every byte is read, or named in the refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt3core.data.sources import formats, walk
from gpt3core.data.sources.record import Bad, Reading

STRICT = Reading(most_bytes=None)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text as it lies in a file: a document, or a long text that is still to be cut into passages."""

    content: str
    domain: str  # the file's name without its ending; evaluation names held-out text by it
    long: bool


def texts(corpus: str) -> list[Text]:
    """All texts of a file or folder, without those that are empty.

    Raises:
        ValueError: when there are none, or something cannot be read: what, where, and what to do.
    """
    found = [text for path in text_files(corpus) for text in _texts(path)]
    if not found:
        raise ValueError(f"corpus={corpus!r} is empty: there is no text in it; give files with text ({walk.ALLOWED})")
    return found


def text_files(corpus: str) -> list[Path]:
    """The files of a corpus in a folder and below it, but for hidden ones; raises as ``walk.files``."""
    return walk.files(corpus, f"corpus={corpus!r}", "give starter, or the path of a file or folder")


def _texts(path: Path) -> Iterator[Text]:
    ending = formats.ending(path)
    bad: Bad | None = None
    for found in formats.records(path, STRICT):
        if isinstance(found, Bad):
            bad = found if bad is None or found.kind == "damaged" else bad  # what lies before damage is torn by it
        elif bad is None:
            yield Text(content=found.text, domain=path.name[: -len(ending)], long=ending.startswith(".txt"))
    if bad is not None:
        raise ValueError(f"{path} {bad.said}")
