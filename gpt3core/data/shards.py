"""Token shards: a corpus split by group, shuffled once, tokenized once per machine, cached and checked.

CACHE/tokens/<key>/train.npy validation.npy   uint16 (uint32 above 65,535 tokens), end-of-text after each document
                   documents.jsonl            validation documents (text, domain), for evaluation
                   words.json                 frequent words of the training text, for the word tasks
                   meta.json                  counts, sizes and sha256 of the files; written last

The key covers what can change these files: the text's content, the tokenizer, the share held out and the version of
the preparation. A folder gets its name when it is whole. The names of a user's files are no part of the content, so
the domains of own text are looked up when they are asked for.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpt3core import pulse
from gpt3core.data import corpus as corpora
from gpt3core.data import starter
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.cache import cache_folder
from gpt3core.data.document import Document
from gpt3core.spec import DataSpec, canonical_json
from gpt3core.store import files

FORMAT = 2  # of the files named above
WORDS_KEPT = 6000


@dataclass(frozen=True)
class Shards:
    """A prepared corpus. Arrays are memory-mapped and 1-d."""

    folder: Path
    spec: DataSpec
    meta: dict[str, Any] = field(compare=False)

    @cached_property
    def train(self) -> np.ndarray:
        """Training tokens."""
        return np.asarray(np.load(self.folder / "train.npy", mmap_mode="r"))

    @cached_property
    def validation(self) -> np.ndarray:
        """Validation tokens."""
        return np.asarray(np.load(self.folder / "validation.npy", mmap_mode="r"))

    @cached_property
    def validation_documents(self) -> list[dict[str, str]]:
        """Validation documents as {"text", "domain"}; the domains of own text are the names that its files have now.

        Raises:
            ValueError: when own text is no longer at its path.
        """
        found: list[dict[str, str]] = files.read_lines(self.folder / "documents.jsonl")
        if self.spec.corpus != starter.NAME:
            domains = {d.text: d.domain for d in corpora.documents(self.spec)}
            found = [{**document, "domain": domains[document["text"]]} for document in found]
        return found

    @cached_property
    def words(self) -> list[str]:
        """Frequent lower-case words of the training text, most frequent first."""
        return list(files.read_json(self.folder / "words.json"))


def folder_of(spec: DataSpec) -> Path:
    """Where the shards of a corpus are kept, wherever its files lie."""
    named = [FORMAT, spec.pipeline_version, spec.corpus_sha256, spec.tokenizer, spec.validation_fraction]
    return cache_folder() / "tokens" / hashlib.sha256(canonical_json(named).encode()).hexdigest()[:16]


def cached_meta(spec: DataSpec) -> dict[str, Any] | None:
    """The counts of shards that are in the cache, None where they are not; their checksums are not verified."""
    path = folder_of(spec) / "meta.json"
    return files.read_object(path) if path.exists() else None


def prepare(spec: DataSpec) -> Shards:
    """The shards of a corpus: from the cache, or made there. Safe to call from many processes.

    Raises:
        ValueError: when the corpus is missing, empty, too small or damaged.
        DiskFullError: when there is no room for them; nothing half made stays.
    """
    corpora.check_version(spec)
    folder = folder_of(spec)
    with files.locked(folder.with_suffix(".lock"), wait=True):
        if not (folder / "meta.json").exists():
            _build(spec, folder)
        meta = files.read_object(folder / "meta.json")
        for name, expected in meta["sha256"].items():
            path = folder / name
            if not path.exists() or files.sha256_file(path) != expected:
                raise ValueError(
                    f"{path} is damaged (its sha256 is not the recorded one): delete {folder} and start again"
                )
    return Shards(folder, spec, meta)


def _build(spec: DataSpec, folder: Path) -> None:
    """Make the shards under another name, and rename them when they are whole; the lock of the folder is held."""
    train, validation = corpora.sides(spec)
    unfinished = folder.with_name(f".{folder.name}.tmp")
    for leftover in (unfinished, folder):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with files.explained(folder, setting="ISOFLOP_CACHE"):
            unfinished.mkdir()
            _write(spec, unfinished, train, validation)
            os.rename(unfinished, folder)
            files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(spec: DataSpec, folder: Path, train: list[Document], validation: list[Document]) -> None:
    encoding = tokenizers.load(spec.tokenizer)
    meta: dict[str, Any] = {"tokens": {}, "bytes": {}, "documents": {}, "sha256": {}}
    dtype = np.uint16 if encoding.n_vocab <= 2**16 else np.uint32
    contents: dict[str, bytes] = {}
    for side, chosen in (("train", train), ("validation", validation)):
        pieces = []
        for document in chosen:
            pieces.append(np.array([*encoding.encode_ordinary(document.text), encoding.eot_token], dtype=dtype))
            pulse.beat()
        tokens = np.concatenate(pieces)
        buffer = io.BytesIO()  # numpy does not say that a disk is full when it writes to a file
        np.save(buffer, tokens)
        contents[f"{side}.npy"] = buffer.getvalue()
        meta["tokens"][side] = len(tokens)
        meta["bytes"][side] = sum(len(d.text.encode()) for d in chosen)
        meta["documents"][side] = len(chosen)
    records = ({"text": d.text, "domain": d.domain if spec.corpus == starter.NAME else ""} for d in validation)
    contents["documents.jsonl"] = "".join(json.dumps(record) + "\n" for record in records).encode()
    counts = collections.Counter(word for d in train for word in re.findall(r"\b[a-z]{3,14}\b", d.text))
    contents["words.json"] = json.dumps([word for word, _ in counts.most_common(WORDS_KEPT)]).encode()
    meta["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents["meta.json"] = json.dumps(meta, indent=1, sort_keys=True).encode()
    for name, data in contents.items():
        with open(folder / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
