"""Scores of a model: the answers to encoded prompts.

A model is anything with ``hidden``: token ids (B, T) to the stream before the head (B, T, D), causal; and ``head``:
any positions (..., D) to logits (..., V).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt3core import pulse
from gpt3core.numerics import Numerics

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Encoded:
    """A prompt as tokens: context, answer, and the alternatives to it (the answer first), each non-empty."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def exact(self) -> bool:
        """Whether there are no alternatives: the answer, with its terminator as last token, is generated."""
        return len(self.options) == 1


def score(model: Any, prompts: Sequence[Encoded], numerics: Numerics, device: str = "cpu") -> dict[str, Any]:
    """The columns metric, accuracy and logprob of a task's prompts, with their standard errors."""
    right, logprobs = [], []
    for prompt, (sums, greedy) in zip(prompts, _options(model, prompts, numerics, device), strict=True):
        per_token = [s / len(o) for s, o in zip(sums, prompt.options, strict=True)]
        right.append(greedy[0] if prompt.exact else per_token[0] > max(per_token[1:]))
        logprobs.append(sums[0])
    n, hits = len(right), sum(right)
    smoothed = (hits + 1) / (n + 2)
    return {
        "metric": "exact" if prompts[0].exact else "choice",
        "accuracy": hits / n,
        "accuracy_se": math.sqrt(smoothed * (1 - smoothed) / n),
        "logprob": math.fsum(logprobs) / n,
        "logprob_se": float(np.std(logprobs, ddof=1) / math.sqrt(n)) if n > 1 else 0.0,
    }


@dataclass(frozen=True)
class _Row:
    """A line of a batch: a prompt's context and one of its options, or all of them if each is one token."""

    prompt: int
    option: int | None  # None: all
    context: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.context + self.answer[:-1]

    @property
    def places(self) -> range:
        """The positions whose next token is scored."""
        return range(len(self.context) - 1, len(self.context) - 1 + max(1, len(self.answer)))


def _rows(prompts: Sequence[Encoded]) -> list[_Row]:
    """One-token options share one forward pass of their context; others are rows of their own. Shortest first."""
    rows = []
    for number, prompt in enumerate(prompts):
        if not prompt.exact and all(len(option) == 1 for option in prompt.options):
            rows.append(_Row(number, None, prompt.context, ()))
        else:
            rows.extend(_Row(number, k, prompt.context, option) for k, option in enumerate(prompt.options))
    return sorted(rows, key=lambda row: (len(row.context) + len(row.answer), row.prompt, row.option or 0))


def _options(
    model: Any, prompts: Sequence[Encoded], numerics: Numerics, device: str
) -> list[tuple[list[float], list[bool]]]:
    """For every prompt and option: the summed log-probability, and whether greedy decoding would give it."""
    found = [([0.0] * len(p.options), [False] * len(p.options)) for p in prompts]
    for row, scores in _scored(model, _rows(prompts), numerics, device):
        sums, greedy = found[row.prompt]
        options = prompts[row.prompt].options
        if row.option is None:
            sums[:] = [float(scores[0, token]) for (token,) in options]
            continue
        target = torch.tensor(row.answer)
        greedy[row.option] = bool((scores.argmax(-1) == target).all())
        # the terminator decides whether the match is exact; it is not part of the answer's probability
        counted = len(target) - 1 if prompts[row.prompt].exact else len(target)
        sums[row.option] = float(scores[:counted].gather(1, target[:counted, None]).sum())
    return found


def _scored(model: Any, rows: list[_Row], numerics: Numerics, device: str) -> Iterator[tuple[_Row, Tensor]]:
    """Every row with the log-probabilities (scored positions, V) of its next tokens, the head in fp32."""
    per_batch, kind = max(1, BATCH_TOKENS // len(rows[-1].inputs)), numerics.autocast
    for first in range(0, len(rows), per_batch):
        chunk = rows[first : first + per_batch]
        ids = torch.zeros(len(chunk), len(chunk[-1].inputs), dtype=torch.long)  # padded on the right: causal
        for line, row in enumerate(chunk):
            ids[line, : len(row.inputs)] = torch.tensor(row.inputs)
        lines = torch.tensor([line for line, row in enumerate(chunk) for _ in row.places])
        places = torch.tensor([place for row in chunk for place in row.places])
        with torch.inference_mode():
            with torch.autocast(device, getattr(torch, kind or "bfloat16"), enabled=kind is not None):
                hidden = model.hidden(ids.to(device)).float()  # (B, T, D)
            scores = torch.log_softmax(model.head(hidden[lines, places]).double(), -1).cpu()
        pulse.beat()
        yield from zip(chunk, torch.split(scores, [len(row.places) for row in chunk]), strict=True)
