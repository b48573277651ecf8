"""A user's own labelled examples: asked by a prompt, or what a run is fine-tuned on (``gpt3core.data.labelled``).

As a prompt a text, or both texts on lines of their own, are followed by GPT-2's "TL;DR:" (Radford et al. 2019, section
3.6), and the classes compete to follow it; of a multiple choice the choices compete to follow the context.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gpt3core.data import labelled
from gpt3core.data.labelled import Example
from gpt3core.evals.item import Item
from gpt3core.evals.tasks import files
from gpt3core.evals.tasks.task import Material, Split, Task
from gpt3core.labelled import MULTIPLE_CHOICE

HINT = "TL;DR:"


@dataclass(frozen=True, kw_only=True)
class Labelled(Item):
    """An item that says which texts and answers it was made from."""

    example: Example


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """Questions from the first file, and what is learnt from, in a prompt or by training, from the second."""

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` questions of the first file, and the examples of the second, or else all of the first."""
        if not material.paths:
            raise ValueError("its examples come from a file, JSON lines with texts and a label: say where it lies")
        if material.content and material.content != files.fingerprint(material.paths):
            raise ValueError(f"{' or '.join(material.paths)} has changed since the evaluation was asked for: ask again")
        first, last = material.paths[0], material.paths[-1]
        pool = labelled.parsed(last, files.records(last))
        asked = pool
        if first != last:
            of_one_form = () if pool[0].form == MULTIPLE_CHOICE else pool[0].choices
            asked = labelled.parsed(first, files.records(first), of_one_form)
            if asked[0].form != pool[0].form:
                raise ValueError(f"{first} is of the form {asked[0].form}, and {last} of {pool[0].form}: give one form")
        if count > len(asked):
            raise ValueError(f"{first} has {len(asked)} items, and {count} are asked for: set items lower")
        shuffled = rng.sample(asked, len(asked))  # the first are the same, however many are asked
        return Split(queries=[_item(e) for e in shuffled[:count]], pool=[_item(e) for e in pool])


def _item(example: Example) -> Labelled:
    context = "\n".join(example.texts)
    if example.form != MULTIPLE_CHOICE:
        context += f"\n{HINT}"
    choices = tuple(f" {choice.strip()}" for choice in example.choices)
    return Labelled(context=context, answer=choices[example.answer], choices=choices, example=example)


TASKS = {"labelled": Task(kind="multiple_choice", source=LabelledFile(), metric="choice")}
