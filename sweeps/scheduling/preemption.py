"""Which running runs make room for a gang of higher priority: the fewest, and of these the smallest; or none."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence, Set

from sweeps.scheduling.capacity import Capacity, Free, Taken
from sweeps.scheduling.inventory import ACCELERATOR, Kind, Node, rack_of
from sweeps.scheduling.jobs import Running

Candidate = tuple[Running, Mapping[str, Taken]]
Cost = tuple[int, float]


def victims(kind: Kind, share: int, free: Capacity, candidates: Sequence[Candidate]) -> set[str]:
    """The runs to stop so that a gang fits, by name; empty where it would not fit without all of them either.

    Rack by rack, nodes are taken in the order of what they cost beside what is stopped already; then whoever need not
    stop is let go on. None that is left could be spared alone; that no other set is smaller is not certain.

    Args:
        share: workers of the gang on each node.
        free: without the candidates' resources.
        candidates: that may be stopped.
    """
    racks: dict[tuple[bool, str], list[Node]] = {}
    for node in free.nodes:
        if not kind.accelerator or node.labels.get(ACCELERATOR) == kind.accelerator:
            racks.setdefault(rack_of(node, kind.rack), []).append(node)
    found = []
    for _, nodes in sorted(racks.items()):
        search = _Search(kind, share, free, nodes, candidates)
        if search.choose():
            found.append((search.cost(search.chosen), sorted(search.chosen)))
    return {candidates[i][0].run_id for i in min(found)[1]} if found else set()


class _Search:
    """The cheapest nodes of one rack."""

    def __init__(
        self, kind: Kind, share: int, free: Capacity, nodes: Sequence[Node], candidates: Sequence[Candidate]
    ) -> None:
        self.shape, self.share, self.count = kind.worker, share, kind.workers // share
        self.candidates, self.chosen = candidates, set[int]()
        self.free = {node.name: free.free[node.name] for node in nodes}
        self.on: dict[str, list[int]] = {name: [] for name in self.free}
        for i, (_, taken) in enumerate(candidates):
            for name in taken:
                if name in self.on:
                    self.on[name].append(i)

    def choose(self) -> bool:
        """Choose whom to stop; whether that makes room."""
        needed = {name: self._needed(name) for name in self.free}
        heap = [(self.cost(who), name) for name, who in needed.items() if who is not None]
        heapq.heapify(heap)
        taken: set[str] = set()
        while len(taken) < self.count:
            if not heap:
                return False
            cost, best = heapq.heappop(heap)
            who = needed[best]
            if best in taken or who is None or cost != self.cost(who):
                continue  # an entry that is past
            taken.add(best)
            self.chosen |= who
            for name in {name for i in who for name in self.candidates[i][1]} & set(self.free) - taken:
                needed[name] = again = self._needed(name)
                if again is not None:
                    heapq.heappush(heap, (self.cost(again), name))
        self._spare()
        return bool(self.chosen)

    def _spare(self) -> None:
        """Who need not stop goes on, the largest first."""
        rooms = {name: self._room(name, self.chosen) for name in self.free}
        able = sum(room >= self.share for room in rooms.values())
        for i in sorted(self.chosen, key=lambda i: self.cost({i}), reverse=True):
            without = {n: self._room(n, self.chosen - {i}) for n in self.candidates[i][1] if n in rooms}
            lost = sum(rooms[name] >= self.share > room for name, room in without.items())
            if able - lost >= self.count:
                self.chosen.discard(i)
                able -= lost
                rooms |= without

    def cost(self, which: Set[int]) -> Cost:
        """Of stopping some: how many, and what they hold, in GPUs and a little for cores."""
        held = 0.0
        for run in (self.candidates[i][0] for i in which):
            held += sum(run.allocation.values()) * (run.worker.gpus + 1e-3 * run.worker.cpus)
        return len(which), held

    def _needed(self, name: str) -> set[int] | None:
        """Whom to stop on a node beside the chosen, so that its share of the gang fits; None where that is in vain."""
        then = self._free(name, self.chosen)
        room, more = then.workers(self.shape), list[int]()
        left = [i for i in self.on[name] if i not in self.chosen]
        left.sort(key=lambda i: (-self._on_node(i, name), self.cost({i})))
        while room < self.share and len(more) < len(left):
            more.append(left[len(more)])
            self._give(then, name, more[-1])
            room = then.workers(self.shape)
        if room < self.share:
            return None
        who = set(more)
        for i in more[:-1]:  # the last made the room
            if self._room(name, self.chosen | (who - {i})) >= self.share:
                who.discard(i)
        return who

    def _on_node(self, i: int, name: str) -> float:
        run = self.candidates[i][0]
        return run.allocation[name] * (run.worker.gpus + 1e-3 * run.worker.cpus)

    def _room(self, name: str, stopped: Set[int]) -> int:
        return self._free(name, stopped).workers(self.shape)

    def _free(self, name: str, stopped: Set[int]) -> Free:
        """What is free on a node without some."""
        then = self.free[name].copy()
        for i in self.on[name]:
            if i in stopped:
                self._give(then, name, i)
        return then

    def _give(self, then: Free, name: str, i: int) -> None:
        run, taken = self.candidates[i]
        then.give(run.worker, run.allocation[name], taken[name])
