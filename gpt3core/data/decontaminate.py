"""Training text without the evaluation sets, and what is left of them in it: Brown et al. 2020, Appendix C.

A gram is 13 bare words (lower case, no punctuation) in a row. Where a document has a gram of any example, the gram and
200 characters on both sides go, which cuts the document into pieces; pieces under 200 characters go, and all of a
document of more than 10 pieces. Grams in more than 10 documents are common phrases and stay. Then an example is dirty
if one of its grams of N words is in the training text (Table C.1), N being the 5th percentile of the set's lengths in
words, from 8 to 13. An example of fewer than N words has no gram and is clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt3core.data.words import Hashes, Places, batches, grams, words
from gpt3core.store import files

PERCENTILE = 5
N_MIN, N_MAX = 8, 13  # of the grams that tell dirty from clean examples
FILTER_BITS = 5  # 2^5 places for each gram, so that 1 in 32 other grams is looked for in the table
FILTER_BITS_MAX = 27  # 128 MB

Counts = NDArray[np.uint32]  # (grams,) documents that have each


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is cut, and when a document or gram is left out."""

    gram: int = 13  # words
    window: int = 200  # characters that go on both sides of a gram
    shortest: int = 200  # characters of a piece
    pieces: int = 10  # a document of more goes
    common: int = 10  # a gram in more documents stays


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationSet:
    """The grams of the examples of an evaluation set: example e has those from offsets[e] to offsets[e + 1]."""

    name: str
    n: int  # words of a gram
    offsets: Places  # (examples + 1,)
    grams: Places  # places in the table


@dataclass(frozen=True, kw_only=True, eq=False)
class Grams:
    """The grams of all evaluation sets, to be looked for in training text."""

    rules: Rules
    table: Hashes  # (grams,) sorted
    sets: tuple[EvaluationSet, ...]

    @cached_property
    def bits(self) -> int:
        """How many leading bits of a hash the filter knows."""
        return min(len(self.table).bit_length() + FILTER_BITS, FILTER_BITS_MAX)

    @cached_property
    def filter(self) -> NDArray[np.bool_]:
        """Whether any gram of the table has these leading bits."""
        found = np.zeros(1 << self.bits, bool)
        found[self.table >> np.uint64(64 - self.bits)] = True
        return found

    def among(self, hashes: Hashes) -> tuple[Places, Places]:
        """Which of some hashes are in the table, and where there."""
        maybe = np.flatnonzero(self.filter[hashes >> np.uint64(64 - self.bits)])
        place = np.minimum(np.searchsorted(self.table, hashes[maybe]), max(0, len(self.table) - 1))
        found = self.table[place] == hashes[maybe]
        return maybe[found], place[found]

    def save(self, path: Path) -> None:
        """Write all as .npz."""
        arrays = {f"set{i}_{key}": getattr(s, key) for i, s in enumerate(self.sets) for key in ("offsets", "grams")}
        rules = [getattr(self.rules, name) for name in Rules.__annotations__]
        names = np.array([s.name for s in self.sets], str)
        each = [s.n for s in self.sets]
        files.write_streamed(
            path, lambda stream: np.savez(stream, table=self.table, rules=rules, names=names, n=each, **arrays)
        )

    @staticmethod
    def load(path: Path) -> Grams:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            sets = tuple(
                EvaluationSet(name=str(name), n=int(n), offsets=file[f"set{i}_offsets"], grams=file[f"set{i}_grams"])
                for i, (name, n) in enumerate(zip(file["names"], file["n"], strict=True))
            )
            rules = Rules(**dict(zip(Rules.__annotations__, file["rules"].tolist(), strict=True)))
            return Grams(rules=rules, table=file["table"], sets=sets)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What is left of a document."""

    pieces: tuple[str, ...]
    collisions: int  # grams of an evaluation set that it had
    rule: str  # why there are no pieces; empty where there are


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A row of Table C.1: an evaluation set, and how a model does on all, the dirty and the clean examples of it."""

    name: str
    n: int
    total: int
    dirty: int
    score: float
    dirty_score: float  # NaN for none
    clean_score: float

    @property
    def clean(self) -> int:
        """Clean examples."""
        return self.total - self.dirty

    @property
    def clean_share(self) -> float:
        """Of all examples."""
        return self.clean / self.total

    @property
    def difference(self) -> float:
        """By how much clean examples score above all, as a share of the mean of both, which is how Table C.1 has it."""
        mean = (self.clean_score + self.score) / 2
        return (self.clean_score - self.score) / mean if mean else float("nan")


