"""The loop of a sweep: look at the store and the workers, let the scheduler decide, act; until every run is settled.

The store is the truth: a run is done if and only if it has its result and this sweep's evaluation. A driver that
starts again therefore trains only what is missing, adopts the workers that go on, and resumes the rest from their
checkpoints. Whatever is decided by time is decided by the monotonic clock.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt3core import costs
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from sweeps.cluster.job import Job, StartError
from sweeps.driving import preparation, view
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.happenings import Happenings
from sweeps.driving.limiting import Limits
from sweeps.driving.nodes import Nodes
from sweeps.driving.outlook import Outlook
from sweeps.driving.preparation import Preparation
from sweeps.driving.progress import Display, Sturdy
from sweeps.driving.proposers import Adaptive, Proposer, WholeGrid, held_out_loss
from sweeps.driving.pruning import Pruning
from sweeps.driving.requests import Requests
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.driving.spending import Spending
from sweeps.driving.status import ENDED, INTERRUPTED, Status
from sweeps.driving.taking import Taken
from sweeps.driving.trunks import Trunks
from sweeps.driving.view import Outcome
from sweeps.planning.recipe import Recipe
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Allocation
from sweeps.scheduling.scheduler import Start

TICK_SECONDS = 0.25
DECIDE_SECONDS = 1.0  # the scheduler is asked that often while nothing changes but the time
STOP_SECONDS = 60.0  # for checkpoints, after Ctrl-C
TRAIN = "sweeps.cluster.worker:train"


def namespace(root: Path, name: str) -> str:
    """The Ray namespace of a sweep's workers: the same for every driver of it."""
    return f"isoflop-{hashlib.sha256(f'{root}:{name}'.encode()).hexdigest()[:12]}"


