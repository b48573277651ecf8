"""Bytes and lines of a file, compressed or not, of which a block at a time is in memory."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt3core.data.sources.record import DamagedError

BLOCK_BYTES = 1 << 20
STEP_BYTES = 1 << 16  # of compressed data before damage, so much may be lost
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}
MARKS = {  # the longer first: UTF-16's mark begins UTF-32's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def unreadable(path: Path | str, error: OSError) -> ValueError:
    """The sentence for what the operating system refuses."""
    return ValueError(
        f"{path} cannot be read ({error.strerror or error}): make it readable, or move it out of the text"
    )


class Sound:
    """A stream that ends where its file is damaged, and keeps why: who reads ahead would lose what lies before."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer at the end only."""
        parts: list[bytes] = []
        while size > 0 and self.error is None:
            try:
                part = self._file.read1(min(size, STEP_BYTES))
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                self.error = error
                break
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


@contextlib.contextmanager
def opened(path: Path, start: int = 0) -> Iterator[Sound]:
    """A file's content from a byte on, decompressed by its ending.

    Raises:
        DamagedError: at the end of the block, where compressed data is cut off or altered.
        ValueError: when the file cannot be opened or the disk does not give it.
    """
    name = COMPRESSIONS.get(path.suffix.lower(), "")
    try:
        with _opened(path, name) as file:
            if start:
                file.seek(start)
            sound = Sound(file)
            yield sound
            if sound.error is not None:
                raise sound.error
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise DamagedError(f"is not a whole {name} file ({error}): bring a sound copy of it") from error
    except OSError as error:
        if name and error.errno is None:  # pyarrow's word on the content
            raise DamagedError(f"is not a whole {name} file ({error}): bring a sound copy of it") from error
        raise unreadable(path, error) from error


def _opened(path: Path, name: str) -> Any:
    if name == "gzip":
        return gzip.open(path)
    if name == "xz":
        return lzma.open(path)
    if name == "zstd":
        import pyarrow  # its reader notices a file that is cut off; zstandard's own does not

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return open(path, "rb")


def blocks(path: Path, start: int = 0) -> Iterator[bytes]:
    """The content of a file from a byte on, a block at a time; raises as ``opened``, after all that is sound."""
    with opened(path, start) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def marked(block: bytes) -> tuple[bytes, str]:
    """The byte-order mark that text begins with, and its encoding other than UTF-8; empty for none."""
    if block.startswith(codecs.BOM_UTF8):
        return codecs.BOM_UTF8, ""
    return next(((mark, name) for mark, name in MARKS.items() if block.startswith(mark)), (b"", ""))


def in_utf8(content: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8; what its encoding does not allow becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for block in content:
        yield decoder.decode(block).encode("utf-8", errors="replace")
    yield decoder.decode(b"", final=True).encode("utf-8", errors="replace")


def lines(content: Iterable[bytes], most: int | None = None) -> Iterator[tuple[int, bytes, bool]]:
    """The lines of a content: where each begins, its bytes without the end, and whether it is whole.

    Of a line longer than ``most`` bytes its beginning is given, and the rest is passed over without being held.
    """
    waiting: list[bytes] = []
    begins = place = held = 0
    for block in content:
        parts = block.split(b"\n")
        for part in parts[:-1]:
            passing = most is not None and held > most
            line = b"".join([*waiting, b"" if passing else part]) if waiting else part
            length = held + len(part)
            yield begins, line, most is None or length <= most
            place += len(part) + 1
            begins, waiting, held = place, [], 0
        rest = parts[-1]
        if rest:
            if most is None or held <= most:  # one block beyond the limit is the most that is held
                waiting.append(rest)
            held += len(rest)
            place += len(rest)
    if held:
        yield begins, b"".join(waiting), most is None or held <= most
