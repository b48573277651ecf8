"""Random words that are a function of key and counter: Philox-2x32 (Salmon et al. 2011, SC11, section 4.3).

In torch's own integers, so that a CPU and a GPU draw the same bits, and any part of a tensor can be drawn alone. Words
of 32 bits are held in int64, of which products overflow as they should: only their low 64 bits are read.
"""

from __future__ import annotations

from torch import Tensor

MULTIPLIER, WEYL, WORD = 0xD256D193, 0x9E3779B9, 0xFFFFFFFF
ROUNDS = 7  # the fewest that pass BigCrush (the same, table 2)


def words(first: Tensor, second: Tensor, key: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Two words a counter: counters of two words and keys of one, broadcast together, to words of 32 bits."""
    for _ in range(rounds):
        product = first * MULTIPLIER
        first, second = ((product >> 32) & WORD).bitwise_xor(key).bitwise_xor(second), product & WORD
        key = (key + WEYL) & WORD
    return first, second
