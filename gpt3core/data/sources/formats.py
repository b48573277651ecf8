"""The documents of one file by its format: JSONL, plain text, Parquet, WARC and WET."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core.data.sources import streams
from gpt3core.data.sources.record import EXCERPT_BYTES, Bad, DamagedError, Reading, Record

Found = Iterator[Record | Bad]
PACKED = ("", *streams.COMPRESSIONS)
FORMATS = (
    *(f"{kind}{packed}" for kind in (".txt", ".jsonl", ".warc", ".warc.wet") for packed in PACKED),
    ".parquet",
)
JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a file of JSONL that one process reads, in bytes; ``end`` None for all of it.

    A line belongs to the span that it begins in.
    """

    start: int = 0
    end: int | None = None


WHOLE = Span()


def ending(path: Path) -> str:
    """The longest ending that is a known format, in lower case; empty for none."""
    return max((f for f in FORMATS if path.name.lower().endswith(f)), key=len, default="")


def is_plain(path: Path) -> bool:
    """Whether a file is one text, as against documents in a format."""
    return ending(path).startswith(".txt")


def records(path: Path, how: Reading, span: Span = WHOLE) -> Found:
    """What a file gives, in its order, without empty texts.

    Raises:
        ValueError: when it cannot be opened, or lacks the column of the text.
    """
    known = ending(path)
    try:
        if known == ".parquet":
            yield from _parquet(path, how)
        elif ".warc" in known:
            from gpt3core.data.sources import warc  # an optional library

            yield from warc.records(path, how)
        elif is_plain(path):
            yield from _text(streams.blocks(path), how)
        else:
            yield from _jsonl(path, how, span)
    except DamagedError as error:
        yield Bad(kind="damaged", said=str(error))


# ------------------------------------------------------------------------------------------------------ lines of JSON


def _jsonl(path: Path, how: Reading, span: Span) -> Found:
    content: Iterator[bytes] = streams.blocks(path, max(0, span.start - 1))
    encoding = ""
    if (
        span.start
    ):  # from the first line that begins here: after the end of the one before, which may be the byte before
        content, before = _next_line(content, span)
    else:
        first = next(content, b"")
        mark, encoding = streams.marked(first)
        if encoding and not how.repairs:
            yield _other_encoding()
            return
        before = 0 if encoding else len(mark)
        content = itertools.chain([first[before:]], content)
        content = streams.in_utf8(content, encoding) if encoding else content
    beyond = f" after byte {span.start}" if span.start else ""
    for number, (place, line, whole) in enumerate(streams.lines(content, how.most_bytes), start=1):
        if span.end is not None and before + place >= span.end:
            return
        if not line.strip():
            continue
        where = f"line {number}{beyond}"
        if whole:
            yield from _object(line, where, before + place, how, repaired=bool(encoding))
        else:
            yield _too_long(where, line, how.most_bytes)


def _next_line(content: Iterator[bytes], span: Span) -> tuple[Iterator[bytes], int]:
    """The content from the next line on, and its place in the file; nothing where no line begins in the span."""
    place = span.start - 1
    for block in content:
        at = block.find(b"\n") + 1
        if at:
            return itertools.chain([block[at:]], content), place + at
        place += len(block)
        if span.end is not None and place >= span.end:
            break  # of a line that goes on for gigabytes not all is read again
    return iter(()), place


def _too_long(where: str, line: bytes, most: int) -> Bad:
    meant = "split it, or prepare the text with a higher bad.longest_mb"
    said = f"{where} is longer than {most} bytes, which no document is: {meant}"
    return Bad(kind="length", said=said, excerpt=line[:EXCERPT_BYTES])


def _object(line: bytes, where: str, place: int, how: Reading, *, repaired: bool) -> Found:
    """The document of a line of JSON."""
    excerpt = line[:EXCERPT_BYTES]
    try:
        raw = line.decode("utf-8-sig")  # a mark is there too where files with marks were put together
    except UnicodeDecodeError as error:
        if not how.repairs:
            yield Bad(kind="encoding", said=_not_utf8(error, place), excerpt=excerpt)
            return
        raw, repaired = line.decode("cp1252", errors="replace"), True
    if "\0" in raw and how.repairs:
        raw, repaired = raw.replace("\0", ""), True
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:
        said = (
            f"{where} is not a JSON object with a {how.text} field (no JSON: {error}; a truncated file?): mend that "
            "line"
        )
        yield Bad(kind="json", said=said, excerpt=excerpt)
        return
    if not isinstance(fields, dict) or how.text not in fields:
        shown = f"it has {', '.join(fields) or 'no fields'}" if isinstance(fields, dict) else kind(fields)
        said = f"{where} is not a JSON object with a {how.text} field ({shown:.80}): mend that line"
        yield Bad(kind="text", said=said, excerpt=excerpt)
        return
    yield from checked(fields[how.text], fields.get(how.id) if how.id else None, where, how, repaired)


# --------------------------------------------------------------------------------------------------------- plain text


def _text(content: Iterator[bytes], how: Reading) -> Found:
    """One document; one longer than the limit is cut at ends of lines. Line ends become those of Unix."""
    first = next(content, b"")
    mark, encoding = streams.marked(first)
    if encoding and not how.repairs:
        yield _other_encoding()
        return
    rest = itertools.chain([first if encoding else first[len(mark) :]], content)
    place = 0 if encoding else len(mark)
    for piece in _cut(streams.in_utf8(rest, encoding) if encoding else rest, how.most_bytes):
        yield from _piece(piece, place, how, repaired=bool(encoding))
        place += len(piece)


