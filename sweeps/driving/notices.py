"""Nodes that are to be taken away: their runs write a checkpoint and go on elsewhere, and nothing new starts there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import Phase, RunState
from sweeps.scheduling.inventory import Inventory
from sweeps.scheduling.scheduler import Running


class Notices:
    """Carries out the cluster's notices."""

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._cluster, self._say = cluster, say
        self._told: set[str] = set()  # nodes

    def look(self, running: Sequence[Running], states: Mapping[str, RunState]) -> None:
        """Ask the runs of nodes that leave to stop."""
        leaving = self._cluster.leaving()
        for node in sorted(set(leaving) - self._told):
            here = [run.run_id for run in running if node in run.allocation]
            if leaving[node] <= 0 and not here:
                self._say(f"node    {node[:8]} is gone")
                continue
            within = f" within {leaving[node]:.0f} s" if leaving[node] < math.inf else ""
            what = f"{', '.join(here)} writes its checkpoint and goes on elsewhere" if here else "nothing runs there"
            self._say(f"node    {node[:8]} is to be taken away{within}: {what}")
        self._told = set(leaving)
        for run in running:
            state = states.get(run.run_id)
            if state is None or state.stopping or state.phase != Phase.RUNNING:
                continue
            if any(node in leaving for node in run.allocation):
                state.stopping = True
                self._cluster.stop(run.run_id)

    def staying(self, inventory: Inventory) -> Inventory:
        """The nodes on which something may start."""
        return [node for node in inventory if node.name not in self._told] if self._told else inventory
