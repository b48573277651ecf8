"""A user's own text as training takes it directly: every byte is read, or named in the refusal."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt3core.data import split
from gpt3core.data.sources import formats, walk
from gpt3core.data.sources.record import Bad, Reading

SOURCE = "text"  # its name in the mixture
STRICT = Reading()


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text as it lies in a file: a document, or a long text that is still to be cut into passages."""

    content: str
    domain: str  # the file's name without its ending; evaluation names held-out text by it
    long: bool

    def documents(self, stretch: int | None) -> Iterator[str]:
        """What it is cut into, given the length of the stretches of long texts."""
        if stretch is None or not self.long:
            yield self.content
            return
        for _, passage in split.passages(self.content, stretch):
            yield passage


@dataclass(frozen=True, kw_only=True)
class About:
    """What a text is, wherever its files lie."""

    sha256: str  # of its content
    chars: int  # of its texts, equal ones counted once
    bytes: int  # of the same
    long: bool  # whether any is to be cut

    def stretch(self, fraction: float) -> int | None:
        """The characters of a long text that are held out as a whole, where a fraction is; None where there is none."""
        return split.group_chars(self.chars, fraction) if self.long else None


def texts(corpus: str) -> Iterator[Text]:
    """All texts of a file or folder, without those that are empty.

    Raises:
        ValueError: when there are none, or something cannot be read: what, where, and what to do.
    """
    empty = True
    for path in text_files(corpus):
        for text in _texts(path):
            empty = False
            yield text
    if empty:
        raise ValueError(f"corpus={corpus!r} is empty: there is no text in it; give files with text ({walk.ALLOWED})")


def about(corpus: str) -> About:
    """What a text is; raises as ``texts``."""
    sizes: dict[str, tuple[int, int]] = {}
    long = False
    for text in texts(corpus):
        encoded = text.content.encode()
        name = f"{'long' if text.long else 'document'}:{hashlib.sha256(encoded).hexdigest()}"
        sizes[name] = len(text.content), len(encoded)
        long |= text.long
    sha256 = hashlib.sha256("\n".join(sorted(sizes)).encode()).hexdigest()
    chars, size = (sum(each) for each in zip(*sizes.values(), strict=True))
    return About(sha256=sha256, chars=chars, bytes=size, long=long)


def domains(corpus: str, stretch: int | None, documents: Collection[str]) -> dict[str, str]:
    """The domain of each of some documents, given what long texts were cut into; raises as ``texts``."""
    found: dict[str, str] = {}
    for text in texts(corpus):
        for document in text.documents(stretch):
            if document in documents:
                found[document] = min(text.domain, found.get(document, text.domain))  # files may come in any order
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
            yield Text(content=found.text, domain=path.name[: -len(ending)], long=formats.is_plain(path))
    if bad is not None:
        raise ValueError(f"{path} {bad.said}")
