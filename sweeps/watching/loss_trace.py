"""The loss of a run under way, in a few numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from gpt3core.errors import StoreError
from gpt3core.store import metrics
from gpt3core.store.rundir import RunDir

POINTS = 40
Stamp = tuple[tuple[str, int], ...]


def stamp(run: RunDir) -> Stamp:
    """Changes when a run's curve or log does."""
    return tuple((str(path), found) for path in _sources(run) if (found := _changed(path)) is not None)


def losses(run: RunDir, points: int = POINTS) -> tuple[float, ...]:
    """Mean training losses of as many equal stretches of steps, the oldest first; of fewer steps, each one's.

    The later attempt holds where two have a step; what cannot be read is left out.
    """
    by_step: dict[int, float] = {}
    for attempt in run.attempts():
        try:
            tables = metrics.read(attempt, ["step", "loss"])
        except (StoreError, OSError, ValueError, KeyError):
            continue
        for table in tables:
            by_step.update(zip(table["step"].to_pylist(), table["loss"].to_pylist(), strict=True))
    found = [loss for _, loss in sorted(by_step.items()) if loss is not None and math.isfinite(loss)]
    edges = [len(found) * i // points for i in range(points + 1)] if len(found) > points else range(len(found) + 1)
    return tuple(sum(found[a:b]) / (b - a) for a, b in pairwise(edges))


def _sources(run: RunDir) -> list[Path]:
    return [path for attempt in run.attempts() for path in (attempt / "metrics", attempt / "events.jsonl")]


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
