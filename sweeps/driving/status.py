"""How a sweep stands, for anybody who can read the store: written by its driver, read without a cluster.

The driver speaks at every change, at most once a second, and at least every few seconds while it lives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from gpt3core.errors import StoreError
from gpt3core.store.sweepdir import SweepDir

if TYPE_CHECKING:  # who reads a status draws no terminal
    from sweeps.driving.progress import Snapshot

WRITE_SECONDS = 1.0  # between two writings
SPEAK_SECONDS = 10.0  # a driver speaks that often even if nothing changes
SILENT_SECONDS = 60.0  # after which it is taken for dead where its process cannot be seen
NAMED = 20  # waiting runs of one reason that are named; all are counted
LISTED = 500  # runs that failed, or are held or pruned, that are listed with their reasons; all are counted
ENDS = ("failed", "held", "pruned")
OF_WAITING = ("starts", "ends")  # of runs that wait, said beside their reasons
DUTY = 0.02  # of a core, at most, for writing it
DRIVING, ENDED, INTERRUPTED, FAILED = "driving", "ended", "interrupted", "failed"


class Status:
    """Keeps status.json current."""

    def __init__(self, sweep: SweepDir) -> None:
        self._sweep = sweep
        self._next = 0.0
        self._said: object = None
        self._spoke = 0.0
        self._written: dict[str, Any] | None = None

    @contextmanager
    def to_its_end(self) -> Iterator[None]:
        """A driver that ends in an error says so, with the reason: it is not to be taken for a dead one."""
        try:
            yield
        except Exception as error:
            if self._written is not None:
                told = {"state": FAILED, "time": round(time.time(), 3), "eta_seconds": None}
                self._write({**self._written, **told, "damage": [*self._written["damage"], str(error)]})
            raise

    def tell(
        self,
        snapshot: Snapshot,
        damage: Sequence[str],
        *,
        nodes: int,
        state: str = DRIVING,
        now: float | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Write how the sweep stands, unless that was just done or nothing has changed.

        Args:
            nodes: living nodes of the cluster.
            state: driving, or how it ended, which is written at once.
            now: of the monotonic clock.
            more: what the driver expects and adds up (``Outlook.plain``); asked only when it is written.
        """
        now = time.monotonic() if now is None else now
        if state == DRIVING and now < self._next:
            return
        said = (snapshot, tuple(damage), nodes, state)
        if said == self._said and now < self._spoke + SPEAK_SECONDS:
            return
        began = time.thread_time()
        mechanism = {"one_driver_by": self._sweep.mechanism}
        if not self._write({**_plain(snapshot, damage, nodes, state, more()), **mechanism}):
            return
        self._said, self._spoke = said, now
        self._next = now + max(WRITE_SECONDS, (time.thread_time() - began) / DUTY)

    def _write(self, status: dict[str, Any]) -> bool:
        """Whether it could be written: a status is never worth a sweep; the runs say what is wrong with a disk."""
        try:
            self._sweep.write_status(status)
        except (StoreError, OSError):
            return False
        self._written = status
        return True


def _plain(
    snapshot: Snapshot, damage: Sequence[str], nodes: int, state: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    waiting = {name: more.get(name, {}) if state == DRIVING else {} for name in OF_WAITING}
    return {
        "sweep": snapshot.name,
        "state": state,
        "time": round(time.time(), 3),
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "nodes": nodes,
        "asked": snapshot.total,
        "done": snapshot.done,
        "counts": {name: len(getattr(snapshot, name)) for name in ("running", "waiting", *ENDS)},
        **{name: dict(islice(getattr(snapshot, name).items(), LISTED)) for name in ENDS},
        "avoided_nodes": dict(snapshot.avoided),
        "running": {i: asdict(p) if p is not None else None for i, p in snapshot.running.items()},
        "waiting": [
            {
                "reason": reason,
                "count": len(runs),
                "runs": runs[:NAMED],
                **{name: [of.get(run) for run in runs[:NAMED]] for name, of in waiting.items()},
            }
            for runs, reason in snapshot.grouped()
        ],
        "eta_seconds": None if snapshot.eta_seconds is None else round(snapshot.eta_seconds, 1),
        "damage": list(damage),
        **{name: value for name, value in more.items() if name not in OF_WAITING},
    }
