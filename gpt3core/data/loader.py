"""Batches as a function of the step: no state to save, so resume is exact by construction.

Sequences are packed and always full, documents delimited by end-of-text without masking, drawn without replacement
until an epoch ends (Brown et al. 2020, section 2.4 and appendix B).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """The sequences of a step, and which of their tokens count."""

    tokens: np.ndarray  # int64 (B, T+1): inputs and targets overlap by one
    mask: np.ndarray  # (B, T): 1 where the target counts and 0 where not


class Loader:
    """Cuts a token array into sequences of ``n_ctx`` and deals them in an order set by the seed."""

    def __init__(self, tokens: np.ndarray, *, n_ctx: int, batch_size: int, seed: int) -> None:
        self.tokens, self.n_ctx, self.batch_size, self.seed = tokens, n_ctx, batch_size, seed
        self.n_sequences = (len(tokens) - 1) // n_ctx
        if self.n_sequences < 1:
            raise ValueError(
                f"the training text has {len(tokens)} tokens, one sequence needs {n_ctx + 1}: give more text"
            )

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0)."""
        first = step * self.batch_size
        rows = [self._sequence(first + i) for i in range(self.batch_size)]
        return Batch(np.stack(rows).astype(np.int64), np.ones((self.batch_size, self.n_ctx), dtype=np.float32))

    def epochs(self, tokens: int) -> float:
        """How often the text is seen in ``tokens`` training tokens."""
        return tokens / (self.n_sequences * self.n_ctx)

    def _sequence(self, index: int) -> np.ndarray:
        epoch, position = divmod(index, self.n_sequences)
        start = int(_permutation(self.n_sequences, self.seed, epoch)[position]) * self.n_ctx
        return self.tokens[start : start + self.n_ctx + 1]


@functools.lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
