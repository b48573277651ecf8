"""Token shards as they are written: one source at a time, from a stream of documents, in memory that does not grow.

DIR/<source>/train-00000.npy ...       uint16, end-of-text after each document,
             validation-00000.npy ...  which may go on in the next file
             documents.jsonl           held-out documents (text, domain), the first of them, for evaluation
             words.json                [word, count] of the training text's frequent words, for the word tasks
DIR/manifest.json                      every source's weight, counts, and files with their size and sha256; written
                                       last: the folder is whole if and only if it is there
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpt3core import pulse
from gpt3core.data import names
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.split import SIDES, TRAIN, VALIDATION
from gpt3core.spec import canonical_json
from gpt3core.store import files

FORMAT = 3  # of the files named above
MANIFEST = "manifest.json"
TOKEN = np.dtype("<u2")  # GPT-2's vocabulary is of 50,257
SHARD_TOKENS = 1 << 30  # of a file, at most: a mapped file keeps a descriptor, of which a process mostly has 1,024
BLOCK_TOKENS = 1 << 22  # written at once
BATCH = 1 << 20  # characters, or tokens, that are cut at once
WORDS_KEPT = 6000
KEPT_BYTES = 1 << 26  # of a source's held-out text: its first documents, for evaluation
WORD = re.compile(r"\b[a-z]{3,14}\b")
COUNTED_BYTES = 1 << 21  # of its training text, in which words are counted; half as slow as to tokenize
NOTED = {TRAIN: COUNTED_BYTES, VALIDATION: KEPT_BYTES}

Text = str | np.ndarray  # of a document, or its tokens (n,)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was written of one source, by side: "train" and "validation"."""

    documents: dict[str, int]
    bytes: dict[str, int]  # of text in UTF-8
    tokens: dict[str, int]  # end-of-text after each document included
    shards: dict[str, list[str]]  # paths below DIR, in order
    files: dict[str, dict[str, Any]]  # of all files, the shards among them: path below DIR -> bytes, sha256
    weight: float = 0.0  # in the mixture; 0 before the folder is whole


@dataclass(kw_only=True)
class _Side:
    """A side of a source under way: tokens that are not written yet, and how many its last file has before them."""

    folder: Path
    stem: str
    buffer: np.ndarray
    used: int = 0
    written: int = 0  # 0 where the next file is to be begun
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    shards: list[Path] = field(default_factory=list)

    def add(self, tokens: np.ndarray) -> None:
        """Put tokens behind those before."""
        self.tokens += len(tokens)
        while len(tokens):
            room = min(len(self.buffer), SHARD_TOKENS - self.written)
            taken = tokens[: room - self.used]
            self.buffer[self.used : self.used + len(taken)] = taken
            self.used += len(taken)
            tokens = tokens[len(taken) :]
            if self.used == room:
                self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if not self.written:
            self.shards.append(self.folder / f"{self.stem}-{len(self.shards):05d}.npy")
        with open(self.shards[-1], "r+b" if self.written else "wb") as file:
            file.write(header(self.written + self.used))
            file.seek(0, os.SEEK_END)
            file.write(self.buffer[: self.used].data)  # numpy's own writing does not say that a disk is full
            _synced(file)
        self.written = (self.written + self.used) % SHARD_TOKENS
        self.used = 0


