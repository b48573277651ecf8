"""Token shards as they are read: a folder that was prepared, or a text that is prepared once per machine and cached.

CACHE/tokens/<key>/ is such a folder (``gpt3core.data.writing`` says what lies in it). The key covers what can change
its files: the text's content, the tokenizer, the share held out and the version of the preparation. A folder gets its
name when it is whole. The names of a user's files are no part of the content, so the domains of own text are looked up
when they are asked for.
"""

from __future__ import annotations

import collections
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt3core.data import checked, episodes, starter, weights, writing
from gpt3core.data import corpus as corpora
from gpt3core.data.cache import SETTING, cache_folder
from gpt3core.data.sources import own
from gpt3core.data.split import SIDES, TRAIN, VALIDATION
from gpt3core.data.stream import Stream, mapped
from gpt3core.spec import DataSpec, canonical_json
from gpt3core.store import files

REMAKE = "delete {folder} and start again"
GENERATED = "generated"  # the source in the folder of episodes, whose own name no source may have


@dataclass(frozen=True)
class Shards:
    """A prepared corpus. Its arrays are memory-mapped."""

    folder: Path
    spec: DataSpec
    meta: dict[str, Any] = field(compare=False)  # the manifest
    generated: Stream | None = field(compare=False, default=None)  # what is mixed into the training text

    @cached_property
    def sources(self) -> dict[str, writing.Source]:
        """What there is of each source, with its weight in the mixture."""
        return sources(self.meta, self.spec)

    @cached_property
    def train(self) -> list[Stream]:
        """Training tokens of each source, those generated among them."""
        text, share = self._streams(TRAIN), self.spec.episodes
        if self.generated is None:
            return text
        return [
            *(replace(stream, weight=stream.weight * (1 - share)) for stream in text),
            replace(self.generated, weight=share),
        ]

    @cached_property
    def validation(self) -> list[Stream]:
        """Held-out tokens of each source."""
        return self._streams(VALIDATION)

    def _streams(self, side: str) -> list[Stream]:
        return [_stream(name, source.weight, self.folder, source.shards[side]) for name, source in self.sources.items()]

    def total(self, what: str) -> dict[str, int]:
        """Of all sources by side; ``what`` is "documents", "bytes" or "tokens"."""
        return {side: sum(getattr(source, what)[side] for source in self.sources.values()) for side in SIDES}

    @cached_property
    def validation_documents(self) -> list[dict[str, str]]:
        """Held-out documents as {"text", "domain"}; the domains of own text are the names that its files have now.

        Raises:
            ValueError: when own text is no longer at its path.
        """
        found: list[dict[str, str]] = []
        for name in self.sources:
            found += files.read_lines(self.folder / name / "documents.jsonl")
        if self.spec.corpus != starter.NAME and self.folder == folder_of(self.spec):
            corpora.check(self.spec)
            stretch = corpora.about(self.spec.corpus).stretch(self.spec.validation_fraction)
            domains = own.domains(self.spec.corpus, stretch, {document["text"] for document in found})
            found = [{**document, "domain": domains[document["text"]]} for document in found]
        return found

    @cached_property
    def words(self) -> list[str]:
        """Frequent lower-case words of the training text, most frequent first."""
        counted: collections.Counter[str] = collections.Counter()
        for name in self.sources:
            counted.update(dict(files.read_json(self.folder / name / "words.json")))
        return [word for word, _ in counted.most_common(writing.WORDS_KEPT)]


def sources(meta: dict[str, Any], spec: DataSpec) -> dict[str, writing.Source]:
    """The sources of a manifest, with the weights that a specification asks for.

    Raises:
        ValueError: for weights of other sources than there are.
    """
    own = {name: writing.Source(**source) for name, source in meta["sources"].items()}
    chosen = weights.resolved({name: source.weight for name, source in own.items()}, dict(spec.weights))
    return {name: writing.Source(**{**vars(source), "weight": chosen[name]}) for name, source in own.items()}


def folder_of(spec: DataSpec) -> Path:
    """Where the shards of a text are kept, wherever its files lie."""
    named = [
        *(writing.FORMAT, spec.pipeline_version, spec.corpus_sha256, spec.tokenizer),
        spec.validation_fraction,
    ]
    return cache_folder() / "tokens" / hashlib.sha256(canonical_json(named).encode()).hexdigest()[:16]


