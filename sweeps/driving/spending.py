"""What a sweep has taken of its devices: every attempt's, failed ones too, over all of its drivers.

The sweep's log has a line where a run takes devices and one where it frees them (and one where the cluster changes).
Where the second is missing, because a driver died, the run held them until its last sign of life in the store, or holds
them still. Preparations count too. A log that is lost resets nothing: the sweep has taken at least what its last driver
said in status.json.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core.errors import StoreError
from gpt3core.store import files, signs
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import NAME, SweepDir
from sweeps.scheduling.inventory import ACCELERATOR, Resources

if TYPE_CHECKING:
    from sweeps.scheduling.inventory import Allocation, Inventory
    from sweeps.scheduling.scheduler import Running

Shapes = frozenset[tuple[Resources, str]]  # all that a node has, and what GPUs these are; empty where it does not say
TOOK, FREED, CLUSTER = "took", "freed", "cluster"  # events of the sweep's log


@dataclass(frozen=True, kw_only=True)
class Used:
    """Device time, and what it cost."""

    gpu_hours: float = 0.0
    core_hours: float = 0.0  # of runs without a GPU
    usd: float = 0.0

    def plus(self, hours: float, *, gpus: float, cores: float, usd_per_hour: float) -> Used:
        """With so many hours of so many devices."""
        return Used(
            gpu_hours=self.gpu_hours + hours * gpus,
            core_hours=self.core_hours + (0.0 if gpus else hours * cores),
            usd=self.usd + hours * gpus * usd_per_hour,
        )

    def at_least(self, other: Used) -> Used:
        """The larger of both, each by itself."""
        return Used(**{name: max(value, getattr(other, name)) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Spell:
    """Devices that a run holds, or held."""

    run_id: str
    began: float  # of whoever measures: the epoch in the log, the driver's clock in the driver
    gpus: float
    cores: float
    usd_per_hour: float  # of one GPU


@dataclass(frozen=True, kw_only=True)
class Spent:
    """A sweep's log, added up."""

    used: Used
    open: Mapping[str, Spell]  # no line says that they ended


def read(events: Iterable[Mapping[str, Any]]) -> Spent:
    """Add up a sweep's log. Lines that say nonsense count nothing."""
    used, spells = Used(), dict[str, Spell]()
    for event in events:
        run_id = event.get("run_id")
        if event.get("event") not in (TOOK, FREED) or not isinstance(run_id, str) or not NAME.fullmatch(run_id):
            continue
        if event["event"] == TOOK:
            spells[run_id] = Spell(run_id=run_id, began=_number(event, "time"), **_rates(event))
        else:
            spells.pop(run_id, None)
            used = used.plus(_number(event, "seconds") / 3600, **_rates(event))
    return Spent(used=used, open=spells)


def _events(sweep: SweepDir) -> Iterator[dict[str, Any]]:
    """The lines of a sweep's log that may count; none where the disk does not answer."""
    with contextlib.suppress(OSError):
        yield from files.each_line(sweep.path / "events.jsonl", [f'"{name}"'.encode() for name in (TOOK, FREED)])


def so_far(sweep: SweepDir, now: float | None = None, *, driven: bool = False) -> Used:
    """What a sweep has taken, by the store alone.

    Args:
        now: seconds since the epoch.
        driven: whether a driver lives, so that runs without an end go on.
    """
    now = time.time() if now is None else now
    spent = read(_events(sweep))
    used = spent.used
    for spell in spent.open.values():
        end = now if driven else min(now, _last_sign(sweep.root, spell))
        used = used.plus(max(0.0, end - spell.began) / 3600, **_rates(vars(spell)))
    return used.at_least(_said(sweep))


def _said(sweep: SweepDir) -> Used:
    """What a driver said last that the sweep had taken."""
    try:
        status = sweep.status() or {}
    except (StoreError, OSError):
        return Used()
    taken = status.get("taken")
    if not isinstance(taken, dict):
        return Used()
    unit = "gpu_hours" if status.get("unit") == "GPU" else "core_hours"
    return Used(**{unit: _number(taken, "hours"), "usd": _number(taken, "usd")})


def _last_sign(root: Path, spell: Spell) -> float:
    return signs.last(RunDir(root, spell.run_id)) or spell.began


def _rates(event: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(event, name) for name in ("gpus", "cores", "usd_per_hour")}


def _number(event: Mapping[str, Any], name: str) -> float:
    value = event.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e18 else 0.0


