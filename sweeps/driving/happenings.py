"""What happened to the runs of a sweep, by their workers' words and by the store, and what that makes of their states.

The store has the last word: a run is done if and only if its result and this sweep's evaluation are there, whatever a
worker says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.causes import Cause
from sweeps.cluster.job import Update
from sweeps.driving import failures, results
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.misstarts import taken
from sweeps.driving.run_state import Phase, RunState

BUSY_SECONDS = 5.0  # before looking again at a run that another process has
VISIBLE_SECONDS = 120.0  # until a worker's result is seen here: network file systems cache for a minute
UNSEEN = "its worker says done, but there is no result in the store: is the folder shared by all nodes?"


class Happenings:
    """Takes what is heard of the runs, logs it, says it, and keeps their states."""

    def __init__(
        self,
        sweep: SweepDir,
        evals: EvalSpec,
        states: Mapping[str, RunState],
        cluster: Cluster,
        estimates: Estimates,
        say: Callable[[str], None],
        *,
        max_failures: int,
    ) -> None:
        self._sweep, self._evals, self._states = sweep, evals, states
        self._cluster, self._estimates, self._say, self._max_failures = cluster, estimates, say, max_failures
        self.damage: list[str] = []  # sentences
        self._mute = False  # the log could not be written

    def recall(self) -> None:
        """Go on with the counts of an earlier driver's failures."""
        for run_id, tally in failures.recall(self._sweep.events(), self._max_failures).items():
            if run_id in self._states:
                self._states[run_id].tally = tally

    def take(self, update: Update, now: float) -> None:
        """What the workers of a run say."""
        if update.run_id not in self._states:
            return  # no longer asked for; its result, if any, is in the store
        state = self._states[update.run_id]
        if state.phase == Phase.DONE:
            return  # it ended while no driver was there
        if update.state == "running":
            before = state.resumed
            state.heard(update.progress)
            if before is None and state.resumed is not None:
                self._say(f"resumed {state.run_id} at {state.resumed:.0%}")
        elif update.state == "done":
            self.note("done", run_id=state.run_id)
            if not self.settle_if_done(state, fresh=True):
                state.settle(Phase.AWAITED, "its worker says done: waiting for the result to be seen in the store")
                state.awaited = now
        elif update.state == "busy":
            state.wait(update.error, now + BUSY_SECONDS)
        elif update.state == "stopped":
            state.wait("stopped, its checkpoint is written")
        elif update.state == "unstarted":
            room = bool(update.node) and not taken(update, self._estimates.kind(state.spec).worker, self._cluster)
            self.misstarted(state, update.error, now, room=room)
        else:
            self.failed(state, update, now)

    def failed(self, state: RunState, update: Update, now: float) -> None:
        """A run failed: it is tried again, or has failed for good."""
        folder, cause = RunDir(self._sweep.root, state.run_id), Cause.USER if update.fatal else update.cause
        step = max(folder.checkpoint_steps(), default=0)
        details: dict[str, Any] = {"cause": cause, "step": step, "node": update.node}
        details |= {"ranks": list(update.ranks)} if update.ranks else {}
        self.note(
            "failed",
            run_id=state.run_id,
            error=update.error,
            fatal=update.fatal,
            traceback=update.traceback,
            **details,
        )
        if self.settle_if_done(state, fresh=True):
            return
        size = folder.micro_batch() if cause == Cause.MEMORY else None
        verdict = failures.judge(
            state.tally, cause, update.error, step=step, limit=self._max_failures, micro_batch=size
        )
        final = state.failed(verdict, now)
        self._say(f"{'failed ' if final else 'again  '} {state.run_id}: {verdict.reason}")

    def misstarted(self, state: RunState, error: str, now: float, *, room: bool = False) -> None:
        """The cluster refused a run's start.

        Args:
            room: whether there was room all the same, whatever others hold.
        """
        self.note("misstart", run_id=state.run_id, error=error)
        cluster = [*self._cluster.inventory(), *(() if room else self._cluster.others())]
        final = state.misstarted(error, cluster, self._max_failures, now)
        self._say(f"{'failed ' if final else 'again  '} {state.run_id}: {state.reason}")

    def look_again(self, now: float) -> None:
        """Results that were announced: seen by now, or waited for long enough."""
        for state in self._states.values():
            if state.phase != Phase.AWAITED or self.settle_if_done(state, fresh=True):
                continue
            if now - state.awaited > VISIBLE_SECONDS:
                self.failed(state, Update(run_id=state.run_id, state="failed", error=UNSEEN), now)

    def resumes(self) -> bool:
        """Take note of the checkpoints that are there; whether any run has ever begun."""
        begun = False
        for state in self._states.values():
            folder = RunDir(self._sweep.root, state.run_id)
            if state.phase != Phase.DONE and folder.attempts():
                begun, state.resumes = True, max(folder.checkpoint_steps(), default=0)
        return begun

    def settle_if_done(self, state: RunState, *, fresh: bool = False) -> bool:
        """Whether nothing is left to do of a run; ``fresh`` reports it as news."""
        folder = RunDir(self._sweep.root, state.run_id)
        found = results.look(folder, self._evals)
        if found.damage:
            self.damaged([found.damage])
        state.trained = found.result is not None
        if found.result is None or not found.complete:
            return False
        state.settle(Phase.DONE)
        self._estimates.learn(state.spec, found.result)
        if fresh:
            loss = results.held_out_loss(folder, self._evals)
            self.note("finished", run_id=state.run_id, status=found.result["status"], loss=loss[0] if loss else None)
            self.damaged(found.result.get("damage", []))
            self._say(results.summary(state.spec, folder, self._evals, found.result))
        return True

    def note(self, what: str, **details: Any) -> None:
        """Log an event; a log line is never worth a sweep."""
        try:
            self._sweep.event(what, **details)
        except (StoreError, OSError) as error:
            if not self._mute:
                self._mute = True
                self._say(f"events.jsonl is not written any more: {error}")

    def damaged(self, sentences: Sequence[str]) -> None:
        """Something was found damaged: logged, said, and kept for the outcome."""
        self.damage += sentences
        for sentence in sentences:
            self.note("damage", sentence=sentence)
            self._say(f"damage  {sentence}")
