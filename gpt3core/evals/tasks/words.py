"""Tasks about a word: GPT-3's word scrambling, and two that small models can begin to do.

Scrambling (Brown et al. 2020, section 3.9.2) in the format of the released files: completion of "<scrambled> =", of
words of 6 to 15 letters, in anagrams_1 of 5 to 15, as these files have them (the paper says 5 to 14). NAME_short asks
for words of 3 to 5 letters, anagrams_1 of 4 to 5 and anagrams_2 of 6. The two: copying a word, and induction (a word
that followed another one before follows it again).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.generated import ENGLISH, ONE_TOKEN, Generated
from gpt3core.evals.tasks.task import Task

SHOTS = 100  # figure 3.11
INSTRUCTION = "Please unscramble the letters into a word, and write that word:"  # appendix G, figures G.19 to G.27
INSERTED = " ./!"  # the characters that the released random-insertion file uses, each as often; the paper shows more
LONGEST = 15
SHORT_AMONG = 1000  # the most frequent of the short words
FILLERS = 4  # words between occurrences of the induction pair
CHOICES = 4

Scramble = Callable[[random.Random, str], str]


def _shuffled(rng: random.Random, letters: str) -> str:
    """The letters in another order, if they have one."""
    while True:
        shuffled = "".join(rng.sample(letters, len(letters)))
        if shuffled != letters or len(set(letters)) == 1:
            return shuffled


def _cycled(rng: random.Random, word: str) -> str:
    cut = rng.randrange(1, len(word))
    return word[cut:] + word[:cut]


def _inserted(rng: random.Random, word: str) -> str:
    return "".join(letter + rng.choice(INSERTED) for letter in word[:-1]) + word[-1]


# name -> scrambling, shortest word, lengths of the short variant
SCRAMBLES: dict[str, tuple[Scramble, int, tuple[int, int]]] = {
    "cycle_letters": (_cycled, 6, (3, 5)),
    "anagrams_1": (lambda rng, w: w[0] + _shuffled(rng, w[1:-1]) + w[-1], 5, (4, 5)),
    "anagrams_2": (lambda rng, w: w[:2] + _shuffled(rng, w[2:-2]) + w[-2:], 6, (6, 6)),
    "random_insertion": (_inserted, 6, (3, 5)),
    "reversed_words": (lambda _, w: w[::-1], 6, (3, 5)),
}


def _words(scramble: Scramble, source: dict[str, int], shots: int | None) -> Task:
    def make(rng: random.Random, words: list[str]) -> Item:
        word = rng.choice(words)
        return Item(context=f"{scramble(rng, word)} =", answer=f" {word}")

    return Task(
        kind="generate",
        source=Generated(make=make, words=ENGLISH, **source),
        metric="exact",
        delimiter="\n",
        leading=True,
        instruction=INSTRUCTION,
        answer_tokens=16,
        paper_shots=shots,
    )


def _copy(rng: random.Random, words: list[str]) -> Item:
    shown, *others = rng.sample(words, CHOICES)
    return Item(context=f" {shown} =", answer=f" {shown}", choices=_mixed(rng, shown, others))


def _induction(rng: random.Random, words: list[str]) -> Item:
    """A cue, its answer, and the words between their occurrences, of which a prompt has K."""
    cue, answer, *fillers = rng.sample(words, 2 + FILLERS + CHOICES - 1)
    fillers, others = fillers[:FILLERS], fillers[FILLERS:]
    return Item(context=f" {cue}", answer=f" {answer}", choices=_mixed(rng, answer, others), fillers=tuple(fillers))


def _mixed(rng: random.Random, answer: str, others: list[str]) -> tuple[str, ...]:
    choices = [f" {word}" for word in (answer, *others)]
    rng.shuffle(choices)
    return tuple(choices)


def _choice(make: Callable[[random.Random, list[str]], Item], delimiter: str) -> Task:
    """The choices differ in one position: words of one token."""
    source = Generated(make=make, words=ONE_TOKEN)
    return Task(kind="multiple_choice", source=source, metric="choice", delimiter=delimiter, leading=bool(delimiter))


TASKS: dict[str, Task] = {
    **{
        name: _words(scramble, {"shortest": shortest, "longest": LONGEST}, SHOTS)
        for name, (scramble, shortest, _) in SCRAMBLES.items()
    },
    **{
        f"{name}_short": _words(scramble, {"shortest": least, "longest": most, "among": SHORT_AMONG}, None)
        for name, (scramble, _, (least, most)) in SCRAMBLES.items()
    },
    "copy": _choice(_copy, "\n"),
    "induction": _choice(_induction, ""),
}
