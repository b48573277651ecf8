"""How a sweep stands by its store alone: its driver's last word, and the signs of life that its runs leave.

Whatever is damaged, or vanishes while it is read, leaves out what it would have told, with a sentence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import files, signs
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import spending
from sweeps.driving.status import DRIVING, SILENT_SECONDS
from sweeps.watching.words import printable

DEAD, SILENT, NONE = "dead", "silent", "none"  # of a driver, beside what it says of itself
FINISHED = 10  # runs that ended last
LOOKED_AT = 200  # running runs whose folders are looked at; more would take long on a shared disk


@dataclass(frozen=True, kw_only=True)
class Live:
    """A run under way. Moments in seconds since the epoch; None where nothing tells."""

    run_id: str
    phase: str  # starting | training | evaluating
    share: float  # of its steps
    loss: float | None  # of the training batches
    tokens_per_second: float | None
    flops_per_second: float | None
    mfu: float | None
    since: float | None
    ends: float | None  # expected
    heartbeat: float | None
    checkpoint: float | None
    stopping: bool
    resumed: float | None = None  # share of its steps that it went on from


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that wait, or are held, for one reason."""

    reason: str
    count: int
    runs: tuple[str, ...]  # the first of them
    starts: tuple[float | None, ...] = ()  # when these should start
    ends: tuple[float | None, ...] = ()  # and end


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that ended."""

    run_id: str
    time: float
    loss: float | None  # on held-out text
    status: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A sweep at one moment."""

    name: str
    time: float  # of this look
    driver: str  # driving | ended | interrupted | failed | dead | silent | none
    driver_at: str = ""  # host and process
    spoke: float | None = None  # its last word
    asked: int = 0
    done: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)  # failed, held, pruned, waiting, running
    running: tuple[Live, ...] = ()
    waiting: tuple[Group, ...] = ()
    held: tuple[Group, ...] = ()
    pruned: tuple[Group, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # run -> reason
    finished: tuple[Finished, ...] = ()  # the last ones, newest first
    ends: float | None = None  # expected
    unit: str = "core"  # GPU | core
    taken: Mapping[str, float] = field(default_factory=dict)  # hours, usd
    to_come: Mapping[str, float] = field(default_factory=dict)
    limit: Mapping[str, float] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def look(root: Path, name: str, now: float | None = None) -> Standing:
    """Read how a sweep stands.

    Args:
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    sweep, remarks = SweepDir(root, name), list[str]()
    said = _object(lambda: sweep.status(), remarks)
    asked = _asked(sweep, remarks)
    driver = driver_of(said, now)
    living = driver in (DRIVING, SILENT)
    done, running, counts = _number(said.get("done")) or 0, _running(root, said), _counts(said)
    if asked and not living:  # its workers may have gone on without it
        remarks += _unread(root / "runs")
        done, under_way = signs.trained(root, asked), running
        running = tuple(live for live in running if not signs.trained(root, [live.run_id]))
        counts["running"] = max(0, counts["running"] - len(under_way) + len(running))
    events = _events(sweep, remarks)
    taken = _numbers(said.get("taken"))
    if not taken or not living:
        used = spending.so_far(sweep, now, driven=living)
        hours = used.gpu_hours if said.get("unit", "core") == "GPU" else used.core_hours or used.gpu_hours
        taken = {"hours": hours, "usd": used.usd}
    eta = _number(said.get("eta_seconds"))
    spoke = _number(said.get("time"))
    return Standing(
        name=name,
        time=now,
        driver=driver,
        driver_at=f"{_text(said.get('host'))} pid {_text(said.get('pid'))}" if said else "",
        spoke=spoke,
        asked=len(asked) if asked and not living else int(_number(said.get("asked")) or len(asked)),
        done=int(done),
        counts=counts,
        running=running,
        waiting=_groups(said.get("waiting")),
        held=_grouped(said.get("held")),
        pruned=_grouped(said.get("pruned")),
        failed={_text(i): _text(reason) for i, reason in _mapping(said.get("failed")).items()},
        finished=_finished(events),
        ends=None if eta is None or spoke is None or not living else spoke + eta,
        unit="GPU" if said.get("unit") == "GPU" else "core",
        taken=taken,
        to_come=_numbers(said.get("to_come")),
        limit=_numbers(said.get("limit")),
        estimates=_numbers(said.get("estimates")),
        remarks=(*remarks, *(_text(sentence) for sentence in _list(said.get("damage")))),
    )


def driver_of(said: Mapping[str, Any], now: float) -> str:
    """What became of a driver by its last word: driving, ended, interrupted, failed, dead, silent; or none."""
    state = said.get("state")
    if state != DRIVING:
        return _text(state) if state else NONE
    here = said.get("host") == os.uname().nodename and Path("/proc").is_dir()
    if here and not Path(f"/proc/{_text(said.get('pid')):.20}").exists():
        return DEAD
    spoke = _number(said.get("time"))
    return SILENT if spoke is None or now - spoke >= SILENT_SECONDS else DRIVING


# ------------------------------------------------------------------------------------------------------ read with care


def _object(read: Any, remarks: list[str]) -> dict[str, Any]:
    try:
        return read() or {}
    except (StoreError, OSError) as error:
        remarks.append(str(error))
        return {}


def _unread(folder: Path) -> list[str]:
    """A sentence on a folder of runs that is away, of which none would count as done."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return [f"{folder} cannot be read now ({error.strerror}): how many runs are done is not known"]
    return []


def _asked(sweep: SweepDir, remarks: list[str]) -> tuple[str, ...]:
    try:
        record = sweep.record()
    except (StoreError, OSError) as error:
        remarks.append(str(error))
        return ()
    return record.runs if record is not None else ()


def _events(sweep: SweepDir, remarks: list[str]) -> list[dict[str, Any]]:
    """The last lines of the sweep's log."""
    path = sweep.path / "events.jsonl"
    try:
        return files.last_lines(path)
    except OSError as error:
        remarks.append(f"{path} cannot be read now ({error.strerror})")
        return []


def _finished(events: list[dict[str, Any]]) -> tuple[Finished, ...]:
    last: dict[str, Finished] = {}  # a run that was asked more since has ended twice
    for event in events:
        if event.get("event") == "finished" and isinstance(run_id := event.get("run_id"), str):
            last.pop(run_id, None)
            last[run_id] = Finished(
                run_id=run_id,
                time=_number(event.get("time")) or 0.0,
                loss=_number(event.get("loss")),
                status=_text(event.get("status")),
            )
    return tuple(reversed(last.values()))[:FINISHED]


def _running(root: Path, said: Mapping[str, Any]) -> tuple[Live, ...]:
    more, found = _mapping(said.get("under_way")), []
    for i, (run_id, live) in enumerate(_mapping(said.get("running")).items()):
        told, beside = _mapping(live), _mapping(more.get(run_id))
        heartbeat = checkpoint = None
        if i < LOOKED_AT and "/" not in run_id:
            heartbeat, checkpoint = _signs(RunDir(root, run_id))
        steps = _number(told.get("steps")) or 1.0
        found.append(
            Live(
                run_id=run_id,
                phase=_text(told.get("phase")) if told else "starting",
                share=(_number(told.get("step")) or 0.0) / max(1.0, steps),
                loss=_number(told.get("loss")),
                tokens_per_second=_number(told.get("tokens_per_second")),
                flops_per_second=_number(beside.get("flops_per_second")),
                mfu=_number(beside.get("mfu")),
                since=_number(beside.get("since")),
                ends=_number(beside.get("ends")),
                heartbeat=heartbeat,
                checkpoint=checkpoint,
                stopping=beside.get("stopping") is True,
                resumed=_number(beside.get("resumed")),
            )
        )
    return tuple(found)


def _signs(run: RunDir) -> tuple[float | None, float | None]:
    try:
        saved = signs.checkpoint(run)
        return signs.heartbeat(run), None if saved is None else saved[1]
    except OSError:
        return None, None


def _counts(said: Mapping[str, Any]) -> dict[str, int]:
    """By phase; of an older driver that did not write them, of what it listed."""
    told = _numbers(said.get("counts"))
    waiting = sum(group.count for group in _groups(said.get("waiting")))
    listed = {name: len(_mapping(said.get(name))) for name in ("running", "failed", "held", "pruned")}
    return {name: int(told.get(name, n)) for name, n in {**listed, "waiting": waiting}.items()}


def _groups(said: object) -> tuple[Group, ...]:
    found = []
    for group in map(_mapping, _list(said)):
        runs = tuple(map(_text, _list(group.get("runs"))))
        starts, ends = (tuple(map(_number, _list(group.get(name)))) for name in ("starts", "ends"))
        count = int(_number(group.get("count")) or len(runs))
        found.append(Group(reason=_text(group.get("reason")), count=count, runs=runs, starts=starts, ends=ends))
    return tuple(found)


def _grouped(said: object) -> tuple[Group, ...]:
    """A mapping of runs to reasons, by reason."""
    groups: dict[str, list[str]] = {}
    for run_id, reason in _mapping(said).items():
        groups.setdefault(_text(reason), []).append(_text(run_id))
    return tuple(Group(reason=reason, count=len(runs), runs=tuple(runs)) for reason, runs in groups.items())


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    return files.number(value)


def _numbers(value: object) -> dict[str, float]:
    return {name: number for name, item in _mapping(value).items() if (number := _number(item)) is not None}


def _text(value: object) -> str:
    return printable(str(value))
