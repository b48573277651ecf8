"""GPT-3's arithmetic (Brown et al. 2020, section 3.9.1) in the format of its released files.

Operands are uniform on [0, 10^d), subtraction may be negative. Of single-digit three-operation items the paper says
digits from 0 and parentheses round the last two; the released files have digits 1-9 and parentheses round the first
two, and are followed.
"""

from __future__ import annotations

import random

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.generated import Generated, Maker
from gpt3core.evals.tasks.task import Task

SHOTS = 50  # Table H.1


def _question(text: str, answer: int) -> Item:
    return Item(context=f"Q: {text}\n\nA:", answer=f" {answer}")


def _task(make: Maker, shots: int | None = SHOTS) -> Task:
    return Task(
        kind="generate",
        source=Generated(make=make),
        metric="exact",
        delimiter="\n\n",
        leading=True,
        answer_tokens=16,
        paper_shots=shots,
    )


def _arithmetic(digits: int, word: str) -> Task:
    def make(rng: random.Random, _: list[str]) -> Item:
        a, b = rng.randrange(10**digits), rng.randrange(10**digits)
        result = {"plus": a + b, "minus": a - b, "times": a * b}[word]
        return _question(f"What is {a} {word} {b}?", result)

    return _task(make, SHOTS if digits > 1 else None)


def _three_operations(rng: random.Random, _: list[str]) -> Item:
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    first, second = rng.choice("+-*"), rng.choice("+-*")
    return _question(f"What is ({a} {first} {b}) {second} {c}?", apply[second](apply[first](a, b), c))


# one digit is no task of the paper: models below 100M parameters begin to do it
TASKS: dict[str, Task] = {
    **{f"addition_{d}": _arithmetic(d, "plus") for d in (1, 2, 3, 4, 5)},
    **{f"subtraction_{d}": _arithmetic(d, "minus") for d in (1, 2, 3, 4, 5)},
    "multiplication_2": _arithmetic(2, "times"),
    "three_operations": _task(_three_operations),
}
