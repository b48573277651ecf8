"""What a task is: it makes items from a text's words or documents, and says how they become prompts.

Items are a function of the task's name and the data, never of the model: every run answers the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpt3core.evals.item import Item
from gpt3core.evals.prompts import Prompter, few_shot

if TYPE_CHECKING:
    import tiktoken

    from gpt3core.data.shards import Shards

MIN_WORDS = 24
PRIOR_POOL = 1000  # items whose answers make up the prior baseline
NO_WORDS, FREQUENT, ONE_TOKEN = "no words", "frequent words", "frequent words of one token"

Maker = Callable[[random.Random, list[str]], Item]


class Task(Protocol):
    """A source of questions."""

    @property
    def ask(self) -> Prompter:
        """How its items become prompts."""

    def items(
        self, rng: random.Random, count: int, data: Shards, encoding: tiktoken.Encoding
    ) -> tuple[list[Item], list[Item]]:
        """``count`` queries, and other items for the examples and the prior.

        Raises:
            ValueError: when the text does not give as many.
        """


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A task whose items are drawn by rule, some of them from the training text's frequent words."""

    make: Maker
    words: str = NO_WORDS
    shortest: int = 1  # letters of a word that serves
    ask: Prompter = few_shot

    def items(
        self, rng: random.Random, count: int, data: Shards, encoding: tiktoken.Encoding
    ) -> tuple[list[Item], list[Item]]:
        """``count`` queries and ``PRIOR_POOL`` others."""
        words: list[str] = []
        if self.words != NO_WORDS:
            words = [word for word in data.words if len(word) >= self.shortest]
            if self.words == ONE_TOKEN:
                words = [word for word in words if len(encoding.encode_ordinary(f" {word}")) == 1]
            if len(words) < MIN_WORDS:
                raise ValueError(
                    f"the corpus has {len(words)} {self.words} with {self.shortest} letters or more, {MIN_WORDS} are "
                    "needed: give more text"
                )
        made = [self.make(rng, words) for _ in range(count + PRIOR_POOL)]
        return made[:count], made[count:]
