"""Scoring: held-out loss with its standard error, and tasks at K examples with binomial error, chance and prior."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.shards import Shards
from gpt3core.evals import tasks
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec
from gpt3core.train.objective import loss_per_token
from gpt3core.train.timing import autocast

BATCH_TOKENS = 4096
TERMINATOR = "\n"  # an exact match must also end where the answer ends


def check(spec: RunSpec, evals: EvalSpec, data: Shards) -> None:
    """Make everything that the evaluation needs: what it lacks is better known before the training than after it.

    Raises:
        ValueError: for an unknown task, or too little text for it or for the held-out loss.
    """
    _windows(spec, evals.validation_tokens, data)
    for task in evals.tasks:
        for shots in evals.shots:
            _cell(task, shots, evals.items, spec.model.n_ctx, spec.data.tokenizer, data)


def _windows(spec: RunSpec, validation_tokens: int, data: Shards) -> int:
    """Held-out windows of n_ctx tokens to evaluate."""
    n_ctx = spec.model.n_ctx
    windows = min((len(data.validation) - 1) // n_ctx, validation_tokens // n_ctx)
    if windows < 2:
        raise ValueError(
            f"the held-out text has {len(data.validation)} tokens and evals.validation_tokens is "
            f"{validation_tokens}; 2 windows of {n_ctx} are needed: give more text or more tokens"
        )
    return windows


def validation_loss(
    model: Any, spec: RunSpec, validation_tokens: int, data: Shards, device: str = "cpu"
) -> dict[str, float]:
    """Mean loss on held-out text, all in fp32: nats per token, its standard error over windows, and bits per byte."""
    n_ctx = spec.model.n_ctx
    windows = _windows(spec, validation_tokens, data)
    means = []
    per_batch = max(1, BATCH_TOKENS // n_ctx)
    for first in range(0, windows, per_batch):
        starts = [n_ctx * w for w in range(first, min(first + per_batch, windows))]
        batch = np.stack([data.validation[s : s + n_ctx + 1] for s in starts]).astype(np.int64)
        ids = torch.from_numpy(batch).to(device)
        with torch.inference_mode():
            losses = loss_per_token(model(ids[:, :-1]), ids[:, 1:])
        means.extend(losses.double().mean(1).tolist())
    loss = math.fsum(means) / windows
    variance = math.fsum((m - loss) ** 2 for m in means) / (windows - 1)
    tokens_per_byte = data.meta["tokens"]["validation"] / data.meta["bytes"]["validation"]
    return {
        "loss": loss,
        "loss_se": math.sqrt(variance / windows),
        "bits_per_byte": loss * tokens_per_byte / math.log(2),
    }


@dataclass(frozen=True)
class Encoded:
    """A prompt as tokens: context, answer, and the alternatives to it (the answer first), each non-empty."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


@functools.lru_cache(maxsize=256)
def _cell(
    task: str, shots: int, count: int, n_ctx: int, tokenizer: str, data: Shards
) -> tuple[list[Encoded], dict[str, Any]]:
    """The encoded prompts of a task at K examples and its baselines; no prompts where they do not fit the context."""
    encoding = tokenizers.load(tokenizer)
    queries, pool = tasks.items(task, count, data, tokenizer)
    prompts = [tasks.prompt(task, item, shots, pool, number) for number, item in enumerate(queries)]
    encoded = []
    for p in prompts:
        others = [c for c in p.choices if c != p.answer]
        options = [p.answer, *others] if p.choices else [p.answer + TERMINATOR]
        context = (encoding.eot_token, *encoding.encode_ordinary(p.text))
        encoded.append(Encoded(context, tuple(tuple(encoding.encode_ordinary(o)) for o in options)))
    fits = all(len(e.context) + max(map(len, e.options)) <= n_ctx + 1 for e in encoded)
    return (encoded if fits else []), _baselines(queries, pool)


def _baselines(queries: list[tasks.Item], pool: list[tasks.Item]) -> dict[str, Any]:
    """Chance, and what the pool's answers alone would score: the likeliest answer, and the mean log-probability."""
    counts = Counter(item.answer for item in pool)
    distinct = len(counts) + 1
    logprob = [math.log((counts[q.answer] + 1) / (len(pool) + distinct)) for q in queries]
    if not queries[0].choices:
        commonest = counts.most_common(1)[0][0]
        prior = [float(q.answer == commonest) for q in queries]
        return {"chance": 0.0, "prior_accuracy": float(np.mean(prior)), "prior_logprob": float(np.mean(logprob))}
    prior = []
    for q in queries:
        best = max(counts[c] for c in q.choices)
        likeliest = [c for c in q.choices if counts[c] == best]
        prior.append((q.answer in likeliest) / len(likeliest))
    chance = float(np.mean([1 / len(q.choices) for q in queries]))
    return {"chance": chance, "prior_accuracy": float(np.mean(prior)), "prior_logprob": float(np.mean(logprob))}


