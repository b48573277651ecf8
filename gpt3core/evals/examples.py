"""A task's items as labelled examples: what fine-tuning trains on, and the questions that it is asked. No torch.

The questions are those that zero- and few-shot prompts ask of the same task; what is trained on is the pool that these
prompts draw their examples from, less whatever is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3core.data import labelled
from gpt3core.data.labelled import Example
from gpt3core.evals import tasks
from gpt3core.evals.item import Item
from gpt3core.evals.tasks import files
from gpt3core.evals.tasks.labelled import Labelled
from gpt3core.evals.tasks.task import Split
from gpt3core.labelled import MULTIPLE_CHOICE
from gpt3core.spec import RunSpec

if TYPE_CHECKING:
    from gpt3core.data.shards import Shards


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Of a task."""

    split: Split  # the items that they were made from
    training: list[Example]
    asked: list[Example]

    @property
    def left_out(self) -> int:
        """How many are not trained on, for they ask what is asked."""
        return len(self.split.pool) - len(self.training)


def of_task(name: str, count: int, data: Shards | None, tokenizer: str, paths: tuple[str, ...] = ()) -> Examples:
    """The labelled examples of a task of which ``count`` questions are asked, as its files have them now.

    Raises:
        ValueError: for a task whose answers are not chosen among some, or that has nothing to train on.
    """
    found = _of_task(name, count, data, tokenizer, paths, files.fingerprint(paths) if paths else "")
    training = found.training
    if not training:
        pool = len(found.split.pool)
        raise ValueError(f"task {name}: all of its {pool} training examples are among the questions asked of it")
    if training[0].form != MULTIPLE_CHOICE and len({example.answer for example in training}) == 1:
        answer = training[0].choices[training[0].answer]
        raise ValueError(f"task {name}: its training examples are all of one class, {answer!r}; give some of another")
    return found


@functools.lru_cache(maxsize=8)
def _of_task(
    name: str, count: int, data: Shards | None, tokenizer: str, paths: tuple[str, ...], content: str
) -> Examples:
    split = tasks.items(name, count, data, tokenizer, paths, content)
    items = [*split.queries, *split.pool]
    if any(item.answer not in item.choices for item in items):
        raise ValueError(
            f"task {name}: its answers are not chosen among given ones, so a classifier cannot learn them; give a task "
            "of multiple choice, like copy, or labelled examples of your own (task=labelled)"
        )
    examples = _examples(items)
    asked, pool = examples[: len(split.queries)], examples[len(split.queries) :]
    return Examples(split=split, training=labelled.unasked(pool, asked), asked=asked)


def trained_on(spec: RunSpec, data: Shards) -> list[Example]:
    """The examples of a fine-tuning run.

    Raises:
        ValueError: when they are not those that the run was specified for.
    """
    wanted = spec.labelled
    assert wanted is not None, "a run that is fine-tuned"
    found = of_task(wanted.source, wanted.held_out, data, spec.data.tokenizer, wanted.files).training
    if (content := labelled.fingerprint(found)) != wanted.sha256:
        raise ValueError(
            f"task {wanted.source} has training examples of sha256 {content[:12]}..., run {spec.run_id} was specified "
            f"for {wanted.sha256[:12]}...: bring those back, or start new runs on these"
        )
    return labelled.drawn(found, wanted.count, spec.seed)


def put_to(spec: RunSpec, count: int, source: tuple[tuple[str, ...], str], data: Shards) -> Examples:
    """The ``count`` questions that are put to a fine-tuned run, from files that need not be those it was trained with.

    Args:
        source: the files, and the sha256 of their content.

    Raises:
        ValueError: for questions that it was trained on, or of another form or other classes.
    """
    wanted = spec.labelled
    assert wanted is not None, "a run that was fine-tuned"
    found, name = _of_task(wanted.source, count, data, spec.data.tokenizer, *source), f"task {wanted.source}"
    form, classes = found.asked[0].form, found.asked[0].choices
    if form != wanted.form:
        raise ValueError(f"{name} is of the form {form}, and run {spec.run_id} was trained on {wanted.form}")
    if form != MULTIPLE_CHOICE and classes != wanted.classes:
        raise ValueError(
            f"{name} has the classes {', '.join(classes)}, and run {spec.run_id} was trained on "
            f"{', '.join(wanted.classes)}: give what it was trained on as the second file, which says the classes"
        )
    unknown = labelled.unasked(found.asked, trained_on(spec, data))
    if seen := len(found.asked) - len(unknown):
        raise ValueError(
            f"{name}: {seen} of the {count} questions are among the {wanted.count} examples that run {spec.run_id} was "
            f"trained on: ask at most the {wanted.held_out} that were held out, or another file"
        )
    return found


def _examples(items: Sequence[Item]) -> list[Example]:
    """Classification where all items have the same choices, whatever their order; else multiple choice."""
    if isinstance(items[0], Labelled):
        return [item.example for item in items if isinstance(item, Labelled)]
    classes = tuple(sorted(items[0].choices))
    if all(tuple(sorted(item.choices)) == classes and not item.ending for item in items):
        return [
            Example(form="classification", texts=(item.context,), choices=classes, answer=classes.index(item.answer))
            for item in items
        ]
    return [
        Example(
            form=MULTIPLE_CHOICE,
            texts=(item.context,),
            choices=tuple(choice + item.ending for choice in item.choices),
            answer=item.choices.index(item.answer),
        )
        for item in items
    ]
