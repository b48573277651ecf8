"""Token shards: a corpus split by group, shuffled once, tokenized once per machine, cached and checked.

CACHE/tokens/<key>/train.npy validation.npy   uint16 (uint32 above 65,535 tokens), end-of-text after each document
                   documents.jsonl            validation documents (text, domain), for evaluation
                   words.json                 frequent words of the training text, for the word tasks
                   meta.json                  counts, sizes and sha256 of the files; written last
"""

from __future__ import annotations

import collections
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpt3core.data import corpus as corpora
from gpt3core.data import tokenizer as tokenizers
from gpt3core.spec import DataSpec, canonical_json
from gpt3core.store import files

SHARDS_VERSION = 1
WORDS_KEPT = 6000


@dataclass(frozen=True)
class Shards:
    """A prepared corpus. Arrays are memory-mapped and 1-d."""

    folder: Path
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
        """Validation documents as {"text", "domain"}."""
        return files.read_lines(self.folder / "documents.jsonl")

    @cached_property
    def words(self) -> list[str]:
        """Frequent lower-case words of the training text, most frequent first."""
        return list(files.read_json(self.folder / "words.json"))


def in_validation(group: str, fraction: float) -> bool:
    """Whether a document group is held out: by its hash, whatever else the corpus holds."""
    return int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8], "big") < fraction * 2**64


def _order(document: corpora.Document) -> bytes:
    return hashlib.sha256(f"order:{document.text}".encode()).digest()


def prepare(spec: DataSpec) -> Shards:
    """The shards of a corpus: from the cache, or made there. Safe to call from many processes.

    Raises:
        ValueError: when the corpus is missing, empty, too small or damaged.
    """
    key = hashlib.sha256(
        canonical_json([SHARDS_VERSION, spec.corpus_sha256, spec.tokenizer, spec.validation_fraction]).encode()
    )
    folder = corpora.cache_folder() / "tokens" / key.hexdigest()[:16]
    with files.locked(folder.with_suffix(".lock"), wait=True):
        if not (folder / "meta.json").exists():
            _build(spec, folder)
        meta = files.read_json(folder / "meta.json")
        for name, expected in meta["sha256"].items():
            path = folder / name
            if not path.exists() or files.sha256_file(path) != expected:
                raise ValueError(
                    f"{path} is damaged (its sha256 is not the recorded one): delete {folder} and start again"
                )
    return Shards(folder, meta)


def _build(spec: DataSpec, folder: Path) -> None:
    encoding = tokenizers.load(spec.tokenizer)
    documents = sorted(corpora.documents(spec.corpus, spec.corpus_sha256), key=_order)
    sides: dict[str, list[corpora.Document]] = {"train": [], "validation": []}
    for document in documents:
        held_out = in_validation(document.group, spec.validation_fraction)
        sides["validation" if held_out else "train"].append(document)
    files.make_folder(folder)
    meta: dict[str, Any] = {"tokens": {}, "bytes": {}, "documents": {}, "sha256": {}}
    dtype = np.uint16 if encoding.n_vocab <= 2**16 else np.uint32
    for side, chosen in sides.items():
        if not chosen:
            raise ValueError(
                f"corpus={spec.corpus!r} is too small: no document is left for {side} at "
                f"validation_fraction={spec.validation_fraction}; give more text or another fraction"
            )
        pieces = [np.array([*encoding.encode_ordinary(d.text), encoding.eot_token], dtype=dtype) for d in chosen]
        tokens = np.concatenate(pieces)
        with files.explained(folder / f"{side}.npy"):
            np.save(folder / f"{side}.npy", tokens)
        meta["tokens"][side] = len(tokens)
        meta["bytes"][side] = sum(len(d.text.encode()) for d in chosen)
        meta["documents"][side] = len(chosen)
    held_out_text = "".join(json.dumps({"text": d.text, "domain": d.domain}) + "\n" for d in sides["validation"])
    files.write_bytes(folder / "documents.jsonl", held_out_text.encode())
    counts = collections.Counter(word for d in sides["train"] for word in re.findall(r"\b[a-z]{3,14}\b", d.text))
    files.write_json(folder / "words.json", [word for word, _ in counts.most_common(WORDS_KEPT)])
    for name in ("train.npy", "validation.npy", "documents.jsonl", "words.json"):
        meta["sha256"][name] = files.sha256_file(folder / name)
    files.write_json(folder / "meta.json", meta)
