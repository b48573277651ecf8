"""What is free on every node of a cluster, kept as runs come and go, and asked by the kind of a gang.

Ray packs fractions of a GPU by device, so devices are counted one by one: 0.75 of a GPU fits once on each, not five
times on four. Placements are found without looking at every node: for each shape of worker that was asked for, the
nodes are kept by how many of them they could take, rack by rack where a gang must lie in one. Who could run anywhere
leaves alone what others need (``rank``): nodes with GPUs where it needs none, and the kinds of GPU that others name.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from sweeps.scheduling.inventory import ACCELERATOR, EPSILON, Allocation, Inventory, Kind, Node, Resources, rack_of

WHOLE = 1 - EPSILON
Taken = list[tuple[int, float]]  # of one node's devices: which, and how much of it
Held = tuple[float, Resources, Allocation, Mapping[str, Taken]]  # until when, of what shape, where, on which devices
Scope = tuple[Resources, str, str]  # shape of a worker, accelerator, label of the rack
RANK = 1 << 40  # a node's room is how many workers it could take, and so much more for each rank that it comes later


class Free:
    """What is free on one node."""

    __slots__ = ("cpus", "devices", "whole")

    def __init__(self, cpus: float, devices: list[float]) -> None:
        self.cpus, self.devices = cpus, devices  # of each GPU the free share, 0 to 1
        self.whole = sum(share >= WHOLE for share in devices)  # GPUs that are free altogether

    def copy(self) -> Free:
        """As much."""
        other = Free.__new__(Free)
        other.cpus, other.devices, other.whole = self.cpus, self.devices.copy(), self.whole
        return other

    def workers(self, shape: Resources) -> int:
        """How many workers of a shape fit."""
        cpus, gpus = shape.cpus, shape.gpus
        room = (self.cpus + EPSILON) // cpus if cpus > 0 else math.inf
        if gpus >= 1:
            room = min(room, self.whole // int(gpus)) if gpus == int(gpus) else 0  # Ray has no 1.5 GPUs
        elif gpus > 0:
            parts = self.whole * ((1 + EPSILON) // gpus)
            if self.whole < len(self.devices):
                for share in self.devices:
                    if gpus - EPSILON <= share < WHOLE:
                        parts += (share + EPSILON) // gpus
            room = min(room, parts)
        return 0 if room == math.inf or room < 0 else int(room)

    def take(self, shape: Resources, workers: int) -> Taken:
        """Hold so many workers' resources; what it took of the devices, for ``give``."""
        self.cpus -= workers * shape.cpus
        gpus = shape.gpus
        if not gpus:
            return []
        if gpus >= 1:
            whole = int(workers * gpus + EPSILON)
            taken, rest = self._take_whole(whole), workers * gpus - whole
            amounts = [rest] if rest > EPSILON else []
        else:
            taken, amounts = [], [gpus] * workers
        devices = self.devices
        for amount in amounts:
            best = -1
            for device, share in enumerate(devices):
                if share >= amount - EPSILON and (best < 0 or share < devices[best]):
                    best = device
            if best >= 0:  # the fullest device that can; none where others hold more than was known
                self.whole -= devices[best] >= WHOLE
                devices[best] -= amount
                taken.append((best, amount))
        return taken

    def _take_whole(self, count: int) -> Taken:
        """So many whole devices, or as many as there are."""
        devices, taken = self.devices, Taken()
        if count == self.whole == len(devices):
            self.devices, self.whole = [0.0] * count, 0
            return [(device, 1.0) for device in range(count)]
        for device, share in enumerate(devices):
            if len(taken) == count:
                break
            if share >= WHOLE:
                devices[device] = share - 1.0
                taken.append((device, 1.0))
        self.whole -= len(taken)
        return taken

    def give(self, shape: Resources, workers: int, taken: Taken) -> None:
        """Undo ``take``."""
        self.cpus += workers * shape.cpus
        devices = self.devices
        for device, amount in taken:
            devices[device] = share = devices[device] + amount
            if share >= WHOLE:
                self.whole += 1

    def least(self, other: Free) -> Free:
        """What is free in both."""
        mine, its = self.devices, other.devices
        if mine == its or other.whole == len(its):
            least = self.copy()
        elif self.whole == len(mine):
            least = other.copy()
        else:
            return Free(min(self.cpus, other.cpus), list(map(min, mine, its)))
        least.cpus = min(self.cpus, other.cpus)
        return least


