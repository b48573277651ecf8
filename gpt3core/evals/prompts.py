"""How K examples and a query become one prompt (Brown et al. 2020, section 2.4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gpt3core.evals.item import Item, Prompt

Prompter = Callable[[random.Random, Item, int, Sequence[Item]], Prompt]  # query, K, and the items to draw examples from


def few_shot(rng: random.Random, query: Item, shots: int, pool: Sequence[Item]) -> Prompt:
    """K examples with their answers, drawn at random for this query, then the query.

    Raises:
        ValueError: when there are fewer than K items to draw from.
    """
    if shots > len(pool):
        raise ValueError(f"K={shots} examples are asked for, and there are {len(pool)} items to draw them from")
    examples = rng.sample(list(pool), shots)
    shown = "".join((e.context if e.short_context is None else e.short_context) + e.answer for e in examples)
    return Prompt(text=shown + query.context, answer=query.answer, choices=query.choices)


def repeated(rng: random.Random, query: Item, shots: int, pool: Sequence[Item]) -> Prompt:
    """K occurrences of the query's own pair among its fillers, shuffled anew, then the query (induction)."""
    del pool  # its examples are inside the text
    shown = "".join(f"{query.context}{query.answer} {' '.join(_shuffled(rng, query.fillers))}" for _ in range(shots))
    return Prompt(text=shown + query.context, answer=query.answer, choices=query.choices)


def _shuffled(rng: random.Random, words: tuple[str, ...]) -> list[str]:
    return rng.sample(words, len(words))
