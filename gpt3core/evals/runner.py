"""An evaluation: the questions of an ``EvalSpec`` put to a model, a row of the table each."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.shards import Shards
from gpt3core.evals import classifier, prompts, scoring, tasks
from gpt3core.evals.baselines import baselines
from gpt3core.evals.scoring import Encoded
from gpt3core.evals.spec import HELD_OUT, QUESTION, EvalSpec, question
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec

COLUMNS = (
    *(
        "task",
        "shots",
        "items",
        "version",
        "draw",
        "content",
        "fits",
        "metric",
        "accuracy",
        "accuracy_se",
        "logprob",
        "logprob_se",
    ),
    *("chance", "prior_accuracy", "prior_logprob", "loss", "loss_se", "bits_per_byte"),
)


def check(spec: RunSpec, evals: EvalSpec, data: Shards) -> None:
    """Make everything that the evaluation needs: what it lacks is better known before the training than after it.

    Raises:
        ValueError: for an unknown task, or too little text for it or for the held-out loss.
    """
    scoring.windows(data, spec.model.n_ctx, evals.validation_tokens)
    for task in evals.tasks:
        for shots in evals.shots:
            _cell(task, shots, evals.items, spec.model.n_ctx, spec.data.tokenizer, data, 0, evals.source(task))


def evaluate(
    model: Any,
    spec: RunSpec,
    evals: EvalSpec,
    data: Shards,
    numerics: Numerics,
    device: str = "cpu",
    known: Sequence[Mapping[str, Any]] = (),
) -> dict[str, list[Any]]:
    """The held-out loss, then every task at every number of examples, a row each, as columns.

    The held-out row has ``loss`` (nats per token), its ``loss_se``, ``bits_per_byte``, and as items its tokens. In the
    others ``metric`` is "choice" (the right option has the highest mean log-probability per token) or "exact" (greedy
    decoding gives the answer and its end); ``accuracy_se`` is binomial, from Laplace's estimate, so that 0 of n has
    an error too; ``logprob`` is the mean log-probability of the whole right answer, in nats. ``fits`` is false, and
    the scores are missing, where K examples do not fit the context.

    Args:
        model: as in ``scoring``.
        known: rows of earlier evaluations of the same model; what they answer is not asked again.

    Raises:
        ValueError: as ``check``.
    """
    answered = {question(row): row for row in known}
    rows: list[Mapping[str, Any]] = []
    for asked in evals.questions:
        task, shots, items, _, draw, _ = asked
        row = answered.get(asked)
        if row is None and task == HELD_OUT:
            row = {"fits": True, **scoring.held_out_loss(model, data, spec.model.n_ctx, items, device)}
        elif row is None and classifier.knows(spec, task, shots):
            row = classifier.row(model, spec, items, data, numerics, device)
        elif row is None:
            encoded, row = _cell(
                task, shots, items, spec.model.n_ctx, spec.data.tokenizer, data, draw, evals.source(task)
            )
            row = {"fits": bool(encoded), **row}
            if encoded:
                row |= scoring.score(model, encoded, numerics, device)
        rows.append({**row, **dict(zip(QUESTION, asked, strict=True))})
    return {name: [row.get(name) for row in rows] for name in COLUMNS}


@functools.lru_cache(maxsize=256)
def _cell(
    name: str,
    shots: int,
    count: int,
    n_ctx: int,
    tokenizer: str,
    data: Shards,
    draw: int = 0,
    source: tuple[tuple[str, ...], str] = ((), ""),
) -> tuple[list[Encoded], dict[str, Any]]:
    """The encoded prompts of a task at K examples and its baselines; no prompts where they do not fit the context."""
    encoding = tokenizers.load(tokenizer)
    task = tasks.named(name)
    split = tasks.items(name, count, data, tokenizer, *source)
    encoded = []
    for number, query in enumerate(split.queries):
        shown = prompts.examples(random.Random(prompts.seed(name, number, shots, draw)), query, shots, split.pool)
        prompt = prompts.compose(task, query, shown)
        options = [scored for _, scored in prompt.continuations]
        if task.kind != "multiple_choice":
            options = [prompt.answer + task.stop]  # an exact match must also end where the answer ends
        context = (encoding.eot_token, *encoding.encode_ordinary(prompt.text))
        encoded.append(Encoded(context, tuple(tuple(encoding.encode_ordinary(o)) for o in options)))
    fits = all(len(e.context) + max(map(len, e.options)) <= n_ctx + 1 for e in encoded)
    return (encoded if fits else []), baselines(split.queries, split.pool)
