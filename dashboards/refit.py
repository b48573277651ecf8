"""A study fitted on the spot: a choice as the settings of analysis.fit, fits behind the page, and a backtest's cuts.

A choice is a law, a convention of N and C, a window of compute, and runs that are left out, each for a reason. It is
text (the query of a permalink), settings (what is fitted) and a command line (what to type for the same), and the three
say the same. One fit runs at a time, and of those that wait only the newest is made.
"""

from __future__ import annotations

import json
import math
import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.estimation import backtest
from analysis.settings import COMPUTES, COUNTS, StudySettings
from gpt3core.errors import LostError, StoreError, UsageError

if TYPE_CHECKING:
    from analysis.study import Study

KEPT = 16  # studies, the newest: a reader goes back and forth
STARTED = "default"  # of a choice: as the app was started
STATE = {"law": STARTED, "N": STARTED, "C": STARTED, "window": "", "out": ""}  # of a permalink, with its defaults
MOST_REASON = 200  # characters


# ------------------------------------------------------------------------------------------------------------- a choice


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Runs that a reader leaves out together, and why."""

    reason: str
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to fit; None is as the app was started."""

    law: str | None = None
    n: str | None = None
    c: str | None = None
    window: tuple[float | None, float | None] = (None, None)  # FLOPs, both ends inside
    left_out: tuple[LeftOut, ...] = ()  # in the order in which they were

    @property
    def runs(self) -> list[str]:
        """All that is left out, each once."""
        return list(dict.fromkeys(run for step in self.left_out for run in step.runs))

    def without(self, runs: Sequence[str], reason: str) -> Choice:
        """The same without more runs; those that are out already keep their reason.

        Raises:
            UsageError: without a reason, or without a run.
        """
        reason, more = " ".join(reason.split())[:MOST_REASON], tuple(run for run in runs if run not in self.runs)
        if not reason:
            raise UsageError("why are these runs left out? The reason is kept with them")
        if not more:
            raise UsageError("no run is selected that is not left out already: draw a lasso around some")
        return replace(self, left_out=(*self.left_out, LeftOut(reason=reason, runs=more)))

    def undone(self) -> Choice:
        """The same with what was left out last taken back in."""
        return replace(self, left_out=self.left_out[:-1])


def choice(state: Mapping[str, str]) -> Choice:
    """What a permalink says; what it says wrongly is as the app was started."""
    from analysis import laws

    law = state.get("law", STARTED)
    return Choice(
        law=law if law == "all" or law in laws.LAWS else None,
        n=state["N"] if state.get("N") in COUNTS else None,
        c=state["C"] if state.get("C") in COMPUTES else None,
        window=_window(state.get("window", "")),
        left_out=left_out(state.get("out", "")),
    )


def _window(text: str) -> tuple[float | None, float | None]:
    low, _, high = text.partition("..")
    first, last = _flops(low), _flops(high)
    return (None, None) if first is not None and last is not None and first > last else (first, last)


