"""The sweeps of a store as a page shows them: how they stand, how their running runs do; only what changed is read."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt3core import costs
from gpt3core.errors import StoreError
from gpt3core.store import places, sweepdir
from gpt3core.store.rundir import RunDir, open_root
from sweeps.watching import history, incidents, loss_trace, said, speed, standing
from sweeps.watching.history import History
from sweeps.watching.loss_trace import Stamp
from sweeps.watching.speed import Speed
from sweeps.watching.standing import Standing

SWEEPS = 8  # that readers look at, of which something is kept
SHOWN = 40  # running runs whose curves are read
LOOK_SECONDS = 1.0  # between two looks at one sweep, however many pages ask
PAST_SECONDS = 15.0  # between two readings of the whole log of a sweep that goes on
SPARK = (120, 28)  # pixels
INK = "#4c8dc4"  # on white and on black


@dataclass(frozen=True, kw_only=True)
class Under:
    """What the curve and the log of a run under way tell."""

    losses: tuple[float, ...] = ()  # the oldest first
    met: tuple[str, ...] = ()  # sentences


@dataclass(frozen=True, kw_only=True)
class Past:
    """What became of a sweep until a moment."""

    number: int  # another one for each reading, of whichever sweep
    told_by: tuple[object, ...]  # what it depends on, but for the time
    history: History
    sizes: dict[str, float]  # non-embedding parameters by the label of a size
    speeds: dict[str, Speed]  # by run


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A sweep at one moment."""

    standing: Standing
    under: dict[str, Under] = field(default_factory=dict)  # of the runs under way that are shown


@dataclass(kw_only=True)
class _Followed:
    """What is kept of a sweep between two looks."""

    seen: Watched | None = None
    under: dict[str, tuple[Stamp, Under]] = field(default_factory=dict)
    past: Past | None = None
    sizes: dict[str, float] = field(default_factory=dict)
    speeds: dict[str, Speed] = field(default_factory=dict)  # of finished runs


class Watch:
    """Looks at sweeps for whoever asks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()  # by name, the one last asked for last
        self._pasts = 0  # read so far

    def names(self) -> list[str]:
        """The sweeps that there are, the one last driven first.

        Raises:
            StoreError: where there is no store (any more).
        """
        found = sweepdir.names(self._root)
        if not found:
            open_root(self._root, create=False)
        return found

    def look(self, name: str) -> Watched:
        """A sweep of the store; ``name`` is one of ``names``."""
        with self._lock:
            known = self._of(name)
            if known.seen is not None and _just(time.time() - known.seen.standing.time, LOOK_SECONDS):
                return known.seen
            with contextlib.suppress(StoreError):  # a store elsewhere that does not answer now: what was seen last
                places.refresh(self._root)
            found = standing.look(self._root, name)
            shown = [live.run_id for live in found.running[:SHOWN] if "/" not in live.run_id]
            known.under = {run_id: self._read(run_id, known.under.get(run_id)) for run_id in shown}
            under = {run_id: read for run_id, (_, read) in known.under.items()}
            known.seen = Watched(standing=found, under=under)
            return known.seen

    def past(self, name: str) -> Past:
        """What became of a sweep of the store; of one that goes on, up to a few seconds ago."""
        sweep = self.look(name).standing
        with self._lock:
            known, told_by = self._of(name), (sweep.driver, sweep.spoke, sweep.done)
            if (seen := known.past) is not None:
                over = sweep.driver not in said.ALIVE and seen.told_by == told_by
                if over or _just(sweep.time - seen.history.now, PAST_SECONDS):
                    return seen
            found = history.read(self._root, sweep)
            runs = {run.size: run.run_id for part in (found.stays, found.coming) for run in part}
            for size, run_id in runs.items():
                self._measure(known.sizes, size, run_id)
            self._pasts += 1
            speeds = speed.of_runs(self._root, found.stays, sweep.running, known.speeds)
            known.past = Past(
                number=self._pasts, told_by=told_by, history=found, sizes=dict(known.sizes), speeds=speeds
            )
            return known.past

    def _of(self, name: str) -> _Followed:
        """What is kept of a sweep; the lock is held."""
        found = self._followed.setdefault(name, _Followed())
        self._followed.move_to_end(name)
        if len(self._followed) > SWEEPS:
            self._followed.popitem(last=False)
        return found

    def _measure(self, sizes: dict[str, float], label: str, run_id: str) -> None:
        """Non-embedding parameters of a size, by one of its runs."""
        if label not in sizes and "/" not in run_id:
            with contextlib.suppress(StoreError, OSError):
                sizes[label] = float(costs.params(RunDir(self._root, run_id).spec().model).nonembedding)

    def _read(self, run_id: str, before: tuple[Stamp, Under] | None) -> tuple[Stamp, Under]:
        run = RunDir(self._root, run_id)
        stamp = loss_trace.stamp(run)
        if before is not None and before[0] == stamp:
            return before
        return stamp, Under(losses=loss_trace.losses(run), met=tuple(incidents.sentences(incidents.read(run))))


def _just(ago: float, seconds: float) -> bool:
    """Whether something was so few seconds ago; what comes to lie ahead, when a clock is set back, was not."""
    return 0 <= ago < seconds


def sparkline(values: Sequence[float]) -> str:
    """A line of values without axes, as the address of an image; empty of fewer than two."""
    if len(values) < 2:
        return ""
    width, height = SPARK
    low, high = min(values), max(values)
    across, down = (width - 4) / (len(values) - 1), (height - 4) / ((high - low) or 1.0)
    points = " ".join(f"{2 + i * across:.1f},{2 + (high - value) * down:.1f}" for i, value in enumerate(values))
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><polyline points="{points}" '
        f'fill="none" stroke="{INK}" stroke-width="1.5"/></svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"
