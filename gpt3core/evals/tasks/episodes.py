"""Learning from examples, as ``data.episodes`` teaches it, on symbols and rules that training never showed.

Accuracy against K is what Figure 1.2 of Brown et al. 2020 shows of models 1,000 times larger. The examples of a
question are the lines before it in its own episode.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gpt3core.data import episodes
from gpt3core.evals.item import Item
from gpt3core.evals.tasks.generated import GLANCED, glanced
from gpt3core.evals.tasks.task import Material, Split, Task

SHOTS = 64  # that a question has at most
POOL = 256  # items beside the queries, for the prior baseline


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes of a kind: the last line of each is the question."""

    kind: episodes.Kind

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` queries after ``POOL`` others, whose answers are the prior."""
        if material.encoding is None:
            raise ValueError("its symbols are words of one token: give a tokenizer, like tokenizer=gpt2:1024")
        symbols = episodes.symbols(material.encoding.name, held_out=True)
        needed = 2 * GLANCED if material.glance else POOL + count
        made = [_item(self.kind(rng, symbols, SHOTS + 1, True)) for _ in range(needed)]
        if material.glance:
            return glanced(made)
        return Split(queries=made[POOL:], pool=made[:POOL])


def _item(lines: list[episodes.Line]) -> Item:
    *before, last = lines
    return Item(
        context=f"{last.question} =", answer=last.answer, choices=last.choices, own=tuple(str(line) for line in before)
    )


TASKS: dict[str, Task] = {
    f"episodes_{name}": Task(
        kind="multiple_choice", source=Episodes(kind=kind), metric="choice", delimiter="\n", leading=True
    )
    for name, (kind, _) in episodes.KINDS.items()
}
