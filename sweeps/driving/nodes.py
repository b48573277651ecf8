"""Whether the cluster can ever take the runs of a sweep, when nodes come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sweeps.driving.run_state import Phase, RunState
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Inventory, Node, Resources
from sweeps.scheduling.jobs import RETURN_SECONDS, Running, missing
from sweeps.scheduling.scheduler import Kind

GRACE_SECONDS = 600.0  # for nodes to come back


class Nodes:
    """The largest cluster seen, and how long the runs have had no place on the living one."""

    def __init__(self, kind: Callable[[RunState], Kind], say: Callable[[str], None]) -> None:
        """Judge.

        Args:
            kind: what a run asks of the cluster.
        """
        self._kind, self._say = kind, say
        self.largest: Inventory = []
        self._placed: Sequence[RunState] = ()  # runs, all of which have a place on the nodes seen
        self._since: float | None = None
        self._warned = False
        self._seen: Inventory | None = None
        self._known: dict[str, Node] = {}  # that were alive at the last look
        self._lost: dict[str, tuple[float, Node]] = {}  # since when
        self._others: dict[str, list[Running]] = {}  # what somebody else holds by its name, the oldest first
        self._missing: dict[Kind, str | None] = {}  # why such a run has no place on the nodes seen
        self._reasons: dict[str, str] = {}  # the same by run
        self._never: dict[Kind, bool] = {}  # whether the largest cluster seen has none either

    def look(self, inventory: Inventory, runs: Sequence[RunState], *, begun: bool, now: float) -> bool:
        """Judge the living nodes; whether runs were settled by it.

        Runs that do not fit fail only while nothing of the sweep has begun, and only if the largest cluster seen had
        no place for them. Otherwise nodes were lost: the runs wait, which is said aloud after a grace, and once
        nothing runs any more they are held for a later start.

        Args:
            runs: that are on the way.
            begun: whether any run of the sweep has ever started.
        """
        if not inventory:
            return False  # the cluster is just starting, or cannot be seen now
        if inventory != self._seen:
            self._seen, self._missing, self._never, self._reasons = inventory, {}, {}, {}
            self.largest = max(self.largest, inventory, key=_size)
        elif runs == self._placed:
            return False  # all had a place at the last look, and nothing is new
        self._placed = ()
        waiting: dict[str, list[RunState]] = {}  # the runs without a place, by why
        for state in runs:
            if state.phase == Phase.WAITING and (reason := self._reason(state)):
                waiting.setdefault(reason, []).append(state)
        if not waiting:
            self._since, self._warned, self._placed = None, False, runs
            return False
        if not begun:
            never = {reason: [s for s in some if self._never[self._kind(s)]] for reason, some in waiting.items()}
            settled = [self._settle(some, Phase.FAILED, reason) for reason, some in never.items() if some]
            if settled:
                return True
        self._since = now if self._since is None else self._since
        if now - self._since < GRACE_SECONDS:
            return False
        minutes = f"{GRACE_SECONDS / 60:.0f} minutes"
        if not self._warned:
            self._warned = True
            for reason, some in waiting.items():
                self._say(f"WAITING for nodes since {minutes}: {len(some)} run{'s' * (len(some) != 1)}, each {reason}")
        without = [state for some in waiting.values() for state in some]
        if len(without) < len(runs):
            return False  # something still runs: the sweep goes on with it
        reason = f"no node for it came back within {minutes}; start the same command again when there are nodes"
        return self._settle(without, Phase.HELD, reason)

    def expected(self, usable: Inventory, living: Inventory, now: float) -> tuple[Inventory, list[Running]]:
        """The usable nodes and those that should be back soon, and what holds the latter until then.

        Args:
            usable: of the living, those on which something may start.
        """
        alive = {node.name for node in living}
        for name in alive:
            self._lost.pop(name, None)
        for name, node in self._known.items():
            if name not in alive:
                self._lost.setdefault(name, (now, node))
        self._known = {node.name: node for node in living}
        self._lost = {i: lost for i, lost in self._lost.items() if now < lost[0] + RETURN_SECONDS}
        if not living or not self._lost:
            return usable, []
        soon = [node for _, node in self._lost.values()]
        return [*usable, *soon], [missing(node, since) for since, node in self._lost.values()]

    def strangers(self, others: Sequence[Running], now: float) -> list[Running]:
        """What somebody else holds, in as many parts as there are times since which so much of it was never free.

        Nothing tells who holds it. What counts for a run that needs it is for how long there has been too little, so
        of a notebook beside short jobs that take turns only the notebook's share grows old.
        """
        self._others = {run.run_id: _parts(self._others.get(run.run_id, ()), run, now) for run in others}
        return [part for parts in self._others.values() for part in parts]

    def remark(self, state: RunState) -> str:
        """What to add to a run's reason to wait where the living nodes have no place for it."""
        if not self._lost or not self._reason(state):
            return ""
        return f"; waits for nodes to come back, {len(self._lost)} lost within the hour"

    def _reason(self, state: RunState) -> str:
        """Why a run has no place on the nodes seen; empty where it has."""
        if (known := self._reasons.get(state.run_id)) is not None:
            return known
        kind = self._kind(state)
        if kind not in self._missing:
            assert self._seen is not None
            self._missing[kind] = scheduler.impossible(kind, self._seen)
            self._never[kind] = self._missing[kind] is not None and (
                scheduler.impossible(kind, self.largest) is not None
            )
        self._reasons[state.run_id] = reason = self._missing[kind] or ""
        return reason

    def _settle(self, runs: Sequence[RunState], phase: Phase, reason: str) -> bool:
        for state in runs:
            state.settle(phase, reason)
        self._say(f"{phase.value:7} {len(runs)} run{'s' * (len(runs) != 1)}: {reason}")
        return True


def _parts(before: Sequence[Running], held: Running, now: float) -> list[Running]:
    """What is held now: of the parts before, the oldest first, as much as that is, and what is more since now."""
    parts, rest = [], held.worker
    for part in (*before, replace(held, since=now)):
        worker = Resources(cpus=min(part.worker.cpus, rest.cpus), gpus=min(part.worker.gpus, rest.gpus))
        if not Resources().fits(worker):
            parts.append(replace(part, worker=worker))
            rest = rest.minus(worker)
    return parts


def _size(inventory: Inventory) -> tuple[float, float]:
    return sum(node.total.gpus for node in inventory), sum(node.total.cpus for node in inventory)
