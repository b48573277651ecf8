"""Which source the n-th sequence of a run comes from, and which one of that source's: closed forms, nothing is stored.

Sources are dealt evenly by their weights: after any number of sequences each has had its share to within as many
sequences as there are sources. Within a source, sequences come in a random order without replacement, a new one every
epoch (Brown et al. 2020, section 2.2 and table 2.2: weights of sampling, and the epochs that follow from them).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BITS = 28  # of a share: the sequences of a run may be 2**35
ROUNDS = 8  # of the Feistel network
LEAST_BITS = 6  # of its domain, of which few numbers are walked through
# the finaliser of SplitMix64 (Steele, Lea and Flood 2014; constants of Stafford's mix 13)
SHIFTS, FACTORS, WEYL = (30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB), 0x9E3779B97F4A7C15


def shares(weights: Sequence[float]) -> list[int]:
    """Of what each source leaves to the next, the part that the next one takes, in 2**-BITS; the last takes all.

    Raises:
        ValueError: where no weight is positive.
    """
    if not sum(weights) > 0:
        raise ValueError(f"weights {', '.join(map(str, weights))}: one of them must be positive")
    left = [math.fsum(weights[k:]) for k in range(len(weights))]
    return [round((w / rest if rest else 0.0) * 2**BITS) for w, rest in zip(weights, left, strict=True)]


def dealt(first: int, last: int, taken: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The source of each of a run's sequences ``first`` ... ``last`` - 1, and how many came of it before: two (n,).

    A source takes sequence i of those left to it if ``(i + 1) * share`` and ``i * share`` round to different numbers,
    and leaves the others, numbered anew, to the next.

    Args:
        taken: of ``shares``.
    """
    left = np.arange(first, last, dtype=np.int64)
    source = np.full(len(left), len(taken) - 1)
    ordinal = np.zeros_like(left)
    open_ = np.ones(len(left), dtype=np.bool_)
    for number, share in enumerate(taken):
        before = _rounded(left * share)
        here = open_ & (_rounded((left + 1) * share) > before)
        source[here], ordinal[here] = number, before[here]
        open_ &= ~here
        left = left - before
    return source, ordinal


def counts(sequences: int, taken: Sequence[int]) -> list[int]:
    """How many of a run's first sequences come from each source."""
    found = []
    for share in taken:
        found.append(_rounded(sequences * share))
        sequences -= found[-1]
    return found


def _rounded(product: Any) -> Any:
    """Of 2**BITS-ths, the nearest whole number."""
    return (product + (1 << (BITS - 1))) >> BITS


def shuffled(ordinals: np.ndarray, n: int, *, seed: int, name: str) -> np.ndarray:
    """Which of a source's ``n`` sequences each of its draws is: a random order of all n, another one every epoch.

    A keyed permutation of the numbers below a power of two, of at most twice n: a Feistel network whose halves take
    turns (Luby and Rackoff 1988), walked on where it leaves 0 ... n - 1 (Black and Rogaway 2002). No order is stored,
    whatever n is.

    Args:
        ordinals: (m,) how many of the source's sequences were drawn before.
    """
    epoch, place = np.divmod(ordinals.astype(np.uint64), np.uint64(n))
    bits = max(LEAST_BITS, (n - 1).bit_length())
    base = np.frombuffer(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8 * ROUNDS).digest(), dtype="<u8")
    keys = _mixed(base[:, None] + epoch * np.uint64(WEYL))  # (rounds, m)
    found, walking = place, np.arange(len(place))
    while len(walking):
        found[walking] = moved = _feistel(found[walking], keys[:, walking], bits)
        walking = walking[moved >= n]
    return found.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, bits: int) -> np.ndarray:
    """A permutation of the numbers of ``bits`` bits: in turn one half is changed by what the other is."""
    low = np.uint64(bits // 2)
    masks = np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1)
    upper, lower = values >> low, values & masks[1]
    for number, key in enumerate(keys):
        if number % 2:
            lower = lower ^ (_mixed(upper + key) & masks[1])
        else:
            upper = upper ^ (_mixed(lower + key) & masks[0])
    return (upper << low) | lower


def _mixed(words: np.ndarray) -> np.ndarray:
    """Each 64-bit word made another one, every bit of which hangs on all of its own."""
    words = words ^ (words >> np.uint64(SHIFTS[0]))
    words = words * np.uint64(FACTORS[0])
    words = words ^ (words >> np.uint64(SHIFTS[1]))
    words = words * np.uint64(FACTORS[1])
    found: np.ndarray = words ^ (words >> np.uint64(SHIFTS[2]))
    return found
