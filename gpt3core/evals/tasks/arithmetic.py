"""GPT-3's arithmetic (Brown et al. 2020, section 3.9.1) in the format of its released files.

Operands are uniform on [0, 10^d), subtraction may be negative. For single-digit three-operation items the released
files are followed: digits 1-9, parentheses round the first two.
"""

from __future__ import annotations

import random

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.task import Generated, Task


def _question(text: str, answer: int) -> Item:
    return Item(context=f"\n\nQ: {text}\n\nA:", answer=f" {answer}")


def _arithmetic(digits: int, word: str) -> Generated:
    def make(rng: random.Random, _: list[str]) -> Item:
        a, b = rng.randrange(10**digits), rng.randrange(10**digits)
        result = {"plus": a + b, "minus": a - b, "times": a * b}[word]
        return _question(f"What is {a} {word} {b}?", result)

    return Generated(make=make)


def _three_operations(rng: random.Random, _: list[str]) -> Item:
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    first, second = rng.choice("+-*"), rng.choice("+-*")
    return _question(f"What is ({a} {first} {b}) {second} {c}?", apply[second](apply[first](a, b), c))


TASKS: dict[str, Task] = {
    **{f"addition_{d}": _arithmetic(d, "plus") for d in (2, 3, 4, 5)},
    **{f"subtraction_{d}": _arithmetic(d, "minus") for d in (2, 3, 4, 5)},
    "multiplication_2": _arithmetic(2, "times"),
    "three_operations": Generated(make=_three_operations),
}
