"""How fast the runs of a sweep train, over time, and what share of their devices' peak that is.

A run's stretches are placed where its logs put them (``pace``); one without is as fast as its mean, for each device
that it holds. The mean is that of its result; of a run under way it is what its driver heard last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpt3core.errors import StoreError
from gpt3core.store import files, outcomes
from gpt3core.store.rundir import RunDir
from sweeps.watching import pace
from sweeps.watching.history import History, Stay
from sweeps.watching.pace import Stretch
from sweeps.watching.standing import Live

Sums = tuple[float, float, float, float]  # devices; FLOPs a second, those of rated devices, and what these could do
NOTHING: Sums = (0.0, 0.0, 0.0, 0.0)
MOST_READ = 400  # runs whose logs are read: a millisecond each
FRESH_SECONDS = 60.0  # that a run under way is taken to go on as it was heard last


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of a run's training."""

    flops_per_second: float  # of all its devices, the mean
    mfu: float | None = None  # share of what ``devices`` could do; None where that is not known, as of CPUs
    devices: float | None = None  # the mean of its training; None where nothing but its stay tells
    along: tuple[Stretch, ...] = ()  # none where no log tells


@dataclass(frozen=True, kw_only=True)
class Moment:
    """From a moment on."""

    time: float  # seconds since the epoch
    devices: float  # of runs whose speed is known
    flops_per_second: float
    mfu: float | None  # of these devices together; None where it is not known of any, or none is held


def of_runs(root: Path, stays: Iterable[Stay], running: Iterable[Live], known: dict[str, Speed]) -> dict[str, Speed]:
    """The speed of every run that has one.

    Args:
        known: of finished runs, whose results never change: those that are read now are added.
    """
    runs = {stay.run_id: stay.ended is not None for stay in stays}
    closely = len(runs) <= MOST_READ
    for run_id in {run_id for run_id, ended in runs.items() if ended} - set(known):
        if (found := _of_result(root, run_id)) is not None:
            known[run_id] = replace(found, along=_along(root, run_id)) if closely else found
    live = {}
    for run in running:
        if run.flops_per_second:
            along = _along(root, run.run_id) if closely else ()
            live[run.run_id] = Speed(flops_per_second=run.flops_per_second, mfu=run.mfu, along=along)
    return {**live, **known}


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The stays of a run that trained it."""

    speed: Speed
    stays: list[Stay] = field(default_factory=list)

    def along(self, now: float) -> tuple[Stretch, ...]:
        """Where its logs put it; nothing where most of that lies outside its stays: that machine has another time."""
        of_all = sum(s.ended - s.began for s in self.speed.along)
        overlaps = (
            min(s.ended, stay.until(now)) - max(s.began, stay.began) for s in self.speed.along for stay in self.stays
        )
        return self.speed.along if sum(max(0.0, seconds) for seconds in overlaps) > of_all / 2 else ()

    @property
    def peak(self) -> float:
        """FLOPs a second that one device could do; 0 where it is not known."""
        devices = self.speed.devices or self.stays[-1].devices
        return self.speed.flops_per_second / (self.speed.mfu * devices) if self.speed.mfu and devices else 0.0

    def stretches(self, stay: Stay, along: tuple[Stretch, ...], now: float) -> Iterator[Stretch]:
        """Within one of the stays; the last one of a stay that goes on ends now."""
        end = stay.until(now)
        if not along:
            held = sum(s.devices * (s.until(now) - s.began) for s in self.stays)
            mean = self.speed.flops_per_second * sum(s.until(now) - s.began for s in self.stays) / (held or 1.0)
            yield Stretch(began=stay.began, ended=end, flops_per_second=mean * stay.devices)
            return
        within = [s for s in along if s.began < end and s.ended > stay.began]
        for s in within:
            last = s is within[-1] and stay.ended is None and end - s.ended < FRESH_SECONDS
            yield replace(s, began=max(s.began, stay.began), ended=end if last else min(s.ended, end))


def over_time(history: History, speeds: dict[str, Speed]) -> list[Moment]:
    """From each moment on at which it changes, up to now."""
    changes: dict[float, Sums] = {}
    for training in _trainings(history, speeds):
        along = training.along(history.now)
        for stay in training.stays:
            held = (stay.devices, 0.0, 0.0, training.peak * stay.devices)
            _add(changes, held, stay.began, None if stay.ended is None else stay.until(history.now))
            for stretch in training.stretches(stay, along, history.now):
                flops = (0.0, stretch.flops_per_second, stretch.flops_per_second * (training.peak > 0), 0.0)
                goes_on = stay.ended is None and stretch.ended >= history.now
                _add(changes, flops, stretch.began, None if goes_on else stretch.ended)
    now, found = NOTHING, list[Moment]()
    for time in sorted(changes):
        now = _sum(now, changes[time])
        found.append(_moment(time, *now))
    going_on = [moment for moment in found[-1:] if moment.devices]
    return [*found, *(replace(last, time=history.now) for last in going_on)]


def _add(changes: dict[float, Sums], what: Sums, began: float, ended: float | None) -> None:
    changes[began] = _sum(changes.get(began, NOTHING), what)
    if ended is not None:
        changes[ended] = _sum(changes.get(ended, NOTHING), what, -1.0)


def _sum(some: Sums, more: Sums, times: float = 1.0) -> Sums:
    a, b, c, d = (one + times * other for one, other in zip(some, more, strict=True))
    return a, b, c, d


def _moment(time: float, devices: float, flops: float, rated: float, peak: float) -> Moment:
    """Of sums that may be off by what rounding leaves."""
    if devices < 1e-6:
        return Moment(time=time, devices=0.0, flops_per_second=0.0, mfu=None)
    mfu = max(0.0, rated) / peak if peak > 1.0 else None
    return Moment(time=time, devices=devices, flops_per_second=max(0.0, flops), mfu=mfu)


def _trainings(history: History, speeds: dict[str, Speed]) -> list[_Training]:
    """The runs whose speed is known, with their stays; a stay after a run is done is of questions."""
    found: dict[str, _Training] = {}
    done = set[str]()
    for stay in sorted(history.stays, key=lambda stay: stay.began):
        if stay.run_id in speeds and stay.run_id not in done:
            found.setdefault(stay.run_id, _Training(speed=speeds[stay.run_id])).stays.append(stay)
        done |= {stay.run_id} if stay.how == "done" else set()
    return list(found.values())


def _along(root: Path, run_id: str) -> tuple[Stretch, ...]:
    if "/" in run_id:
        return ()
    try:
        return pace.read(RunDir(root, run_id))
    except (StoreError, OSError):
        return ()


def _of_result(root: Path, run_id: str) -> Speed | None:
    if "/" in run_id:
        return None
    try:
        result = RunDir(root, run_id).result() or {}
    except (StoreError, OSError):
        return None
    flops, mfu = (files.number(result.get(name)) for name in ("flops_per_second", "mfu"))
    return Speed(flops_per_second=flops, mfu=mfu, devices=outcomes.mean_devices(result)) if flops else None
