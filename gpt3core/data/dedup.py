"""Near-duplicates by MinHash and locality-sensitive hashing: which documents are copies, and which copy is kept.

Two documents' sets of word n-grams have the Jaccard similarity s = |both| / |either|. Each of many hash functions has
its least value over both sets in one of both with probability s (Broder 1997), so a row of these values, the signature,
stands for a set. A signature is cut into bands of rows; two documents are candidates if they are equal in a band:
1 - (1 - s^rows)^bands. Candidates whose signatures agree as a whole are linked, and linked documents are copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from gpt3core.data.words import Places, batches, grams, mixed, stretches, words

CHUNK = 1 << 14  # documents or pairs that are compared at a time
ROUNDS = 16  # of leaders of a bucket whose members are not all alike
EMPTY = np.uint32(0xFFFFFFFF)  # throughout a signature: no word
STEP = 0x9E3779B97F4A7C15  # of the sequence that hash functions are numbered by (splitmix64)

Signatures = NDArray[np.uint32]  # (documents, hashes)


@dataclass(frozen=True, kw_only=True)
class MinHash:
    """How near-duplicates are looked for.

    Raises:
        ValueError: for bands that need more hashes than there are.
    """

    gram: int  # words
    bands: int
    rows: int
    hashes: int = 128
    similarity: float  # that a signature must show to link two candidates
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.gram, self.bands, self.rows) < 1 or self.bands * self.rows > self.hashes:
            raise ValueError(
                f"gram={self.gram} bands={self.bands} rows={self.rows} hashes={self.hashes}: each must be at least 1, "
                "and bands times rows no more than hashes"
            )

    def collision(self, similarity: float) -> float:
        """The probability that documents of this Jaccard similarity are candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


# GPT-3: Spark's MinHashLSH with 10 hashes, on the words that the classifier counts (Appendix A). Spark joins on any one
# hash and then compares the sets, which is quadratic here: two English documents share 1/5 of their words. So the ten
# are two bands of five, and the whole signature compares the sets; the paper does not say at which similarity.
GPT3 = MinHash(gram=1, bands=2, rows=5, similarity=0.8)
MODERN = MinHash(gram=5, bands=16, rows=8, similarity=0.6)  # half of the pairs of 0.68 collide


def signatures(texts: Sequence[str], setting: MinHash) -> Signatures:
    """The signature of each text (documents, hashes); that of a text without a word is the largest number throughout.

    A text of fewer words than a gram counts as one gram.
    """
    found = [np.empty((0, setting.hashes), np.uint32)]
    for batch in batches(texts):
        own = words(batch)
        found.append(minima(*grams(own.hashes, own.offsets, setting.gram, short=True), setting))
    return np.concatenate(found)


def minima(shingles: NDArray[np.uint64], offsets: Places, setting: MinHash) -> Signatures:
    """The signatures of sets of hashes: of a x mod 2^32 for as many odd a, the least over the high 32 bits x."""
    high = (shingles >> np.uint64(32)).astype(np.uint32)
    full = np.diff(offsets) > 0  # reduceat takes an empty stretch for one of length one
    found = np.full((setting.hashes, len(full)), EMPTY, np.uint32)
    if full.any():
        product, begins = np.empty_like(high), offsets[:-1][full]
        for row, factor in zip(found, _factors(setting), strict=True):
            np.multiply(high, factor, out=product)
            row[full] = np.minimum.reduceat(product, begins)
    return np.ascontiguousarray(found.T)


def copies(
    ids: Sequence[str],
    sources: Sequence[str],
    found: Signatures,
    setting: MinHash,
    *,
    order: Sequence[str],
    across: bool = True,
) -> Places:
    """For each document the number of the copy that is kept, its own if it is that: documents may come in any order.

    Of linked documents the one from the source that comes first in ``order`` is kept, and of these the one with the
    least id.

    Args:
        ids: of the documents, all different.
        found: (documents, hashes), which may be a memory map.
        order: the sources, the most trusted first.
        across: whether documents of different sources are copies too; GPT-3 looked within each source.
    """
    place = {source: number for number, source in enumerate(order)}
    if missing := set(sources) - place.keys():
        raise ValueError(f"sources {', '.join(sorted(missing))} are not in order={', '.join(order)}: add them")
    of_source = np.array([place[source] for source in sources], np.uint64)
    ranked = np.array(sorted(range(len(ids)), key=lambda d: (of_source[d], ids[d])), np.int64)
    pairs = [np.empty((2, 0), np.int64)]
    for band in range(setting.bands):
        keys = _keys(found, band * setting.rows, setting.rows)
        if not across:
            keys = mixed(keys + of_source)
        pairs.append(_links(keys[ranked], ranked, found, setting.similarity))
    leaders, members = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(len(leaders), bool), (leaders, members)), shape=(len(ids), len(ids)))
    _, component = csgraph.connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    kept = np.empty(len(ids), np.int64)
    kept[ranked] = ranked[first[component]]
    return kept


def _links(keys: NDArray[np.uint64], ranked: Places, found: Signatures, similarity: float) -> NDArray[np.int64]:
    """Pairs of ranks (2, pairs) that are alike, of documents with words that are in the same bucket.

    The first of a bucket leads: those that are like it are linked, and the others are a bucket again, ROUNDS times.
    So the cost is linear, and in a bucket of more kinds than that copies among the last are missed.

    Args:
        keys: of the documents by rank.
    """
    members = np.flatnonzero(found[ranked, 0] != EMPTY)
    members = members[np.argsort(keys[members], kind="stable")]
    pairs = [np.empty((2, 0), np.int64)]
    for _ in range(ROUNDS):
        if len(members) < 2:
            break
        first = np.append(True, keys[members[1:]] != keys[members[:-1]])
        alone = first & np.append(first[1:], True)
        members, first = members[~alone], first[~alone]
        leaders = members[first][np.cumsum(first) - 1]
        alike = _agreement(found, ranked[leaders], ranked[members]) >= similarity
        pairs.append(np.stack([leaders, members])[:, alike & ~first])
        members = members[~alike]
    return np.concatenate(pairs, axis=1)


def _agreement(found: Signatures, some: Places, others: Places) -> NDArray[np.float64]:
    """The share of equal hashes of pairs of documents, which estimates their similarity."""
    shares = [np.empty(0)]
    for at in range(0, len(some), CHUNK):
        chunk = slice(at, at + CHUNK)
        shares.append((found[some[chunk]] == found[others[chunk]]).mean(axis=1))
    return np.concatenate(shares)


def _keys(found: Signatures, first: int, rows: int) -> NDArray[np.uint64]:
    """A hash of each document's band."""
    keys = []
    for at in range(0, len(found), CHUNK):
        band = found[at : at + CHUNK, first : first + rows]
        begins = np.arange(len(band)) * rows
        keys.append(stretches(band.ravel(), begins, begins + rows))
    return np.concatenate([np.empty(0, np.uint64), *keys])


def _factors(setting: MinHash) -> NDArray[np.uint32]:
    """The odd factor of each hash function."""
    numbers = np.arange(1, setting.hashes + 1, dtype=np.uint64) * np.uint64(STEP) + np.uint64(setting.seed)
    return (mixed(numbers) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
