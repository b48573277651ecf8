"""Single runs stopped on request: a file in the sweep's folder, left by any process, holds a run while it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpt3core.store.sweepdir import SweepDir
from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import Phase, RunState

LOOK_SECONDS = 1.0


class Requests:
    """Carries out what the folder ``stop`` asks for."""

    def __init__(self, sweep: SweepDir, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._sweep, self._cluster, self._say = sweep, cluster, say
        self._next = 0.0
        self._held: set[str] = set()
        self._unknown: set[str] = set()

    def look(self, states: Mapping[str, RunState], now: float) -> None:
        """Stop what is asked to stop; let go on what no longer is."""
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            asked = self._sweep.stop_requests()
            for name in sorted(asked - set(states) - self._unknown):
                self._say(
                    f"stop/{name} in {self._sweep.path} names no run of this sweep: a file stop/RUN_ID holds that run, "
                    "Ctrl-C or SIGTERM to the driver stops all"
                )
            self._unknown |= asked - set(states)
            for run_id in sorted(self._held - asked):
                self._go_on(states[run_id])
            self._held = asked & set(states)
        for run_id in sorted(self._held):
            self._hold(states[run_id])

    def _hold(self, state: RunState) -> None:
        if state.phase == Phase.RUNNING and not state.stopping:
            state.stopping = True
            self._cluster.stop(state.run_id)
            self._say(f"stopping {state.run_id}: it writes its checkpoint")
        elif state.phase == Phase.WAITING:
            path = self._sweep.path / "stop" / state.run_id
            state.settle(Phase.HELD, f"stopped on request; to go on, delete {path} (and start the sweep if it ended)")
            self._say(f"held    {state.run_id}: {state.reason}")

    def _go_on(self, state: RunState) -> None:
        if state.phase == Phase.HELD:
            state.wait("")
            self._say(f"again   {state.run_id}: no longer stopped on request")