def header(tokens: int) -> bytes:
    """How a .npy file of so many tokens begins: as long for any number of them."""
    found = io.BytesIO()
    described = {"descr": TOKEN.str, "fortran_order": False, "shape": (tokens,)}
    np.lib.format.write_array_header_1_0(found, described)
    return found.getvalue()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Documents of a source that follow one another on one side, as tokens."""

    side: str
    domain: str  # what a task calls them
    tokens: np.ndarray  # (n,), end-of-text after each document
    documents: int
    bytes: int  # of text in UTF-8


def write(documents: Iterable[tuple[str, str, Text]], folder: Path, *, source: str, tokenizer: str) -> Source:
    """Write the shards of one source into ``folder/source``, which nobody else writes.

    What the files hold is decided by the documents and their order alone. An OSError of the disk goes through.

    Args:
        documents: (side, domain, text) of each: "train" or "validation", what a task calls it, its text, or its tokens
            where it was cut before.

    Raises:
        ValueError: for a source's name that is no file's, an unknown tokenizer, or tokens that it does not have.
    """
    cut = _cutter(tokenizer)
    with _Begun(folder, source) as begun:
        for side, domains, given in _batches(documents):
            texts, tokens = cut(given)
            size = 0
            for domain, text in zip(domains, texts, strict=True):
                begun.note(side, domain, text, size)
                size += len(text.encode())
            begun.add(side, tokens, len(texts), size)
            pulse.beat()
    return begun.described()


def _batches(documents: Iterable[tuple[str, str, Text]]) -> Iterator[tuple[str, list[str], list[Text]]]:
    """Documents of one side that follow one another there: their domains, and what is given of each."""
    waiting: dict[str, tuple[list[str], list[Text]]] = {}
    length: collections.Counter[str] = collections.Counter()
    for side, domain, given in documents:
        domains, of = waiting.setdefault(side, ([], []))
        domains.append(domain)
        of.append(given)
        length[side] += len(given)
        if length[side] >= BATCH:
            yield side, *waiting.pop(side)
            length[side] = 0
    for side, (domains, of) in waiting.items():
        yield side, domains, of


def join(pieces: Iterable[Piece], folder: Path, *, source: str, tokenizer: str) -> Source:
    """As ``write``, of documents that were cut before, a piece at a time: the same files, however they were pieced."""
    encoding, end = tokenizers.load(tokenizer), tokenizers.end_of_text(tokenizer)
    with _Begun(folder, source) as begun:
        for piece in pieces:
            before = 0
            for tokens in _documents(piece.tokens, end):
                if not begun.wants(piece.side, before):
                    break
                text = encoding.decode(tokens.tolist())
                begun.note(piece.side, piece.domain, text, before)
                before += len(text.encode())
            begun.add(piece.side, piece.tokens, piece.documents, piece.bytes)
            pulse.beat()
    return begun.described()


def _documents(tokens: np.ndarray, end: int) -> Iterator[np.ndarray]:
    """The tokens of each document, without its end."""
    begin = 0
    for place in np.flatnonzero(tokens == end).tolist():
        yield tokens[begin:place]
        begin = place + 1


class _Begun:
    """A source's files under way; whole at the end of the block."""

    def __init__(self, folder: Path, source: str) -> None:
        names.check(source)
        self._folder, self._place = folder, folder / source
        self._place.mkdir(parents=True, exist_ok=True)
        self._sides = {
            side: _Side(folder=self._place, stem=side, buffer=np.empty(BLOCK_TOKENS, TOKEN)) for side in SIDES
        }
        self._counted: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> _Begun:
        self._kept = open(self._place / "documents.jsonl", "wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._kept:
            if kind is None:
                _synced(self._kept)
        if kind is not None:
            return
        for into in self._sides.values():
            if into.used:
                into.flush()
        with open(self._place / "words.json", "wb") as file:
            file.write(json.dumps(self._counted.most_common(WORDS_KEPT)).encode())
            _synced(file)
        files.sync_folder(self._place)

    def wants(self, side: str, before: int = 0) -> bool:
        """Whether the text of a side's next document is wanted, so many bytes after what was added."""
        return self._sides[side].bytes + before < NOTED[side]

    def note(self, side: str, domain: str, text: str, before: int = 0) -> None:
        """Count the words of a document, or keep it whole, where that is wanted."""
        if not self.wants(side, before):
            return
        if side == TRAIN:
            self._counted.update(WORD.findall(text))
        else:
            self._kept.write(json.dumps({"text": text, "domain": domain}).encode() + b"\n")

    def add(self, side: str, tokens: np.ndarray, documents: int, size: int) -> None:
        """Put tokens behind those before, of so many documents and bytes of text."""
        into = self._sides[side]
        into.documents += documents
        into.bytes += size
        into.add(tokens)

    def described(self) -> Source:
        """What was written."""
        return _described(self._folder, self._place, self._sides)


def _cutter(name: str) -> Callable[[Sequence[Text]], tuple[Sequence[str], np.ndarray]]:
    """What makes the texts of documents, and their tokens with end-of-text after each, of either."""
    encode, encoding, end = tokenizers.encoder(name), tokenizers.load(name), tokenizers.end_of_text(name)

    def whole(tokens: np.ndarray) -> np.ndarray:
        ended = tokens if len(tokens) and tokens[-1] == end else np.append(tokens, end)
        own = ended[:-1]
        if len(own) and not 0 <= int(own.min()) <= int(own.max()) < end:
            raise ValueError(
                f"a document has the tokens {own.min()} to {own.max()}, and {name} has 0 to {end - 1}: name the "
                "tokenizer by which it was made"
            )
        return ended

    def cut(given: Sequence[Text]) -> tuple[Sequence[str], np.ndarray]:
        texts = [one for one in given if isinstance(one, str)]
        if len(texts) == len(given):
            return texts, encode(texts)
        tokens = [encode([one]) if isinstance(one, str) else whole(one) for one in given]
        return [encoding.decode(one[:-1].tolist()) for one in tokens], np.concatenate(tokens)

    return cut


def _described(folder: Path, place: Path, sides: Mapping[str, _Side]) -> Source:
    """What was written, with the sha256 of each file as it now is."""
    paths = [
        *(path for side in sides.values() for path in side.shards),
        place / "documents.jsonl",
        place / "words.json",
    ]
    return Source(
        documents={name: side.documents for name, side in sides.items()},
        bytes={name: side.bytes for name, side in sides.items()},
        tokens={name: side.tokens for name, side in sides.items()},
        shards={name: [str(path.relative_to(folder)) for path in side.shards] for name, side in sides.items()},
        files={
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
            for path in paths
        },
    )


def finish(
    folder: Path,
    sources: Mapping[str, Source],
    *,
    tokenizer: str,
    validation_fraction: float,
    weights: Mapping[str, float] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a folder whole by its manifest, and give that.

    Args:
        weights: of the mixture; by default each source's training tokens, so that all are seen equally often.
        beside: more for the manifest: the recipe in full, versions, other files.
    """
    chosen = weights or {name: float(source.tokens[TRAIN]) for name, source in sources.items()}
    manifest = {
        **(beside or {}),
        "format": FORMAT,
        "tokenizer": tokenizer,
        "validation_fraction": validation_fraction,
        "sources": {name: {**vars(source), "weight": chosen[name]} for name, source in sources.items()},
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def identity(manifest: Mapping[str, Any]) -> str:
    """The sha256 that names what a folder's manifest describes: its sources' files and weights, wherever it lies."""
    sources = {
        name: [source["weight"], source["shards"], {path: f["sha256"] for path, f in source["files"].items()}]
        for name, source in manifest["sources"].items()
    }
    named = [manifest["format"], manifest["tokenizer"], manifest["validation_fraction"], sources]
    return hashlib.sha256(canonical_json(named).encode()).hexdigest()


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
