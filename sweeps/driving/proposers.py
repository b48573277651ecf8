"""Who says which runs of a sweep exist: the whole grid at once, or one run after another as results come in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store import metrics
from gpt3core.store.rundir import RunDir
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.planning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Runs to take now, and why there will be no more (empty while there may be)."""

    take: tuple[str, ...] = ()
    over: str = ""


class Proposer(Protocol):
    """Says which of a sweep's runs to take."""

    def propose(self, states: Mapping[str, RunState]) -> Proposal:
        """What to take now. Called at every tick, so it answers at once where nothing has changed."""


class WholeGrid:
    """All runs at once; the scheduler orders them."""

    def propose(self, states: Mapping[str, RunState]) -> Proposal:
        """Every run that was not taken."""
        return Proposal(take=tuple(i for i, state in states.items() if state.phase == Phase.SPARE))


class Adaptive:
    """One run at a time, each where it tells most of the target: chosen with all that is known by then."""

    def __init__(
        self,
        recipe: Recipe,
        losses: Callable[[str], float | None],
        seconds: Callable[[RunSpec], float],
    ) -> None:
        """Choose.

        Args:
            losses: of a run that is done, None where it ended without one (diverged); asked once a run.
            seconds: estimate of a run's device time.
        """
        self._recipe, self._read, self._seconds = recipe, losses, seconds
        self._losses: dict[str, float | None] = {}
        self._seen: object = None
        self._over = ""

    def propose(self, states: Mapping[str, RunState]) -> Proposal:
        """The next run, once none that was taken waits."""
        from sweeps.driving import adaptive  # scipy and the laws, which other sweeps do without

        phases = {i: state.phase for i, state in states.items() if state.phase != Phase.SPARE}
        if self._over or Phase.WAITING in phases.values() or phases == self._seen:
            return Proposal(over=self._over)
        self._seen = phases
        for run_id, phase in phases.items():
            if phase == Phase.DONE and run_id not in self._losses:
                self._losses[run_id] = self._read(run_id)
        found = adaptive.next_run(
            self._recipe,
            {i: state.spec for i, state in states.items()},
            losses={i: loss for i, loss in self._losses.items() if loss is not None},
            taken=set(phases),
            under_way={i for i, phase in phases.items() if phase in OPEN},
            seconds=self._seconds,
        )
        self._over = found.over
        return Proposal(take=(found.run_id,) if found.run_id is not None else (), over=found.over)


def held_out_loss(run: RunDir, evals: EvalSpec) -> tuple[float, float] | None:
    """Loss on held-out text and its standard error (nats per token), None where they were not measured."""
    try:
        rows = metrics.rows(run.evaluation_path(evals.eval_id), ["task", "loss", "loss_se"])
    except (StoreError, FileNotFoundError):
        return None
    row = next((row for row in rows if row["task"] == HELD_OUT), None)
    if row is None or row["loss"] is None or not math.isfinite(row["loss"]):
        return None
    return float(row["loss"]), math.nan if row["loss_se"] is None else float(row["loss_se"])
