"""Pages of Common Crawl's archives: the text of WET's conversion records, or of WARC's HTML responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt3core.data.sources import streams
from gpt3core.data.sources.record import EXCERPT_BYTES, Bad, DamagedError, Reading, Record

HTML = ("text/html", "application/xhtml+xml")


def records(path: Path, how: Reading) -> Iterator[Record | Bad]:
    """The pages of an archive; ``how.id`` is a header of the record, such as WARC-Target-URI.

    Raises:
        DamagedError: after the pages before it, where the archive is cut off or altered.
        ValueError: without the package that reads it.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise ValueError(f'{path} is read by the package warcio: pip install "isoflop[warc]"') from None
    with streams.opened(path) as file:
        try:
            for number, page in enumerate(ArchiveIterator(file), start=1):
                yield from _page(page, f"record {number}", how)
        except ArchiveLoadFailed as error:
            said = " ".join(f"{error!s:.80}".split()).encode("ascii", "backslashreplace").decode()
            raise DamagedError(f"is not a whole WARC file ({said}): bring a sound copy of it") from error


def _page(page: Any, where: str, how: Reading) -> Iterator[Record | Bad]:
    length = page.length  # of the content, as its header says
    if page.format != "warc" or page.rec_headers.get_header("Content-Length") is None:
        raise DamagedError(f"is not a whole WARC file ({where} has no length): bring a sound copy of it")
    if page.rec_type not in ("conversion", "response"):
        return
    kind = page.http_headers.get_header("Content-Type") or "" if page.http_headers else ""
    if page.rec_type == "response" and not kind.startswith(HTML):
        return
    if length > how.most_bytes:
        yield Bad(kind="length", said=f"{where} is longer than {how.most_bytes} bytes, which no document is: leave it")
        return
    name = page.rec_headers.get_header(how.id) if how.id else None
    if how.id and not name:
        yield Bad(kind="id", said=f"{where} has no header {how.id}: name another by id")
        return
    raw = page.content_stream().read()
    if page.raw_stream.limit:
        raise DamagedError(f"is not a whole WARC file ({where} is cut off): bring a sound copy of it")
    if page.rec_type == "response":
        raw = _plain(raw, kind.partition("charset=")[2].strip(" \"'"))
    try:
        text, repaired = raw.decode(), False
    except UnicodeDecodeError as error:
        if not how.repairs:
            said = f"{where} is not UTF-8 text ({error.reason} at its byte {error.start}): convert it to UTF-8"
            yield Bad(kind="encoding", said=said, excerpt=raw[:EXCERPT_BYTES])
            return
        text, repaired = raw.decode("cp1252", errors="replace"), True
    if text.strip():
        yield Record(text=text, id=name, repaired=repaired)


def _plain(raw: bytes, charset: str) -> bytes:
    """The main text of a page of HTML."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError:
        raise ValueError('HTML is read by the package resiliparse: pip install "isoflop[warc]"') from None
    html = bytes_to_str(raw, charset or detect_encoding(raw) or "utf-8")
    return str(extract_plain_text(html, main_content=True)).encode(errors="replace")
