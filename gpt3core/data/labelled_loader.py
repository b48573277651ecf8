"""Batches of labelled examples as a function of their place, as those of text are: no state, so resume is exact."""

from __future__ import annotations

import numpy as np

from gpt3core.data import mixture
from gpt3core.data.formats import Filled
from gpt3core.data.loader import Batch, Seen

NAME = "labelled"  # of the source


class LabelledLoader:
    """Deals examples without replacement until an epoch ends, in an order set by the seed."""

    def __init__(self, filled: Filled, *, lm_weight: float, seed: int) -> None:
        self.filled, self.lm_weight, self.seed = filled, lm_weight, seed

    def batch(self, first: int, last: int) -> Batch:
        """The B examples first ... last - 1 of the run, of W sequences of T positions each."""
        rows = mixture.shuffled(np.arange(first, last), len(self.filled.answers), seed=self.seed, name=NAME)
        ends = self.filled.ends[rows]
        return Batch(
            tokens=self.filled.tokens[rows],
            mask=self.lm_weight * shares(ends, self.filled.tokens.shape[-1] - 1),
            ends=ends,
            answers=self.filled.answers[rows],
        )

    def seen(self, examples: int) -> dict[str, Seen]:
        """What the first examples of a run come to, in positions."""
        count, ways, length = self.filled.tokens.shape
        of = ways * (length - 1)
        return {NAME: Seen(epochs=examples / count, tokens=examples * of, unique_tokens=min(examples, count) * of)}


def shares(ends: np.ndarray, length: int) -> np.ndarray:
    """What each target counts so that all of an example count one: a mean over sequences of the mean over tokens.

    (N, W) to float32 (N, W, T). The special tokens are targets too, as in the released code
    (github.com/openai/finetune-transformer-lm, train.py).
    """
    there = ends >= 0
    counted = (np.arange(length) < ends[..., None]).astype(np.float32)
    found: np.ndarray = counted / np.maximum(ends, 1)[..., None] / there.sum(-1)[:, None, None]
    return found
