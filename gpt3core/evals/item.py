"""An evaluation item, and the prompt that K examples and an item become."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question: text before the answer, the answer (with its leading space), and the choices if there are any."""

    context: str
    answer: str
    choices: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ()  # induction only: words between the occurrences of the pair
    short_context: str | None = None  # cloze only: the context when the item serves as an example


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads and what is scored."""

    text: str
    answer: str
    choices: tuple[str, ...]
