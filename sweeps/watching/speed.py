"""How fast the runs of a sweep train, over time: each by the mean of its training while it holds devices.

The mean is that of its result; of a run under way it is what its driver heard last. Nothing finer is kept: a curve has
no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gpt3core.errors import StoreError
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps.watching.history import History, Stay
from sweeps.watching.standing import Live


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of a run's training."""

    flops_per_second: float  # of all its devices
    mfu: float | None = None  # share of what these could do; None where that is not known, as of CPUs


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
    for run_id in {stay.run_id for stay in stays if stay.ended is not None} - set(known):
        found = _of_result(root, run_id)
        if found is not None:
            known[run_id] = found
    live = {
        run.run_id: Speed(flops_per_second=run.flops_per_second, mfu=run.mfu) for run in running if run.flops_per_second
    }
    return {**live, **known}


def over_time(history: History, speeds: dict[str, Speed]) -> list[Moment]:
    """From each moment on at which it changes, up to now."""
    changes = []
    trained: set[str] = set()  # a later stay of these is of questions
    for stay in sorted(history.stays, key=lambda stay: stay.began):
        if stay.run_id not in trained and (speed := speeds.get(stay.run_id)) is not None:
            changes.append((stay.began, 1, stay, speed))
            changes += [] if stay.ended is None else [(stay.until(history.now), -1, stay, speed)]
        trained |= {stay.run_id} if stay.how == "done" else set()
    changes.sort(key=lambda change: change[:2])
    found: dict[float, Moment] = {}
    devices = flops = rated = used = 0.0
    for time, sign, stay, speed in changes:
        devices, flops = devices + sign * stay.devices, flops + sign * speed.flops_per_second
        if speed.mfu is not None:
            rated, used = rated + sign * stay.devices, used + sign * stay.devices * speed.mfu
        held = devices > 1e-6
        mfu = used / rated if rated > 1e-6 else None
        found[time] = Moment(
            time=time, devices=devices if held else 0.0, flops_per_second=flops if held else 0.0, mfu=mfu
        )
    moments = list(found.values())
    going = moments[-1:] if devices > 1e-6 else []
    return [*moments, *(replace(last, time=history.now) for last in going)]


def _of_result(root: Path, run_id: str) -> Speed | None:
    if "/" in run_id:
        return None
    try:
        result = RunDir(root, run_id).result()
    except (StoreError, OSError):
        return None
    flops = files.number((result or {}).get("flops_per_second"))
    return Speed(flops_per_second=flops, mfu=files.number((result or {}).get("mfu"))) if flops else None
