"""How fast a run trained, over time: by what its attempts' logs say of how far it was after how long.

A curve has no clock, and neither has a line of ``tail.jsonl``; but a line has the step and the mean tokens per second
since the run's first step, and so the seconds of training until then. The start of an attempt has a clock. A log keeps
the last hours of live lines: what was before them is one stretch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpt3core import costs
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps.watching.incidents import START
from sweeps.watching.last_words import logged

LINES = 16  # of each file of live lines that are looked at
LINE_BYTES = 1024  # that hold one
WHOLE_BYTES = 1 << 15  # of a file that is read whole
Reached = tuple[int, float]  # a step, and the seconds of training until then


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A time in which a run trained; moments in seconds since the epoch."""

    began: float
    ended: float
    flops_per_second: float  # of all its devices


def read(run: RunDir) -> tuple[Stretch, ...]:
    """Of all attempts, the oldest first. Steps from which a run went back count for nothing.

    Raises:
        StoreError: where the specification is unreadable.
    """
    spec, found, known = run.spec(), list[Stretch](), list[Reached]()
    for folder in run.attempts():
        start = next((line for line in logged(folder / "events.jsonl") if line.get("event") == START), {})
        clock, step = files.number(start.get("time")), files.number(start.get("step"))
        if clock is None or step is None:
            continue
        first = known[0][0] if known else int(step)
        seconds = _until(int(step), sorted(known))
        reached = [(int(step), seconds), *_reached(spec, folder, first)]
        found += _stretches(spec, reached, clock - seconds)
        known += reached
    return tuple(found)


def _until(step: int, known: list[Reached]) -> float:
    """The seconds of training until a step, between those that are known; 0 before any is."""
    at = bisect_left(known, (step, 0.0))
    if not 0 < at < len(known):
        return known[min(at, len(known) - 1)][1] if known else 0.0
    (a, since), (b, until) = known[at - 1 : at + 1]
    return since + (until - since) * (step - a) / (b - a)


def _stretches(spec: RunSpec, reached: list[Reached], began: float) -> Iterator[Stretch]:
    """Between the points of an attempt whose training would have begun then, had it been the only one."""
    for (a, since), (b, until) in pairwise(reached):
        if b > a and until > since:
            flops = costs.train_flops(spec.model, spec.tokens_at(b) - spec.tokens_at(a))
            yield Stretch(began=began + since, ended=began + until, flops_per_second=flops / (until - since))


def _reached(spec: RunSpec, attempt: Path, first: int) -> Iterator[Reached]:
    """What some live lines of an attempt tell, in their order."""
    for name in ("tail.jsonl.1", "tail.jsonl"):
        for line in _some(attempt / name):
            step, speed = files.number(line.get("step")), files.number(line.get("tokens_per_second"))
            if step is not None and speed is not None and speed > 0 and first <= step <= spec.steps:
                yield int(step), (spec.tokens_at(int(step)) - spec.tokens_at(first)) / speed


def _some(path: Path) -> list[dict[str, Any]]:
    """Lines of a file from all over it, the last one among them; none of a file that is not there."""
    try:
        size = path.stat().st_size
        if size <= WHOLE_BYTES:
            lines = files.read_lines(path)
            return [lines[i * (len(lines) - 1) // LINES] for i in range(LINES + 1)] if lines else []
        found = []
        with files.opened(path) as file:
            for i in range(LINES):
                file.seek(i * size // LINES)
                found += files.parsed(file.read(LINE_BYTES).partition(b"\n")[2])[:1]
        return [*found, *files.last_lines(path, LINE_BYTES)[-1:]]
    except OSError:
        return []
