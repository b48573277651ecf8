"""Generated episodes: lines of question and answer under a rule that only the lines before tell.

Natural text teaches a model below about a million parameters nothing that more examples would help (it is too short of
data for that), so a share of these is mixed in where the gain from examples is what is studied. What tests ask is kept
out of training (``held_out=True`` asks it): every fourth symbol, so that mappings are new, and every fourth set of
letters. The shifts of arithmetic are nine, and all of them are trained on: examples tell which one it is.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpt3core.data import tokenizer as tokenizers

NAME = "episodes"  # of the source
TOKENS = 1 << 22  # generated for training; a run that draws more sees them again
# when other episodes would be generated, spec.PIPELINE_VERSION is raised
LINES = (4, 8, 12, 16, 24, 32)  # of an episode
PAIRS = (2, 2, 3, 4, 6, 8)  # that a mapping has
TESTED_PAIRS = 4
SHIFTS = range(1, 10)
LETTERS = "abcdefghijklmnoprstuvw"  # which are tokens of their own from gpt2:1024 on
SYMBOLS = re.compile(r" [a-z]{3,}")
MOST_SYMBOLS = 256
LEAST_SYMBOLS = 64
CHOICES = 4


@dataclass(frozen=True, kw_only=True)
class Line:
    """A question, its answer, and the answers to choose from, that one among them."""

    question: str
    answer: str
    choices: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.question} ={self.answer}"


Kind = Callable[[random.Random, list[str], int, bool], list[Line]]


def mapping(rng: random.Random, symbols: list[str], lines: int, held_out: bool) -> list[Line]:
    """Each of a few symbols stands for another one, drawn anew in every episode."""
    pairs = TESTED_PAIRS if held_out else rng.choice(PAIRS)
    drawn = rng.sample(symbols, 2 * pairs)
    meaning = dict(zip(drawn[:pairs], drawn[pairs:], strict=True))
    asked = rng.choices(drawn[:pairs], k=lines)
    return [Line(question=key, answer=meaning[key], choices=tuple(drawn[pairs:])) for key in asked]


def cipher(rng: random.Random, symbols: list[str], lines: int, held_out: bool) -> list[Line]:
    """Each of a few letters stands for another one: a mapping that is learned before those of many symbols are."""
    del symbols
    return mapping(rng, [f" {letter}" for letter in LETTERS], lines, held_out)


def copying(rng: random.Random, symbols: list[str], lines: int, held_out: bool) -> list[Line]:
    """A symbol stands for itself."""
    del held_out  # its symbols are
    drawn = [rng.sample(symbols, CHOICES) for _ in range(lines)]
    return [Line(question=some[0], answer=some[0], choices=tuple(sorted(some))) for some in drawn]


def sorting(rng: random.Random, symbols: list[str], lines: int, held_out: bool) -> list[Line]:
    """Three letters in the order of the alphabet."""
    del symbols
    found: list[Line] = []
    while len(found) < lines:
        letters = rng.sample(LETTERS, 3)
        in_order = "".join(sorted(letters))
        if _fourth(in_order) == held_out:
            others = rng.sample([order for order in _ORDERS if order != (0, 1, 2)], CHOICES - 1)
            answers = [_spaced(in_order), *(_spaced([in_order[i] for i in order]) for order in others)]
            found.append(Line(question=_spaced(letters), answer=answers[0], choices=tuple(sorted(answers))))
    return found


def shifting(rng: random.Random, symbols: list[str], lines: int, held_out: bool) -> list[Line]:
    """A digit and a number that is greater by the same amount in the whole episode."""
    del symbols, held_out
    shift = rng.choice(SHIFTS)
    found = []
    for _ in range(lines):
        digit = rng.randrange(10)
        others = rng.sample([s for s in range(max(0, shift - 3), shift + 4) if s != shift], CHOICES - 1)
        answers = tuple(f" {digit + s}" for s in sorted([shift, *others]))
        found.append(Line(question=f" {digit}", answer=f" {digit + shift}", choices=answers))
    return found


# and how often, in twelfths. At width 80, 1e13 FLOPs and 40% of the tokens the accuracy of mapping at K = 0, 4, 24 is
# .24 .47 .63, of cipher .27 .67 .99, of shifting .27 .97 1.0. Without cipher and with mapping in five of ten it is .21
# .38 .49, with mapping in two of three and neither cipher nor shifting .25 .25 .28: easy kinds teach the hard one.
KINDS: dict[str, tuple[Kind, int]] = {
    "mapping": (mapping, 4),
    "cipher": (cipher, 2),
    "copying": (copying, 2),
    "sorting": (sorting, 1),
    "shifting": (shifting, 3),
}
_ORDERS = [(a, b, c) for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3]


@functools.lru_cache(maxsize=8)
def symbols(tokenizer: str, held_out: bool) -> list[str]:
    """The words of one token that episodes are made of: those of training, or those kept for tests.

    Raises:
        ValueError: for a tokenizer that has too few.
    """
    encoding = tokenizers.load(tokenizer)
    found = [word for k in range(encoding.eot_token) if SYMBOLS.fullmatch(word := encoding.decode([k]))][:MOST_SYMBOLS]
    if len(found) < LEAST_SYMBOLS:
        raise ValueError(
            f"data.tokenizer={tokenizer} has {len(found)} words of one token, episodes need {LEAST_SYMBOLS}: give a "
            "larger one, such as gpt2:1024"
        )
    return [word for word in found if _fourth(word) == held_out]


def documents(tokenizer: str) -> Iterator[str]:
    """Episodes for training, always the same ones, a document each: ``TOKENS`` of them."""
    rng, known = random.Random(f"isoflop:{NAME}"), symbols(tokenizer, held_out=False)
    encode, tokens = tokenizers.load(tokenizer).encode_ordinary, 0
    kinds, often = zip(*KINDS.values(), strict=True)
    while tokens < TOKENS:
        (kind,) = rng.choices(kinds, often)
        text = "".join(f"\n{line}" for line in kind(rng, known, rng.choice(LINES), False))
        tokens += len(encode(text)) + 1
        yield text


def _fourth(text: str) -> bool:
    return hashlib.sha256(f"held out:{text}".encode()).digest()[0] < 64


def _spaced(letters: list[str] | str) -> str:
    return "".join(f" {letter}" for letter in letters)
