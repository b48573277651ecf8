"""What became of a sweep until now, by its log: who held which devices when, how that ended, and what is to come.

The log says of every start where it was and how long it should take, and of every end how long it took. What it does
not say, because a driver died, is taken from the last sign of life in the store, as the account of what was spent does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt3core.store import files, signs
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import preparation
from sweeps.driving.spending import CLUSTER, FREED, TOOK
from sweeps.driving.status import DRIVING
from sweeps.watching.last_words import logged
from sweeps.watching.said import off_by
from sweeps.watching.standing import SILENT, Standing
from sweeps.watching.words import printable

PREPARATION, DRIVER = preparation.NAME, "driver"
RUNNING, DONE, FAILED, STOPPED, UNSEEN = "running", "done", "failed", "stopped", "without a driver"
HOURS = 3600.0
ONE_LOOK = 0.1  # seconds


@dataclass(frozen=True, kw_only=True)
class Stay:
    """One time that a run, or what comes before the first, held devices. Moments in seconds since the epoch."""

    run_id: str
    nodes: tuple[str, ...]  # none where the log does not say
    devices: float  # GPUs; cores of a run without one
    usd_per_hour: float  # of all of them
    began: float
    ended: float | None  # None while it goes on
    how: str  # running | done | failed | stopped (to go on later) | without a driver, up to its last sign of life
    expected: float | None = None  # when it should end, as its start expected
    reason: str = ""  # of a failure

    @property
    def size(self) -> str:
        """The label of its size."""
        return size_of(self.run_id)

    @property
    def prepares(self) -> bool:
        """Whether no run held them, but what comes before the first."""
        return self.run_id == PREPARATION

    def until(self, now: float) -> float:
        """When it ended, or now."""
        return max(self.began, now if self.ended is None else self.ended)


@dataclass(frozen=True, kw_only=True)
class Coming:
    """A run that waits, and when it should hold devices."""

    run_id: str
    starts: float
    ends: float

    @property
    def size(self) -> str:
        """The label of its size."""
        return size_of(self.run_id)


@dataclass(frozen=True, kw_only=True)
class Has:
    """What the living nodes have from a moment on."""

    time: float
    nodes: int
    devices: float


@dataclass(frozen=True, kw_only=True)
class History:
    """A sweep until now, and what its driver expects."""

    name: str
    now: float
    unit: str  # GPU | core
    stays: tuple[Stay, ...] = ()  # by their beginning
    coming: tuple[Coming, ...] = ()  # of those that wait the ones that its driver names
    cluster: tuple[Has, ...] = ()
    drivers: tuple[float, ...] = ()  # when one began
    ends: float | None = None  # expected, of the whole sweep
    to_come: Mapping[str, float] | None = None  # hours, usd, from when the driver spoke last
    off_by: float | None = None  # the factor that what is to come is off by at most with 90%; see said.off_by
    spoke: float | None = None  # when that was
    waiting: int = 0  # runs that wait, of which ``coming`` are some
    limit: Mapping[str, float] | None = None

    @property
    def of_runs(self) -> tuple[Stay, ...]:
        """The stays of runs."""
        return tuple(stay for stay in self.stays if not stay.prepares)


def size_of(run_id: str) -> str:
    """The label before a run's hash."""
    return run_id.rpartition("-")[0] or run_id


def read(root: Path, sweep: Standing) -> History:
    """Read it.

    Args:
        sweep: how it stands now (``standing.look``).
    """
    log = SweepDir(root, sweep.name).path / "events.jsonl"
    living = sweep.driver in (DRIVING, SILENT)
    closed, left = _stays(logged(log), gpu=sweep.unit == "GPU")
    rare = list(logged(log, [f'"{name}"'.encode() for name in (CLUSTER, DRIVER)]))
    stays = [*closed, *(stay if living else _until_seen(root, stay, sweep.time) for stay in left)]
    return History(
        name=sweep.name,
        now=sweep.time,
        unit=sweep.unit,
        stays=tuple(sorted(stays, key=lambda stay: stay.began)),
        coming=_coming(sweep) if living else (),
        cluster=_cluster(rare, gpu=sweep.unit == "GPU"),
        drivers=tuple(_number(event, "time") for event in rare if event.get("event") == DRIVER),
        ends=sweep.ends,
        to_come=sweep.to_come,
        off_by=off_by(sweep),
        spoke=sweep.spoke,
        waiting=sweep.counts.get("waiting", 0),
        limit=sweep.limit,
    )


