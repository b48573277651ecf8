"""How the next tokens are chosen, as a user says it. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; ``temperature`` 0 takes the likeliest.

    Raises:
        ValueError: for values that mean nothing.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: zero (the likeliest token) or more is needed")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: 1 or more is needed; leave it out to draw from all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: it must lie above 0 and be at most 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: zero or more is needed")


@dataclass(frozen=True, kw_only=True)
class Search:
    """A beam search; by default GPT-3's for free-form answers (Brown et al. 2020, section 2.4).

    The paper prints a length penalty of 0.6 and no formula for it; here it is the power of the length that a
    log-probability is divided by, as in transformers.

    Raises:
        ValueError: for values that mean nothing.
    """

    beam: int = 4
    length_penalty: float = 0.6

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam={self.beam}: 1 or more is needed")
        if not 0 <= self.length_penalty < math.inf:
            raise ValueError(f"length_penalty={self.length_penalty}: zero (none) or more is needed")
