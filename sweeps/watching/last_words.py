"""What a run's drivers, attempts and workers said of it, by the store, and by Ray's logs where it ran here.

A worker that is killed says nothing: its last words are the last step that it told of, and what its process printed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from sweeps.driving.spending import FREED, TOOK
from sweeps.watching.words import printable

LOGS = ("/tmp/isoflop-ray-*/session_*/logs", "/tmp/ray/session_*/logs")  # of a local Ray of ours, and of any other
TAIL_BYTES = 1 << 16
LATEST = 2.5e11  # the last moment that a calendar knows, about the year 9892
QUIET = ("time", "event", "run_id", "traceback", "ranks")  # fields that are not part of a line's own words


@dataclass(frozen=True, kw_only=True)
class Said:
    """One thing that was said, and by whom."""

    time: float  # seconds since the epoch
    who: str
    lines: tuple[str, ...]

    def text(self) -> str:
        """As it is printed."""
        first, *rest = self.lines
        when = datetime.fromtimestamp(self.time).strftime("%m-%d %H:%M:%S")
        return "\n".join([f"{when}  {self.who}  {first}", *(f"    {line}" for line in rest)])


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a worker's process printed."""

    path: Path
    lines: tuple[str, ...]


def attempts(run: RunDir) -> list[int]:
    """The numbers of a run's attempts."""
    return [int(folder.name.split("-")[1]) for folder in run.attempts()]


def events(root: Path, run: RunDir, attempt: int | None = None) -> list[Said]:
    """All that was logged of a run, the oldest first.

    Args:
        attempt: only what was said from its start until the next one's.
    """
    mine = _of_attempts(run, attempt)
    found = [*mine, *_of_drivers(root, run)]
    if attempt is not None:
        begin = min((said.time for said in mine), default=0.0)
        later = [s.time for n in attempts(run) if n > attempt for s in _of_attempts(run, n)]
        end = min(later, default=float("inf"))
        found = [*mine, *(s for s in found if s not in mine and begin <= s.time < end)]
    return sorted(found, key=lambda said: said.time)


def _of_attempts(run: RunDir, attempt: int | None) -> list[Said]:
    folders = [(n, f) for n, f in zip(attempts(run), run.attempts(), strict=True) if attempt in (None, n)]
    return [_said(f"attempt {n}", event) for n, folder in folders for event in logged(folder / "events.jsonl")]


def _of_drivers(root: Path, run: RunDir) -> list[Said]:
    logs = sorted((root / "sweeps").glob("*/events.jsonl"))
    having = [run.run_id.encode()]  # a sweep of ten thousand runs has a hundred thousand lines
    mine = ((log, event) for log in logs for event in logged(log, having) if event.get("run_id") == run.run_id)
    return [_said(f"sweep {printable(log.parent.name)}", event) for log, event in mine]


def progress(run: RunDir, attempt: int, count: int) -> list[str]:
    """The last lines of an attempt's live progress."""
    folder = run.path / f"attempt-{attempt:03d}"
    lines = [*logged(folder / "tail.jsonl.1"), *logged(folder / "tail.jsonl")] if count > 100 else []
    return [_live(line) for line in (lines or _last(folder / "tail.jsonl"))[-count:]]


def outputs(run: RunDir, attempt: int, count: int) -> tuple[list[Output], str]:
    """The last lines that an attempt's rank 0 printed, where Ray has them on this machine; else why there are none."""
    started = [e for e in logged(run.path / f"attempt-{attempt:03d}" / "events.jsonl") if e.get("event") == "start"]
    host, pid = (started[-1].get(name) for name in ("host", "pid")) if started else (None, None)
    if not isinstance(pid, int):
        return [], "the attempt does not say which process it was"
    if host != os.uname().nodename:
        return [], f"its worker ran on {printable(str(host))} (process {pid}): ask there, in Ray's session folder"
    paths = [path for p in LOGS for path in sorted(Path("/").glob(f"{p[1:]}/worker-*-{pid}.*"))]
    printed = [(path, _text_tail(path, count)) for path in paths if path.suffix in (".out", ".err")]
    found = [Output(path=path, lines=lines) for path, lines in printed if lines]
    return found, "" if found else f"process {pid} printed nothing that Ray still keeps on this machine"


