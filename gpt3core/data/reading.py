"""A user's own text: which files there are, and what is in them. Every byte is read, or named in the refusal."""

from __future__ import annotations

import gzip
import json
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMATS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".parquet")
ALLOWED = (
    "allowed are .txt files, .jsonl files (one object with a text field a line), both also as .gz, and .parquet files "
    "with a column text"
)
NAMED = 3  # so many refused files are named
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF8_MARK = b"\xef\xbb\xbf"
JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


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
    found = [text for path in text_files(corpus) for text in _texts(path) if text.content.strip()]
    if not found:
        raise ValueError(f"corpus={corpus!r} is empty: there is no text in it; give files with text ({ALLOWED})")
    return found


def text_files(corpus: str) -> list[Path]:
    """The files of a corpus in a folder and below it, but for hidden ones.

    Raises:
        ValueError: for a path that does not exist, files that are none of the formats, and loops of links.
    """
    try:
        if not corpus:
            raise FileNotFoundError  # an empty path is not the current folder
        path = Path(corpus).expanduser()
        mode = path.stat().st_mode
    except (FileNotFoundError, RuntimeError):  # the second for the home of an unknown user
        raise ValueError(
            f"corpus={corpus!r}: no such file or folder; give starter, or the path of a file or folder: {ALLOWED}"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    found = sorted(_walk(path, ())) if stat.S_ISDIR(mode) else [path]
    if refused := [p for p in found if not _format(p) or not p.is_file()]:
        more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        raise ValueError(
            f"corpus={corpus!r} has {', '.join(map(str, refused[:NAMED]))}{more}, which is no text that can be read: "
            f"convert such files, or move them out or hide them by a leading dot; {ALLOWED}"
        )
    return found


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """All files below a folder but hidden ones, through links too; ``above`` are the folders that one came through."""
    try:
        here = folder.stat()
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            raise ValueError(f"{folder} is a link to a folder that it lies in, a loop: remove that link")
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if stat.S_ISDIR(path.stat().st_mode):
                yield from _walk(path, (*above, identity))
            else:
                yield path
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from error


def _format(path: Path) -> str:
    """The longest ending that is a known format, in lower case; empty for none."""
    return max((f for f in FORMATS if path.name.lower().endswith(f)), key=len, default="")


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path} cannot be read ({error.strerror or error}): make it readable, or move it out of the text"
    )


# ------------------------------------------------------------------------------------------------------- one file


def _texts(path: Path) -> Iterator[Text]:
    ending = _format(path)
    domain = path.name[: -len(ending)]
    if ending == ".parquet":
        found = enumerate(_column(path), start=1)
        values: Iterator[tuple[str, Any]] = ((f"row {number}", value) for number, value in found)
    else:
        raw = _decoded(path, _bytes(path))
        if ending.startswith(".txt"):
            yield Text(content=raw.replace("\r\n", "\n").replace("\r", "\n"), domain=domain, long=True)
            return
        values = _lines(path, raw)
    for place, value in values:
        yield Text(content=_checked(path, place, value), domain=domain, long=False)


def _bytes(path: Path) -> bytes:
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): bring a sound copy of it") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _decoded(path: Path, raw: bytes) -> str:
    """The text of bytes in UTF-8, with or without a byte-order mark."""
    if raw.startswith(UTF16_MARKS):
        raise ValueError(f"{path} is UTF-16 or UTF-32 by its byte-order mark: convert it to UTF-8")
    start = len(UTF8_MARK) if raw.startswith(UTF8_MARK) else 0
    try:
        text = raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {start + error.start}): convert it to UTF-8"
        ) from error
    if "\0" in text:
        place = start + len(text[: text.index("\0")].encode())
        raise ValueError(f"{path} has a zero byte at byte {place} (binary data, or UTF-16): give text in UTF-8")
    return text


def _lines(path: Path, raw: str) -> Iterator[tuple[str, Any]]:
    """The text fields of a JSONL file, with their places."""
    for number, line in enumerate(raw.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} line {number} is not a JSON object with a text field (no JSON: {error}; a truncated file?): "
                "mend that line"
            ) from error
        if not isinstance(record, dict) or "text" not in record:
            shown = f"it has {', '.join(record) or 'no fields'}" if isinstance(record, dict) else _kind(record)
            raise ValueError(
                f"{path} line {number} is not a JSON object with a text field ({shown:.80}): mend that line"
            )
        yield f"line {number}", record["text"]


def _column(path: Path) -> list[Any]:
    """The column ``text`` of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise ValueError(f"{path} has no column text (it has {', '.join(names)}): rename the one with the text")
            return list(file.read(columns=["text"]).column("text").to_pylist())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): convert it to UTF-8") from error
    except (pyarrow.ArrowException, EOFError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}): bring a sound copy of it") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _checked(path: Path, place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{path} {place}: its text is {_kind(value)}, a string is needed: mend or remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path} {place}: its text has half of a surrogate pair ({value[error.start]!a}), which is no character: "
            "mend or remove it"
        ) from error
    return value


def _kind(value: Any) -> str:
    return JSON_TYPES.get(type(value), f"a {type(value).__name__}")
