"""The places of a sweep's runs on the cluster: how many more could start now, and when others give some back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sweeps.driving import expected
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.driving.sharing import Among
from sweeps.scheduling import quota
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.fairness import fraction, total
from sweeps.scheduling.inventory import EPSILON, Inventory
from sweeps.scheduling.scheduler import Kind, Running

MOST = 1024  # more than a proposer ever asks for


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The places of one sweep, for runs of its common kind."""

    cluster: Cluster
    estimates: Estimates
    among: Among
    devices: float | None  # that it may hold at once

    def cut(self, inventory: Inventory, running: Sequence[Running], others: Sequence[Running]) -> Inventory:
        """The part of the cluster that may be used at once."""
        if self.devices is None:
            return inventory
        return quota.within(inventory, running, others, self.estimates.common, self.devices)

    def more(self, states: Mapping[str, RunState]) -> int:
        """How many more runs could start: what proposers fill and no more."""
        running, others = self.cluster.running(), self.cluster.others()
        nodes = self.cut(self.cluster.inventory(), running, others)
        return free(nodes, [*running, *others], self.estimates.common, states, self._fair())

    def places(self, now: float) -> tuple[int, list[float]]:
        """Places beside others, those of this sweep's runs among them; and when more within its share are free.

        What another sweep does not say the end of is taken to end now: who asks for nothing would get nothing.
        """
        nodes, others, common = self.cluster.inventory(), self.cluster.others(), self.estimates.common
        here = expected.places(common, self.cut(nodes, self.cluster.running(), others), others)
        if (fair := self._fair()) <= here:
            return here, []
        theirs = [replace(run, ends=now if run.ends == math.inf else run.ends) for run in self.among.held]
        ends = expected.frees(common, nodes, [*self.among.strangers(others), *theirs])
        return here, [max(now, end) for end in ends[here:fair] if end < math.inf]

    def _fair(self) -> int:
        """Runs that this sweep could have at once while another waits, whatever is free now."""
        nodes, common = self.cluster.inventory(), self.estimates.common
        runs = fair(self.among.due(nodes), common, nodes)
        return runs if self.devices is None else min(runs, int(self.devices // common.devices))


def free(
    inventory: Inventory, holding: Iterable[Running], kind: Kind, states: Mapping[str, RunState], fair: int = 0
) -> int:
    """Runs for which there is room beside those that hold resources and those that wait for it.

    Where no run is on its way it is one at least: whether that can ever start is the scheduler's to say.

    Args:
        holding: of this sweep and of others.
        kind: of this sweep's runs.
        fair: runs that this sweep could have: others give back what they hold beyond their share as they end.
    """
    room = Capacity.of(inventory)
    share, found = room.share(kind), 0
    for run in holding:
        room.take(run.worker, run.allocation)
    while share and found < MOST and (place := room.place(kind, share)) is not None:
        room.take(kind.worker, place)
        found += 1
    phases = Counter(state.phase for state in states.values())
    found = max(found, fair - phases[Phase.RUNNING])
    found = min(MOST, found) - phases[Phase.WAITING]
    return found if any(state.phase in OPEN for state in states.values()) else max(1, found)


def fair(share: float, kind: Kind, inventory: Inventory) -> int:
    """Runs of a kind that a share of the cluster is as much as, no more than fit on its nodes."""
    one = fraction(kind.worker.times(kind.workers), total(inventory))
    return min(int(share / one + EPSILON), expected.places(kind, inventory)) if share and one else 0
