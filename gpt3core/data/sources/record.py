"""What a file gives, one after another: a document, or the place and the reason where there is none."""

from __future__ import annotations

from dataclasses import dataclass

EXCERPT_BYTES = 200  # that are kept of what cannot be read


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source's files are read.

    ``encoding`` is a rule: ``reject`` calls bytes that are not UTF-8 bad; ``repair`` takes UTF-16 and UTF-32 by their
    byte-order mark, a line or file that is not UTF-8 as Windows-1252 (Latin-1's superset, as browsers do), half a
    surrogate pair as U+FFFD, and drops zero bytes.
    """

    text: str = "text"  # the field or column of the text
    id: str | None = None  # of the document's name; None derives it from the content
    encoding: str = "reject"
    stretch: int | None = None  # characters of plain text that are held out as a whole; None for those of a file
    most_bytes: int = 64_000_000  # of a document: a longer line is bad, a longer plain text is cut at a line's end

    @property
    def repairs(self) -> bool:
        """Whether text of another encoding is taken by rule."""
        return self.encoding == "repair"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A document as its file gives it."""

    text: str
    id: str | None = None
    repaired: bool = False
    group: str | None = None  # documents of one are on one side of the split; None for one of its own


@dataclass(frozen=True, kw_only=True)
class Bad:
    """Something that is no document: ``said`` is the rest of a sentence that begins with the file's name."""

    kind: str  # encoding | json | text | id | length | damaged
    said: str
    excerpt: bytes = b""  # its beginning


class DamagedError(Exception):
    """A file cannot be read on from here; the message is the rest of a sentence that begins with its name."""
