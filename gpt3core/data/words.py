"""The words of many texts as hashes of 64 bits, which every filter counts, samples or compares.

A word is a stretch without white space or control characters, in lower case (letter by letter). Bare words have no
punctuation either: it is taken out, and a word of nothing else is none. Scripts that write no spaces have long words.

A stretch of numbers x_0, x_1, ... hashes to mix(sum of x_j B^j mod 2^64), which running sums give wherever the stretch
lies: so words hash from characters and grams from words at the same few passes over an array, and a hash depends on
nothing but its own stretch, whatever else is in the batch.
"""

from __future__ import annotations

import functools
import itertools
import string
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BATCH = 1 << 20  # characters of documents that are worked on at a time
BLOCK = 1 << 16  # characters that are hashed at a time: their arrays stay in the processor's cache
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
CASED = 0x20000  # no character from here on is cased, white space or punctuation
SPACE, PUNCTUATION = 0, 0xFFFFFFFF

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """The words of documents, one after the other: document d has those from offsets[d] to offsets[d + 1]."""

    hashes: Hashes  # (words,)
    offsets: Places  # (documents + 1,)
    starts: Places  # (words,) characters before a word in its own document
    ends: Places  # (words,) characters before its end


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in groups of about BATCH characters, which bounds the memory of what is computed of them."""
    ends = np.cumsum([0, *(len(text) for text in texts)])
    cuts = np.searchsorted(ends[1:], np.arange(BATCH, ends[-1], BATCH))
    bounds = np.unique([0, *cuts.tolist(), len(texts)])
    for begin, end in itertools.pairwise(bounds.tolist()):
        yield texts[begin:end]


def words(texts: Sequence[str], *, bare: bool = False) -> Words:
    """The words of each text.

    Args:
        bare: without punctuation.
    """
    hashes, starts, ends = [], [], []
    counts = np.zeros(len(texts), np.int64)
    for parts in _blocks(texts):
        found, begin, end, of_part = _block([texts[d][a:b] for d, a, b in parts], bare)
        shift = np.repeat([a for _, a, _ in parts], of_part)
        hashes.append(found)
        starts.append(begin + shift)
        ends.append(end + shift)
        np.add.at(counts, [d for d, _, _ in parts], of_part)
    return Words(
        hashes=np.concatenate([np.empty(0, np.uint64), *hashes]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        starts=np.concatenate([np.empty(0, np.int64), *starts]),
        ends=np.concatenate([np.empty(0, np.int64), *ends]),
    )


def grams(hashes: Hashes, offsets: Places, n: int, *, short: bool = False) -> tuple[Hashes, Places]:
    """The hashes of each document's runs of n words, in order, and each document's offsets among them.

    Args:
        hashes: (words,) of documents one after the other.
        offsets: (documents + 1,) of documents among the words.
        short: the words of a document of fewer than n count as a gram.
    """
    lengths = np.diff(offsets)
    counts = np.maximum(lengths - n + 1, np.minimum(lengths, 1) if short else 0)
    among = np.concatenate([[0], np.cumsum(counts)])
    starts = np.arange(among[-1]) + np.repeat(offsets[:-1] - among[:-1], counts)
    ends = np.minimum(starts + n, np.repeat(offsets[1:], counts))
    return stretches(hashes, starts, ends), among


def stretches(values: NDArray[np.unsignedinteger], starts: Places, ends: Places) -> Hashes:
    """The hashes of stretches of an array, wherever they lie in it."""
    power, inverse = _powers(max(2 * BLOCK, 1 << len(values).bit_length()))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * power[: len(values)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverse[starts])


def mixed(x: Hashes) -> Hashes:
    """Numbers of 64 bits, mixed in place so that each bit depends on all (the finaliser of splitmix64, a bijection)."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _blocks(texts: Sequence[str]) -> Iterator[list[tuple[int, int, int]]]:
    """Groups of (text, from, to) of about BLOCK characters. A longer text is cut before a space, or anywhere."""
    block: list[tuple[int, int, int]] = []
    size = 0
    for number, text in enumerate(texts):
        begin = 0
        while begin < len(text):
            end = min(len(text), begin + BLOCK)
            if end < len(text):
                space = max(text.rfind(" ", begin + 1, end), text.rfind("\n", begin + 1, end))
                end = space if space > 0 else end
            if size + end - begin > BLOCK and block:
                yield block
                block, size = [], 0
            block.append((number, begin, end))
            size += end - begin
            begin = end
    if block:
        yield block


def _block(parts: list[str], bare: bool) -> tuple[Hashes, Places, Places, Places]:
    """The hashes of the words of some parts, where each starts and ends in its part, and how many each part has."""
    joined = "\n".join([*parts, ""])
    codes = _letters(bare).take(np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32))
    begins = np.concatenate([[0], np.cumsum([len(part) + 1 for part in parts])])
    kept = np.flatnonzero(codes != PUNCTUATION) if bare else None
    if kept is not None:
        codes = codes[kept]
    inside = np.concatenate([[False], codes != SPACE])  # the last character is the space behind the last part
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    first, last = edges[::2], edges[1::2]
    hashes = stretches(codes, first, last)
    if kept is not None:
        first, last = kept[first], kept[last - 1] + 1
    bounds = np.searchsorted(first, begins)
    of_part = np.diff(bounds)
    shift = np.repeat(begins[:-1], of_part)
    return hashes, first - shift, last - shift, of_part


@functools.cache
def _letters(bare: bool) -> NDArray[np.uint32]:
    """What each character counts as: its lower case, SPACE, or PUNCTUATION."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(CASED):
        character = chr(code)
        if code <= 32 or character.isspace():
            table[code] = SPACE
        elif bare and (character in string.punctuation or unicodedata.category(character)[0] == "P"):
            table[code] = PUNCTUATION
        elif (lower := character.lower()) != character:
            table[code] = ord(lower[0])
    return table


@functools.lru_cache(maxsize=2)
def _powers(n: int) -> tuple[Hashes, Hashes]:
    """B^0, B^1, ..., B^n and their inverses modulo 2^64."""
    power, inverse = (
        np.multiply.accumulate(np.r_[np.uint64(1), np.full(n, base, np.uint64)])
        for base in (BASE, pow(BASE, -1, 1 << 64))
    )
    return power, inverse
