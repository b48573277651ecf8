"""Tasks about a word: GPT-3's word scrambling, and two that small models can begin to do.

Scrambling (Brown et al. 2020, section 3.9.2) in the format of the released files: completion of "<scrambled> =". The
two: copying a word, and induction (a word that followed another one before follows it again).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gpt3core.evals.item import Item
from gpt3core.evals.prompts import repeated
from gpt3core.evals.tasks.task import FREQUENT, ONE_TOKEN, Generated, Task

INSERTED = " ./!"  # the characters that the released random-insertion file uses
FILLERS = 4  # words between occurrences of the induction pair
CHOICES = 4


def _shuffled(rng: random.Random, letters: str) -> str:
    return "".join(rng.sample(letters, len(letters)))


def _cycled(rng: random.Random, word: str) -> str:
    cut = rng.randrange(1, len(word))
    return word[cut:] + word[:cut]


def _words(scramble: Callable[[random.Random, str], str], shortest: int) -> Generated:
    def make(rng: random.Random, words: list[str]) -> Item:
        word = rng.choice(words)
        return Item(context=f"\n{scramble(rng, word)} =", answer=f" {word}")

    return Generated(make=make, words=FREQUENT, shortest=shortest)


def _copy(rng: random.Random, words: list[str]) -> Item:
    shown, *others = rng.sample(words, CHOICES)
    return Item(context=f"\n {shown} =", answer=f" {shown}", choices=_mixed(rng, shown, others))


def _induction(rng: random.Random, words: list[str]) -> Item:
    """A cue, its answer, and the words between their occurrences, which ``prompts.repeated`` makes K of."""
    cue, answer, *fillers = rng.sample(words, 2 + FILLERS + CHOICES - 1)
    fillers, others = fillers[:FILLERS], fillers[FILLERS:]
    return Item(context=f" {cue}", answer=f" {answer}", choices=_mixed(rng, answer, others), fillers=tuple(fillers))


def _mixed(rng: random.Random, answer: str, others: list[str]) -> tuple[str, ...]:
    choices = [f" {word}" for word in (answer, *others)]
    rng.shuffle(choices)
    return tuple(choices)


# the choices of copy and induction differ in one position: words of one token
TASKS: dict[str, Task] = {
    "cycle_letters": _words(_cycled, 5),
    "anagrams_1": _words(lambda rng, w: w[0] + _shuffled(rng, w[1:-1]) + w[-1], 5),
    "anagrams_2": _words(lambda rng, w: w[:2] + _shuffled(rng, w[2:-2]) + w[-2:], 6),
    "random_insertion": _words(lambda rng, w: "".join(c + rng.choice(INSERTED) for c in w[:-1]) + w[-1], 5),
    "reversed_words": _words(lambda _, w: w[::-1], 5),
    "copy": Generated(make=_copy, words=ONE_TOKEN),
    "induction": Generated(make=_induction, words=ONE_TOKEN, ask=repeated),
}
