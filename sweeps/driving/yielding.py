"""Runs that make room for one of higher priority: they write their checkpoints, and wait again with their old age."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import Phase, RunState
from sweeps.scheduling.scheduler import Preempt, Running


def seen(
    running: Iterable[Running],
    states: Mapping[str, RunState],
    priority: Callable[[RunState], int],
    left: Callable[[RunState], float],
    now: float,
) -> list[Running]:
    """What holds resources as the scheduler is told of it: until when, of what priority, and whether it could stop.

    A run that trains can stop at any step; one that is evaluated is as good as done.

    Args:
        left: seconds that a run still takes, by what was last heard of it.
    """
    found = []
    for run in running:
        state = states.get(run.run_id)
        if state is None:
            found.append(run)
            continue
        trains = state.phase == Phase.RUNNING and (state.progress is None or state.progress.phase == "training")
        found.append(
            replace(
                run,
                ends=_ends(state, left, now),
                priority=priority(state),
                queued=state.queued,
                resumable=trains,
                stopping=state.stopping,
            )
        )
    return found


def _ends(state: RunState, left: Callable[[RunState], float], now: float) -> float:
    """When a run ends, by the last step that it made: the reservation of whoever waits for it would slide otherwise."""
    at = (state.progress.phase, state.progress.step) if state.progress is not None and state.progress.step else None
    if at != state.at:
        state.at, state.ends = at, now + left(state)
    return state.ends


def make_room(
    state: RunState, order: Preempt, cluster: Cluster, say: Callable[[str], None], note: Callable[..., Any]
) -> None:
    """Ask a run to stop for another."""
    if state.phase != Phase.RUNNING or state.stopping:
        return
    state.stopping = True
    cluster.stop(state.run_id)
    note("preempt", run_id=state.run_id, by=order.by)
    say(f"stopping {state.run_id}: it writes its checkpoint and makes room for {order.by}, of higher priority")
