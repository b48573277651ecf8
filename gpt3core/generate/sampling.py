"""Which token comes next: the likeliest, or a draw from the model's distribution, sharpened and cut.

Logits are divided by the temperature, the ``top_k`` likeliest tokens are kept (Fan et al. 2018), and of those the
smallest set whose probability reaches ``top_p`` (nucleus sampling, Holtzman et al. 2020). Of equal logits the lower id
is the likelier one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpt3core.generate.choices import Sampling


def probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """What tokens are drawn with: logits (B, V) to float64 (B, V), each row of sum 1."""
    ordered, ids = torch.sort(logits.double(), dim=-1, descending=True, stable=True)
    # from the largest down, so that a tiny temperature divides zero by it and not infinity by infinity
    below = ordered - ordered[:, :1]
    if how.temperature == 0:
        below[:, 1:] = -math.inf
    else:
        below = torch.where(below == 0, below, below / how.temperature)
    if how.top_k is not None:
        below[:, how.top_k :] = -math.inf
    kept = torch.softmax(below, -1)
    if how.top_p is not None:
        before = kept.cumsum(-1) - kept
        kept = torch.where(before < how.top_p, kept, 0.0)
    return torch.zeros_like(kept).scatter(-1, ids, kept / kept.sum(-1, keepdim=True))


class Sampler:
    """Draws for the rows of a batch; a row's draws depend on the seed and its number, not on the other rows."""

    def __init__(self, how: Sampling) -> None:
        self.how = how
        self._streams: dict[int, np.random.Generator] = {}

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """One token for each row of logits (B, V).

        Args:
            rows: the number of each row in the whole batch.
        """
        if self.how.temperature == 0:
            likeliest: list[int] = logits.argmax(-1).tolist()
            return likeliest
        # on the CPU: sums along a row on a GPU may differ from one time to the next
        sums = probabilities(logits.cpu(), self.how).cumsum(-1).numpy()
        return [self._draw(row, line) for row, line in zip(rows, sums, strict=True)]

    def _draw(self, row: int, sums: np.ndarray) -> int:
        """The token whose stretch of the cumulative probabilities a uniform number falls into."""
        if row not in self._streams:
            key = int.from_bytes(hashlib.sha256(f"{self.how.seed}:{row}".encode()).digest()[:16], "little")
            self._streams[row] = np.random.Generator(np.random.Philox(key=key))
        place = self._streams[row].random() * sums[-1]
        # rounding may bring it to the end: the last token that has a stretch
        return min(int(np.searchsorted(sums, place, side="right")), int(np.searchsorted(sums, sums[-1])))
