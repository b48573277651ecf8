"""Batches as a function of their place: no state to save, so resume is exact by construction.

Sequences are packed and always full, documents delimited by end-of-text (and masked only where a model is told to:
``gpt3core.model.documents``), drawn without replacement until an epoch ends (Brown et al. 2020, section 2.4 and
appendix B).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences, and which of their targets count."""

    tokens: np.ndarray  # int64 (B, T+1): inputs and targets overlap by one
    mask: np.ndarray  # bool (B, T): whether the loss of target t+1 counts
    # of labelled examples, of which each is W sequences, (B, W, T+1), and the mask says how much a target counts:
    ends: np.ndarray | None = None  # int64 (B, W): where the token is that the classifier reads; -1 where no sequence
    answers: np.ndarray | None = None  # int64 (B): the place of the right answer

    @property
    def counted(self) -> float:
        """What the loss of a batch is a mean over: its targets that count, or its labelled examples."""
        return float(self.mask.sum() if self.answers is None else len(self.answers))


class Loader:
    """Cuts a token array into sequences of ``n_ctx`` and deals them in an order set by the seed."""

    def __init__(self, tokens: np.ndarray, *, n_ctx: int, seed: int) -> None:
        self.tokens, self.n_ctx, self.seed = tokens, n_ctx, seed
        self.n_sequences = (len(tokens) - 1) // n_ctx
        if self.n_sequences < 1:
            raise ValueError(
                f"the training text has {len(tokens)} tokens, one sequence needs {n_ctx + 1}: give more text"
            )

    def batch(self, first: int, last: int) -> Batch:
        """The B sequences first ... last - 1 of the run, of T = n_ctx positions; in packed text every target counts."""
        rows = [self._sequence(index) for index in range(first, last)]
        return Batch(tokens=np.stack(rows).astype(np.int64), mask=np.ones((len(rows), self.n_ctx), dtype=np.bool_))

    def epochs(self, tokens: int) -> float:
        """How often the text is seen in ``tokens`` training tokens."""
        return tokens / (self.n_sequences * self.n_ctx)

    def _sequence(self, index: int) -> np.ndarray:
        epoch, position = divmod(index, self.n_sequences)
        start = int(permutation(self.n_sequences, self.seed, epoch)[position]) * self.n_ctx
        return self.tokens[start : start + self.n_ctx + 1]


@functools.lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``n`` things in an epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
