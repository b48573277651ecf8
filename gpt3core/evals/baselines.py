"""What answers without reading the question score: chance, and the answers of a pool of other items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpt3core.evals.item import Item


def baselines(queries: Sequence[Item], pool: Sequence[Item]) -> dict[str, Any]:
    """Chance; the score of always giving the pool's likeliest answer; and the mean log-probability under its answers.

    The log-probability is in nats, with one added to the count of every answer and of the unknown one.
    """
    counts = Counter(item.answer for item in pool)
    distinct = len(counts) + 1
    logprob = _mean([math.log((counts[q.answer] + 1) / (len(pool) + distinct)) for q in queries])
    if not queries[0].choices:
        commonest = counts.most_common(1)[0][0]
        return {
            "chance": 0.0,
            "prior_accuracy": _mean([float(commonest in (q.answer, *q.aliases)) for q in queries]),
            "prior_logprob": logprob,
        }
    prior, options = [], [set(q.choices) | {q.answer} for q in queries]
    for q, choices in zip(queries, options, strict=True):
        best = max(counts[c] for c in choices)
        likeliest = [c for c in choices if counts[c] == best]
        prior.append((q.answer in likeliest) / len(likeliest))
    chance = _mean([1 / len(choices) for choices in options])
    return {"chance": chance, "prior_accuracy": _mean(prior), "prior_logprob": logprob}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