def _stays(events: Iterable[Mapping[str, Any]], *, gpu: bool) -> tuple[list[Stay], list[Stay]]:
    """Those that ended, and those of which no line says that they did. Lines that say nonsense tell nothing."""
    starts, outcomes = dict[str, Mapping[str, Any]](), dict[str, tuple[str, str]]()
    held, closed = dict[str, Stay](), list[Stay]()
    for event in events:
        what, run_id = event.get("event"), event.get("run_id")
        if not isinstance(run_id, str):
            continue
        if what == "start":
            starts[run_id] = event
        elif what == "failed":
            outcomes[run_id] = FAILED, printable(str(event.get("error") or ""))
        elif what in ("done", "finished"):
            outcomes[run_id] = DONE, ""
        elif what == TOOK:
            outcomes.pop(run_id, None)
            held[run_id] = _begun(run_id, event, starts.get(run_id, {}), gpu=gpu)
        elif what == FREED and (stay := held.pop(run_id, None)) is not None:
            # without a start it is the preparation, of which the log has no end but this
            how, reason = outcomes.pop(run_id, (STOPPED if run_id in starts else DONE, ""))
            closed.append(replace(stay, ended=stay.began + _number(event, "seconds"), how=how, reason=reason))
    return closed, list(held.values())


def _begun(run_id: str, took: Mapping[str, Any], start: Mapping[str, Any], *, gpu: bool) -> Stay:
    """A stay as it begins."""
    at, seconds = start.get("allocation"), files.number(start.get("expected_seconds"))
    gpus, began = _number(took, "gpus"), _number(took, "time")
    return Stay(
        run_id=printable(run_id),
        nodes=tuple(printable(str(node)) for node in at) if isinstance(at, Mapping) else (),
        devices=gpus if gpu else gpus or _number(took, "cores"),
        usd_per_hour=gpus * _number(took, "usd_per_hour"),
        began=began,
        ended=None,
        how=RUNNING,
        expected=None if seconds is None else began + seconds,
    )


def _until_seen(root: Path, stay: Stay, now: float) -> Stay:
    """A stay that no driver saw the end of: done where the run has its result, else up to its last sign of life."""
    run = RunDir(root, stay.run_id)
    known = "/" not in stay.run_id
    last = (signs.last(run) if known else None) or stay.began
    how = DONE if known and run.trained else UNSEEN
    return replace(stay, ended=max(stay.began, min(now, last)), how=how)


def _coming(sweep: Standing) -> tuple[Coming, ...]:
    known = [row for group in sweep.waiting for row in zip(group.runs, group.starts, group.ends, strict=False)]
    found = [Coming(run_id=i, starts=s, ends=e) for i, s, e in known if s is not None and e is not None and e >= s]
    return tuple(sorted(found, key=lambda run: run.starts))


def _cluster(events: Iterable[Mapping[str, Any]], *, gpu: bool) -> tuple[Has, ...]:
    name = "gpus" if gpu else "cores"
    return tuple(
        Has(time=_number(event, "time"), nodes=int(_number(event, "nodes")), devices=_number(event, name))
        for event in events
        if event.get("event") == CLUSTER
    )


def _number(event: Mapping[str, Any], name: str) -> float:
    value = files.number(event.get(name))
    return value if value is not None and 0 <= value < 1e18 else 0.0


# ---------------------------------------------------------------------------------------------------------- added up


def in_use(history: History) -> list[tuple[float, float]]:
    """Devices that runs hold from each moment on at which that changes: (seconds since the epoch, devices).

    A device goes from one run to the next within one look of the driver, in whichever order the log says it.
    """
    changes: dict[float, float] = {}
    for stay in history.stays:
        changes[stay.began] = changes.get(stay.began, 0.0) + stay.devices
        if stay.ended is not None:
            end = stay.until(history.now)
            changes[end] = changes.get(end, 0.0) - stay.devices
    held, found = 0.0, list[tuple[float, float]]()
    for moment in sorted(changes):
        held += changes[moment]
        if found and moment - found[-1][0] < ONE_LOOK:
            moment = found.pop()[0]
        found.append((moment, max(0.0, round(held, 6))))
    return found


def taken(history: History) -> list[tuple[float, float, float]]:
    """Device-hours and dollars taken until each moment at which the rate changes: (seconds, hours, usd), up to now."""
    changes: list[tuple[float, float, float]] = []
    for stay in history.stays:
        end = stay.until(history.now)
        changes += [(stay.began, stay.devices, stay.usd_per_hour), (end, -stay.devices, -stay.usd_per_hour)]
    changes.sort()
    found: list[tuple[float, float, float]] = []
    devices = rate = hours = usd = 0.0
    for i, (moment, more, dearer) in enumerate(changes):
        passed = (moment - changes[i - 1][0]) / HOURS if i else 0.0
        hours, usd = hours + devices * passed, usd + rate * passed
        devices, rate = devices + more, rate + dearer
        found.append((moment, hours, usd))
    return found


def share_in_use(history: History) -> float | None:
    """The share of the cluster's device-time that runs held, from the first start on; None where the log has no size.

    A cluster that changed counts as large as it was.
    """
    if not history.stays or not history.cluster:
        return None
    first = history.stays[0].began
    last = max(stay.until(history.now) for stay in history.stays)
    there = 0.0
    for i, has in enumerate(history.cluster):
        until = history.cluster[i + 1].time if i + 1 < len(history.cluster) else last
        begin = first if i == 0 else max(first, has.time)
        there += has.devices * max(0.0, min(until, last) - begin)
    held = sum((stay.until(history.now) - stay.began) * stay.devices for stay in history.stays)
    return held / there if there > 0 else None
