"""Which running runs make room for a gang of higher priority: the fewest, and of these the smallest; or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        taken: set[str] = set()
        while len(taken) < self.count:
            open_nodes = [(self.cost(n), name) for name, n in needed.items() if n is not None and name not in taken]
            if not open_nodes:
                return False
            _, best = min(open_nodes)
            more = (needed[best] or set()) - self.chosen
            taken.add(best)
            self.chosen |= more
            for name in {name for i in more for name in self.candidates[i][1]} & set(self.free):
                needed[name] = self._needed(name)
        for i in sorted(self.chosen, key=lambda i: self.cost({i}), reverse=True):  # who need not stop goes on
            if self._able(self.chosen - {i}) >= self.count:
                self.chosen.discard(i)
        return bool(self.chosen)

    def cost(self, which: set[int]) -> Cost:
        """Of stopping some: how many, and what they hold, in GPUs and a little for cores."""
        held = 0.0
        for run in (self.candidates[i][0] for i in which):
            held += sum(run.allocation.values()) * (run.worker.gpus + 1e-3 * run.worker.cpus)
        return len(which), held

    def _needed(self, name: str) -> set[int] | None:
        """Whom to stop on a node beside the chosen, so that its share of the gang fits; None where that is in vain."""
        more: set[int] = set()
        if self._room(name, self.chosen) >= self.share:
            return more
        largest_first = sorted(set(self.on[name]) - self.chosen, key=lambda i: (-self._on_node(i, name), self.cost({i})))
        for i in largest_first:
            more.add(i)
            if self._room(name, self.chosen | more) >= self.share:
                break
        else:
            return None
        for i in [i for i in largest_first if i in more]:
            if self._room(name, self.chosen | (more - {i})) >= self.share:
                more.discard(i)
        return more

    def _on_node(self, i: int, name: str) -> float:
        run = self.candidates[i][0]
        return run.allocation[name] * (run.worker.gpus + 1e-3 * run.worker.cpus)

    def _able(self, stopped: set[int]) -> int:
        return sum(self._room(name, stopped) >= self.share for name in self.free)

    def _room(self, name: str, stopped: set[int]) -> int:
        free = self.free[name]
        then = Free(cpus=free.cpus, devices=[*free.devices])
        for i in self.on[name]:
            if i in stopped:
                run, taken = self.candidates[i]
                then.give(run.worker, run.allocation[name], taken[name])
        return then.workers(self.shape)