class Driver:
    """Drives one sweep on one cluster."""

    def __init__(self, recipe: Recipe, taken: Taken, cluster: Cluster, display: Display, *, entry: str = TRAIN) -> None:
        """Drive.

        Args:
            taken: of ``taking.take``.
            entry: ``module:function`` that a worker runs for each run; tests put something quick here.
        """
        self.place, self.cluster, self.entry = recipe.placement, cluster, entry
        self.display = display if isinstance(display, Sturdy) else Sturdy(display)
        self.sweep, self.root, self.evals, self.record = taken.sweep, taken.sweep.root, taken.evals, taken.record
        self.estimates = Estimates(recipe)
        self.states = {run.run_id: RunState(spec=run) for run in taken.runs}
        self.proposer: Proposer = (
            Adaptive(recipe, self._loss, self.estimates.seconds) if recipe.adaptive else WholeGrid()
        )
        self.requests = Requests(self.sweep, cluster, self.display.say)
        self.pruning = Pruning(recipe, self.sweep, self.evals, cluster, self._record, self.display.say)
        self.trunks = Trunks(self.root, self.states.values())
        self.nodes = Nodes(self.estimates.kind, self.display.say)
        self.status = Status(self.sweep)
        self.preparation: Preparation | None = None
        self.happenings = Happenings(
            self.sweep,
            self.evals,
            self.states,
            cluster,
            self.estimates,
            self.display.say,
            max_failures=self.place.max_failures,
        )
        self.happenings.damage += taken.damage
        self.spending = Spending(self.sweep, self.estimates.device()[1], self.happenings.note)
        self.limits = Limits(
            recipe=recipe,
            estimates=self.estimates,
            spending=self.spending,
            cluster=cluster,
            say=self.display.say,
            loss=self._loss,
            began=self.record.deadline_began,
            now=time.monotonic(),
            wall=time.time(),
        )
        self.outlook = Outlook(estimates=self.estimates, spending=self.spending, limits=self.limits, cluster=cluster)
        self._seen: object = None  # what the scheduler was shown last, and when
        self._decided = -math.inf
        self.over, self.begun = "", False  # why no run is proposed any more; whether any has ever started
        self.interrupts = 0
        self.interrupted = False

    # ----------------------------------------------------------------------------------------------------- the loop

    def drive(self) -> Outcome:
        """Run until every run is done, failed for good or held, or until interrupted."""
        for sentence in self.happenings.damage:
            self.display.say(f"damage  {sentence}")
        with self._signals():
            for state in self.states.values():
                self.happenings.settle_if_done(state)
            done = view.count(self.states, Phase.DONE)
            self.begun = done > 0 or self._resumes()
            self.happenings.note("driver", runs=len(self.states), done=done)
            if done:
                self.display.say(f"{done} of {len(self.states)} runs are done already")
            self._adopt()
            self.pruning.look(self.states, self.record.pruned, time.monotonic())
            if done + view.count(self.states, Phase.PRUNED) < len(self.states):
                self._prepare()
                if not self.interrupted:
                    self._loop(self._act)
        self._show(INTERRUPTED if self.interrupted else ENDED)
        self.display.close()
        return view.outcome(
            self.states,
            not_taken=list(self.record.not_taken) if self.over else [],
            damage=self.happenings.damage,
            interrupted=self.interrupted,
            beyond=self.limits.beyond(self.states),
            limited=self.limits.outcome(self.states, time.monotonic()),
        )

    def _loop(self, act: Callable[[float], bool]) -> None:
        """Poll and act until ``act`` says that nothing is left, or until stopped."""
        deadline = math.inf
        while True:
            now = time.monotonic()
            for update in self.cluster.poll():
                if update.run_id == preparation.NAME and self.preparation is not None:
                    self.preparation.take(update, now)
                self.happenings.take(update, now)
            self._account(now)
            if self.interrupts:
                if deadline == math.inf:
                    deadline, self.interrupted = now + STOP_SECONDS, True
                    self.display.say("stopping: runs write their checkpoints (Ctrl-C again to leave at once)")
                    self.cluster.stop()
                if not self.cluster.running() or self.interrupts > 1 or now > deadline:
                    return
            elif not act(now):
                return
            self._account(now)
            self._show()
            time.sleep(TICK_SECONDS)

    def _account(self, now: float) -> None:
        """Who holds devices, and how fast the runs are."""
        for run_id, seconds in self.spending.look(self.cluster.running(), now).items():
            if run_id in self.states and self.states[run_id].phase == Phase.DONE:
                self.estimates.ended(run_id, seconds)
        self.estimates.listen(self.states.values(), now)

    def _resumes(self) -> bool:
        """Take note of the checkpoints that are there; whether any run has ever begun."""
        begun = False
        for state in self.states.values():
            folder = RunDir(self.root, state.run_id)
            if state.phase != Phase.DONE and folder.attempts():
                begun, state.resumes = True, max(folder.checkpoint_steps(), default=0)
        return begun

    def _adopt(self) -> None:
        """Runs that an earlier driver started go on: those that are no longer asked for write a checkpoint and end."""
        now = time.monotonic()
        for run in self.cluster.running():
            if run.run_id in self.states:  # when it began is not known here, so it counts as just begun
                state = self.states[run.run_id]
                if state.phase != Phase.DONE:
                    state.started(now + self.estimates.left(state))
            elif run.run_id != preparation.NAME:
                self.cluster.stop(run.run_id)

    def _prepare(self) -> None:
        if self.entry != TRAIN or (self._numerics() is not None and self.cluster.running()):
            return
        if self.limits.reached(time.monotonic()):
            return  # nothing is to start
        largest = max((s.spec for s in self.states.values()), key=lambda run: costs.train_flops(run.model, run.tokens))
        self.preparation = Preparation(
            self.cluster,
            self.estimates.shape,
            self._job(largest),
            self.place.max_failures,
            self.display.say,
            begun=self.begun,
        )
        self._loop(self.preparation.act)
        if self.preparation.result is not None and self._numerics() is None:
            settled = {**self.record.numerics, self._device(): self.preparation.result["numerics"]}
            self._record(numerics=settled)
        if (numerics := self._numerics()) is not None:
            self.display.say(f"numerics: {numerics.precision}, kernel {numerics.kernel}")

    def _act(self, now: float) -> bool:
        """Start what the scheduler says. False when nothing is left to wait for."""
        self.happenings.look_again(now)
        self._propose()
        self.requests.look(self.states, now)
        self.pruning.look(self.states, self.record.pruned, now)
        self.limits.look(self.states, now)
        open_runs = [state for state in self.states.values() if state.phase in OPEN]
        if not open_runs:
            return False
        inventory = self.cluster.inventory()
        self.begun |= any(state.phase != Phase.WAITING for state in open_runs)
        if self.nodes.look(inventory, open_runs, begun=self.begun, now=now):
            return True
        waiting = [s for s in open_runs if s.phase == Phase.WAITING and s.not_before <= now]
        queue = self.limits.queue(self.trunks.ready(waiting, now), self.states, now)
        running, others = self.cluster.running(), self.cluster.others()
        inventory = self.limits.cut(inventory, running, others)
        seen = (inventory, queue, [run.run_id for run in running], others)
        if seen == self._seen and now < self._decided + DECIDE_SECONDS:
            return True
        self._seen, self._decided = seen, now
        holding = [
            replace(run, ends=now + self.estimates.left(self.states[run.run_id]))
            for run in running
            if run.run_id in self.states
        ]
        holding += [run for run in running if run.run_id not in self.states]
        jobs = self.limits.ordered([self.estimates.job(state) for state in queue])
        for decision in scheduler.decide(now, inventory, jobs, [*holding, *others], self.nodes.largest):
            state = self.states[decision.run_id]
            if isinstance(decision, Start):
                self._start(state, decision.allocation, now)
            else:
                state.reason, state.expects = decision.reason, getattr(decision, "eta", None)
        return True

    def _propose(self) -> None:
        if self.over:
            return
        proposal = self.proposer.propose(self.states)
        for run_id in proposal.take:
            self.states[run_id].wait("")
        if proposal.over:
            self.over = proposal.over
            spare = tuple(i for i, state in self.states.items() if state.phase == Phase.SPARE)
            self._record(not_taken=spare)
            self.display.say(f"no further runs: {proposal.over}")

    def _start(self, state: RunState, allocation: Allocation, now: float) -> None:
        try:
            job = replace(self._job(state.spec), prefix=state.prefix, keep=self.trunks.keep(state))
            self.cluster.start(state.run_id, allocation, self.estimates.shape, self.entry, job)
        except StartError as error:
            self.happenings.misstarted(state, str(error), now)
            return
        state.started(now + self.estimates.begun(state))
        self.happenings.note("start", run_id=state.run_id, allocation=dict(allocation))

    def _job(self, run: RunSpec) -> Job:
        peak, price = self.estimates.device()
        return Job(
            spec=run,
            evals=self.evals,
            root=self.root,
            device=self._device(),
            threads=max(1, int(self.place.cpus)),
            numerics=self._numerics(),
            checkpoint_seconds=self.place.checkpoint_seconds,
            peak_flops=peak,
            usd_per_hour=price,
            layout=self.estimates.layout(run),
        )

    def _device(self) -> str:
        return "cuda" if self.place.gpus else "cpu"

    def _numerics(self) -> Numerics | None:
        """What "auto" means in this sweep on this kind of device, once that is settled."""
        chosen = self.record.numerics.get(self._device())
        return Numerics(**chosen) if chosen else None

    def _record(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        self.sweep.write_record(self.record)

    def _loss(self, run_id: str) -> float | None:
        measured = held_out_loss(RunDir(self.root, run_id), self.evals)
        return measured[0] if measured is not None else None

    def _show(self, how: str = "driving") -> None:
        now = time.monotonic()
        snapshot = view.snapshot(self.sweep.name, self.states, self.preparation, self.outlook.eta(self.states, now))
        self.display.show(snapshot)
        self.status.tell(
            snapshot,
            self.happenings.damage,
            nodes=len(self.cluster.inventory()),
            state=how,
            more=lambda: self.outlook.plain(self.states, now, time.time()),
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def asked(*_: Any) -> None:
            self.interrupts += 1

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
