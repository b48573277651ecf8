"""How K examples and a query become one prompt (Brown et al. 2020, section 2.4 and appendix G)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gpt3core.evals.item import Item, Prompt
from gpt3core.evals.spec import INSTRUCTED
from gpt3core.evals.tasks.task import Task

SPARE = 4  # drawn beyond K, in place of items that ask the query's own question


def examples(rng: random.Random, query: Item, shots: int, pool: Sequence[Item]) -> list[str]:
    """K examples as text: drawn from the pool for this query, or of induction K occurrences of its own pair.

    Raises:
        ValueError: when there are fewer than K other items to draw from.
    """
    if query.fillers:
        return [f"{query.shown} {' '.join(rng.sample(query.fillers, len(query.fillers)))}" for _ in range(shots)]
    for drawn in (min(len(pool), shots + SPARE), len(pool)):
        found = [item for item in rng.sample(pool, drawn) if item.context != query.context][:shots]
        if len(found) == shots:
            return [item.shown for item in found]
    raise ValueError(
        f"K={shots} examples are asked for, and there are {len(found)} items to draw them from: give a file with more "
        "examples, or a smaller K"
    )


def compose(task: Task, query: Item, shown: Sequence[str]) -> Prompt:
    """The prompt of a query after examples: the instruction, the examples and the query, the delimiter between them."""
    text = task.delimiter.join([*shown, query.context])
    if task.leading or task.instruction:
        text = f"{task.instruction}{task.delimiter}{text}"
    return Prompt(
        text=text,
        answer=query.answer,
        choices=query.choices,
        ending=query.ending,
        aliases=query.aliases,
        shown=len(shown),
    )


def fitted(task: Task, query: Item, shown: Sequence[str], fits: Callable[[Prompt], bool]) -> Prompt:
    """The prompt with as many of the examples as fit, the first ones left out; with none of them if nothing fits."""
    low, high = 0, len(shown)  # the first low - 1 left out is too long; high left out is taken
    while low < high:
        middle = (low + high) // 2
        if fits(compose(task, query, shown[middle:])):
            high = middle
        else:
            low = middle + 1
    return compose(task, query, shown[high:])


def seed(name: str, number: int, shots: int, draw: int) -> str:
    """What the examples of a question are drawn by: the same for every model, with and without the instruction."""
    return f"isoflop:{name.removesuffix(INSTRUCTED)}:{number}:{shots}" + (f":{draw}" if draw else "")
