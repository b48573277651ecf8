"""Which text it is, and its documents: the starter corpus, a user's own files, or a folder that was prepared.

A text is its content, a prepared folder the content of its shards and their weights. Paths, file names, the order of
files and how they are compressed change neither its name (``fingerprint``) nor its documents, their order or their
split.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt3core.data import checked, split, starter, writing
from gpt3core.data.document import Document
from gpt3core.data.sources import own
from gpt3core.data.sources.own import Text
from gpt3core.spec import PIPELINE_VERSION, DataSpec
from gpt3core.store import files


def fingerprint(corpus: str) -> str:
    """The sha256 that names a corpus's text wherever it lies, without fetching the starter corpus.

    Raises:
        ValueError: when the corpus is missing, empty or cannot be read.
    """
    if corpus == starter.NAME:
        return starter.fingerprint()
    if is_prepared(corpus):
        return prepared(corpus).corpus_sha256
    paths = own.text_files(corpus)
    key = f"text:{PIPELINE_VERSION}:{Path(corpus).expanduser().absolute()}"  # other rules may read it otherwise
    return checked.remembered(key, paths, lambda: _fingerprint(own.texts(corpus)))


def is_prepared(corpus: str) -> bool:
    """Whether a corpus is a folder that was prepared, rather than text."""
    return _described(corpus) is not None


def prepared(corpus: str) -> DataSpec:
    """The specification of a folder that was prepared, as it was prepared.

    Raises:
        ValueError: for one that was not, or was in another format.
    """
    found = _manifest(corpus)
    return DataSpec(
        corpus=corpus,
        corpus_sha256=writing.identity(found),
        tokenizer=found["tokenizer"],
        validation_fraction=found["validation_fraction"],
    )


def manifest(spec: DataSpec) -> dict[str, Any]:
    """What a prepared folder says of itself.

    Raises:
        ValueError: when it is not the one specified, or was prepared in another way than the specification says.
    """
    found = _manifest(spec.corpus)
    _check_same(spec, writing.identity(found))
    for name in ("tokenizer", "validation_fraction"):
        if found[name] != getattr(spec, name):
            raise ValueError(
                f"data.{name}={getattr(spec, name)}: data.corpus={spec.corpus} was prepared with {found[name]}; give "
                f"data.{name}={found[name]}, or prepare it again"
            )
    return found


def _manifest(corpus: str) -> dict[str, Any]:
    """What a prepared folder says of itself, in today's format."""
    found = _described(corpus)
    if found is None:
        raise ValueError(
            f"corpus={corpus!r}: there is no {writing.MANIFEST} of prepared text in it: it is no prepared folder"
        )
    if (known := found["format"]) != writing.FORMAT:
        raise ValueError(
            f"data.corpus={corpus} was prepared in format {known}, this isoflop reads {writing.FORMAT}: prepare it "
            "again"
        )
    return found


def _described(corpus: str) -> dict[str, Any] | None:
    """The manifest in a folder; None where there is none, or what is called so describes something else."""
    if corpus in ("", starter.NAME):
        return None
    path = os.path.join(os.path.expanduser(corpus), writing.MANIFEST)  # noqa: PTH111, PTH118 (refuse no path)
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    found = files.read_json(Path(path))
    return found if isinstance(found, dict) and {"format", "sources"} <= found.keys() else None


def documents(spec: DataSpec) -> list[Document]:
    """All documents of a corpus, exact duplicates dropped, in an order that only the content decides.

    Raises:
        ValueError: when the corpus is missing, empty or unreadable, or not the text that the specification names.
    """
    check_version(spec)
    given = [] if spec.corpus == starter.NAME else own.texts(spec.corpus)
    found = _fingerprint(given) if given else starter.fingerprint()
    _check_same(spec, found)
    everything = _documents(given, spec.validation_fraction) if given else starter.documents()
    # of equal texts the one with the first group's and domain's name stays: files may come in any order
    distinct = {d.text: d for d in sorted(everything, key=lambda d: (d.group, d.domain), reverse=True)}
    return sorted(distinct.values(), key=_order)


def sides(spec: DataSpec) -> tuple[list[Document], list[Document]]:
    """The training and the validation documents of a corpus.

    Raises:
        ValueError: as ``documents``, and for text that cannot be split.
    """
    found = documents(spec)
    sizes: dict[str, Counter[str]] = {}
    for document in found:
        sizes.setdefault(document.source, Counter())[document.group] += len(document.text.encode())
    held_out: set[str] = set()
    for groups in sizes.values():
        if len(groups) < 2:
            raise ValueError(
                f"corpus={spec.corpus!r} is one piece of {groups.total()} bytes, which cannot be split into training "
                "and validation text: give more text"
            )
        held_out |= split.held_out(groups, spec.validation_fraction)
    return [d for d in found if d.group not in held_out], [d for d in found if d.group in held_out]


def _check_same(spec: DataSpec, found: str) -> None:
    """Refuse text that is not the specified one."""
    if found != spec.corpus_sha256:
        raise ValueError(
            f"corpus {spec.corpus} has sha256 {found[:12]}..., the run was specified on {spec.corpus_sha256[:12]}...: "
            "bring back that text, or start new runs on this one"
        )


def check_version(spec: DataSpec) -> None:
    """Refuse a specification whose text was prepared by other rules than today's.

    Raises:
        ValueError: naming both versions.
    """
    if spec.pipeline_version != PIPELINE_VERSION:
        raise ValueError(
            f"the run was specified with version {spec.pipeline_version} of the text's preparation, this isoflop has "
            f"{PIPELINE_VERSION}: go on with the isoflop that began it, or start new runs"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _order(document: Document) -> bytes:
    return hashlib.sha256(f"order:{document.text}".encode()).digest()


def _fingerprint(texts: Iterable[Text]) -> str:
    names = {f"{'long' if text.long else 'document'}:{_sha256(text.content)}" for text in texts}
    return _sha256("\n".join(sorted(names)))


def _documents(texts: list[Text], fraction: float) -> list[Document]:
    """Documents with their groups: a document is its own; of a long text each stretch of some thousand characters."""
    chars = split.group_chars(sum({text.content: len(text.content) for text in texts}.values()), fraction)
    found: list[Document] = []
    for text in texts:
        for stretch in split.pieces(text.content, chars) if text.long else [text.content]:
            group = _sha256(stretch)
            passages = split.pieces(stretch, split.PASSAGE_CHARS) if text.long else [stretch]
            found.extend(Document(text=passage, group=group, domain=text.domain) for passage in passages)
    return found
