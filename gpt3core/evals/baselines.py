"""What answers without reading the question score: chance, and the answers of a pool of other items."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from gpt3core.evals.item import Item


def baselines(queries: Sequence[Item], pool: Sequence[Item]) -> dict[str, Any]:
    """Chance; the score of always giving the pool's likeliest answer; and the mean log-probability under its answers.

    Of the pool only items with another context than the question's count. The log-probability is in nats, with one
    added to the count of every answer and of the unknown one.
    """
    counts = Counter(item.answer for item in pool)
    commonest = [answer for answer, _ in counts.most_common()]
    asked = {query.context for query in queries}
    owns: defaultdict[str, Counter[str]] = defaultdict(Counter)  # context -> its answers, which are taken off
    for item in pool:
        if item.context in asked:
            owns[item.context][item.answer] += 1
    prior, logprobs, chances = [], [], []
    for query in queries:
        own = owns[query.context]
        options = dict.fromkeys((*query.choices, query.answer))
        others = {answer: counts[answer] - own[answer] for answer in (*options, *commonest[: len(own) + 1])}
        distinct = len(counts) - sum(counts[answer] == own[answer] for answer in own) + 1
        logprobs.append(math.log((others[query.answer] + 1) / (len(pool) - own.total() + distinct)))
        chances.append(1 / len(options) if query.choices else 0.0)
        if query.choices:
            best = max(others[answer] for answer in options)
            likeliest = [answer for answer in options if others[answer] == best]
            prior.append((query.answer in likeliest) / len(likeliest))
        else:
            said = max(commonest[: len(own) + 1], key=others.__getitem__)
            prior.append(float(others[said] > 0 and said in (query.answer, *query.aliases)))
    return {"chance": _mean(chances), "prior_accuracy": _mean(prior), "prior_logprob": _mean(logprobs)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