def described(spec: DataSpec) -> dict[str, Any] | None:
    """The manifest of a folder that was prepared, or of shards that are in the cache; None where they are not.

    Their checksums are not verified.

    Raises:
        ValueError: for a prepared folder that is not the one specified.
    """
    if corpora.is_prepared(spec.corpus):
        return corpora.manifest(spec)
    return files.find_object(folder_of(spec) / writing.MANIFEST)


def unverified(spec: DataSpec) -> Shards | None:
    """What ``described`` says, with the files behind it, whose checksums are not verified; without episodes."""
    meta = described(spec)
    return None if meta is None else Shards(_place(spec), spec, meta)


def _place(spec: DataSpec) -> Path:
    if corpora.is_prepared(spec.corpus):
        return Path(spec.corpus).expanduser().absolute()
    return folder_of(spec)


def prepare(spec: DataSpec, *, again: bool = False) -> Shards:
    """The shards of a corpus: as they were prepared, from the cache, or made there. Safe to call from many processes.

    Args:
        again: read every file through, also where that was done on this machine before.

    Raises:
        ValueError: when the corpus is missing, empty, too small or damaged.
        DiskFullError: when there is no room for them; nothing half made stays.
    """
    corpora.check_version(spec)
    folder = _place(spec)
    if corpora.is_prepared(spec.corpus):
        mend, meta = "bring a sound copy of it, or prepare it again", corpora.manifest(spec)
    else:
        mend = REMAKE
        meta = _cached(folder, lambda unfinished: _write(spec, unfinished))
    _verify(folder, meta, mend=mend, again=again)
    made = Shards(folder, spec, meta, _generated(spec, again=again) if spec.episodes else None)
    assert made.sources
    return made


def _generated(spec: DataSpec, *, again: bool) -> Stream:
    """The episodes, as a source of weight one."""
    named = canonical_json([writing.FORMAT, spec.pipeline_version, episodes.TOKENS, spec.tokenizer])
    folder = cache_folder() / "tokens" / f"episodes-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    meta = _cached(folder, lambda unfinished: _write_episodes(spec.tokenizer, unfinished))
    _verify(folder, meta, mend=REMAKE, again=again)
    (source,) = meta["sources"].values()
    return _stream(episodes.NAME, 1.0, folder, source["shards"][TRAIN])


def _stream(name: str, weight: float, folder: Path, paths: Iterable[str]) -> Stream:
    return Stream(name=name, weight=weight, pieces=tuple(mapped(folder / path) for path in paths))


def _verify(folder: Path, meta: dict[str, Any], *, mend: str, again: bool) -> None:
    expected = {path: file for source in meta["sources"].values() for path, file in source["files"].items()}
    checked.verify(folder, expected, mend=mend.format(folder=folder), again=again)


def _cached(folder: Path, write: Callable[[Path], None]) -> dict[str, Any]:
    """The manifest of a folder of the cache, which is made under another name and renamed when it is whole."""
    if not (folder / writing.MANIFEST).exists():
        with files.locked(folder.with_suffix(".lock"), wait=True, setting=SETTING):
            if not (folder / writing.MANIFEST).exists():
                _build(folder, write)
    return files.read_object(folder / writing.MANIFEST)


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    """The lock of the folder is held."""
    unfinished = folder.with_name(f".{folder.name}.tmp")
    for leftover in (unfinished, folder):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with files.explained(folder, setting=SETTING):
            unfinished.mkdir()
            write(unfinished)
            os.rename(unfinished, folder)
            files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(spec: DataSpec, folder: Path) -> None:
    """The shards of a text that is the specified one, before and after it was read."""
    from gpt3core.data.prepare import direct  # and so pyarrow and scipy

    corpora.check(spec)
    direct.write(spec, folder)
    corpora.check(spec)


def _write_episodes(tokenizer: str, folder: Path) -> None:
    generated = ((TRAIN, episodes.NAME, text) for text in episodes.documents(tokenizer))
    made = {GENERATED: writing.write(generated, folder, source=GENERATED, tokenizer=tokenizer)}
    writing.finish(folder, made, tokenizer=tokenizer, validation_fraction=0.0)
