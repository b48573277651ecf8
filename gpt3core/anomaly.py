"""What a run does about a loss or a gradient that is not finite, or that jumps. No torch.

Not finite is an anomaly always. A spike is one where a run asks for it: a loss or a gradient norm so many median
absolute deviations above the median of the steps before (OLMo-core's skip-step optimizers: 6 standard deviations above
the mean of 128 steps; a median is not moved by the spikes themselves). Then a run

    stop       ends as diverged: it is kept, marked, and left out of fits;
    skip       leaves that update out: the step counts, its text is passed over (OLMo-core);
    rollback   goes back to before the anomaly and passes over the text around it (Chowdhery et al. 2022, arXiv
               2204.02311, section 5.1: from about 100 steps earlier, past 200 to 500 batches).

What is passed over depends on steps alone, never on the clock or on which checkpoint there is, so a run has one result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gpt3core.checks import as_floats, require_between

POLICIES = ("stop", "skip", "rollback")
LEAST_SPIKE, LEAST_WINDOW = 3.0, 8  # below, what is usual would be an anomaly
# of a field: the policies under which it says something
OF_POLICY = {"limit": ("skip", "rollback"), "back": ("rollback",), "ahead": ("rollback",)}


@dataclass(frozen=True, kw_only=True)
class AnomalySpec:
    """What an anomaly is, and what is done about it."""

    policy: str = "stop"
    spike: float = 0.0  # median absolute deviations above the median; 9 are 6 standard deviations; 0: only not finite
    window: int = 128  # steps that the median is of; nothing is a spike before there are so many
    limit: int = 10  # anomalies of a run; the next ends it as diverged
    back: int = 100  # of rollback: steps before the anomaly from which it goes on
    ahead: int = 100  # of rollback: batches after it that are passed over too

    def __post_init__(self) -> None:
        as_floats(self)
        if self.policy not in POLICIES:
            raise ValueError(f"anomaly.policy={self.policy!r:.80}: allowed are {', '.join(POLICIES)}")
        if self.spike and not LEAST_SPIKE <= self.spike < float("inf"):
            raise ValueError(
                f"anomaly.spike={self.spike}: median absolute deviations, {LEAST_SPIKE:g} or more (9 are 6 standard "
                "deviations), or 0 for no rule"
            )
        require_between(self, LEAST_WINDOW, 100_000, "window", where="anomaly.")
        require_between(self, 1, 1_000_000, "limit", "back", where="anomaly.")
        require_between(self, 0, 1_000_000, "ahead", where="anomaly.")
        for f in fields(self):
            if getattr(self, f.name) != f.default and (why := self.without_effect(f.name)):
                raise ValueError(f"anomaly.{f.name}={getattr(self, f.name)} has no effect with {why}: leave it out")

    def without_effect(self, name: str) -> str:
        """The setting beside which a field says nothing, if there is one."""
        if name == "window" and not self.spike:
            return "anomaly.spike=0"
        return f"anomaly.policy={self.policy}" if self.policy not in OF_POLICY.get(name, POLICIES) else ""

    def describe(self) -> str:
        """The rule in words; nothing for what every run does."""
        if self == AnomalySpec():
            return ""
        what = "a loss or gradient that is not finite"
        if self.spike:
            what += f", or {self.spike:g} median absolute deviations above the median of {self.window:,} steps,"
        done = {
            "stop": "ends its run as diverged",
            "skip": f"is left out, up to {self.limit:,} times a run",
            "rollback": (
                f"takes its run back {self.back:,} steps, past {self.back + 1 + self.ahead:,} batches, up to "
                f"{self.limit:,} times a run; it keeps a checkpoint every {self.back:,} steps, and shares no trunk"
            ),
        }
        return f"{what} {done[self.policy]}"


def told(result: Mapping[str, Any]) -> str:
    """What a run's result says of updates that were left out and of going back, in words; nothing where it did not."""
    parts = []
    if skipped := result.get("skipped_steps"):
        overflows = result.get("overflows", 0)
        by_scale = f" ({overflows:,} by fp16's loss scale)" if overflows else ""
        parts.append(f"{skipped:,} updates left out{by_scale}")
    if backs := result.get("roll_backs"):
        parts.append(f"{backs:,} roll backs past {result.get('passed_tokens', 0):,} tokens")
    return ", ".join(parts)
