"""What is free on every node of a cluster, kept as runs come and go, and asked by the shape of a worker.

Ray packs fractions of a GPU by device, so devices are counted one by one: 0.75 of a GPU fits once on each, not five
times on four. Placements are found without looking at every node: for each shape that was asked for, the nodes are
kept by how many workers they could take.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sweeps.scheduling.inventory import EPSILON, Allocation, Inventory, Resources

Taken = list[tuple[int, float]]  # of one node's devices: which, and how much of it


@dataclass(kw_only=True)
class Free:
    """What is free on one node."""

    cpus: float
    devices: list[float]  # the free share of each GPU, 0 to 1

    def workers(self, shape: Resources) -> int:
        """How many workers of a shape fit."""
        limits = []
        if shape.cpus > 0:
            limits.append(math.floor((self.cpus + EPSILON) / shape.cpus))
        if 0 < shape.gpus < 1:
            limits.append(sum(math.floor((share + EPSILON) / shape.gpus) for share in self.devices))
        elif shape.gpus >= 1:
            whole = shape.gpus == int(shape.gpus)  # Ray has no 1.5 GPUs
            limits.append(sum(share >= 1 - EPSILON for share in self.devices) // int(shape.gpus) if whole else 0)
        return max(0, min(limits, default=0))

    def take(self, shape: Resources, workers: int) -> Taken:
        """Hold so many workers' resources; what it took of the devices, for ``give``."""
        self.cpus -= workers * shape.cpus
        taken: Taken = []
        if shape.gpus < 1:
            amounts = [shape.gpus] * workers if shape.gpus > 0 else []
        else:
            rest = workers * shape.gpus
            amounts = [1.0] * int(rest + EPSILON)
            amounts += [rest - len(amounts)] if rest - len(amounts) > EPSILON else []
        for amount in amounts:
            able = [(share, i) for i, share in enumerate(self.devices) if share >= amount - EPSILON]
            if able:  # the fullest device that can; none where others hold more than was known
                _, device = min(able)
                self.devices[device] -= amount
                taken.append((device, amount))
        return taken

    def give(self, shape: Resources, workers: int, taken: Taken) -> None:
        """Undo ``take``."""
        self.cpus += workers * shape.cpus
        for device, amount in taken:
            self.devices[device] += amount

    def least(self, other: Free) -> Free:
        """What is free in both."""
        devices = [min(a, b) for a, b in zip(self.devices, other.devices, strict=True)]
        return Free(cpus=min(self.cpus, other.cpus), devices=devices)


@dataclass(kw_only=True)
class _ByRoom:
    """Nodes by how many workers of one shape they could take."""

    room: dict[str, int]
    counts: Counter[int]  # room -> nodes
    heaps: dict[int, list[tuple[float, float, str]]] = field(default_factory=dict)  # may hold entries that are past


class Capacity:
    """The free resources of all nodes."""

    def __init__(self, free: Mapping[str, Free]) -> None:
        self.free = dict(free)
        self._shapes: dict[Resources, _ByRoom] = {}

    @classmethod
    def of(cls, inventory: Inventory) -> Capacity:
        """An empty cluster."""
        return cls({n.name: Free(cpus=n.total.cpus, devices=[1.0] * int(n.total.gpus + EPSILON)) for n in inventory})

    def copy(self) -> Capacity:
        """A cluster in the same state, to try things on."""
        return Capacity({name: Free(cpus=f.cpus, devices=[*f.devices]) for name, f in self.free.items()})

    def least(self, other: Capacity) -> Capacity:
        """What is free in both."""
        return Capacity({name: mine.least(other.free[name]) for name, mine in self.free.items()})

    def take(self, shape: Resources, allocation: Allocation) -> dict[str, Taken]:
        """Hold a run's resources; nodes that are gone are left out."""
        here = {name: workers for name, workers in allocation.items() if name in self.free}
        taken = {name: self.free[name].take(shape, workers) for name, workers in here.items()}
        self.changed(here)
        return taken

    def give(self, shape: Resources, allocation: Allocation, taken: Mapping[str, Taken]) -> None:
        """Free what ``take`` held."""
        for name, devices in taken.items():
            self.free[name].give(shape, allocation[name], devices)
        self.changed(taken)

    def changed(self, names: Iterable[str]) -> None:
        """Look at these nodes again."""
        names = list(names)
        for shape, nodes in self._shapes.items():
            for name in names:
                room = self.free[name].workers(shape)
                nodes.counts[nodes.room[name]] -= 1
                nodes.counts[room] += 1
                nodes.room[name] = room
                self._push(nodes, name)

    def holds(self, shape: Resources, workers: int, together: int = 1) -> bool:
        """Whether ``place`` would find room."""
        counts = self._nodes(shape).counts
        most = max((room for room, n in counts.items() if n), default=0)
        return most >= workers or self._share(counts, most, workers, together) is not None

    def place(self, shape: Resources, workers: int, together: int = 1) -> Allocation | None:
        """Nodes for a gang: one node if it fits on one (the fullest that can), else whole nodes with equal shares.

        Args:
            together: workers that must share a node; the share of a node is a multiple of it.
        """
        nodes = self._nodes(shape)
        rooms = sorted(room for room, n in nodes.counts.items() if n)
        for room in rooms:
            if room >= workers:
                return {self._fullest(nodes, room): workers}
        share = self._share(nodes.counts, rooms[-1] if rooms else 0, workers, together)
        if share is None:
            return None
        able = sorted((room, name) for name, room in nodes.room.items() if room >= share)
        return {name: share for _, name in able[: workers // share]}

    @staticmethod
    def _share(counts: Counter[int], most: int, workers: int, together: int) -> int | None:
        """The largest equal share of a gang that enough nodes can take."""
        most = min(most, workers - 1)
        for share in range(most - most % together, 0, -together):
            if workers % share == 0 and workers // share <= sum(n for room, n in counts.items() if room >= share):
                return share
        return None

    def _nodes(self, shape: Resources) -> _ByRoom:
        if shape not in self._shapes:
            room = {name: free.workers(shape) for name, free in self.free.items()}
            self._shapes[shape] = _ByRoom(room=room, counts=Counter(room.values()))
            for name in self.free:
                self._push(self._shapes[shape], name)
        return self._shapes[shape]

    def _push(self, nodes: _ByRoom, name: str) -> None:
        heapq.heappush(nodes.heaps.setdefault(nodes.room[name], []), self._fullness(name))

    def _fullness(self, name: str) -> tuple[float, float, str]:
        free = self.free[name]
        return sum(free.devices), free.cpus, name

    def _fullest(self, nodes: _ByRoom, room: int) -> str:
        """Of the nodes with that room, the one with the least left."""
        heap = nodes.heaps[room]
        while nodes.room[heap[0][2]] != room or heap[0] != self._fullness(heap[0][2]):
            heapq.heappop(heap)
        return heap[0][2]