class Spending:
    """Keeps a sweep's account while it is driven, by the driver's clock."""

    def __init__(self, sweep: SweepDir, price: Callable[[str, str], float], note: Any) -> None:
        """Take up what earlier drivers left.

        Args:
            price: USD per hour of a GPU that a run has, by its name; that is empty where its node does not say it.
            note: writes a line of the sweep's log.
        """
        self._root, self._price, self._note = sweep.root, price, note
        spent = read(_events(sweep))
        self._closed = spent.used
        self._left: dict[str, Spell] | None = dict(spent.open)  # of an earlier driver, until the first look
        self._least = _said(sweep)
        self._open: dict[str, Spell] = {}
        self._living: dict[str, float] = {}  # what the nodes had at the last look
        self._accelerators: dict[str, str] = {}  # of the GPUs of every node that was seen
        self.shapes: Shapes = frozenset()  # of the nodes that lived at the last look

    def living(self, inventory: Inventory) -> None:
        """Take note of what the living nodes have, where that changed."""
        self._accelerators |= {node.name: node.labels.get(ACCELERATOR, "") for node in inventory}
        shapes = frozenset((node.total, self._accelerators[node.name]) for node in inventory)
        if shapes and shapes != self.shapes:  # by the one that is kept thousands of rates are looked up
            self.shapes = shapes
        gpus, cores = (sum(getattr(node.total, name) for node in inventory) for name in ("gpus", "cpus"))
        there = {"nodes": len(inventory), "gpus": gpus, "cores": cores}
        if inventory and there != self._living:  # none at all: it is just starting, or cannot be seen now
            self._living = there
            self._note(CLUSTER, **there)

    def look(self, running: Sequence[Running], now: float) -> dict[str, float]:
        """Take note of who holds devices now; the seconds of those that no longer do."""
        holding = {run.run_id: run for run in running}
        if self._left is not None:
            self._take_up(self._left, holding, now)
        ended = {}
        for run_id, run in holding.items():
            workers = sum(run.allocation.values())
            rates = workers * run.worker.gpus, workers * run.worker.cpus, self.price(run_id, run.allocation)
            before = self._open.get(run_id)
            if before is not None and (before.gpus, before.cores, before.usd_per_hour) == rates:
                continue
            if before is not None:  # a gang that grew or shrank, or has other nodes or prices
                self._close(before, now)
            gpus, cores, price = rates
            self._take(Spell(run_id=run_id, began=now, gpus=gpus, cores=cores, usd_per_hour=price))
        for run_id in [i for i in self._open if i not in holding]:
            ended[run_id] = self._close(self._open.pop(run_id), now)
        return ended

    def used(self, now: float) -> Used:
        """All that was taken until now, the runs under way included."""
        used = self._closed if self._left is None else self._closed.at_least(self._least)
        for spell in self._open.values():
            used = used.plus((now - spell.began) / 3600, **_rates(vars(spell)))
        return used

    def price(self, run_id: str, allocation: Allocation) -> float:
        """USD per hour of one of a run's GPUs, on average over the nodes that it is on."""
        prices = [n * self._price(run_id, name) for name, n in self.accelerators(allocation).items()]
        return sum(prices) / max(1, sum(allocation.values()))

    def accelerators(self, allocation: Allocation) -> Counter[str]:
        """How many of its workers are on nodes with which GPUs; empty names where nodes do not say it."""
        found: Counter[str] = Counter()
        for node, n in allocation.items():
            found[self._accelerators.get(node, "")] += n
        return found

    def usd_per_second(self, run_id: str) -> float | None:
        """Of all GPUs that a run holds, None where it holds none."""
        spell = self._open.get(run_id)
        return None if spell is None else spell.gpus * spell.usd_per_hour / 3600

    def since(self, run_id: str, now: float) -> float | None:
        """For how many seconds a run has held its devices, None where it holds none."""
        return now - self._open[run_id].began if run_id in self._open else None

    def _take_up(self, left: Mapping[str, Spell], holding: Mapping[str, Running], now: float) -> None:
        """Spells without an end: those of adopted runs go on, the others ended with their last sign of life."""
        wall = time.time()
        for run_id, spell in left.items():
            if run_id in holding:
                self._open[run_id] = replace(spell, began=now - max(0.0, wall - spell.began))
            else:
                seconds = max(0.0, min(wall, _last_sign(self._root, spell)) - spell.began)
                self._close(replace(spell, began=now - seconds), now)
        self._left = None
        known = self.used(now)
        more = known.at_least(self._least)
        changes = {name: getattr(more, name) - value for name, value in vars(known).items()}
        self._closed = Used(**{name: value + changes[name] for name, value in vars(self._closed).items()})

    def _take(self, spell: Spell) -> None:
        self._open[spell.run_id] = spell
        self._note(TOOK, run_id=spell.run_id, **_rates(vars(spell)))

    def _close(self, spell: Spell, now: float) -> float:
        seconds = now - spell.began
        self._closed = self._closed.plus(seconds / 3600, **_rates(vars(spell)))
        self._note(FREED, run_id=spell.run_id, seconds=round(seconds, 3), **_rates(vars(spell)))
        return seconds
