"""Generated tasks: GPT-3's arithmetic and word scrambling in the formats of its released files, and two that small
models can begin to do: copying a word, and induction (a word that followed another one before follows it again).

Arithmetic (Brown et al. 2020, section 3.9.1): operands uniform on [0, 10^d), subtraction may be negative. For single-
digit three-operation items the released files are followed: digits 1-9, parentheses round the first two. Words
(section 3.9.2): completion of "<scrambled> =".
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gpt3core.evals.tasks import Item

Maker = Callable[[random.Random, list[str]], Item]

INSERTED = " ./!"  # the characters that the released random-insertion file uses
FILLERS = 4  # words between occurrences of the induction pair
CHOICES = 4


def _question(text: str, answer: int) -> Item:
    return Item(context=f"\n\nQ: {text}\n\nA:", answer=f" {answer}")


def _arithmetic(digits: int, word: str) -> Maker:
    def make(rng: random.Random, _: list[str]) -> Item:
        a, b = rng.randrange(10**digits), rng.randrange(10**digits)
        result = {"plus": a + b, "minus": a - b, "times": a * b}[word]
        return _question(f"What is {a} {word} {b}?", result)

    return make


def _three_operations(rng: random.Random, _: list[str]) -> Item:
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    first, second = rng.choice("+-*"), rng.choice("+-*")
    return _question(f"What is ({a} {first} {b}) {second} {c}?", apply[second](apply[first](a, b), c))


def _shuffled(rng: random.Random, letters: str) -> str:
    return "".join(rng.sample(letters, len(letters)))


def _cycled(rng: random.Random, word: str) -> str:
    cut = rng.randrange(1, len(word))
    return word[cut:] + word[:cut]


def _words(scramble: Callable[[random.Random, str], str], shortest: int) -> Maker:
    def make(rng: random.Random, words: list[str]) -> Item:
        word = rng.choice([w for w in words if len(w) >= shortest])
        return Item(context=f"\n{scramble(rng, word)} =", answer=f" {word}")

    return make


def _copy(rng: random.Random, words: list[str]) -> Item:
    shown, *others = rng.sample(words, CHOICES)
    return Item(context=f"\n {shown} =", answer=f" {shown}", choices=_mixed(rng, shown, others))


def _induction(rng: random.Random, words: list[str]) -> Item:
    """The item of K = 1 example: "A B" among other words, then "A". ``examples_inside`` adds occurrences for larger
    K.
    """
    cue, answer, *fillers = rng.sample(words, 2 + FILLERS + CHOICES - 1)
    fillers, others = fillers[:FILLERS], fillers[FILLERS:]
    return Item(context=f" {cue}", answer=f" {answer}", choices=_mixed(rng, answer, others), fillers=tuple(fillers))


def _mixed(rng: random.Random, answer: str, others: list[str]) -> tuple[str, ...]:
    choices = [f" {word}" for word in (answer, *others)]
    rng.shuffle(choices)
    return tuple(choices)


MAKERS: dict[str, Maker] = {
    **{f"addition_{d}": _arithmetic(d, "plus") for d in (2, 3, 4, 5)},
    **{f"subtraction_{d}": _arithmetic(d, "minus") for d in (2, 3, 4, 5)},
    "multiplication_2": _arithmetic(2, "times"),
    "three_operations": _three_operations,
    "cycle_letters": _words(_cycled, 5),
    "anagrams_1": _words(lambda rng, w: w[0] + _shuffled(rng, w[1:-1]) + w[-1], 5),
    "anagrams_2": _words(lambda rng, w: w[:2] + _shuffled(rng, w[2:-2]) + w[-2:], 6),
    "random_insertion": _words(lambda rng, w: "".join(c + rng.choice(INSERTED) for c in w[:-1]) + w[-1], 5),
    "reversed_words": _words(lambda _, w: w[::-1], 5),
    "copy": _copy,
    "induction": _induction,
}

WORD_TASKS = (
    *("cycle_letters", "anagrams_1", "anagrams_2", "random_insertion", "reversed_words"),
    *("copy", "induction"),
)
