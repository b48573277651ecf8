"""The tasks by name. A file of this folder with a ``TASKS`` adds some (docs/evaluation.md). No torch."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import random
from dataclasses import replace

from gpt3core.data import tokenizer as tokenizers
from gpt3core.evals.spec import INSTRUCTED
from gpt3core.evals.tasks import cloze, files, generated, labelled
from gpt3core.evals.tasks.task import Material, Split, Task, Text
from gpt3core.hints import nearest

CLOZE = "cloze_"  # and a domain of the corpus


def _found() -> dict[str, Task]:
    """The TASKS of every file here."""
    found: dict[str, Task] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        here: dict[str, Task] = getattr(importlib.import_module(f"{__name__}.{module.name}"), "TASKS", {})
        if twice := sorted(set(here) & set(found)):
            raise ValueError(f"task {twice[0]} is in {module.name}.py and in another file of {__name__}: rename one")
        found |= here
    return found


TASKS: dict[str, Task] = _found()


def names() -> list[str]:
    """The tasks; beside them there is ``cloze_<domain>`` for every domain of the corpus."""
    return list(TASKS)


def named(name: str) -> Task:
    """The task of that name; without its instruction unless ``+instruction`` follows the name.

    Raises:
        ValueError: for an unknown one, or an instruction that it does not have.
    """
    plain = name.removesuffix(INSTRUCTED)
    if plain.startswith(CLOZE):
        task = cloze.of_domain(plain.removeprefix(CLOZE))
    elif plain in TASKS:
        task = TASKS[plain]
    else:
        raise ValueError(
            f"unknown task {plain[:80]!r}{nearest(plain, names())}; python -m gpt3core.evals lists them, and there is "
            f"{CLOZE}<domain of the corpus>"
        )
    if plain == name:
        return replace(task, instruction="")
    if not task.instruction:
        raise ValueError(f"task {name!r}: {plain} has no instruction; python -m gpt3core.evals says which do")
    return task


def fields(task: Task) -> str:
    """What the records of the file have that a task needs; nothing where its items are generated."""
    if isinstance(task.source, labelled.LabelledFile):
        return "label and text, premise and hypothesis, or first and second; or context, choices and label"
    return task.source.fields if isinstance(task.source, files.FromFile) else ""


def of_text(task: Task) -> bool:
    """Whether its items are made from a corpus, unless a file gives them."""
    return getattr(task.source, "words", "") == generated.ONE_TOKEN or isinstance(task.source, cloze.HeldOut)


@functools.lru_cache(maxsize=4)  # whole files: for every number of examples of a task, with and without instruction
def items(
    name: str,
    count: int,
    data: Text | None = None,
    tokenizer: str | None = None,
    paths: tuple[str, ...] = (),
    content: str = "",
    glance: bool = False,
) -> Split:
    """``count`` queries of a task and a pool of items for examples and the prior, always the same ones.

    Args:
        data, tokenizer: of the run; some tasks take their words from it.
        paths, content: the file of the questions, that of the examples if they have one, and their sha256
            (``EvalSpec.source``).
        glance: ask only whether there would be as many: of what is generated there are a few.

    Raises:
        ValueError: for an unknown task, or where these do not give as many.
    """
    task, plain = named(name), name.removesuffix(INSTRUCTED)
    encoding = tokenizers.load(tokenizer) if tokenizer else None
    material = Material(data=data, encoding=encoding, paths=paths, content=content, glance=glance)
    source = task.source if fields(task) or not paths else files.RELEASED
    try:
        split = source.items(random.Random(f"isoflop:{plain}"), count, material)
        _check_choices(task, split)
    except ValueError as error:
        raise ValueError(f"task {name}: {error}") from error
    return split


def _check_choices(task: Task, split: Split) -> None:
    """Refuse a multiple choice without choices, and choices that nothing would ask."""
    for item in split.queries:
        if task.kind == "multiple_choice" and (len(item.choices) < 2 or item.answer not in item.choices):
            raise ValueError(
                f"a question has the choices {list(item.choices)}: two or more, {item.answer!r} among them"
            )
        if task.kind != "multiple_choice" and item.choices:
            raise ValueError(f"a question has the choices {list(item.choices)}, and the task is no multiple choice")
