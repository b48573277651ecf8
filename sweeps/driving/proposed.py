"""Runs that join a sweep while it is driven: whoever may write to its folder asks, and the one driver takes them."""

from __future__ import annotations

import math
from collections.abc import Callable

from gpt3core.errors import StoreError
from gpt3core.store.proposals import Proposals
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving.failures import Tally
from sweeps.driving.run_state import OPEN, Phase, RunState

LOOK_SECONDS = 0.5
ENDS = (Phase.FAILED, Phase.HELD, Phase.PRUNED)  # that whoever asked would wait for in vain


class Proposed:
    """Takes what is asked, and answers where there will be no result."""

    def __init__(
        self, sweep: SweepDir, eval_id: str, say: Callable[[str], None], *, patience_seconds: float = 0.0
    ) -> None:
        """Take.

        Args:
            eval_id: of the sweep's evaluation: a run that is wanted with another is refused.
            patience_seconds: for which a driver without work waits to be asked for more.
        """
        self._sweep, self._eval_id, self._say, self.patience_seconds = sweep, eval_id, say, patience_seconds
        self._proposals = Proposals(sweep)
        self._next, self._busy = -math.inf, math.nan  # when to look again; when there was work last
        self._taken: list[str] = []
        self._begun = False
        self._wanted: dict[str, Phase | None] = {}  # run -> the end that was answered, or is older than the question

    def look(self, states: dict[str, RunState], now: float) -> list[str]:
        """Add the runs that were asked for to the states, and return those that are new; call ``taken`` after."""
        if now < self._next:
            return []
        self._next = now + LOOK_SECONDS
        if (
            self.patience_seconds and not self._begun
        ):  # an earlier driver took the questions, and may have answered none
            self._wanted = dict.fromkeys(states)
        self._begun = True
        new = []
        for run_id, eval_id in self._proposals.asked().items():
            self._busy = now
            if eval_id != self._eval_id:
                self._refuse(run_id, "its tasks or held-out text are not those of this sweep: give it another name")
            elif run_id in states:
                self._again(states[run_id])
            else:
                try:
                    states[run_id] = RunState(spec=RunDir(self._sweep.root, run_id).spec())
                except StoreError as error:
                    self._refuse(run_id, str(error))
                    continue
                self._wanted[run_id] = None
                new.append(run_id)
            self._taken.append(run_id)
        if any(state.phase in OPEN for state in states.values()):
            self._busy = now
        self._answer(states)
        return new

    def taken(self) -> None:
        """What was asked is in the record, so the questions may go."""
        while self._taken:
            self._proposals.taken(self._taken.pop())

    def waits(self, now: float) -> bool:
        """Whether a driver without work stays, for it may be asked for more."""
        if math.isnan(self._busy):
            self._busy = now
        return now - self._busy < self.patience_seconds

    def _again(self, state: RunState) -> None:
        """A run that the sweep has is wanted: a failed one is tried anew, a held one waits for its request to go."""
        self._wanted[state.run_id] = None
        if state.phase == Phase.FAILED:
            state.tally, state.misstarts = Tally(halvings=state.tally.halvings), 0
        if state.phase in (Phase.FAILED, Phase.SPARE):
            state.wait("")
        elif state.phase == Phase.HELD:
            self._wanted[state.run_id] = Phase.HELD

    def _answer(self, states: dict[str, RunState]) -> None:
        for run_id, told in list(self._wanted.items()):
            phase = states[run_id].phase
            if phase in ENDS and phase != told:
                self._proposals.answer(run_id, phase.value, states[run_id].reason)
            self._wanted[run_id] = phase if phase in ENDS else None

    def _refuse(self, run_id: str, reason: str) -> None:
        self._say(f"refused {run_id}, which was asked for: {reason}")
        self._proposals.answer(run_id, "refused", reason)
        self._proposals.taken(run_id)
