"""Beam search: the continuation that is likeliest as a whole, among the best few at every step.

A text's score is its log-probability divided by ``length ** length_penalty``, its end counted as a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpt3core.generate.choices import Search
from gpt3core.generate.decode import CONTEXT, END, LENGTH, STOP
from gpt3core.generate.reader import Reader


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A continuation, without the end of text, and how likely it is."""

    tokens: tuple[int, ...]
    logprob: float  # in nats, of the end of text too where it ends so
    score: float
    ended: str  # END, STOP, LENGTH or CONTEXT


def beam_search(
    model: Any,
    prompt: Sequence[int],
    *,
    tokens: int,
    end: int | None = None,
    how: Search | None = None,
    vocab: int | None = None,
    cached: bool = True,
    over: Callable[[Sequence[int]], bool] | None = None,
) -> list[Hypothesis]:
    """The best continuations of a prompt, at most ``how.beam`` of them, the best one first.

    The search ends when so many texts have ended, or at ``tokens`` or the end of the context: then those under way
    count too. With one beam it is the greedy choice.

    Args:
        over: whether a text ends with the tokens that it has now.

    Raises:
        ValueError: for a prompt that cannot be read.
    """
    how = how or Search()
    reader = Reader(model, [prompt], tokens=tokens, vocab=vocab, cached=cached)
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]  # tokens and log-probability of each line of the reader
    ended: list[Hypothesis] = []

    def hypothesis(found: tuple[int, ...], logprob: float, why: str) -> Hypothesis:
        length = max(1, len(found) + (why == END))
        return Hypothesis(tokens=found, logprob=logprob, score=logprob / length**how.length_penalty, ended=why)

    for left in range(tokens - 1, -1, -1):
        parents: list[int] = []
        grown: list[tuple[tuple[int, ...], float]] = []
        for rank, (line, token, logprob) in enumerate(_best(reader.logits, [sum_ for _, sum_ in live], 2 * how.beam)):
            found = live[line][0] + (() if token == end else (token,))
            why = END if token == end else STOP if over and over(found) else None
            if why is not None and rank < how.beam:
                ended.append(hypothesis(found, logprob, why))
            elif why is None and len(grown) < how.beam:
                parents.append(line)
                grown.append((found, logprob))
        live = grown
        if len(ended) >= how.beam or not live:
            break
        if not left or reader.full(0):
            ended += [hypothesis(*line, CONTEXT if left else LENGTH) for line in live]
            break
        reader.extend(parents, [found[-1] for found, _ in live])
    return sorted(ended, key=lambda one: -one.score)[: how.beam]


def _best(logits: Tensor, sums: list[float], count: int) -> list[tuple[int, int, float]]:
    """The likeliest extensions of lines by a token: line, token and log-probability of the whole, the best first.

    A line has one end, so among twice as many as there are beams are enough that go on, where nothing else ends texts.
    """
    total = torch.log_softmax(logits.double(), -1).cpu() + torch.tensor(sums, dtype=torch.float64)[:, None]  # (B, V)
    best, places = total.flatten().topk(min(count, total.numel()))
    return [(*divmod(place, total.size(1)), value) for place, value in zip(places.tolist(), best.tolist(), strict=True)]
