"""All runs of a store, a row each: read once, and again only where something changed.

A specification never changes and a result is written once, so both are read one time. A run's loss on held-out text
comes from the logs of the sweeps, of which only new lines are read, and else from the run's own evaluations. A look
takes a few seconds at most: of a store of ten thousand runs the first ones are shown before all of them were opened.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpt3core import anomaly, costs
from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.model.architecture import ModelSpec
from gpt3core.store import files, metrics, places, sweepdir
from sweeps.watching.sweep_members import Member, Members
from sweeps.watching.words import printable

NOBODYS = Member()  # of a run that no sweep asked for
UNREADABLE = "unreadable"  # status of a run whose result is damaged, or does not answer now
RUN_SECONDS = 2.5  # for new runs at one look, and ...
LOOK_SECONDS = 0.5  # ... for evaluations
NUMBERS = ("gpu_hours", "cost", "tokens_per_second", "mfu", "epochs", "train_seconds", "steps", "attempts", "devices")
_NUMBERS_OF = {  # section of a specification -> field of a row -> its name there
    "": {"tokens": "tokens", "budget": "budget_flops", "seed": "seed"},
    "optim": {"lr": "lr", "batch_tokens": "batch_tokens"},
    "model": {"n_layer": "n_layer", "d_model": "d_model", "n_ctx": "n_ctx", "vocab": "vocab_size"},
}
_WORDS_OF = {"schedule": ("optim", "schedule"), "corpus": ("data", "corpus"), "parent": ("parent", "run_id")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A run. None where nothing tells, or not yet; words of others are printable text."""

    run_id: str
    size: str
    sweep: str = ""  # the sweeps that asked for it, with commas
    status: str = ""  # done | diverged | stopped early | running | waiting | failed | held | pruned | ...
    share: float | None = None  # of its steps, while it is under way
    loss: float | None = None  # nats per token on held-out text
    train_loss: float | None = None  # of the training batches, while it is under way
    n: float | None = None  # non-embedding parameters
    parameters: float | None = None  # all of them
    tokens: float | None = None
    flops: float | None = None  # of the training, exact
    budget: float | None = None  # IsoFLOP budget
    lr: float | None = None
    batch_tokens: float | None = None
    schedule: str = ""
    seed: float | None = None
    n_layer: float | None = None
    d_model: float | None = None
    n_ctx: float | None = None
    vocab: float | None = None
    corpus: str = ""
    parent: str = ""
    precision: str = ""
    kernel: str = ""
    device: str = ""
    gpu_hours: float | None = None
    cost: float | None = None  # USD
    tokens_per_second: float | None = None
    mfu: float | None = None
    epochs: float | None = None
    train_seconds: float | None = None
    steps: float | None = None
    attempts: float | None = None
    devices: float | None = None
    ended: float | None = None  # seconds since the epoch
    note: str = ""  # why it waits, failed or is held; what it met; what was found damaged


@dataclass(frozen=True, kw_only=True)
class RunsView:
    """The runs of a store at one look. Never changed, only replaced."""

    number: int = 0  # grows where any row changed
    rows: tuple[Row, ...] = ()
    sweeps: tuple[str, ...] = ()  # the one last driven first
    unseen: int = 0  # runs that are still to be read
    unread: int = 0  # finished runs whose evaluations are
    problem: str = ""  # why the store cannot be read now

    def row(self, run_id: str) -> Row | None:
        """The run of that id, or None."""
        return next((row for row in self.rows if row.run_id == run_id), None)


@dataclass(kw_only=True)
class _Known:
    """What was read of a run."""

    spec: Mapping[str, Any]  # fields of a row
    result: Mapping[str, Any] | None = None  # fields of a row
    loss: float | None = None
    measured: int | None = None  # when its folder of evaluations was last changed as they were read
    member: Member = NOBODYS
    row: Row | None = None


