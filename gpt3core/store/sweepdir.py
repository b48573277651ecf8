"""A sweep's folder: what was asked under its name, its numerics, how it stands, and what happened.

ROOT/sweeps/<name>/recipe.yaml        the recipe of the last command, defaults included
                   sweep.json         what was asked: runs, evaluation; what was settled for all runs: numerics
                   status.json        how it stands, kept current by the driver; a viewer needs no cluster
                   events.jsonl       starts, ends and failures
                   driver.lock        held by the one driver; where locks do not hold driver.lease/, its terms
                   stop/<run_id>      left by anybody: while it is there, that run is held, its checkpoint written
                   fit/               written by the analysis
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec, Question
from gpt3core.store import claims, files, places
from gpt3core.store.rundir import open_root

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # it names a folder


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What was asked under a sweep's name, and what holds for all of its runs."""

    runs: tuple[str, ...]  # ids of all runs asked
    evals: EvalSpec = field(default_factory=EvalSpec)
    numerics: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # device -> {"precision", "kernel"}: "auto" settled
    not_taken: tuple[str, ...] = ()  # runs that an adaptive sweep did without
    min_tokens: float = 0.0  # shorter runs stay out of a fit
    pruned: dict[str, dict[str, float]] = field(default_factory=dict)  # runs stopped for good: the figures behind it
    deadline_began: float | None = None  # from when a deadline that is a duration counts, seconds since the epoch
    few_shot: dict[str, dict[str, Any]] = field(default_factory=dict)  # eval_id -> evaluations asked for beside evals
    finetunes: str = ""  # the sweep whose runs these go on from, on labelled examples: none is a point of a law

    def __post_init__(self) -> None:
        for name in ("runs", "not_taken"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        for eval_id, asked in self.few_shot.items():
            if specs.from_dict(EvalSpec, asked).eval_id != eval_id:
                raise ValueError(f"few_shot.{eval_id}={asked!r:.80}: an evaluation by its own id is needed")

    @property
    def more_questions(self) -> list[Question]:
        """What was asked of finished runs beside the sweep's own evaluation, each question once."""
        more = [specs.from_dict(EvalSpec, asked) for asked in self.few_shot.values()]
        own = set(self.evals.questions)
        return list(dict.fromkeys(q for evals in more for q in evals.questions if q not in own))

    def still_pruned(self, share: float | None) -> dict[str, dict[str, float]]:
        """The runs that stay pruned under a share: none where there is no pruning, none pruned for a larger share."""
        return {} if share is None else {i: f for i, f in self.pruned.items() if f.get("share", 1.0) <= share}


class SweepDir:
    """Reads and writes one sweep's folder; within ``owned`` it writes only as long as this process is the driver."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name, self.path = root, name, root / "sweeps" / name
        self._remote = places.of(root)
        self._fence: files.Fence | None = None  # what was asked is committed by it
        self._check: Callable[[], None] | None = None  # what goes with the next commit: raises LostError
        self.mechanism = ""  # by which this process is the driver

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the sweep's one driver for the block.

        Raises:
            StoreError: when another driver is. Later, when another has taken over: LostError, from whatever writes.
        """
        open_root(self.root, create=True)
        files.make_folder(self.path)
        with contextlib.ExitStack() as held:
            try:
                self._claim(held)
            except claims.HeldError as error:
                raise StoreError(
                    f"the sweep {self.name} in {places.portable(self.root)} has a driver already ({error}): wait for "
                    "it, stop it, or give this sweep another name (name=...) or folder (ISOFLOP_ROOT)"
                ) from None
            files.remove_leftovers(self.path)
            yield

    def _claim(self, held: contextlib.ExitStack) -> None:
        what, remote = f"the sweep {self.name}", self._remote
        unit = None if remote is None else remote.unit(f"sweeps/{self.name}")
        with unit.still() if unit is not None else contextlib.nullcontext():
            claim = held.enter_context(claims.claimed(self.path / "driver.lock", self.root, what))
        held.callback(setattr, self, "_fence", None)
        held.callback(setattr, self, "_check", None)
        if unit is None or remote is None:
            self._check, self.mechanism = claim.check, claim.mechanism
            self._fence = lambda *_: claim.check()
            return
        held.enter_context(unit.claimed(what))
        follower = remote.follower(self.name, unit)
        held.enter_context(follower.following())
        self._check, self._fence, self.mechanism = follower.check, unit.commit, "lease"

    def record(self) -> SweepRecord | None:
        """What was asked, or None where nothing was yet.

        Raises:
            StoreError: when the file is unreadable or not a sweep's.
        """
        path = self.path / "sweep.json"
        if not path.exists():
            return None
        try:
            found: SweepRecord = specs.from_dict(SweepRecord, files.read_object(path))
        except (ValueError, TypeError, OverflowError) as error:
            raise StoreError(
                f"{path} is not a sweep's record ({error}): restore it from a copy or move it away"
            ) from error
        return found

    def write_record(self, record: SweepRecord) -> None:
        """Replace the record."""
        files.write_json(self.path / "sweep.json", specs.as_dict(record), fence=self._fence)

    @property
    def recipe(self) -> Path:
        """The file of the last command's recipe, as ``recipe=PATH`` reads it back."""
        return self.path / "recipe.yaml"

    def write_recipe(self, text: str) -> None:
        """Keep the recipe of the last command, as YAML."""
        files.write_bytes(self.recipe, text.encode(), fence=self._fence)

    def event(self, what: str, **details: Any) -> None:
        """Append to the sweep's log."""
        if self._check is not None:
            self._check()
        files.append_event(self.path / "events.jsonl", what, details)

    def events(self) -> list[dict[str, Any]]:
        """The sweep's log, oldest first."""
        return files.read_lines(self.path / "events.jsonl")

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace how the sweep stands; for the driver, a few times a minute."""
        files.write_json(self.path / "status.json", status, fence=files.only_looking(self._check))

    def request_stop(self, run_id: str) -> None:
        """Have a run write its checkpoint and hold it, until ``withdraw_stop``."""
        files.write_bytes(files.make_folder(self.path / "stop") / run_id, b"")
        if self._remote is not None:
            self._remote.request(self.name, run_id, stop=True)

    def withdraw_stop(self, run_id: str) -> None:
        """Let a stopped run go on."""
        (self.path / "stop" / run_id).unlink(missing_ok=True)
        if self._remote is not None:
            self._remote.request(self.name, run_id, stop=False)

    def stop_requests(self) -> set[str]:
        """The runs that were asked to stop; the empty name where a file is in the place of their folder."""
        try:
            return {path.name for path in (self.path / "stop").iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            return {""}

    def status(self) -> dict[str, Any] | None:
        """How the sweep stands by its driver's last word, or None where it has not spoken.

        Raises:
            StoreError: when the file is unreadable.
        """
        return files.find_object(self.path / "status.json")


def names(root: Path, *, finetuned: bool = True) -> list[str]:
    """The sweeps of a store, the one last driven first.

    Args:
        finetuned: those that fine-tune runs of another among them.
    """
    logs = {path.parent.name: path.parent / "events.jsonl" for path in (root / "sweeps").glob("*/sweep.json")}
    found = sorted(logs, key=lambda name: (-_last_event(logs[name]), name))
    return found if finetuned else [name for name in found if not _finetunes(root, name)]


def finetuning(root: Path, name: str) -> list[tuple[str, SweepRecord]]:
    """The sweeps that fine-tune runs of this one, with what was asked under their names."""
    others = {other: SweepDir(root, other).record() for other in sorted(names(root)) if _finetunes(root, other) == name}
    return [(other, record) for other, record in others.items() if record is not None]


def _finetunes(root: Path, name: str) -> str:
    """The sweep whose runs a sweep fine-tunes; empty where it trains its own, or cannot be read."""
    try:
        return str((files.find_object(root / "sweeps" / name / "sweep.json") or {}).get("finetunes", ""))
    except StoreError:
        return ""


def _last_event(log: Path) -> float:
    try:
        times = [event.get("time") for event in files.last_lines(log)]
    except OSError:  # one unreadable log hides no other sweep
        return 0.0
    return max((time for time in map(files.number, times) if time is not None), default=0.0)
