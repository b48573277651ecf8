"""Who waits for whom: a run may start once the trunk has written the checkpoint from which its decay begins.

Nothing is lost where that does not come: a run whose trunk is not on the way any more starts from the nearest
checkpoint of its family, or trains from its first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpt3core.store.rundir import RunDir
from gpt3core.trunk import Prefix, stable_steps
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.planning import trunks

LOOK_SECONDS = 1.0  # between two looks at the checkpoints of a family


class Trunks:
    """The families of a sweep's runs that begin alike."""

    def __init__(self, root: Path, states: Iterable[RunState]) -> None:
        by_id = {state.run_id: state for state in states}
        self.root, self._next_look = root, -math.inf
        self._family: dict[str, list[RunState]] = {}  # of each run, the one that goes farthest first
        for group in trunks.families(state.spec for state in by_id.values()):
            members = [by_id[run.run_id] for run in group]
            self._family |= {member.run_id: members for member in members}

    def ready(self, queue: Sequence[RunState], now: float) -> list[RunState]:
        """The waiting runs that need not wait for another run's checkpoint; the others get their reason."""
        if not self._family:
            return list(queue)
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            for state in queue:
                if state.run_id in self._family:
                    state.awaits = self._look(state)
        for state in queue:
            if state.awaits:
                state.reason = f"waits for step {state.awaits.step} of {state.awaits.run_id}, from which it starts"
        return [state for state in queue if not state.awaits]

    def keep(self, state: RunState) -> tuple[int, ...]:
        """The steps of a run at which others of its family have their decay before them."""
        others = (o for o in self._family.get(state.run_id, []) if o is not state and o.phase != Phase.DONE)
        return tuple(sorted({step for o in others if (step := stable_steps(o.spec)) <= stable_steps(state.spec)}))

    def _look(self, state: RunState) -> Prefix | None:
        """What a run still waits for, if anything; notes where it would start."""
        if state.trained or RunDir(self.root, state.run_id).checkpoint_steps():
            return None  # it goes on by itself
        last = stable_steps(state.spec)
        state.prefix = self._nearest(state, last)
        if state.prefix is not None and state.prefix.step == last:
            return None
        for other in self._family[state.run_id]:
            if other is state:
                break  # those behind it begin their decay no later
            if other.phase in OPEN and not other.stopping and other.farthest <= last:
                return Prefix(run_id=other.run_id, step=last)
        return None

    def _nearest(self, state: RunState, last: int) -> Prefix | None:
        """The checkpoint of the family that leaves least to do."""
        found = [
            (step, other.run_id)
            for other in self._family[state.run_id]
            if other is not state
            for step in RunDir(self.root, other.run_id).checkpoint_steps()
            if step <= min(last, stable_steps(other.spec))
        ]
        return Prefix(run_id=max(found)[1], step=max(found)[0]) if found else None