COLUMNS = (
    *("task", "shots", "items", "version", "fits", "metric", "accuracy", "accuracy_se", "logprob", "logprob_se"),
    *("chance", "prior_accuracy", "prior_logprob", "loss", "loss_se", "bits_per_byte"),
)


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
        known: rows of earlier evaluations of the same model; what they answer is not asked again.
    """
    answered = {tuple(row.get(name) for name in COLUMNS[:4]): row for row in known}
    rows: list[Mapping[str, Any]] = []
    questions = [
        (HELD_OUT, 0, evals.validation_tokens),
        *((t, k, evals.items) for t in evals.tasks for k in evals.shots),
    ]
    for task, shots, items in questions:
        row = answered.get((task, shots, items, evals.version))
        if row is None and task == HELD_OUT:
            row = {"fits": True, **validation_loss(model, spec, items, data, device)}
        elif row is None:
            encoded, baselines = _cell(task, shots, items, spec.model.n_ctx, spec.data.tokenizer, data)
            row = {"fits": bool(encoded), **baselines, **(_score(model, encoded, numerics, device) if encoded else {})}
        rows.append({**row, "task": task, "shots": shots, "items": items, "version": evals.version})
    return {name: [row.get(name) for row in rows] for name in COLUMNS}


def _score(model: Any, encoded: list[Encoded], numerics: Numerics, device: str) -> dict[str, Any]:
    exact = len(encoded[0].options) == 1
    right, logprobs = [], []
    for item, (sums, greedy) in zip(encoded, _options(model, encoded, numerics, device), strict=True):
        per_token = [s / len(o) for s, o in zip(sums, item.options, strict=True)]
        right.append(greedy[0] if exact else per_token[0] > max(per_token[1:]))
        logprobs.append(sums[0])
    n, hits = len(right), sum(right)
    smoothed = (hits + 1) / (n + 2)
    return {
        "metric": "exact" if exact else "choice",
        "accuracy": hits / n,
        "accuracy_se": math.sqrt(smoothed * (1 - smoothed) / n),
        "logprob": math.fsum(logprobs) / n,
        "logprob_se": float(np.std(logprobs, ddof=1) / math.sqrt(n)) if n > 1 else 0.0,
    }


def _options(
    model: Any, encoded: list[Encoded], numerics: Numerics, device: str
) -> list[tuple[list[float], list[bool]]]:
    """For every item and option: the summed log-probability, and whether greedy decoding would give it.

    One-token options share one forward pass of their context; others are rows of their own.
    """
    rows: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []  # item, option or -1 for all, context, option
    for number, item in enumerate(encoded):
        if len(item.options) > 1 and all(len(o) == 1 for o in item.options):
            rows.append((number, -1, item.context, ()))
        else:
            rows.extend((number, index, item.context, option) for index, option in enumerate(item.options))
    found = [([0.0] * len(item.options), [False] * len(item.options)) for item in encoded]
    rows.sort(key=lambda row: (len(row[2]) + len(row[3]), row[0], row[1]))
    longest = len(rows[-1][2]) + len(rows[-1][3])
    per_batch = max(1, BATCH_TOKENS // longest)
    for first in range(0, len(rows), per_batch):
        chunk = rows[first : first + per_batch]
        length = max(len(context) + max(0, len(option) - 1) for _, _, context, option in chunk)
        ids = torch.zeros(len(chunk), length, dtype=torch.long)
        for line, (_, _, context, option) in enumerate(chunk):
            inputs = context + option[:-1]
            ids[line, : len(inputs)] = torch.tensor(inputs)
        with torch.inference_mode():
            with autocast(numerics, device):
                hidden = model.hidden(ids.to(device)).float()  # (B, T, D)
            spans = [range(len(c) - 1, len(c) - 1 + max(1, len(o))) for _, _, c, o in chunk]
            lines = torch.tensor([line for line, span in enumerate(spans) for _ in span])
            places = torch.tensor([t for span in spans for t in span])
            # the head in fp32, on the scored positions only: (scored, V)
            scores = torch.log_softmax(model.head(hidden[lines, places]).double(), -1).cpu()
        first_score = 0
        for (number, index, _, option), span in zip(chunk, spans, strict=True):
            mine = scores[first_score : first_score + len(span)]
            first_score += len(span)
            sums, greedy = found[number]
            if index < 0:
                for k, (token,) in enumerate(encoded[number].options):
                    sums[k] = float(mine[0, token])
                continue
            target = torch.tensor(option)
            greedy[index] = bool((mine.argmax(-1) == target).all())
            # the terminator decides whether the match is exact; it is not part of the answer's probability
            counted = len(option) - 1 if len(encoded[number].options) == 1 else len(option)
            sums[index] = float(mine[:counted].gather(1, target[:counted, None]).sum())
    return found