def _piece(piece: bytes, place: int, how: Reading, *, repaired: bool) -> Found:
    try:
        text = piece.decode()
    except UnicodeDecodeError as error:
        if not how.repairs:
            yield Bad(kind="encoding", said=_not_utf8(error, place), excerpt=piece[:EXCERPT_BYTES])
            return
        text, repaired = piece.decode("cp1252", errors="replace"), True
    if "\0" in text:
        if not how.repairs:
            at = place + len(text[: text.index("\0")].encode())
            said = f"has a zero byte at byte {at} (binary data, or UTF-16): give text in UTF-8"
            yield Bad(kind="encoding", said=said, excerpt=piece[:EXCERPT_BYTES])
            return
        text, repaired = text.replace("\0", ""), True
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.strip():
        yield Record(text=text, repaired=repaired)


def _cut(content: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The content whole, or in pieces of at most about ``most`` bytes that end with a line or a character.

    Where it is damaged, what lies before is given first, but for the last character, of which not all may be there.
    """
    held: list[bytes] = []
    size = 0
    try:
        for block in content:
            held.append(block)
            size += len(block)
            if size > most:
                rest = b"".join(held)
                while len(rest) > most:
                    at = rest.rfind(b"\n", 0, most) + 1 or _character(rest, most)
                    yield rest[:at]
                    rest = rest[at:]
                held, size = [rest], len(rest)
    except DamagedError:
        rest = b"".join(held)
        yield rest[: _character(rest, len(rest) - 1)]
        raise
    yield b"".join(held)


def _character(piece: bytes, at: int) -> int:
    """The last place at or before a byte where a character of UTF-8 begins."""
    return next((i for i in range(at, max(0, at - 4), -1) if piece[i] & 0xC0 != 0x80), at)


# ------------------------------------------------------------------------------------------------------------ Parquet


def _parquet(path: Path, how: Reading) -> Found:
    """The rows of the columns of text and name."""
    import pyarrow
    from pyarrow import parquet

    wanted = [how.text, *([how.id] if how.id else [])]
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in wanted:
                if name not in names:
                    raise ValueError(
                        f"{path} has no column {name} (it has {', '.join(names)}): rename the one with the text"
                    )
            number = 1
            for batch in file.iter_batches(256, columns=wanted):
                ids = batch.column(how.id).to_pylist() if how.id else itertools.repeat(None)
                for value, name in zip(_values(batch.column(how.text)), ids, strict=False):
                    yield from _row(value, name, f"row {number}", how)
                    number += 1
    except (pyarrow.ArrowException, EOFError) as error:
        raise DamagedError(f"is not a whole Parquet file ({error}): bring a sound copy of it") from error
    except OSError as error:
        if error.errno is None:
            raise DamagedError(f"is not a whole Parquet file ({error}): bring a sound copy of it") from error
        raise streams.unreadable(path, error) from error


def _values(column: Any) -> list[Any]:
    """A column's values; as bytes where one of them is not UTF-8."""
    import pyarrow

    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_Raw(v) if v is not None else None for v in column.cast(pyarrow.large_binary()).to_pylist()]


class _Raw(bytes):
    """The bytes of a string of Parquet, which should be UTF-8."""


def _row(value: Any, name: Any, where: str, how: Reading) -> Found:
    repaired = False
    if isinstance(value, _Raw):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            if not how.repairs:
                said = f"{where} is not UTF-8 text ({error.reason} at its byte {error.start}): convert it to UTF-8"
                yield Bad(kind="encoding", said=said, excerpt=bytes(value[:EXCERPT_BYTES]))
                return
            value, repaired = value.decode("cp1252", errors="replace"), True
    if isinstance(value, str) and len(value) > how.most_bytes:
        yield _too_long(where, value[:EXCERPT_BYTES].encode(errors="replace"), how.most_bytes)
        return
    yield from checked(value, name, where, how, repaired)


# ------------------------------------------------------------------------------------------------------------- values


def checked(value: Any, name: Any, where: str, how: Reading, repaired: bool = False) -> Found:
    """The document of a text and a name as a file gives them."""
    if not isinstance(value, str):
        yield Bad(kind="text", said=f"{where}: its text is {kind(value)}, a string is needed: mend or remove it")
        return
    if how.id and (isinstance(name, bool) or not isinstance(name, (str, int)) or name == ""):
        said = f"{where}: its {how.id} is {kind(name)}, a name or a number is needed: mend or remove it"
        yield Bad(kind="id", said=said, excerpt=value[:EXCERPT_BYTES].encode(errors="replace"))
        return
    name = None if name is None else str(name)
    for what, given in (("text", value), (how.id, name or "")):
        try:
            given.encode()
        except UnicodeEncodeError as error:
            if not how.repairs:
                said = (
                    f"{where}: its {what} has half of a surrogate pair ({given[error.start]!a}), which is no "
                    "character: mend or remove it"
                )
                yield Bad(kind="encoding", said=said, excerpt=value[:EXCERPT_BYTES].encode(errors="replace"))
                return
            value, name, repaired = _mended(value), name and _mended(name), True
    if value.strip():
        yield Record(text=value, id=name, repaired=repaired)


def _mended(text: str) -> str:
    """With U+FFFD for half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")


def kind(value: Any) -> str:
    """What a value is, in a sentence."""
    return "empty" if value == "" else JSON_TYPES.get(type(value), f"a {type(value).__name__}")


def _other_encoding() -> Bad:
    return Bad(kind="damaged", said="is UTF-16 or UTF-32 by its byte-order mark: convert it to UTF-8")


def _not_utf8(error: UnicodeDecodeError, place: int) -> str:
    return f"is not UTF-8 text ({error.reason} at byte {place + error.start}): convert it to UTF-8"