def _flops(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def window_text(window: tuple[float | None, float | None]) -> str:
    """A window as the permalink has it: 1e18..1e20, either end empty where it is open."""
    low, high = ("" if end is None else f"{end:.6g}" for end in window)
    return f"{low}..{high}" if low or high else ""


def left_out(text: str) -> tuple[LeftOut, ...]:
    """What a permalink leaves out; nothing where it is no list of [reason, [names]]."""
    try:
        steps = json.loads(text) if text else []
        found = [LeftOut(reason=reason[:MOST_REASON], runs=tuple(runs)) for reason, runs in steps]
    except (ValueError, TypeError, RecursionError):
        return ()
    words = [step.reason for step in found] + [run for step in found for run in step.runs]
    return tuple(found) if all(isinstance(word, str) and word for word in words) else ()


def left_out_text(steps: Sequence[LeftOut]) -> str:
    """The same as text."""
    return json.dumps([[s.reason, s.runs] for s in steps], separators=(",", ":"), ensure_ascii=False) if steps else ""


# ----------------------------------------------------------------------------------------------- settings, as a command


def settings(given: StudySettings, chosen: Choice, known: Collection[str]) -> StudySettings:
    """What is fitted: the settings that the app was started with, changed by a choice.

    Args:
        known: the names of all runs; others are not left out, for there is nothing to leave out.
    """
    low, high = chosen.window
    more = [run for run in chosen.runs if run in known and run not in given.exclude]
    return replace(
        given,
        law=chosen.law or given.law,
        N=chosen.n or given.N,
        C=chosen.c or given.C,
        min_compute=given.min_compute if low is None else low,
        max_compute=given.max_compute if high is None else high,
        exclude=[*given.exclude, *more],
    )


def command(asked: StudySettings, steps: Sequence[LeftOut] = ()) -> str:
    """What to type for the same fit, the reasons behind it as a shell's comments."""
    words = ["python", "-m", "analysis.fit", *_words(asked, StudySettings(), "")]
    lines = [shlex.join(words)]
    lines += [f"# {step.reason}: {', '.join(step.runs)}".replace("\n", " ") for step in steps]
    return "\n".join(lines)


def _words(asked: Any, default: Any, prefix: str) -> list[str]:
    """key=value of what differs from the defaults."""
    found = []
    for field in fields(asked):
        value, usual = getattr(asked, field.name), getattr(default, field.name)
        if is_dataclass(value):
            found += _words(value, usual, f"{prefix}{field.name}.")
        elif isinstance(value, dict):
            found += [f"{prefix}{field.name}.{key}={_typed(item)}" for key, item in value.items()]
        elif value != usual:
            found.append(f"{prefix}{field.name}={_typed(value)}")
    return found


def _typed(value: Any) -> str:
    """A value as the command line reads it back."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, str):
        return _text(value)
    return f"{value:.12g}" if isinstance(value, float) else str(value).lower()


def _text(value: str) -> str:
    """A text, quoted where YAML would read something else."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        read = OmegaConf.to_container(OmegaConf.from_dotlist([f"x=[{value}]"]))
        if read == {"x": [value]}:
            return value
    except (ValueError, YAMLError):
        pass
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- fits behind the page


@dataclass(frozen=True, kw_only=True)
class Refit:
    """What there is of a fit that was asked for."""

    study: Study | None = None
    problem: str = ""  # why there is none
    seconds: float = 0.0  # that it took, or runs for by now
    waits: bool = False  # for another one, which runs first

    @property
    def done(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.study is not None or bool(self.problem)


class Refits:
    """Fits what is asked for, one at a time in a thread of its own; whoever asks never waits for it."""

    def __init__(self, fit: Callable[[StudySettings], Study] | None = None) -> None:
        self._fit = fit or _fit
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, Refit] = OrderedDict()
        self._next: tuple[Hashable, StudySettings] | None = None
        self._running: tuple[Hashable, float] | None = None  # and since when

    def ask(self, key: Hashable, asked: StudySettings) -> Refit:
        """What there is of a fit; it is begun, or waits for the one that runs, where there is nothing.

        Args:
            key: equal for equal settings of the same runs.
        """
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            if self._running is not None and self._running[0] == key:
                self._next = None  # the reader went back to it
                return Refit(seconds=time.monotonic() - self._running[1])
            self._next = key, asked
            if self._running is not None:
                return Refit(seconds=time.monotonic() - self._running[1], waits=True)
            self._begin()
            return Refit()

    def _begin(self) -> None:
        """Start the thread on what is next; the lock is held."""
        assert self._next is not None
        self._running, asked = (self._next[0], time.monotonic()), self._next
        self._next = None
        threading.Thread(target=self._work, args=asked, name="refit", daemon=True).start()

    def _work(self, key: Hashable, asked: StudySettings) -> None:
        began = time.monotonic()
        try:
            found = Refit(study=self._fit(asked))
        except (UsageError, StoreError, LostError, OSError) as error:
            found = Refit(problem=str(error))
        except Exception as error:  # whatever it is, the reader hears of it and the next one is made
            found = Refit(problem=f"not fitted: {type(error).__name__}: {error}")
        with self._lock:
            self._found[key] = replace(found, seconds=time.monotonic() - began)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
            self._running = None
            if self._next is not None:
                self._begin()


def _fit(asked: StudySettings) -> Study:
    from analysis import api

    return api.study(asked)[0]


# ----------------------------------------------------------------------------------------------------- a backtest's cut


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a fit to the runs below a compute predicted for those above it."""

    fitted_to: float  # FLOPs of the highest-compute run that was fitted
    fitted: int  # runs
    rows: pd.DataFrame  # of estimation.backtest.held_out: the runs above

    @property
    def predicted(self) -> int:
        """Runs above that the laws fitted below speak of."""
        return int(self.rows.predicted.notna().sum())

    @property
    def judged(self) -> int:
        """Of these, those that have an interval."""
        return int(self.rows.covered.notna().sum())

    @property
    def inside(self) -> int:
        """Of these, those that lie in it."""
        return int(self.rows.covered.sum())

    @property
    def miss(self) -> float:
        """Median absolute miss, relative; nan where nothing was predicted."""
        return float(np.expm1((self.rows.measured / self.rows.predicted).map(math.log).abs().median()))


def cuts(study: Study) -> list[Cut]:
    """Every cut of the study's backtests, low ones first: of all its runs, else of the budgets' minima.

    They were fitted when the study was: to move from one to another costs nothing.
    """
    ensemble = study.ensemble
    if ensemble is None:
        return []
    for weighting in (ensemble.anywhere, ensemble.at_optimum):
        if weighting is None:
            continue
        rows = backtest.held_out(weighting.tests, weighting.weights, weighting.calibration.noise)
        if len(rows) and rows.predicted.notna().any():
            groups = [rows[rows.fitted_to == top] for top in np.unique(rows.fitted_to.to_numpy(float))]
            return [
                Cut(fitted_to=float(g.fitted_to.iloc[0]), fitted=int(g.fitted_runs.iloc[0]), rows=g) for g in groups
            ]
    return []


def nearest_cut(found: Sequence[Cut], text: str) -> Cut:
    """The cut that a permalink means: the nearest to its FLOPs; the middle one where it says none."""
    wanted = _flops(text)
    if wanted is None:
        return found[len(found) // 2]
    return min(found, key=lambda cut: abs(math.log(cut.fitted_to / wanted)))