def evaluation_grams(sets: Mapping[str, Sequence[str]], *, rules: Rules | None = None, n_min: int = N_MIN) -> Grams:
    """The grams of evaluation sets, given the text of each example.

    Args:
        n_min: of the grams that tell dirty examples; GPT-3 has 8, and for synthetic sets none.

    Raises:
        ValueError: for a set without an example.
    """
    rules = rules or Rules()
    found = []
    removed = [np.empty(0, np.uint64)]
    for name, examples in sets.items():
        if not examples:
            raise ValueError(f"the evaluation set {name} has no examples: give its text, or leave it out")
        bare = words(examples, bare=True)
        n = int(np.clip(np.percentile(np.diff(bare.offsets), PERCENTILE), n_min, N_MAX))
        removed.append(grams(bare.hashes, bare.offsets, rules.gram)[0])
        found.append((name, n, *grams(bare.hashes, bare.offsets, n)))
    table = np.unique(np.concatenate([*removed, *(hashes for _, _, hashes, _ in found)]))
    return Grams(
        rules=rules,
        table=table,
        sets=tuple(
            EvaluationSet(name=name, n=n, offsets=offsets, grams=np.searchsorted(table, hashes))
            for name, n, hashes, offsets in found
        ),
    )


def count(texts: Sequence[str], held: Grams) -> Counts:
    """How many of the documents have each gram; add the counts of several calls."""
    counts = np.zeros(len(held.table), np.uint32)
    for batch in batches(texts):
        bare = words(batch, bare=True)
        for n in sorted({held.rules.gram, *(s.n for s in held.sets)}):
            hashes, offsets = grams(bare.hashes, bare.offsets, n)
            at, place = held.among(hashes)
            document = np.searchsorted(offsets, at, side="right") - 1
            once = np.unique(document * len(counts) + place)
            np.add.at(counts, once % len(counts), 1)
    return counts


def clean(texts: Sequence[str], held: Grams, counts: Counts) -> list[Cleaned]:
    """What is left of each document.

    Args:
        counts: of all the training text, which say which grams are common.
    """
    return [cleaned for batch in batches(texts) for cleaned in _clean(batch, held, counts)]


def dirty(held: Grams, counts: Counts) -> dict[str, NDArray[np.bool_]]:
    """Of each evaluation set, which examples have a gram in the training text that was counted."""
    found = {}
    for s in held.sets:
        hits = np.concatenate([[0], np.cumsum(counts[s.grams] > 0)])
        found[s.name] = hits[s.offsets[1:]] > hits[s.offsets[:-1]]
    return found


def _clean(texts: Sequence[str], held: Grams, counts: Counts) -> list[Cleaned]:
    rules = held.rules
    bare = words(texts, bare=True)
    hashes, offsets = grams(bare.hashes, bare.offsets, rules.gram)
    at, place = held.among(hashes)
    at = at[counts[place] <= rules.common]
    document = np.searchsorted(offsets, at, side="right") - 1
    first = at - offsets[document] + bare.offsets[document]  # the word that a gram begins with
    stretches = np.stack([bare.starts[first], bare.ends[first + rules.gram - 1]], axis=1)
    having, begins = np.unique(document, return_index=True)
    left = [Cleaned(pieces=(text,), collisions=0, rule="") for text in texts]
    for d, mine in zip(having, np.split(stretches, begins[1:]), strict=False):  # of none there is one, empty
        left[d] = _cut(texts[d], mine.tolist(), rules)
    return left


def _cut(text: str, collisions: Sequence[tuple[int, int]], rules: Rules) -> Cleaned:
    """A document without its collisions, given from where to where each goes, and the windows around them."""
    pieces = []
    begin = 0
    for start, end in collisions:
        if start - rules.window > begin:
            pieces.append(text[begin : start - rules.window])
        begin = max(begin, end + rules.window)
    pieces.append(text[begin:])
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    long = tuple(piece for piece in pieces if len(piece) >= rules.shortest)
    if len(pieces) > rules.pieces:
        return Cleaned(pieces=(), collisions=len(collisions), rule=f"cut into more than {rules.pieces} pieces")
    rule = "" if long else f"no piece of {rules.shortest} characters"
    return Cleaned(pieces=long, collisions=len(collisions), rule=rule)
