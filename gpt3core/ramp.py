"""The batch of every step where it grows: from a small one linearly in tokens (Brown et al. 2020, appendix B).

A batch grows by whole first batches, so that micro-batches keep their shape and only their number changes. No torch.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps of one batch."""

    step: int  # the first of them
    tokens: int  # before it
    batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Batches of ``start``, 2 ``start``, ... up to ``batch_tokens``, which is reached after ``tokens``."""

    batch_tokens: int
    start: int
    tokens: int

    @cached_property
    def phases(self) -> list[Phase]:
        """The batches one after another, each held until the line of the ramp has reached the next."""
        found, step, seen = [], 0, 0
        count = self.batch_tokens // self.start
        for units in range(1, count + 1):
            found.append(Phase(step=step, tokens=seen, batch_tokens=units * self.start))
            if units < count:
                steps = max(0, -(-(units * self.tokens - (count - 1) * seen) // ((count - 1) * units * self.start)))
                step, seen = step + steps, seen + steps * units * self.start
        return found

    def phase(self, step: int) -> Phase:
        """Where a step lies; of phases without a step the last."""
        return self.phases[bisect_right(self.phases, step, key=lambda phase: phase.step) - 1]

    def batch_at(self, step: int) -> int:
        """Tokens of a step's batch."""
        return self.phase(step).batch_tokens

    def tokens_at(self, step: int) -> int:
        """Tokens trained before a step."""
        phase = self.phase(step)
        return phase.tokens + (step - phase.step) * phase.batch_tokens

    def steps_within(self, tokens: int) -> int:
        """The most steps that train no more than so many tokens."""
        phase = self.phases[bisect_right(self.phases, tokens, key=lambda phase: phase.tokens) - 1]
        return phase.step + (tokens - phase.tokens) // phase.batch_tokens
