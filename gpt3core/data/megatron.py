"""Megatron's indexed datasets: ``python -m gpt3core.data.megatron out=DIR corpus=...``, or ``indexed=...``.

corpus=DIR           write a prepared folder, starter, or own text as OUT/<source>-train.bin and .idx, and -validation
indexed=[A,B]        prepare DIR from A.bin and A.idx, B.bin and B.idx: every pair is a source, named as its file is
out=DIR              the new folder; one that holds something is refused
tokenizer=gpt2       by which the pairs were made, or the text is to be cut; a prepared folder has its own
validation_fraction=0.06  the share held out, of pairs by a hash of each document's tokens

PREFIX.bin holds tokens, of a prepared folder with the end of text after each document. PREFIX.idx says where documents
begin: MMIDIDX, two zero bytes, the version (1), the type of a token, the numbers of sequences and of documents' limits,
then each sequence's length (int32) and place in bytes (int64), and the sequence with which each document begins
(Megatron-LM, megatron/core/datasets/indexed_dataset.py).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpt3core import cli
from gpt3core.data import writing
from gpt3core.data.writing import TOKEN
from gpt3core.errors import UsageError
from gpt3core.store import files

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
HEADER = struct.Struct("<9sQBQQ")  # magic, version, type, sequences, limits of documents
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6 and 7 are floats
UINT16 = 8
CHUNK = 1 << 20  # entries of an index that are held at once


@dataclass(kw_only=True)
class MegatronSettings:
    """What is written or read, and where to."""

    corpus: str | None = None
    indexed: list[str] = field(default_factory=list)
    out: str | None = None
    tokenizer: str | None = None
    validation_fraction: float | None = None


TOKENIZER, FRACTION = "gpt2", 0.06  # where nothing is said


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(MegatronSettings(), argv)
    if not given.out or (given.corpus is None) == (not given.indexed):
        raise UsageError("out=DIR and one of corpus=... and indexed=[...] are needed: where to, and what (--help)")
    if given.validation_fraction is not None and not 0 < given.validation_fraction < 1:
        raise UsageError(f"validation_fraction={given.validation_fraction}: it must lie between 0 and 1")
    out = Path(given.out).expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"out={given.out}: there is something already: name a new folder")
    with files.explained(out, setting=files.OUT):
        files.make_folder(out)
        lines = _prepare(given, out) if given.indexed else _export(given, out)
    print("\n".join(lines))
    return 0


def _export(given: MegatronSettings, out: Path) -> list[str]:
    from gpt3core.data import corpus, shards
    from gpt3core.data import tokenizer as tokenizers
    from gpt3core.spec import DataSpec

    assert given.corpus is not None
    if corpus.is_prepared(given.corpus):
        own = corpus.prepared(given.corpus)
    else:
        own = DataSpec(
            corpus=given.corpus,
            corpus_sha256=corpus.fingerprint(given.corpus),
            tokenizer=TOKENIZER,
            validation_fraction=FRACTION,
        )
    spec = replace(
        own,
        tokenizer=given.tokenizer or own.tokenizer,
        validation_fraction=given.validation_fraction or own.validation_fraction,
    )
    made, end, said = shards.prepare(spec), tokenizers.end_of_text(spec.tokenizer), []
    for side, streams in (("train", made.train), ("validation", made.validation)):
        for stream in streams:
            count = write(stream.pieces, out / f"{stream.name}-{side}", end)
            said.append(
                f"written: {out}/{stream.name}-{side}.bin and .idx, {count:,} documents, {stream.tokens:,} tokens"
            )
    return said


def _prepare(given: MegatronSettings, out: Path) -> list[str]:
    made, name = {}, given.tokenizer or TOKENIZER
    fraction = given.validation_fraction or FRACTION
    for prefix in map(Path, given.indexed):
        if prefix.name in made:
            raise UsageError(f"indexed: two pairs are named {prefix.name}, which names a source: rename one")
        documents = _sided(read(prefix.expanduser()), fraction, prefix.name)
        made[prefix.name] = writing.write(documents, out, source=prefix.name, tokenizer=name)
    writing.finish(out, made, tokenizer=name, validation_fraction=fraction)
    counts = ", ".join(f"{source} {sum(of.tokens.values()):,} tokens" for source, of in made.items())
    return [f"written: {out}, {counts}: train on it with data.corpus={out} data.tokenizer={name}"]


def _sided(documents: Iterable[np.ndarray], fraction: float, name: str) -> Iterator[tuple[str, str, np.ndarray]]:
    for tokens in documents:
        drawn = int.from_bytes(hashlib.sha256(tokens.astype("<u4").tobytes()).digest()[:8]) / 2**64
        yield "validation" if drawn < fraction else "train", name, tokens


# -------------------------------------------------------------------------------------------------------------- files


def write(pieces: Iterable[np.ndarray], prefix: Path, end: int) -> int:
    """Write tokens as a pair of files, in memory that does not grow; how many documents they are.

    Args:
        pieces: of one stream, (n,) each.
        end: the token that ends a document, and stays its last.
    """
    with open(f"{prefix}.bin", "wb") as tokens, open(f"{prefix}.idx", "w+b") as index:
        index.write(b"\0" * HEADER.size)
        count, begun = 0, 0
        for piece in pieces:
            tokens.write(np.ascontiguousarray(piece, dtype=TOKEN).data)
            limits = np.flatnonzero(piece == end) + 1
            lengths = np.diff(limits, prepend=-begun).astype("<i4")
            index.write(lengths.tobytes())
            count, begun = count + len(lengths), len(piece) - (int(limits[-1]) if len(limits) else -begun)
        if begun:
            index.write(np.array([begun], dtype="<i4").tobytes())
            count += 1
        _places(index, count)
        index.seek(0)
        index.write(HEADER.pack(MAGIC, VERSION, UINT16, count, count + 1))
    return count


def _places(index: BinaryIO, count: int) -> None:
    """Behind the lengths of sequences: where each begins, and that each is a document."""
    place, size = 0, TOKEN.itemsize
    for first in range(0, count, CHUNK):
        index.seek(HEADER.size + 4 * first)
        lengths = np.frombuffer(index.read(4 * min(CHUNK, count - first)), dtype="<i4").astype(np.int64)
        ends = place + size * np.cumsum(lengths)
        index.seek(HEADER.size + 4 * count + 8 * first)
        index.write((ends - size * lengths).astype("<i8").tobytes())
        place = int(ends[-1])
    for first in range(0, count + 1, CHUNK):
        index.write(np.arange(first, min(first + CHUNK, count + 1), dtype="<i8").tobytes())


def read(prefix: Path) -> Iterator[np.ndarray]:
    """The documents of a pair of files, as tokens (n,).

    Raises:
        ValueError: where the files are none such, or not whole.
    """
    index, tokens = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (index, tokens):
        if not path.is_file():
            raise ValueError(f"{path}: no such file; an indexed dataset is {prefix}.bin and {prefix}.idx")
    with open(index, "rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or header[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{index} is no index of Megatron's: it does not begin with {MAGIC[:7].decode()}")
    _, version, code, sequences, limits = HEADER.unpack(header)
    if version != VERSION or code not in TYPES:
        raise ValueError(f"{index} has version {version} and tokens of type {code}: version 1 of integers is read")
    whole = HEADER.size + 12 * sequences + 8 * limits
    if index.stat().st_size < whole:
        raise ValueError(f"{index} has {index.stat().st_size} bytes, its header says {whole}: bring a whole copy of it")
    dtype = np.dtype(TYPES[code])
    lengths = np.memmap(index, dtype="<i4", mode="r", offset=HEADER.size, shape=(sequences,))
    places = np.memmap(index, dtype="<i8", mode="r", offset=HEADER.size + 4 * sequences, shape=(sequences,))
    begins = np.memmap(index, dtype="<i8", mode="r", offset=HEADER.size + 12 * sequences, shape=(limits,))
    if sequences and tokens.stat().st_size < int(places[-1]) + int(lengths[-1]) * dtype.itemsize:
        raise ValueError(f"{tokens} is shorter than {index} says: bring a whole copy of it")
    stored = np.memmap(tokens, dtype=dtype, mode="r") if sequences else np.empty(0, dtype)
    for first, last in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        starts = [int(place) // dtype.itemsize for place in places[first:last]]
        parts = [stored[start : start + int(n)] for start, n in zip(starts, lengths[first:last], strict=True)]
        if parts:
            yield np.concatenate(parts)


if __name__ == "__main__":
    cli.run(main)
