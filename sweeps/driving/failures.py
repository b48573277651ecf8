"""When a run that failed is tried again, by what it failed of; pure, and the same for every driver of a sweep.

- A node that is lost, or taken away with notice, counts for nothing: without limit.
- A crash counts: an exception, a dead process, a rank that hangs, a run that stalls. ``placement.max_failures`` of
  them, with a growing pause between, end the run; a checkpoint newer than at the last of them starts the count anew.
- Out of memory is tried once more with half the micro-batch, at the same global batch; a second time without a newer
  checkpoint in between ends the run.
- What its user must mend ends it at once.

The counts follow from the sweep's log, so that a new driver goes on with them. A run that had failed for good gets one
try from every new command, not as many as at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeps.cluster.causes import UNCOUNTED, Cause

LONGEST_WAIT = 60.0  # seconds between two tries
MEMORY_TRIES = 2
LESS_MEMORY = (
    "give it more: fewer workers on a node (more placement.cpus or placement.gpus each), more workers that share the "
    "model (placement.workers with placement.tensor or placement.pipeline), a smaller model.n_ctx, or larger nodes"
)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What went wrong with a run since it had its newest checkpoint, and its micro-batch."""

    crashes: int = 0
    memory: int = 0  # times it was out of memory
    step: int = -1  # of the newest checkpoint at the last of either
    halvings: int = 0  # of its micro-batch, which stay


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows from a failure."""

    tally: Tally
    wait: float | None  # seconds until the next try; None: it has failed for good
    reason: str


def judge(tally: Tally, cause: Cause, error: str, *, step: int, limit: int, micro_batch: int | None = None) -> Verdict:
    """What follows from a failure.

    Args:
        step: of the run's newest checkpoint, 0 where it has none.
        limit: crashes that end a run.
        micro_batch: sequences, as the run has it on record.
    """
    if cause in UNCOUNTED:
        return Verdict(tally=tally, wait=0.0, reason=error)
    if cause == Cause.USER:
        return Verdict(tally=tally, wait=None, reason=error)
    if step > tally.step:
        tally = Tally(step=step, halvings=tally.halvings)
    if cause == Cause.MEMORY:
        return _memory(replace(tally, memory=tally.memory + 1), error, micro_batch)
    tally = replace(tally, crashes=tally.crashes + 1)
    if tally.crashes >= limit:
        times = f" ({tally.crashes} times without a newer checkpoint in between)" if tally.crashes > 1 else ""
        return Verdict(tally=tally, wait=None, reason=f"{error}{times}")
    return Verdict(tally=tally, wait=backoff(tally.crashes), reason=error)


def _memory(tally: Tally, error: str, micro_batch: int | None) -> Verdict:
    size = "" if micro_batch is None else f" with a micro-batch of {micro_batch} sequence{'s' * (micro_batch != 1)}"
    if tally.memory >= MEMORY_TRIES:
        tried = ", half of what it was out of memory with before" if micro_batch is None or micro_batch > 1 else ""
        return Verdict(
            tally=tally,
            wait=None,
            reason=f"out of memory again{size}{tried} (same global batch): {error}; {LESS_MEMORY}",
        )
    after = replace(tally, halvings=tally.halvings + 1)
    reason = f"out of memory{size}, goes on with half of it and the same global batch: {error}"
    return Verdict(tally=after, wait=backoff(1), reason=reason)


def backoff(tries: int) -> float:
    """Seconds until the next try: 1, 3, 7, 15, ... up to a minute."""
    return min(LONGEST_WAIT, 2.0 ** min(tries, 10) - 1)


def recall(events: Iterable[Mapping[str, Any]], limit: int) -> dict[str, Tally]:
    """The tallies that a sweep's log tells, for a driver that begins; with one try for runs that had failed for good.

    Args:
        events: of the log, oldest first; those of other kinds, and of drivers that told no cause, are passed over.
    """
    found: dict[str, Tally] = {}
    for event in events:
        run_id, cause, step = event.get("run_id"), event.get("cause"), event.get("step")
        if not isinstance(run_id, str) or event.get("event") not in ("failed", "done"):
            continue
        if event["event"] == "done":
            found.pop(run_id, None)
        elif cause in set(Cause) and isinstance(step, int):
            tally = _once_more(found.get(run_id, Tally()), limit)  # it was tried again, so there was a new command
            found[run_id] = judge(tally, Cause(cause), "", step=step, limit=limit).tally
    return {run_id: _once_more(tally, limit) for run_id, tally in found.items()}


def _once_more(tally: Tally, limit: int) -> Tally:
    """One try for a run that had failed for good."""
    return replace(tally, crashes=min(tally.crashes, limit - 1), memory=min(tally.memory, MEMORY_TRIES - 1))
