"""An evaluation item, and the prompt that K examples and an item become."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question: the text before the answer, the answer (with its leading space), and the choices if there are any."""

    context: str
    answer: str
    choices: tuple[str, ...] = ()  # the answer among them
    ending: str = ""  # what follows the answer; where there is one it is scored, given each choice (Winograd)
    aliases: tuple[str, ...] = ()  # other answers that are right too
    own: tuple[str, ...] = ()  # examples that only this query can have, where they are not items of the pool
    test: str = ""  # code that fails after ``context`` and a wrong answer, where the answer is the rest of a program
    short_context: str | None = None  # the context when the item serves as an example, where that is shorter
    number: int | None = field(default=None, compare=False)  # of its line in the file that it comes from, from 0

    @property
    def shown(self) -> str:
        """The item as an example: with its answer."""
        return (self.context if self.short_context is None else self.short_context) + self.answer + self.ending


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads, and what is scored.

    Of a multiple choice: P(choice | text), or P(ending | text + choice) where there is an ending.
    """

    text: str
    answer: str
    choices: tuple[str, ...] = ()
    ending: str = ""
    aliases: tuple[str, ...] = ()
    program: tuple[str, str] = ("", "")  # what stands before and after an answer that is run
    shown: int = 0  # examples in the text
    cut: bool = False  # whether the context has no room for as long an answer as the task lets a model write

    @property
    def continuations(self) -> tuple[tuple[str, str], ...]:
        """What is given and what is scored after ``text``, the answer first, each choice once."""
        options = dict.fromkeys((self.answer, *self.choices))
        return tuple((option, self.ending) if self.ending else ("", option) for option in options)
