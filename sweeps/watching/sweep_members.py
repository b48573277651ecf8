"""What a sweep says of each of its runs: how it stands there, and the loss that its log tells of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.driving.status import DRIVING
from sweeps.watching.standing import SILENT, driver_of
from sweeps.watching.words import printable

FINISHED = b'"event": "finished"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A run of one or more sweeps. None or empty where nothing tells."""

    sweeps: str = ""  # names, with commas
    status: str = ""  # running | waiting | failed | held | pruned | not taken | not ended
    reason: str = ""
    share: float | None = None  # of its steps
    train_loss: float | None = None
    tokens_per_second: float | None = None
    loss: float | None = None  # on held-out text, when it finished
    eval_id: str = ""  # of the sweep's evaluation

    def after(self, earlier: Member) -> Member:
        """The same run by what an earlier sweep says of it too."""
        loss = earlier.loss if self.loss is None else self.loss
        return replace(self, sweeps=f"{self.sweeps}, {earlier.sweeps}", loss=loss)


class Members:
    """Follows the runs of one sweep."""

    def __init__(self, root: Path, name: str) -> None:
        self._sweep = SweepDir(root, name)
        self._stamps: dict[str, tuple[int, int] | None] = {}  # of the files as they were read
        self._driver = ""
        self._record: SweepRecord | None = None
        self._said: Mapping[str, Any] = {}
        self._told = 0  # bytes of the log that were read
        self._losses: dict[str, float] = {}
        self._rest: dict[str, Member] = {}  # of _asked
        self._made_of: tuple[SweepRecord, str, int] | None = None
        self.members: dict[str, Member] = {}

    def look(self, now: float) -> bool:
        """Read what changed; whether anything did."""
        news = False
        for name, read in (
            ("sweep.json", self._read_record),
            ("status.json", self._read_status),
            ("events.jsonl", self._read_log),
        ):
            stamp = _stamp(self._sweep.path / name)
            if stamp == self._stamps.get(name):
                continue
            # damaged, or away now: what was read before holds until it can be read, and the sweep's page says it
            with contextlib.suppress(StoreError, OSError):
                read()
                self._stamps[name], news = stamp, True
        driver = driver_of(self._said, now)
        if not news and driver == self._driver:
            return False
        self._driver = driver
        self.members = self._members()
        return True

    def _read_record(self) -> None:
        self._record = self._sweep.record()

    def _read_status(self) -> None:
        self._said = self._sweep.status() or {}

    def _read_log(self) -> None:
        """The losses of runs that finished since the log was last read."""
        with files.opened(self._sweep.path / "events.jsonl") as file:
            if file.seek(0, os.SEEK_END) < self._told:
                self._told = 0  # another log
            file.seek(self._told)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._told += len(whole)
        for event in files.parsed(whole, [FINISHED]):
            loss, run_id = files.number(event.get("loss")), event.get("run_id")
            if loss is not None and isinstance(run_id, str):
                self._losses[run_id] = loss

    def _members(self) -> dict[str, Member]:
        if self._record is None:
            return {}
        alive = self._driver in (DRIVING, SILENT)
        rest = "waiting" if alive else "not ended"
        found = dict(self._asked(self._record, rest))
        told: dict[str, dict[str, Any]] = {run_id: {"status": "not taken"} for run_id in self._record.not_taken}
        told |= {run_id: {"status": "pruned"} for run_id in self._record.pruned}
        for status in ("failed", "held", "pruned"):
            for run_id, reason in _mapping(self._said.get(status)).items():
                told[run_id] = {"status": status, "reason": printable(str(reason))}
        for group in map(_mapping, _list(self._said.get("waiting"))):
            for run_id in _list(group.get("runs")):
                told[str(run_id)] = {"status": rest, "reason": printable(str(group.get("reason")))}
        for run_id, live in _mapping(self._said.get("running")).items():
            told[run_id] = _running(_mapping(live), alive=alive)
        for run_id in set(told) & set(found):
            found[run_id] = replace(found[run_id], **told[run_id])
        return found

    def _asked(self, record: SweepRecord, rest: str) -> Mapping[str, Member]:
        """The runs of which the driver says nothing else; made anew only where that changes."""
        made_of = record, rest, len(self._losses)
        if self._made_of is None or self._made_of[0] is not record or self._made_of[1:] != made_of[1:]:
            base = Member(sweeps=self._sweep.name, status=rest, eval_id=record.evals.eval_id)
            losses = self._losses
            self._rest = {i: replace(base, loss=losses[i]) if i in losses else base for i in record.runs}
            self._made_of = made_of
        return self._rest


def _running(live: Mapping[str, Any], *, alive: bool) -> dict[str, Any]:
    """A run that a driver says is under way; of a dead driver, it was."""
    step, steps = files.number(live.get("step")), files.number(live.get("steps"))
    return {
        "status": "running" if alive else "not ended",
        "reason": "" if alive else "under way when its driver was last heard",
        "share": step / steps if step is not None and steps else None,
        "train_loss": files.number(live.get("loss")),
        "tokens_per_second": files.number(live.get("tokens_per_second")),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