class RunTable:
    """Follows the runs of a store; ``view`` is what is known."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, _Known] = {}
        self._sweeps: dict[str, Members] = {}
        self._told: dict[str, Member] = {}  # what all sweeps say of their runs
        self._lock = threading.Lock()
        self._read = 0.0  # when, by the monotonic clock
        self.view = RunsView()

    def look(self, *, at_most_every: float = 0.0) -> RunsView:
        """Read what changed.

        Args:
            at_most_every: seconds; what was read later than that ago is given as it is, as it is while another reads.
        """
        first = not self._read
        if not first and time.monotonic() - self._read < at_most_every:
            return self.view
        if not self._lock.acquire(blocking=first or not at_most_every):
            return self.view
        try:
            if not at_most_every or not self._read or time.monotonic() - self._read >= at_most_every:
                self.view = self._looked(time.time())
                self._read = time.monotonic()
        finally:
            self._lock.release()
        return self.view

    def whole(self) -> RunsView:
        """Read until all is read, as long as that gets any further."""
        view, left = self.look(), -1
        while (view.unseen + view.unread) not in (0, left):
            left = view.unseen + view.unread
            view = self.look()
        return view

    def _looked(self, now: float) -> RunsView:
        with contextlib.suppress(StoreError):  # a store elsewhere that does not answer now: what was seen last
            places.refresh(self._root)
        try:
            found, unseen = self._found()
        except OSError as error:
            problem = f"{self._root / 'runs'} cannot be read now ({error.strerror})"
            return self.view if problem == self.view.problem else self._next(problem=problem)
        sweeps = tuple(sweepdir.names(self._root))
        changed = found | self._take_sweeps(sweeps, now)
        for run_id, known in self._known.items():
            if known.result is None or known.result["status"] == UNREADABLE:
                result = _result(self._root, run_id)
                if result != known.result:
                    known.result = result
                    changed.add(run_id)
            if known.spec.keys() == {"note"} and (spec := _spec(self._root, run_id)) not in (None, known.spec):
                known.spec = spec  # it could not be read before
                changed.add(run_id)
        unread = self._measure(changed)
        rest: dict[str, Any] = {"sweeps": sweeps, "unseen": unseen, "unread": unread, "problem": ""}
        if not changed and all(getattr(self.view, name) == value for name, value in rest.items()):
            return self.view
        for run_id in changed:
            if run_id in self._known:
                self._known[run_id].row = _row(run_id, self._known[run_id])
        rows = tuple(known.row for _, known in sorted(self._known.items()) if known.row is not None)
        return self._next(rows=rows, **rest)

    def _next(self, **changes: Any) -> RunsView:
        return replace(self.view, number=self.view.number + 1, **changes)

    def _found(self) -> tuple[set[str], int]:
        """Take in new runs while there is time, and let go of those that are gone; their ids, and how many are left."""
        began = time.monotonic()
        with os.scandir(self._root / "runs") as entries:
            there = {entry.name for entry in entries if not entry.name.startswith(".")}
        gone = set(self._known) - there
        for run_id in gone:
            del self._known[run_id]
        new: set[str] = set()
        unseen = sorted(there - set(self._known))
        for i, run_id in enumerate(unseen):
            if time.monotonic() - began > RUN_SECONDS:
                return new | gone, len(unseen) - i
            spec = _spec(self._root, run_id)
            if spec is not None:
                self._known[run_id] = _Known(spec=spec)
                new.add(run_id)
        return new | gone, 0

    def _take_sweeps(self, names: tuple[str, ...], now: float) -> set[str]:
        """What the sweeps say of their runs; the ids of those of which something else is said than before."""
        news = False
        for name in names:
            members = self._sweeps.setdefault(name, Members(self._root, name))
            news |= members.look(now)
        for name in set(self._sweeps) - set(names):
            news |= self._sweeps.pop(name) is not None
        if news:
            self._told = {}
            for name in reversed(names):  # the one last driven has the last word
                for run_id, member in self._sweeps[name].members.items():
                    before = self._told.get(run_id)
                    self._told[run_id] = member if before is None else member.after(before)
        changed = set()
        for run_id, known in self._known.items():
            member = self._told.get(run_id, NOBODYS)
            if member is not known.member and member != known.member:
                known.member = member
                changed.add(run_id)
                if member.loss is not None:
                    known.loss = member.loss
        return changed

    def _measure(self, changed: set[str]) -> int:
        """Read evaluations of finished runs whose loss no log tells, as long as there is time; how many are left."""
        began, left = time.monotonic(), 0
        for run_id, known in self._known.items():
            if known.result is None or known.loss is not None:
                continue
            folder = self._root / "runs" / run_id / "evals"
            written = _changed(folder)
            if written is None or written == known.measured:
                continue
            if time.monotonic() - began > LOOK_SECONDS:
                left += 1
                continue
            known.measured, known.loss = written, _loss(folder, known.member.eval_id)
            changed.add(run_id)
        return left


# ---------------------------------------------------------------------------------------------------------- of one run


def _row(run_id: str, known: _Known) -> Row:
    member, result = known.member, known.result or {}
    status = result.get("status") or member.status or "not ended"
    words = [result.get("note", ""), known.spec.get("note", ""), "" if known.result is not None else member.reason]
    given = {**known.spec, **{k: v for k, v in result.items() if v not in (None, "")}}
    given |= {"run_id": run_id, "size": run_id.rpartition("-")[0], "sweep": member.sweeps, "status": status}
    if known.result is None:
        given |= {"share": member.share, "train_loss": member.train_loss}
        given |= {} if member.tokens_per_second is None else {"tokens_per_second": member.tokens_per_second}
    return Row(**{**given, "loss": known.loss, "note": "; ".join(filter(None, words))})


def _spec(root: Path, run_id: str) -> dict[str, Any] | None:
    """What a specification says for a row; None where there is none (yet)."""
    try:
        given = files.read_object(Path(f"{root}/runs/{run_id}/spec.json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (StoreError, OSError) as error:
        return {"note": _word(str(error))}
    found: dict[str, Any] = {}
    for section, names in _NUMBERS_OF.items():
        there = _section(given, section) if section else given
        found |= {name: files.number(there.get(field)) for name, field in names.items()}
    for name, (section, field) in _WORDS_OF.items():
        value = _section(given, section).get(field)
        found[name] = _word(value) if isinstance(value, str) else ""
    return found | _sizes(_section(given, "model"), found["tokens"])


def _section(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = given.get(name)
    return found if isinstance(found, dict) else {}


def _sizes(model: dict[str, Any], tokens: float | None) -> dict[str, Any]:
    try:
        n, parameters, flops_per_token = _of_shape(model)
    except (ValueError, TypeError) as error:
        return {"note": _word(f"its shape is not known here ({error})")}
    return {"n": n, "parameters": parameters, "flops": None if tokens is None else flops_per_token * tokens}


_SHAPES: dict[str, tuple[float, float, float]] = {}  # a ladder has few


def _of_shape(model: dict[str, Any]) -> tuple[float, float, float]:
    """Non-embedding and all parameters of a model, and its training FLOPs a token."""
    key = repr(model)
    if key not in _SHAPES:
        spec = specs.from_dict(ModelSpec, model)
        counts = costs.params(spec)
        _SHAPES[key] = float(counts.nonembedding), float(counts.total), costs.train_flops(spec, 1)
    return _SHAPES[key]


@lru_cache(maxsize=4096)  # runs have few words, and most in common
def _word(text: str) -> str:
    return printable(text)


def _result(root: Path, run_id: str) -> dict[str, Any] | None:
    """What a result says for a row; None while there is none."""
    path = Path(f"{root}/runs/{run_id}/result.json")
    try:
        ended = path.stat().st_mtime
        given = files.read_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (StoreError, OSError) as error:
        return {"status": UNREADABLE, "note": _word(str(error))}
    found: dict[str, Any] = {name: files.number(given.get(name)) for name in NUMBERS}
    found |= {name: _word(str(given.get(name) or "")) for name in ("precision", "kernel", "device")}
    damage = given.get("damage")
    words = [anomaly.told(given), *(damage if isinstance(damage, list) else ())]
    found |= {"status": _word(str(given.get("status"))), "ended": ended}
    return {**found, "note": "; ".join(_word(str(word)) for word in words if word)}


def _loss(folder: Path, eval_id: str) -> float | None:
    """The held-out loss among a run's evaluations: of its sweep's, else of any."""
    for path in sorted(folder.glob("*.parquet"), key=lambda path: path.stem != eval_id):
        with contextlib.suppress(StoreError, OSError):
            for row in metrics.rows(path, ["task", "loss"]):
                if row["task"] == HELD_OUT and row["loss"] is not None and math.isfinite(row["loss"]):
                    return float(row["loss"])
    return None


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
