"""Whether a text, the files and the context suffice for what is asked: known before anything starts. No torch."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

from gpt3core.data import facts
from gpt3core.data import tokenizer as tokenizers
from gpt3core.evals import metrics, prompts, tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.evals.tasks.task import Split, Task
from gpt3core.spec import DataSpec

FEW = 8  # questions that tell how many examples the context holds


def check(evals: EvalSpec, data: DataSpec, n_ctx: int, *, answered: Collection[str] = ()) -> list[str]:
    """Refuse what a worker would refuse to ask a run, as far as it can be told without fetching or tokenizing a text.

    Args:
        answered: tasks that a fine-tuned model's classifier answers where no examples are shown: no prompt is read.

    Returns:
        Tasks at numbers of examples, ``copy at 99``, that the context does not hold, by a look at a few questions.

    Raises:
        ValueError: for a task that the text or its file does not give, too few examples for K, questions that are
            longer than ``n_ctx``, and a metric that needs what is not installed.
    """
    crowded: list[str] = []
    for name, task, split in _glances(evals, data, answered):
        encode = tokenizers.load(data.tokenizer).encode_ordinary
        prompts.asked(name, task, split, 0, encode, n_ctx)
        try:
            for query in split.queries:
                prompts.examples(random.Random(0), query, max(evals.shots), split.pool)
        except ValueError as error:
            raise ValueError(f"task {name}: {error}") from error
        few = replace(split, queries=split.queries[:FEW])
        for shots in evals.shots:
            shown = [prompt.shown for prompt in prompts.asked(name, task, few, shots, encode, n_ctx)]
            crowded += [f"{name} at {shots}"] * (min(shown) < shots)
    return crowded


def _glances(evals: EvalSpec, data: DataSpec, answered: Collection[str]) -> Iterator[tuple[str, Task, Split]]:
    """Each task with a few of its questions, as far as these are known without fetching or tokenizing a text."""
    made_of_text = {name for name in evals.tasks if tasks.of_text(tasks.named(name)) and not evals.source(name)[0]}
    text = facts.for_tasks(data) if made_of_text else None
    for name in evals.tasks:
        task = tasks.named(name)
        metrics.require(task.metric, evals.run_programs)
        if not any(evals.shots) and name in answered:
            continue
        if text is None and name in made_of_text:
            continue
        yield name, task, tasks.items(name, evals.items, text, data.tokenizer, *evals.source(name), glance=True)