class _Rack:
    """Nodes by how many workers of one shape they could take."""

    __slots__ = ("counts", "first", "heaps", "room")

    def __init__(self, room: dict[str, int]) -> None:
        self.room, self.first = room, min(room)
        self.counts: dict[int, int] = {}  # room -> nodes
        for one in room.values():
            self.counts[one] = self.counts.get(one, 0) + 1
        self.heaps: dict[int, list[tuple[float, float, str]]] = {}  # of rooms asked for; may hold entries that are past

    def able(self, share: int, rank: float = math.inf) -> int:
        """How many nodes, of a rank at most, could take so many workers."""
        able = 0
        for room, nodes in self.counts.items():
            if room % RANK >= share and room // RANK <= rank:
                able += nodes
        return able

    def rank(self, share: int, count: int) -> int | None:
        """The lowest up to which so many nodes could take so many workers; None where there are too few."""
        ranks = sorted({room // RANK for room in self.counts})
        return next((rank for rank in ranks if self.able(share, rank) >= count), None)

    def fullest(self, share: int, count: int) -> list[str]:
        """So many nodes that could take so many workers, by rank, those with the least room first, then by name."""
        able = {room for room, nodes in self.counts.items() if nodes and room % RANK >= share}
        by_room: dict[int, list[str]] = {}
        for name, room in self.room.items():
            if room in able:
                by_room.setdefault(room, []).append(name)
        found: list[str] = []
        for room in sorted(by_room):
            found += heapq.nsmallest(count - len(found), by_room[room])
        return found

    def move(self, name: str, workers: int) -> None:
        """A node has room for so many now."""
        before = self.room[name]
        self.counts[before] -= 1
        self.room[name] = room = before - before % RANK + workers
        self.counts[room] = self.counts.get(room, 0) + 1


class Capacity:
    """The free resources of all nodes."""

    def __init__(self, nodes: Sequence[Node], free: Mapping[str, Free], wanted: Sequence[str] = ()) -> None:
        self.nodes, self.free, self.wanted = nodes, dict(free), wanted
        self._scopes: dict[Scope, tuple[list[_Rack], dict[str, _Rack]]] = {}  # racks in order; by node

    @classmethod
    def of(cls, inventory: Inventory) -> Capacity:
        """An empty cluster."""
        made: dict[tuple[float, float], Free] = {}  # nodes are alike
        for n in inventory:
            if (n.total.cpus, n.total.gpus) not in made:
                made[n.total.cpus, n.total.gpus] = Free(n.total.cpus, [1.0] * int(n.total.gpus + EPSILON))
        return cls(inventory, {n.name: made[n.total.cpus, n.total.gpus].copy() for n in inventory})

    def copy(self) -> Capacity:
        """A cluster in the same state, to try things on."""
        return Capacity(self.nodes, {name: free.copy() for name, free in self.free.items()}, self.wanted)

    def least(self, other: Capacity) -> Capacity:
        """What is free in both."""
        least = {name: mine.least(other.free[name]) for name, mine in self.free.items()}
        return Capacity(self.nodes, least, self.wanted)

    def want(self, accelerators: Sequence[str]) -> None:
        """From now on runs that name no kind of GPU take these last, the last of them last of all."""
        if accelerators != self.wanted:
            self.wanted = accelerators
            self._scopes = {scope: racks for scope, racks in self._scopes.items() if scope[1]}

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
        if not self._scopes:
            return
        names = list(names)
        for (shape, *_), (_, racks) in self._scopes.items():
            for name in names:
                if (rack := racks.get(name)) is None:
                    continue
                rack.move(name, self.free[name].workers(shape))
                if (heap := rack.heaps.get(rack.room[name])) is not None:
                    heapq.heappush(heap, self._fullness(name))

    def share(self, kind: Kind) -> int | None:
        """How many workers of a gang each of its nodes takes here: all where one can, else the largest equal share."""
        shares = [self._share(rack, kind) for rack in self._racks(kind)]
        return max((share for share in shares if share is not None), default=None)

    @staticmethod
    def _share(rack: _Rack, kind: Kind) -> int | None:
        most = max((room % RANK for room, n in rack.counts.items() if n), default=0)
        if most >= kind.workers:
            return kind.workers
        for share in range(most - most % kind.together, 0, -kind.together):
            if kind.workers % share == 0 and kind.workers // share <= rack.able(share):
                return share
        return None

    def place(self, kind: Kind, share: int) -> Allocation | None:
        """Nodes for a gang, so many workers on each: of low rank, then the fullest, in the fullest rack that can.

        One that names no kind of GPU has nodes of one kind where some of such a rank can: the slowest is its pace.
        """
        count, found = kind.workers // share, []
        for rack in self._racks(kind):
            if count == 1:
                room = min((room for room, n in rack.counts.items() if n and room % RANK >= share), default=None)
                if room is not None:
                    found.append(((room, *self._fullest(rack, room)), rack))
            elif (rank := rack.rank(share, count)) is not None:
                found.append(((rank * RANK + rack.able(share), 0.0, 0.0, rack.first), rack))
        if not found:
            return None
        best, rack = min(found, key=lambda one: one[0])
        if count == 1:
            return {best[3]: share}
        for name in self._alike(kind, best[0] // RANK):
            if (alike := self.place(kind._replace(accelerator=name), share)) is not None:
                return alike
        return dict.fromkeys(rack.fullest(share, count), share)

    def _alike(self, kind: Kind, rank: int) -> list[str]:
        """The kinds of GPU, of a rank at most, of which one could be all that a gang has that names none."""
        if kind.accelerator or not kind.worker.gpus or len(self._accelerators) < 2:
            return []
        ranks = dict.fromkeys(self._accelerators, 0) | {name: 1 + i for i, name in enumerate(self.wanted)}
        return sorted((n for n in ranks if n and ranks[n] <= rank), key=lambda n: (ranks[n], n))

    @cached_property
    def _accelerators(self) -> set[str]:
        return {node.labels.get(ACCELERATOR, "") for node in self.nodes}

    def earliest(self, kind: Kind, share: int, held: Sequence[Held], now: float) -> float:
        """When the ends of what holds resources leave room for a gang first; gives back what has ended by then.

        Args:
            held: by their ends; all of it is on these nodes.

        Returns:
            The time, infinite where the room depends on what never ends.
        """
        count, shape = kind.workers // share, kind.worker
        racks = {id(rack): rack.able(share) for rack in self._racks(kind)}
        of = self._scopes[kind.worker, kind.accelerator, kind.rack][1]
        short = {name: id(rack) for name, rack in of.items() if rack.room[name] % RANK < share}
        self._scopes = {}  # nodes change below without being looked at again
        free, enough = self.free, False
        for i, (ends, worker, allocation, taken) in enumerate(held):
            for name, devices in taken.items():
                node = free[name]
                node.give(worker, allocation[name], devices)
                if name in short and node.workers(shape) >= share:
                    rack = short.pop(name)
                    racks[rack] += 1
                    enough |= racks[rack] >= count
            if enough and (i + 1 == len(held) or held[i + 1][0] > max(now, ends)):  # all that ends then has
                return max(now, ends)
        raise AssertionError("an empty cluster has room for what is not impossible on it")

    def _racks(self, kind: Kind) -> list[_Rack]:
        scope = kind.worker, kind.accelerator, kind.rack
        if scope not in self._scopes:
            shape, rooms = kind.worker, dict[tuple[bool, str], dict[str, int]]()
            known = self._rooms(shape)
            for node in self.nodes:
                if kind.accelerator and node.labels.get(ACCELERATOR) != kind.accelerator:
                    continue
                where = rack_of(node, kind.rack) if kind.rack else (True, "")
                if where not in rooms:
                    rooms[where] = {}
                name = node.name
                room = known[name].room[name] % RANK if name in known else self.free[name].workers(shape)
                rooms[where][name] = RANK * self.rank(node, kind) + room
            racks = [_Rack(room) for room in rooms.values()]
            self._scopes[scope] = racks, {name: rack for rack in racks for name in rack.room}
        return self._scopes[scope][0]

    def rank(self, node: Node, kind: Kind) -> int:
        """How late a node comes for a kind: the later, the more others need what it does not."""
        rank = 0 if kind.worker.gpus or not node.total.gpus else len(self.wanted) + 1
        if self.wanted and not kind.accelerator and (gpu := node.labels.get(ACCELERATOR)) in self.wanted:
            rank += 1 + self.wanted.index(gpu)
        return rank

    def _rooms(self, shape: Resources) -> Mapping[str, _Rack]:
        """Where it is known already what room nodes have for a shape."""
        return next((racks for (known, *_), (_, racks) in self._scopes.items() if known == shape), {})

    def _fullness(self, name: str) -> tuple[float, float, str]:
        free = self.free[name]
        return sum(free.devices), free.cpus, name

    def _fullest(self, rack: _Rack, room: int) -> tuple[float, float, str]:
        """Of the nodes with that room, the one with the least left."""
        if room not in rack.heaps:
            rack.heaps[room] = [self._fullness(name) for name, its in rack.room.items() if its == room]
            heapq.heapify(rack.heaps[room])
        heap = rack.heaps[room]
        while rack.room[heap[0][2]] != room or heap[0] != self._fullness(heap[0][2]):
            heapq.heappop(heap)
        return heap[0]
