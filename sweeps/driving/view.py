"""How a sweep stands and how it ended, read off the states of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.driving.preparation import Preparation
from sweeps.driving.progress import Snapshot
from sweeps.driving.run_state import AGAIN, Phase, RunState

GO_ON = "the sweep was interrupted; start the same command again to go on"


@dataclass(kw_only=True)
class Outcome:
    """How a sweep ended."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)  # stopped on request, or for want of nodes: run -> reason
    pruned: dict[str, str] = field(default_factory=dict)  # runs that could not change the law any more: run -> reason
    not_taken: list[str] = field(default_factory=list)  # runs that an adaptive sweep did without
    damage: list[str] = field(default_factory=list)
    interrupted: bool = False
    beyond: list[str] = field(default_factory=list)  # runs that are held for a limit; not among the held
    limited: str = ""  # which limit was reached, what is missing and what it would cost
    told: list[str] = field(default_factory=list)  # what became of budgets whose profiles place themselves


def interrupt(states: Mapping[str, RunState]) -> None:
    """Nothing that waits is expected to start any more, and it says how it would; what failed, why."""
    for state in states.values():
        if state.phase == Phase.WAITING and not state.reason.endswith(GO_ON):
            state.reason = f"{state.reason}; {GO_ON}" if state.reason.startswith(AGAIN) else GO_ON
            state.expects = None


def count(states: Mapping[str, RunState], phase: Phase) -> int:
    """How many runs stand there."""
    return sum(state.phase == phase for state in states.values())


def snapshot(
    name: str,
    states: Mapping[str, RunState],
    preparation: Preparation | None,
    eta_seconds: float | None,
    avoided: Mapping[str, str],
) -> Snapshot:
    """The sweep at this moment.

    Args:
        preparation: of text and numerics, for which every run waits until it has its result.
        eta_seconds: until the last run ends, not told while text and numerics are prepared.
        avoided: nodes on which nothing new starts, and why.
    """
    by_phase: dict[Phase, dict[str, RunState]] = {phase: {} for phase in Phase}
    for run_id, state in states.items():  # once: a sweep may have ten thousand, and is looked at four times a second
        by_phase[state.phase][run_id] = state
    preparing = preparation is not None and preparation.result is None
    if preparing:
        assert preparation is not None
        reason = preparation.reason or "text and numerics are prepared first"
        waiting = dict.fromkeys(by_phase[Phase.SPARE], reason)
    else:
        waiting = _said({**by_phase[Phase.WAITING], **by_phase[Phase.AWAITED]})
    return Snapshot(
        name=name,
        total=len(states),
        done=len(by_phase[Phase.DONE]),
        eta_seconds=None if preparing else eta_seconds,
        running={i: state.progress for i, state in by_phase[Phase.RUNNING].items()},
        resumed={i: s.resumed for i, s in by_phase[Phase.RUNNING].items() if s.resumed is not None},
        waiting=waiting,
        held=_said(by_phase[Phase.HELD]),
        failed=_said(by_phase[Phase.FAILED]),
        pruned=_said(by_phase[Phase.PRUNED]),
        avoided=dict(avoided),
    )


def outcome(
    states: Mapping[str, RunState],
    *,
    not_taken: list[str],
    damage: list[str],
    interrupted: bool,
    beyond: Sequence[str] = (),
    limited: str = "",
    told: Sequence[str] = (),
) -> Outcome:
    """How the sweep ended."""
    return Outcome(
        done=[i for i, state in states.items() if state.phase == Phase.DONE],
        failed=_reasons(states, Phase.FAILED),
        held={i: reason for i, reason in _reasons(states, Phase.HELD).items() if i not in set(beyond)},
        pruned=_reasons(states, Phase.PRUNED),
        not_taken=not_taken,
        damage=damage,
        interrupted=interrupted,
        beyond=list(beyond),
        limited=limited,
        told=list(told),
    )


def _reasons(states: Mapping[str, RunState], phase: Phase) -> dict[str, str]:
    return {i: state.reason for i, state in states.items() if state.phase == phase}


def _said(states: Mapping[str, RunState]) -> dict[str, str]:
    return {i: state.reason for i, state in states.items()}
