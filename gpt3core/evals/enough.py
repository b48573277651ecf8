"""Whether a text, the files and the context suffice for what is asked: known before anything starts. No torch."""

from __future__ import annotations

import random
from collections.abc import Collection

from gpt3core.data import facts
from gpt3core.data import tokenizer as tokenizers
from gpt3core.evals import metrics, prompts, tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import DataSpec


def check(evals: EvalSpec, data: DataSpec, n_ctx: int, *, answered: Collection[str] = ()) -> None:
    """Refuse what a worker would refuse to ask a run, as far as it can be told without fetching or tokenizing a text.

    Args:
        answered: tasks that a fine-tuned model's classifier answers where no examples are shown: no prompt is read.

    Raises:
        ValueError: for a task that the text or its file does not give, too few examples for K, questions that are
            longer than ``n_ctx``, and a metric that needs what is not installed.
    """
    if not evals.tasks:
        return
    made_of_text = {name for name in evals.tasks if tasks.of_text(tasks.named(name)) and not evals.source(name)[0]}
    text = facts.for_tasks(data) if made_of_text else None
    encode = tokenizers.load(data.tokenizer).encode_ordinary
    for name in evals.tasks:
        task = tasks.named(name)
        metrics.require(task.metric, evals.run_programs)
        if not any(evals.shots) and name in answered:
            continue
        if text is None and name in made_of_text:
            continue
        split = tasks.items(name, evals.items, text, data.tokenizer, *evals.source(name), glance=True)
        prompts.asked(name, task, split, 0, encode, n_ctx)
        try:
            for query in split.queries:
                prompts.examples(random.Random(0), query, max(evals.shots), split.pool)
        except ValueError as error:
            raise ValueError(f"task {name}: {error}") from error
