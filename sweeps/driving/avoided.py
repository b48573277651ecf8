"""Nodes that fail: two failures that can be a node's own within an hour, and nothing new starts there for a while.

A run that fails on several nodes is the run's fault, and what it left on each of them is forgotten. A node is forgiven
after FORGIVEN_SECONDS, or for as long as the runs have no place without it. Times are of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sweeps.cluster.causes import PERHAPS_THE_NODE, Cause
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Kind

MARKS = 2  # failures after which a node is avoided
WINDOW_SECONDS = 3600.0  # within which they fell
FORGIVEN_SECONDS = 1800.0  # after the last of them


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A failure on a node that may be the node's."""

    node: str
    run_id: str
    error: str
    time: float


class Avoided:
    """The nodes on which runs failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._marks: list[Mark] = []
        self.told: dict[str, str] = {}  # node -> why it is avoided, as it was said

    def failed(self, node: str, run_id: str, cause: Cause, error: str, now: float) -> None:
        """A run failed on a node."""
        if not node or cause not in PERHAPS_THE_NODE:
            return
        if any(mark.run_id == run_id and mark.node != node for mark in self._marks):
            self._marks = [mark for mark in self._marks if mark.run_id != run_id]  # wherever it goes
            return
        self._marks.append(Mark(node=node, run_id=run_id, error=error, time=now))

    def look(self, inventory: Inventory, kinds: Callable[[], Collection[Kind]], now: float) -> Inventory:
        """The nodes on which something may start: all but those avoided, or all where the runs need these.

        Args:
            kinds: what the runs ask of the cluster; asked where a node is avoided.
        """
        self._marks = [mark for mark in self._marks if now - mark.time < WINDOW_SECONDS]
        bad = {node.name for node in inventory if self._bad(node.name, now)}
        for name in sorted(set(self.told) - bad):
            del self.told[name]
            self._say(f"node    {name[:8]}: no longer avoided")
        kept = [node for node in inventory if node.name not in bad]
        needed = bool(bad) and (not kept or any(scheduler.impossible(kind, kept) is not None for kind in kinds()))
        for name in sorted(bad):
            self._tell(name, needed)
        return inventory if needed else kept

    def _bad(self, node: str, now: float) -> bool:
        marks = [mark for mark in self._marks if mark.node == node]
        return len(marks) >= MARKS and now - marks[-1].time < FORGIVEN_SECONDS

    def _tell(self, node: str, needed: bool) -> None:
        marks = [mark for mark in self._marks if mark.node == node]
        runs = ", ".join(sorted({mark.run_id for mark in marks}))
        what = (
            "used all the same, for the runs have no place without it"
            if needed
            else f"nothing new starts there for {FORGIVEN_SECONDS / 60:.0f} minutes"
        )
        said = f"failed {len(marks)} times ({runs}; at last: {marks[-1].error}): {what}"
        if self.told.get(node) != said:
            self.told[node] = said
            self._say(f"node    {node[:8]} {said}")
