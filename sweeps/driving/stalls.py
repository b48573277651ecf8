"""Runs that live and do not get on: ended, and resumed from their checkpoint.

A sign of getting on is a step, or a beat of whoever works in the worker (``gpt3core.pulse``): a batch of an evaluation,
a document that is tokenized. Times are of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt3core.pulse import LONG_SECONDS
from sweeps.cluster.job import Update

STEPS = 20  # a run may take so many times its step without a new one
FIRST = 3  # so many times the limit until its first sign: a worker imports, a gang meets, a model is built


@dataclass(kw_only=True)
class _Seen:
    """A running run, by what was heard of it."""

    since: float  # the last sign
    sign: object = None
    step: int = 0
    begun: float = 0.0  # when its first step was heard of, ...
    first: int = 0  # ... and which one that was
    doing: str = ""

    def step_seconds(self, now: float) -> float:
        """Of its steps so far, on the average."""
        return (now - self.begun) / (self.step - self.first) if self.step > self.first else 0.0


class Stalls:
    """Which runs have given no sign for too long."""

    def __init__(self, limit: float) -> None:
        """Watch none.

        Args:
            limit: seconds without a sign, at least.
        """
        self._limit = limit
        self._runs: dict[str, _Seen] = {}

    def heard(self, update: Update, now: float) -> None:
        """What is said of a run."""
        if update.state != "running":
            self._runs.pop(update.run_id, None)
            return
        seen = self._runs.setdefault(update.run_id, _Seen(since=now))
        progress = update.progress
        sign = (update.beats, update.doing, progress and (progress.phase, progress.step))
        if sign != seen.sign:
            first = seen.sign is None and not update.beats and progress is None  # nothing was heard of it yet
            seen.sign, seen.since, seen.doing = sign, now if not first else seen.since, update.doing
        if progress is not None and progress.step > seen.step:
            if not seen.step:
                seen.begun, seen.first = now, progress.step
            seen.step = progress.step

    def forget(self, run_id: str) -> None:
        """It no longer runs."""
        self._runs.pop(run_id, None)

    def paused(self, seconds: float) -> None:
        """Whoever watches was stopped for so long and heard nothing: it counts against no run."""
        for seen in self._runs.values():
            seen.since, seen.begun = seen.since + seconds, seen.begun + seconds

    def look(self, now: float) -> dict[str, str]:
        """The runs that have given no sign for too long, with the sentence that says so."""
        found = {}
        for run_id, seen in self._runs.items():
            allowed = self._allowed(seen)
            if now - seen.since > allowed:
                last = f"step {seen.step}" if seen.step else "its start"
                doing = f", where it is {seen.doing}" if seen.doing else ""
                found[run_id] = (
                    f"no sign of progress for {now - seen.since:.0f} s after {last}{doing} (allowed are {allowed:.0f}, "
                    "by placement.stall_seconds): it was ended, and goes on from its checkpoint"
                )
        return found

    def _allowed(self, seen: _Seen) -> float:
        if seen.doing:
            return max(self._limit, LONG_SECONDS)
        if not seen.step:
            return FIRST * self._limit
        return max(self._limit, STEPS * seen.step_seconds(seen.since))
