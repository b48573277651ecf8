"""A study fitted on the spot: a choice as the settings of analysis.fit, and the cuts of its backtests.

A choice is a law, a convention of N and C, a window of compute, and runs that are left out, each for a reason. It is
text (the query of a permalink), settings (what is fitted) and a command line (what to type for the same), and the three
say the same. One fit runs at a time, and of those that wait only the newest is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from analysis.settings import COMPUTES, COUNTS, StudySettings
from dashboards import typed
from dashboards.faults import fits
from gpt3core.errors import UsageError
from gpt3core.words import flops, number_of

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.answer import Spelt
    from analysis.output.evidence import Part
    from analysis.study import Study
    from dashboards.figures.style import Page
    from dashboards.live import Live, View

STARTED = "default"  # of a choice: as the app was started
STATE = {"law": STARTED, "N": STARTED, "C": STARTED, "from": "", "to": "", "out": ""}  # of a permalink, its defaults
GROUP = "laws"  # of figures
MANY = 500  # runs, whose fit takes far longer than a process does to start
MOST_REASON, MOST_TEXT = 200, 15_000  # characters of a reason, and of all that is left out as text
MOST_CUTS = 12  # that a sentence names


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
            UsageError: without a reason, without a run, or with more than an address takes.
        """
        reason, more = " ".join(reason.split()), tuple(run for run in runs if run not in self.runs)
        if not reason:
            raise UsageError("why are these runs left out? The reason is kept with them")
        if len(reason) > MOST_REASON:
            raise UsageError(
                f"this reason has {len(reason)} characters, which stand in the address: {MOST_REASON} at most"
            )
        if not more:
            raise UsageError("no run is selected that is not left out already: draw a lasso around some")
        steps = (*self.left_out, LeftOut(reason=reason, runs=more))
        if len(left_out_text(steps)) > MOST_TEXT:
            raise UsageError(
                "so many names do not fit into an address: choose a window of compute, or start with exclude="
            )
        return replace(self, left_out=steps)

    def undone(self) -> Choice:
        """The same with what was left out last taken back in."""
        return replace(self, left_out=self.left_out[:-1])


def choice(state: Mapping[str, str]) -> Choice:
    """What a permalink says; what it says wrongly is as the app was started."""
    from analysis import laws

    law, ends = state.get("law", STARTED), (_flops(state.get("from", "")), _flops(state.get("to", "")))
    return Choice(
        law="all" if law == "all" else laws.named(law),
        n=state["N"] if state.get("N") in COUNTS else None,
        c=state["C"] if state.get("C") in COMPUTES else None,
        window=(None, None) if _window_problems(state) else ends,
        left_out=left_out(state.get("out", "")),
    )


def unknown(state: Mapping[str, str]) -> dict[str, str]:
    """What a permalink names that there is not, by name, with what is allowed."""
    from analysis import laws

    chosen = choice(state)
    taken = {
        "law": (chosen.law, f"allowed are all, {', '.join((*laws.LAWS, *laws.AUTHORS))}"),
        "N": (chosen.n, f"allowed are {', '.join(COUNTS)}"),
        "C": (chosen.c, f"allowed are {', '.join(COMPUTES)}"),
        "cut": (_flops(state.get("cut", "")), "FLOPs, positive, like 1e18"),
    }
    return {n: why for n, (value, why) in taken.items() if value is None and state.get(n, "") not in ("", STARTED)}


def unread(state: Mapping[str, str], study: Study) -> list[str]:
    """What a permalink, or a reader's hand, says that is not taken, a sentence each."""
    said = [f"{name}={state[name]:.40}: {words}" for name, words in _window_problems(state).items()]
    steps = left_out(state.get("out", ""))
    there = set(study.everything.run_id) if steps else set[str]()
    if state.get("out") and not steps:
        said.append(
            f"out={state['out']:.40}: no list of reasons (of {MOST_REASON} characters at most), each with names of runs"
        )
    gone = [run for step in steps for run in step.runs if run not in there]
    return said + ([f"{len(gone)} of the runs left out are not here: {', '.join(gone)[:200]}"] if gone else [])


def moved(text: str, found: Sequence[Cut]) -> str:
    """A sentence on a cut that a permalink asks for between or beyond those that there are."""
    wanted = _flops(text)
    if wanted is None or not found or flops((near := nearest_cut(found, text)).fitted_to) == flops(wanted):
        return ""
    every = list(dict.fromkeys(flops(cut.fitted_to) for cut in found))
    some = every if len(every) <= MOST_CUTS else [*every[: MOST_CUTS - 1], "...", every[-1]]
    return f"cut={text:.40}: the fits end at {', '.join(some)} FLOPs; the nearest, {flops(near.fitted_to)}, is taken"


def _window_problems(state: Mapping[str, str]) -> dict[str, str]:
    ends = {name: state.get(name, "").strip() for name in ("from", "to")}
    found = {name: "FLOPs, positive, like 1e18" for name, text in ends.items() if text and _flops(text) is None}
    low, high = (_flops(text) for text in ends.values())
    if low is not None and high is not None and low > high:
        found["from"] = f"lies above {ends['to']:.40}"
    return found


