"""Whether a run that did not start found its place taken: then neither it nor its node is to blame."""

from __future__ import annotations

from sweeps.cluster.job import Update
from sweeps.driving.hands import Cluster
from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import Resources


def taken(update: Update, worker: Resources, cluster: Cluster) -> bool:
    """Whether what others hold on the node leaves no room for a worker, beside what this sweep has there.

    Args:
        worker: the shape of the run's workers.
    """
    if update.state != "unstarted" or not any(update.node in run.allocation for run in cluster.others()):
        return False
    room = Capacity.of([node for node in cluster.inventory() if node.name == update.node])
    for run in (*cluster.others(), *cluster.running()):
        room.take(run.worker, run.allocation)
    return not any(free.workers(worker) for free in room.free.values())