# --------------------------------------------------------------------------------------------------------- in words


def _said(who: str, event: Mapping[str, Any]) -> Said:
    what, moment = event.get("event"), files.number(event.get("time"))
    ranks = event.get("ranks")
    more = [printable(str(rank)) for rank in (ranks if isinstance(ranks, list) else ())]
    more += [printable(line) for line in str(event.get("traceback") or "").splitlines()]
    return Said(
        time=moment if moment is not None and 0 <= moment < LATEST else 0.0,
        who=who,
        lines=(_sentence(str(what), event), *more),
    )


def _sentence(what: str, event: Mapping[str, Any]) -> str:
    """An event on one line."""
    if what == TOOK:
        return f"takes {_devices(event)}"
    if what == FREED:
        return f"frees {_devices(event)} after {_value(event.get('seconds'))} s"
    rest = {k: v for k, v in event.items() if k not in QUIET and v not in (None, "", [], {})}
    if isinstance(layout := rest.get("layout"), Mapping) and all(
        v in (1, None, "none", False) for v in layout.values()
    ):
        del rest["layout"]  # one worker, or replicas that are told elsewhere
    if isinstance(nodes := rest.get("allocation"), Mapping):
        rest["allocation"] = ", ".join(f"{n} on {node[:8]}" for node, n in nodes.items())
    if what == "failed":
        final = " (for good: trying again would end the same way)" if rest.pop("fatal", False) else ""
        return printable(f"FAILED{final}: {rest.pop('error', '')}{_pairs(rest)}")
    return printable(f"{what}{_pairs(rest)}")


def _devices(event: Mapping[str, Any]) -> str:
    gpus, cores = event.get("gpus"), event.get("cores")
    return " and ".join(f"{_value(n)} {unit}{'s' * (n != 1)}" for n, unit in ((gpus, "GPU"), (cores, "core")) if n)


def _pairs(rest: Mapping[str, Any]) -> str:
    return f": {', '.join(f'{name} {_value(value)}' for name, value in rest.items())}" if rest else ""


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if v not in (1, None, "none", False)}
        return f"({', '.join(f'{k} {_value(v)}' for k, v in kept.items())})"
    return str(value)


def _live(line: Mapping[str, Any]) -> str:
    """A line of live progress."""
    loss, speed = line.get("loss"), line.get("tokens_per_second")
    words = [f"{line.get('phase')}: step {_value(line.get('step'))} of {_value(line.get('steps'))}"]
    words += [f"loss {loss:.4f}"] if isinstance(loss, int | float) else []
    words += [f"{speed:,.0f} tokens/s"] if isinstance(speed, int | float) else []
    return printable(", ".join(words))


# ------------------------------------------------------------------------------------------------------------ reading


def logged(path: Path, having: Sequence[bytes] = ()) -> Iterator[dict[str, Any]]:
    """A log's whole lines, or those with one of these words; none where it cannot be read now."""
    with contextlib.suppress(OSError):
        yield from files.each_line(path, having)


def _last(path: Path) -> list[dict[str, Any]]:
    try:
        return files.last_lines(path)
    except OSError:
        return []


def _text_tail(path: Path, count: int) -> tuple[str, ...]:
    try:
        with files.opened(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(printable(line) for line in lines if line.strip() and not line.startswith(":"))[-count:]


def new_lines(before: Sequence[Said], now: Sequence[Said]) -> Iterator[Said]:
    """What was said since: logs only grow, and clocks may not agree."""
    seen = {(said.time, said.who, said.lines) for said in before}
    yield from (said for said in now if (said.time, said.who, said.lines) not in seen)
