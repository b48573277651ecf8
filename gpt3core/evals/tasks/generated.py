"""Items drawn by rule, from a seed: they need no file, and some of them a list of words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gpt3core.evals.item import Item
from gpt3core.evals.tasks import english
from gpt3core.evals.tasks.task import Material, Split

POOL = 1000  # items beside the queries, for examples and for the prior baseline
GLANCED = 8  # items of either kind where only whether there would be enough is asked
TRIES = 20  # for an item that was not drawn before; a task of few different ones repeats them
MIN_WORDS = 24
NONE, ENGLISH, ONE_TOKEN = "no words", "frequent English words", "frequent words of one token"

Maker = Callable[[random.Random, list[str]], Item]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """``make`` draws an item: from nothing, from one English word, or from the corpus's frequent words of one token.

    Of English words each makes one item.
    """

    make: Maker
    words: str = NONE
    shortest: int = 1  # letters of an English word that serves
    longest: int = 15
    among: int = english.FREQUENT  # the most frequent ones of these

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` queries after ``POOL`` others: the first queries are the same, however many are asked."""
        words = self._its_words(count, material)
        if material.glance:
            return glanced(self._made(rng, words, 2 * GLANCED))
        made = self._made(rng, words, POOL + count)
        return Split(queries=made[POOL:], pool=made[:POOL])

    def _its_words(self, count: int, material: Material) -> list[str]:
        """The words that it draws from, and may be asked so many questions of."""
        if self.words != ENGLISH:
            return _of_corpus(material) if self.words == ONE_TOKEN else []
        words = english.words(self.shortest, self.longest)[: self.among]
        if POOL + count > len(words):
            raise ValueError(
                f"{count} questions and {POOL} examples are of a word each, and there are {len(words)} words of "
                f"{self.shortest} to {self.longest} letters: set items lower, or let the task have more words"
            )
        return words

    def _made(self, rng: random.Random, words: list[str], needed: int) -> list[Item]:
        if self.words == ENGLISH:
            return [self.make(rng, [word]) for word in rng.sample(words, len(words))[:needed]]
        return self._distinct(rng, words, needed)

    def _distinct(self, rng: random.Random, words: list[str], needed: int) -> list[Item]:
        """Different items, as far as there are any."""
        made: list[Item] = []
        seen: set[str] = set()
        for _ in range(needed):
            for _ in range(TRIES):
                item = self.make(rng, words)
                if item.context not in seen:
                    break
            seen.add(item.context)
            made.append(item)
        return made


def glanced(made: list[Item]) -> Split:
    """A few items as if they were all that would be made."""
    return Split(queries=made[GLANCED:], pool=made[:GLANCED] * (POOL // GLANCED))


def _of_corpus(material: Material) -> list[str]:
    """The corpus's frequent words of one token.

    Raises:
        ValueError: without a corpus, or where it has too few.
    """
    if material.data is None or material.encoding is None:
        raise ValueError("its words are those of a corpus: give one, like corpus=starter")
    encoding = material.encoding
    words = [word for word in material.data.words if len(encoding.encode_ordinary(f" {word}")) == 1]
    if len(words) < MIN_WORDS:
        raise ValueError(f"the corpus has {len(words)} {ONE_TOKEN}, {MIN_WORDS} are needed: give more text")
    return words
