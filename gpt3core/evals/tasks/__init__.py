"""The tasks by name. To add one: an entry in one of these files, or a file with a ``TASKS`` of its own. No torch."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from gpt3core.data import tokenizer as tokenizers
from gpt3core.evals.item import Item
from gpt3core.evals.tasks import arithmetic, words
from gpt3core.evals.tasks.cloze import Cloze
from gpt3core.evals.tasks.task import Task

if TYPE_CHECKING:
    from gpt3core.data.shards import Shards

TASKS: dict[str, Task] = {**arithmetic.TASKS, **words.TASKS}
CLOZE = "cloze_"  # and a domain of the corpus


def names() -> list[str]:
    """The generated tasks; beside them there is ``cloze_<domain>`` for every domain of the corpus."""
    return list(TASKS)


def named(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: for an unknown one.
    """
    if name.startswith(CLOZE):
        return Cloze(name.removeprefix(CLOZE))
    if name not in TASKS:
        raise ValueError(f"task {name!r}: allowed are {', '.join(TASKS)} and {CLOZE}<domain of the corpus>")
    return TASKS[name]


@functools.lru_cache(maxsize=64)
def items(name: str, count: int, data: Shards, tokenizer: str) -> tuple[list[Item], list[Item]]:
    """``count`` queries of a task and a pool of other items (for examples and the prior), always the same ones.

    Raises:
        ValueError: for an unknown task, or a text that does not give as many.
    """
    task = named(name)
    try:
        return task.items(random.Random(f"isoflop:{name}"), count, data, tokenizers.load(tokenizer))
    except ValueError as error:
        raise ValueError(f"task {name}: {error}") from error
