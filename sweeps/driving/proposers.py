"""Who says which runs of a sweep exist: the whole grid at once, or more and more of them as results come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gpt3core.spec import RunSpec
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.planning.recipe import Recipe

if TYPE_CHECKING:
    from sweeps.driving.adaptive import Next
    from sweeps.driving.estimates import Estimates

BESIDE = 1000  # runs of a sweep above which the next ones are chosen beside the driver's loop: half a second and more


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Runs to take now, and why there will be no more (empty while there may be)."""

    take: tuple[str, ...] = ()
    new: tuple[RunSpec, ...] = ()  # runs that the sweep did not have, to take too
    told: tuple[str, ...] = ()  # sentences on what was decided
    over: str = ""


class Proposer(Protocol):
    """Says which of a sweep's runs to take."""

    def propose(self, states: Mapping[str, RunState], slots: Callable[[], int]) -> Proposal:
        """What to take now. Called at every tick, so it answers at once where nothing has changed.

        Args:
            slots: how many more runs could start now.
        """


class WholeGrid:
    """All runs at once; the scheduler orders them."""

    def propose(self, states: Mapping[str, RunState], slots: Callable[[], int]) -> Proposal:
        """Every run that was not taken."""
        return Proposal(take=tuple(i for i, state in states.items() if state.phase == Phase.SPARE))


class Adaptive:
    """As many runs as there is room for, where together they tell most of the target: with all that is known by then.

    A driver that takes over counts the runs in flight as its own: they were chosen by the same rule.
    """

    def __init__(
        self,
        recipe: Recipe,
        losses: Callable[[str], float | None],
        estimates: Estimates,
    ) -> None:
        """Choose.

        Args:
            losses: of a run that is done, None where it ended without one (diverged); asked once a run.
            estimates: of how long runs take, and what is left of them.
        """
        self._recipe, self._read, self._estimates = recipe, losses, estimates
        self._losses: dict[str, float | None] = {}
        self._seen: object = None
        self._over = ""
        self._pool: ThreadPoolExecutor | None = None
        self._asked: Future[Next] | None = None

    def propose(self, states: Mapping[str, RunState], slots: Callable[[], int]) -> Proposal:
        """The next runs, where there is room for any."""
        from sweeps.driving import adaptive  # scipy and the laws, which other sweeps do without

        if self._over:
            return Proposal(over=self._over)
        if self._asked is not None:
            return self._take(self._asked.result(), states) if self._asked.done() else Proposal()
        phases = {i: state.phase for i, state in states.items() if state.phase != Phase.SPARE}
        room = slots()
        if room < 1 or (phases, room) == self._seen:
            return Proposal()
        self._seen = phases, room
        for run_id, phase in phases.items():
            if phase == Phase.DONE and run_id not in self._losses:
                self._losses[run_id] = self._read(run_id)
        seconds = {i: self._estimates.seconds(state.spec) for i, state in states.items()}
        ask = partial(
            adaptive.next_runs,
            self._recipe,
            {i: state.spec for i, state in states.items()},
            losses={i: loss for i, loss in self._losses.items() if loss is not None},
            taken=set(phases),
            under_way={i: self._estimates.left(states[i]) for i, phase in phases.items() if phase in OPEN},
            seconds=lambda run: seconds[run.run_id],
            slots=room,
        )
        if len(states) <= BESIDE:
            return self._take(ask(), states)
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="adaptive")
        self._asked = self._pool.submit(ask)
        return Proposal()

    def _take(self, found: Next, states: Mapping[str, RunState]) -> Proposal:
        """What an answer comes to, by what has happened since it was asked for."""
        self._asked, self._over = None, found.over
        take = tuple(run_id for run_id in found.run_ids if states[run_id].phase == Phase.SPARE)
        return Proposal(take=take, over=found.over)