def _flops(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def left_out(text: str) -> tuple[LeftOut, ...]:
    """What a permalink leaves out; nothing where it is no list of [reason, [names]]."""
    try:
        steps = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return ()
    if not fits(steps, list[Annotated[list[Any], (str, list[str])]]):
        return ()
    found = tuple(LeftOut(reason=reason, runs=tuple(runs)) for reason, runs in steps)
    return found if all(0 < len(step.reason) <= MOST_REASON and step.runs and all(step.runs) for step in found) else ()


def left_out_text(steps: Sequence[LeftOut]) -> str:
    """The same as text."""
    return json.dumps([[s.reason, s.runs] for s in steps], separators=(",", ":"), ensure_ascii=False) if steps else ""


# ----------------------------------------------------------------------------------------------- settings, as a command


def settings(given: StudySettings, chosen: Choice, known: Iterable[str]) -> StudySettings:
    """What is fitted: the settings that the app was started with, changed by a choice.

    Args:
        known: the names of all runs; others are not left out, for there is nothing to leave out.
    """
    low, high = chosen.window
    there = set(known) if chosen.left_out else set[str]()
    more = [run for run in chosen.runs if run in there and run not in given.exclude]
    return replace(
        given,
        law=chosen.law or given.law,
        N=chosen.n or given.N,
        C=chosen.c or given.C,
        min_compute=given.min_compute if low is None else low,
        max_compute=given.max_compute if high is None else high,
        exclude=[*given.exclude, *more],
    )


def command(asked: StudySettings) -> str:
    """What to type for the same fit. Only settings: the words of an address, such as reasons, never reach a shell."""
    return typed.command("analysis.fit", asked)


# -------------------------------------------------------------------------------------------------------- what is shown


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A study that was fitted for a choice, and what a page shows of it."""

    asked: StudySettings
    study: Study
    pages: list[Page]
    answer: list[Spelt]

    @cached_property
    def cuts(self) -> list[Cut]:
        """Those of its backtests."""
        return cuts(self.study)


def fit(live: Live, chosen: Choice, view: View) -> Fit:
    """What is to be shown of a choice; nothing is fitted where it chooses what was.

    Args:
        view: of the settings that the app was started with; it has a study.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    assert view.study is not None, "who asks has waited for the first fit"
    everything = view.study.everything.run_id
    asked = settings(live.given, chosen, everything)
    study, pages, said = view.study, view.pages, view.answer
    if asked != live.given:
        made = live.make(asked, apart=len(everything) > MANY)
        study, pages, said = made.study, made.pages, made.answer
    shown = [page for page in pages if page.group == GROUP]
    return Fit(asked=asked, study=study, pages=shown, answer=said)


def beside(now: Sequence[Spelt], before: Sequence[Spelt]) -> list[tuple[str, list[Part], list[Part]]]:
    """The lines of an answer with what another said in their place; nothing where that was the same or nothing."""
    from analysis.output.evidence import words

    known = dict(before)
    return [(n, said, was if words(was := known.get(n, [])) != words(said) else []) for n, said in now]


# ----------------------------------------------------------------------------------------------------- a backtest's cut


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a fit to the runs below a compute predicted for those above it."""

    fitted_to: float  # FLOPs of the highest-compute run that was fitted
    fitted: int  # runs
    rows: pd.DataFrame  # of Study.judged: a run above, or (column optimal) the minimum of a budget above, a row


def cuts(study: Study) -> list[Cut]:
    """Every cut of the study's backtests, low ones first.

    They were fitted when the study was, so that to move from one to another costs nothing.
    """
    rows = study.judged
    if rows.empty:
        return []
    return [_cut(rows[rows.fitted_to == top]) for top in sorted(rows.fitted_to.unique())]


def _cut(rows: pd.DataFrame) -> Cut:
    first = rows.iloc[0]
    return Cut(fitted_to=float(first.fitted_to), fitted=int(first.fitted_runs), rows=rows.reset_index(drop=True))


def foretold(cut: Cut) -> str:
    """How a cut's predictions came out, of runs and of the minima of budgets, in sentences."""
    best = cut.rows.optimal.to_numpy(bool)
    runs, minima = cut.rows[~best], cut.rows[best]
    parts = [f"{number_of(len(runs), 'larger run')} ({_missed(runs)})"] if len(runs) else []
    parts += [f"the best of {number_of(len(minima), 'larger budget')} ({_missed(minima)})"] if len(minima) else []
    fitted = f"Fitted to {number_of(cut.fitted, 'run')} up to C = {flops(cut.fitted_to)}"
    return (
        f"{fitted}, asked about {' and '.join(parts)}. Intervals rest on the other cuts; how much each law counts was "
        "learned from all of them, this one too."
    )


def _missed(rows: pd.DataFrame) -> str:
    """How far off some predictions were, and how many of the intervals that there are held."""
    import numpy as np

    from analysis.estimation.backtest import held

    inside = held(rows)[:, -1]
    inside, off = inside[np.isfinite(inside)], np.expm1(rows.miss.abs().median())
    told = f"{inside.sum():.0f} of {len(inside)} inside 95%" if len(inside) else "no other cut to calibrate by"
    return f"missed by {off:.2%} in the median, {told}"


def nearest_cut(found: Sequence[Cut], text: str) -> Cut:
    """The cut that a permalink means: the nearest to its FLOPs; the middle one where it says none."""
    wanted = _flops(text)
    if wanted is None:
        return found[len(found) // 2]
    return min(found, key=lambda cut: abs(math.log(cut.fitted_to / wanted)))
