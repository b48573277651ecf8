"""A cluster of which only so much may be used: what the scheduler is shown, so that its promises hold; pure.

Starts that were merely refused beyond a limit would let a stream of small runs starve a gang, for the scheduler would
promise it room that it may not have. So the nodes are cut: what may not be used is not there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sweeps.scheduling.capacity import Capacity
from sweeps.scheduling.inventory import ACCELERATOR, EPSILON, Inventory, Kind, Node, Resources, rack_of
from sweeps.scheduling.scheduler import Running


def within(
    inventory: Inventory, running: Sequence[Running], others: Sequence[Running], kind: Kind, most: float
) -> Inventory:
    """The part of a cluster on which runs take at most so many devices at once.

    Nodes with running ones stay, whole nodes come before cut ones, and what others hold comes on top. Where a gang
    would have no place on that, each node has one share of it.

    Args:
        running: the runs that count.
        kind: of the runs.
        most: GPUs where the shape has some, else cores.
    """
    found = _within(inventory, running, others, kind.worker, most)
    if found is inventory or Capacity.of(found).share(kind) is not None:
        return found
    if (share := Capacity.of(inventory).share(kind)) is None:
        return found
    return _within(inventory, running, others, kind.worker, most, share)


def turned(
    cut: Inventory,
    inventory: Inventory,
    running: Sequence[Running],
    others: Sequence[Running],
    kind: Kind,
    most: float,
) -> tuple[Inventory, Sequence[Running]]:
    """A part of a cluster, or another one where that has no place for a kind; and what runs on it.

    Runs on nodes that are not in the other one are shown on those that are, for they take of what may be used all the
    same: so the kind gets a reservation for when enough of them have ended.

    Args:
        cut: as ``within`` found it.
        running: the runs that count.
        kind: of the first of the queue.
    """
    if Capacity.of(cut).share(kind) is not None or (share := Capacity.of(inventory).share(kind)) is None:
        return cut, running
    racks: dict[tuple[bool, str], set[str]] = {}
    for node in inventory:
        if kind.accelerator in ("", node.labels.get(ACCELERATOR)):
            racks.setdefault(rack_of(node, kind.rack), set()).add(node.name)
    for _, first in sorted(racks.items()):
        for each in (math.inf, share):
            found = _within(inventory, [], others, kind.worker, most, each, first)
            if Capacity.of(found).share(kind) is not None:
                return found, _moved(found, running, others, first)
    return cut, running


def _moved(
    nodes: Inventory, running: Sequence[Running], others: Sequence[Running], last: Collection[str]
) -> list[Running]:
    """Runs where they are, as far as that is on these nodes, and for the rest where there is room for as many devices.

    What is left free of a node is free of it in truth: a run whose own node has no room for it fills that first.

    Args:
        last: the nodes that are filled last with what is elsewhere.
    """
    room, found, away = Capacity.of(nodes), list[Running](), list[tuple[Running, dict[str, int]]]()

    def show(run: Running, worker: Resources, most: Mapping[str, int], left: float = math.inf) -> dict[str, int]:
        """On these nodes, in their order, at most so many workers of each, and no more than are left."""
        here: dict[str, int] = {}
        for name, workers in most.items():
            if name in room.free and (count := min(workers, left, room.free[name].workers(worker))):
                here[name], left = int(count), left - count
        if here:
            room.take(worker, here)
            found.append(replace(run, worker=worker, allocation=here))
        return here

    for other in others:
        room.take(other.worker, other.allocation)
    for run in running:
        here = show(run, run.worker, run.allocation)
        if rest := {name: n - here.get(name, 0) for name, n in run.allocation.items() if n > here.get(name, 0)}:
            away.append((run, rest))
    for run, rest in away:
        gpus = run.worker.gpus  # those of a node are counted whole, though they are shared
        units = sum(math.ceil(n * gpus - EPSILON) if gpus else n for n in rest.values())
        order = sorted(room.free, key=lambda name: (name not in run.allocation, name in last, name))
        show(run, Resources(gpus=1) if gpus else run.worker, dict.fromkeys(order, units), units)
    return found


def _within(
    inventory: Inventory,
    running: Sequence[Running],
    others: Sequence[Running],
    shape: Resources,
    most: float,
    share: float = math.inf,
    first: Collection[str] = (),
) -> Inventory:
    """The same.

    Args:
        share: workers for which there is room on a node, at most.
        first: the nodes that are taken before others.
    """
    name = "gpus" if shape.gpus else "cpus"
    each = getattr(shape, name)
    ours, theirs = _held(running, name), _held(others, name)
    if sum(max(0.0, getattr(n.total, name) - theirs.get(n.name, 0.0)) for n in inventory) <= most + EPSILON:
        return inventory
    step = max(1.0, each)
    if name == "gpus":  # one that is shared counts whole
        ours = {node: float(math.ceil(amount - EPSILON)) for node, amount in ours.items()}
    left, found = most - sum(ours.get(node.name, 0.0) for node in inventory), []
    for node in sorted(
        inventory, key=lambda n: (n.name not in ours, n.name not in first, theirs.get(n.name, 0.0), n.name)
    ):
        total, held, used = getattr(node.total, name), theirs.get(node.name, 0.0), ours.get(node.name, 0.0)
        more = max(0.0, math.floor((min(total - held - used, left, share * each - used) + EPSILON) / step) * step)
        left -= more
        if used + more > EPSILON:
            found.append(_cut(node, name, held + used + more))
    order = {node.name: i for i, node in enumerate(inventory)}
    return sorted(found, key=lambda node: order[node.name])


def _cut(node: Node, name: str, amount: float) -> Node:
    total = min(getattr(node.total, name), math.ceil(amount - EPSILON) if name == "gpus" else amount)
    return replace(node, total=replace(node.total, **{name: total}))


def _held(runs: Sequence[Running], name: str) -> dict[str, float]:
    """Node -> what runs hold there."""
    found: dict[str, float] = {}
    for run in runs:
        for node, workers in run.allocation.items():
            found[node] = found.get(node, 0.0) + workers * getattr(run.worker, name)
    return found
