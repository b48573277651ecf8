"""Runs under way that can no longer change the law are stopped: asked from time to time, beside the driver's loop.

What is decided is analysis.estimation.pruning's; here the store is read, in a thread, so that a tick waits for nothing.
A decision is written down before its run is asked to stop, and a run that is written down is never started: a driver
that is killed in between is followed by one that stops it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt3core import costs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving.hands import Cluster
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.planning.recipe import Recipe

if TYPE_CHECKING:
    from sweeps.driving.evidence import Asked, Evidence

ASK_SECONDS = 30.0  # between two questions, at least ...
DUTY = 0.02  # ... and so long that they take no more than this share of one core


@dataclass(frozen=True, kw_only=True)
class _Told:
    figures: dict[str, dict[str, Any]]  # run_id -> what it rests on
    seconds: float  # that it took


class Pruning:
    """Asks which runs may be pruned, and stops them."""

    def __init__(
        self,
        recipe: Recipe,
        sweep: SweepDir,
        evals: EvalSpec,
        cluster: Cluster,
        keep: Callable[..., None],
        say: Callable[[str], None],
    ) -> None:
        """Prune.

        Args:
            keep: called with ``pruned=`` writes down which runs are, with their figures.
        """
        self._share, self._cluster, self._say = recipe.prune.by_value, cluster, say
        self._sweep, self._keep = sweep, keep
        self._recipe, self._evals = recipe, evals
        self._evidence: Evidence | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._asked: Future[_Told] | None = None
        self._next = 0.0
        self._seen: object = None  # how far the runs were at the last question

    def look(self, states: Mapping[str, RunState], pruned: Mapping[str, dict[str, Any]], now: float) -> None:
        """Stop what is pruned; take an answer that has come; ask again when there is more to go by."""
        if self._share is None:
            return
        if self._asked is not None and self._asked.done():
            pruned = self._take(self._asked, states, dict(pruned), now)
            self._asked = None
        for run_id in sorted(set(pruned) & set(states)):
            self._hold(states[run_id], pruned[run_id])
        if self._asked is not None or now < self._next:
            return
        stages = _stages(states)
        if stages != self._seen and any(s.phase == Phase.RUNNING and not s.stopping for s in states.values()):
            self._seen = stages
            self._ask(states, pruned)

    def _ask(self, states: Mapping[str, RunState], pruned: Mapping[str, dict[str, Any]]) -> None:
        from sweeps.driving.evidence import Evidence  # the laws, which other sweeps do without

        self._evidence = self._evidence or Evidence(self._recipe, self._sweep.root, self._evals)
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="pruning")
        self._asked = self._pool.submit(_answer, self._evidence, _asked(states, pruned))

    def _take(
        self, answer: Future[_Told], states: Mapping[str, RunState], pruned: dict[str, dict[str, Any]], now: float
    ) -> Mapping[str, dict[str, Any]]:
        """The runs that are pruned with those of an answer, which are written down."""
        try:
            told = answer.result()
        except Exception as error:  # whatever it is, it is not worth a sweep
            self._say(f"nothing is pruned now: {type(error).__name__}: {error}")
            self._next = now + 10 * ASK_SECONDS
            return pruned
        self._next = now + max(ASK_SECONDS, told.seconds / DUTY)
        more = {i: f for i, f in told.figures.items() if states[i].phase == Phase.RUNNING and not states[i].trained}
        if not more:
            return pruned
        for run_id, figures in more.items():
            figures |= {"share": self._share, "saved_flops": _left(states[run_id])}
        try:
            self._keep(pruned={**pruned, **more})
        except (StoreError, OSError) as error:
            self._say(f"nothing is pruned now: {error}")
            return pruned
        for run_id in sorted(more):
            with contextlib.suppress(StoreError, OSError):  # a log line is never worth a sweep
                self._sweep.event("pruned", run_id=run_id, **more[run_id])
            self._say(f"pruned  {run_id}: {reason(more[run_id])}")
        return {**pruned, **more}

    def _hold(self, state: RunState, figures: Mapping[str, Any]) -> None:
        if state.phase == Phase.RUNNING and not state.stopping and not state.trained:
            state.stopping = True
            self._cluster.stop(state.run_id)
        elif state.phase in (Phase.WAITING, Phase.SPARE) and not state.trained:
            state.settle(Phase.PRUNED, reason(figures))


def _asked(states: Mapping[str, RunState], pruned: Mapping[str, Any]) -> Asked:
    """Where the runs stand, as the thread may read it."""
    from sweeps.driving.evidence import Asked

    specs: dict[str, RunSpec] = {i: state.spec for i, state in states.items()}
    done = [i for i, state in states.items() if state.phase == Phase.DONE]
    held = [i for i, state in states.items() if i in pruned and state.phase != Phase.DONE]
    under_way = [i for i, s in states.items() if s.phase == Phase.RUNNING and not s.trained and i not in pruned]
    others = [i for i, state in states.items() if state.phase in OPEN and i not in {*under_way, *held}]
    return Asked(specs=specs, done=done, running=under_way, waiting=others, pruned={i: pruned[i] for i in held})


def _stages(states: Mapping[str, RunState]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """How many runs have ended, and how many tenths of its way each running one has come."""
    done = sum(state.phase == Phase.DONE for state in states.values())
    running = ((i, s.progress) for i, s in states.items() if s.phase == Phase.RUNNING)
    return done, tuple((i, 10 * p.step // max(1, p.steps)) for i, p in running if p is not None)


def _answer(evidence: Evidence, asked: Asked) -> _Told:
    """In the thread."""
    began = time.thread_time()
    figures = evidence.figures(asked)
    return _Told(figures=figures, seconds=time.thread_time() - began)


def _left(state: RunState) -> float:
    """FLOPs that a run would still take."""
    done = state.progress.step / max(1, state.progress.steps) if state.progress else 0.0
    return (1 - done) * costs.train_flops(state.spec.model, state.spec.tokens)


def reason(figures: Mapping[str, Any]) -> str:
    """Why a run was pruned, in a line."""
    moved = max(figures[f"{name}_change"] / figures[f"{name}_width"] for name in ("loss", "n_star"))
    return (
        f"with any loss from {figures['low']:.3f} to {figures['high']:.3f} it and those pruned before move the law at "
        f"the target by at most {moved:.1%} of its 95% interval (prune.by_value={figures['share']:g}); its checkpoint "
        "is kept, prune.by_value=null goes on with it"
    )
